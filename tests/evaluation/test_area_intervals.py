"""Intervals of areas, by the method that holds."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cxrtool.evaluation.area_intervals import (
    ONE_CASE,
    area_design_effect,
    auprc_interval,
    auroc_interval,
    newcombe,
)
from cxrtool.evaluation.intervals import ONE_PATIENT
from cxrtool.evaluation.metrics import auroc

AREAS = st.floats(0.001, 0.999)
COUNTS = st.integers(2, 2000)


@given(AREAS, COUNTS, COUNTS)
def test_the_ends_of_newcombes_interval_solve_its_equation(area: float, positives: int, negatives: int) -> None:
    z = NormalDist().inv_cdf(0.975)
    half = (positives + negatives) / 2 - 1
    for end in newcombe(area, positives, negatives):
        # Newcombe 2006, Statistics in Medicine 25:559, method 5.
        variance = end * (1 - end) * (1 + half * ((1 - end) / (2 - end) + end / (1 + end))) / (positives * negatives)
        assert abs(end - area) == pytest.approx(z * variance**0.5, rel=1e-6, abs=1e-9)


@given(st.floats(0, 1), COUNTS, COUNTS)
def test_newcombes_interval_is_within_bounds_and_mirrors(area: float, positives: int, negatives: int) -> None:
    low, high = newcombe(area, positives, negatives)
    assert 0 <= low <= area <= high <= 1
    assert newcombe(1 - area, negatives, positives) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def sample(
    rng: np.random.Generator, studies: int, positives: int, area: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    positive = np.arange(studies) < positives
    return positive, rng.normal(size=studies) + 2**0.5 * NormalDist().inv_cdf(area) * positive


@pytest.mark.parametrize(("studies", "positives", "area"), [(200, 8, 0.99), (200, 8, 0.85), (200, 40, 0.99)])
def test_few_positives_and_high_areas_are_covered(studies: int, positives: int, area: float) -> None:
    """The percentile interval covers 70, 86 and 86 % there (benchmarks/coverage.py)."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(300):
        found = auroc_interval(*sample(rng, studies, positives, area), np.arange(studies), None)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= area <= found.high
    # The standard error of a share of 0.95 over 300 samples is 0.013.
    assert covered / 300 >= 0.92


def test_the_percentile_interval_is_used_where_it_holds() -> None:
    rng = np.random.default_rng(1)
    patients, draws = np.arange(1000), np.linspace(0.8, 0.9, 1001)
    many = sample(rng, 1000, 300, 0.85)
    assert auroc_interval(*many, patients, draws).method == "percentile"
    assert auprc_interval(*many, patients, draws).method == "percentile"
    assert auroc_interval(*many, patients, None).method == "newcombe 5"
    few = sample(rng, 1000, 29, 0.85)
    assert auroc_interval(*few, patients, draws).method == "newcombe 5"
    assert auprc_interval(*few, patients, draws).method == "logit"
    high = sample(rng, 1000, 40, 0.999)
    assert auroc_interval(*high, patients, draws).method == "newcombe 5"
    separated = (np.arange(100) < 40, -np.arange(100.0))
    found = auprc_interval(*separated, np.arange(100), draws)
    assert found.high == 1
    assert 0.8 < (found.low or 0) < 0.97


def test_patients_with_two_equal_studies_count_once() -> None:
    positive, scores = sample(np.random.default_rng(2), 300, 60, 0.8)
    doubled, patients = (np.repeat(positive, 2), np.repeat(scores, 2)), np.repeat(np.arange(300), 2)
    assert auroc(*doubled) == pytest.approx(auroc(positive, scores))
    assert area_design_effect(*doubled, patients) == pytest.approx(2, abs=0.02)
    once = auroc_interval(positive, scores, np.arange(300), None)
    twice = auroc_interval(*doubled, patients, None)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=2e-3)


@pytest.mark.parametrize(
    ("positives", "patients", "reason"),
    [(0, np.arange(10), "one class only"), (1, np.arange(10), ONE_CASE), (9, np.arange(10), ONE_CASE),
     (5, np.zeros(10, dtype=np.int64), ONE_PATIENT)],
)  # fmt: skip
def test_without_two_cases_of_each_class_and_two_patients_there_is_none(
    positives: int, patients: NDArray[np.int64], reason: str
) -> None:
    cases = (np.arange(10) < positives, np.arange(10.0))
    for found in (auroc_interval(*cases, patients, None), auprc_interval(*cases, patients, None)):
        assert (found.low, found.high, found.reason) == (None, None, reason)
