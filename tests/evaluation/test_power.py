"""Detectable differences and studies needed, against simulation, numerical integration and tables."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from cxrtool.errors import RequestError
from cxrtool.evaluation.area_intervals import newcombe
from cxrtool.evaluation.delong import compare_areas, delong
from cxrtool.evaluation.pilot import correlation_within_classes, pilots_of
from cxrtool.evaluation.power import (
    Assumptions,
    TwoSidedTest,
    area_covariance,
    auroc_width,
    cases_for_rate,
    detectable_difference,
    smallest,
    studies_for_width,
    studies_to_detect,
)
from cxrtool.evaluation.proportions import wilson
from tests_support import table_of

TEST = TwoSidedTest()


def binormal(seed: int, areas: tuple[float, float], correlation: float, positive: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((2, len(positive)))
    noise[1] = correlation * noise[0] + np.sqrt(1 - correlation**2) * noise[1]
    return noise + np.sqrt(2) * norm.ppf(areas)[:, None] * positive


@given(st.floats(0.55, 0.97), st.floats(0.55, 0.97), st.floats(0.05, 0.95))
def test_the_covariance_is_bambers_by_scipys_normal(first: float, second: float, correlation: float) -> None:
    def both(r: float) -> float:
        point = norm.ppf([first, second])
        return float(multivariate_normal.cdf(point, cov=[[1, r], [r, 1]])) - first * second

    expected = (both(correlation) + (20 + 80 - 2) * both(correlation / 2)) / (20 * 80)
    assert area_covariance(first, second, correlation, 20, 80) == pytest.approx(expected, abs=1e-8)


def test_without_skill_the_variance_is_that_of_the_rank_sum() -> None:
    """Mann & Whitney 1947: (P + N + 1) / (12 P N)."""
    assert area_covariance(0.5, 0.5, 1.0, 20, 80) == pytest.approx(101 / (12 * 20 * 80))


def test_the_variance_is_delongs_in_a_large_sample() -> None:
    positive = np.arange(20_000) < 4000
    scores = binormal(0, (0.85, 0.85), 0.5, positive)
    error = delong(positive, scores[0]).standard_error
    assert area_covariance(0.85, 0.85, 1.0, 4000, 16_000) == pytest.approx(error**2, rel=0.03)


def test_the_error_of_a_difference_is_delongs_in_a_large_sample() -> None:
    positive = np.arange(20_000) < 4000
    scores = binormal(1, (0.85, 0.88), 0.6, positive)
    estimate = compare_areas(positive, scores[1], scores[0])
    assumed = Assumptions(0.85, 0.2, 0.6)
    assert assumed.difference_error(0.03, 20_000) == pytest.approx(estimate.standard_error, rel=0.03)


def test_the_detectable_difference_is_found_with_the_stated_probability() -> None:
    """150 samples: a share of 0.80 has a standard error of 0.033."""
    assumed = Assumptions(0.88, 0.2, 0.8)
    difference = detectable_difference(assumed, 300, TEST)
    assert difference is not None
    positive = np.arange(300) < 60
    found = 0
    for seed in range(150):
        one, other = binormal(seed, (0.88, 0.88 + difference), 0.8, positive)
        found += compare_areas(positive, other, one).p_value < 0.05
    assert 0.70 < found / 150 < 0.90


def test_moments_of_gains_are_those_of_a_sample() -> None:
    rng = np.random.default_rng(2)
    assumed = Assumptions(0.88, 0.06, 0.8)
    h, k = np.sqrt(2) * norm.ppf([0.88, 0.94])
    first = rng.standard_normal(400_000)
    second = 0.8 * first + 0.6 * rng.standard_normal(400_000)
    gains = norm.cdf(second + k) - norm.cdf(first + h)
    sizes = np.array([30, 470])
    variance = (gains.var() / sizes).sum()
    skewness = (((gains - gains.mean()) ** 3).mean() / sizes**2).sum() / variance**1.5
    assert assumed.gain_moments(0.06, 500)[0] == pytest.approx(skewness, rel=0.03)


def test_more_studies_detect_less_and_a_detectable_difference_needs_those_studies() -> None:
    assumed = Assumptions(0.85, 0.1, 0.5)
    detectable = [detectable_difference(assumed, studies, TEST) for studies in (500, 2000, 8000)]
    assert all(value is not None for value in detectable)
    assert detectable[0] > detectable[1] > detectable[2]
    assert studies_to_detect(assumed, detectable[1], TEST) == pytest.approx(2000, abs=1)
    assert detectable_difference(assumed, 2000, TwoSidedTest(0.05 / 30, 0.8)) > detectable[1]


def test_too_few_studies_detect_nothing() -> None:
    assert detectable_difference(Assumptions(0.95, 0.02, 0.5), 100, TEST) is None
    assert detectable_difference(Assumptions(0.95, 0.001, 0.5), 100, TEST) is None


def test_a_design_effect_asks_for_as_many_times_more_studies() -> None:
    alone = studies_to_detect(Assumptions(0.85, 0.1, 0.5), 0.03, TEST)
    twice = studies_to_detect(Assumptions(0.85, 0.1, 0.5, 2, 2, 2), 0.03, TEST)
    assert alone is not None
    assert twice == pytest.approx(2 * alone, rel=0.02)


def test_studies_for_an_auroc_are_the_fewest_whose_interval_is_narrow_enough() -> None:
    assumed = Assumptions(0.85, 0.1, 0.5)
    studies = studies_for_width(assumed, 0.1, 0.95)
    assert studies is not None
    assert auroc_width(assumed, studies, 0.95) <= 0.1 < auroc_width(assumed, studies - 1, 0.95)


def test_with_few_cases_the_width_is_newcombes() -> None:
    low, high = newcombe(0.85, 5, 45)
    assert auroc_width(Assumptions(0.85, 0.1, 0.5), 50, 0.95) == pytest.approx(high - low)
    low, high = newcombe(0.85, 2.5, 22.5)
    assert auroc_width(Assumptions(0.85, 0.1, 0.5, 2, 2, 2), 50, 0.95) == pytest.approx(high - low)


def test_cases_for_a_rate_are_the_fewest_whose_interval_is_narrow_enough() -> None:
    def width(cases: int) -> float:
        low, high = wilson(0.8, cases, 0.95)
        return float(high - low)

    cases = cases_for_rate(0.8, 0.1, 0.95)
    assert cases == next(n for n in range(1, 1000) if width(n) <= 0.1)
    assert cases_for_rate(0.8, 0.1, 0.95, 2) == pytest.approx(2 * cases, abs=1)


@given(st.integers(1, 10**6), st.integers(1, 50))
def test_smallest_is_the_first_that_holds(first: int, fewest: int) -> None:
    assert smallest(lambda n: n >= first, fewest) == max(first, fewest)


def test_what_nothing_reaches_is_none() -> None:
    assert smallest(lambda _: False, 1) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.5, 0.1, 0.5), "AUROC"),
        ((0.8, 1.0, 0.5), "prevalence"),
        ((0.8, 0.1, 1.0), "correlation"),
        ((0.8, 0.1, 0.5, 0.0), "design effect"),
    ],
)
def test_assumptions_out_of_range_are_refused(values: tuple[float, ...], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Assumptions(*values)


def test_a_gain_beyond_1_is_refused() -> None:
    with pytest.raises(RequestError, match="does not stay below 1"):
        studies_to_detect(Assumptions(0.95, 0.1, 0.5), 0.05, TEST)


def test_a_pilot_at_its_own_size_has_the_errors_of_its_tests() -> None:
    positive = np.arange(400) < 100
    scores = norm.cdf(binormal(3, (0.85, 0.88), 0.7, positive))
    tables = [table_of(positive, one) for one in scores]
    (pilot, *_) = pilots_of(tables, 0.0)
    assert pilot.assumed is not None
    estimate = compare_areas(positive, scores[1], scores[0])
    assert pilot.assumed.difference_error(0.0, 400) == pytest.approx(estimate.standard_error)
    one, other = (delong(positive, scored) for scored in scores)
    assert pilot.assumed.auroc == pytest.approx((one.auroc + other.auroc) / 2)
    variance = area_covariance(pilot.assumed.auroc, pilot.assumed.auroc, 1.0, 100, 300) * pilot.assumed.area_effect
    assert variance == pytest.approx((one.standard_error**2 + other.standard_error**2) / 2)
    assert pilot.assumed.correlation == pytest.approx(0.7, abs=0.06)


def test_a_pilot_of_one_model_takes_the_given_correlation() -> None:
    positive = np.arange(100) < 30
    (pilot, *_) = pilots_of([table_of(positive, norm.cdf(binormal(4, (0.8, 0.8), 0.5, positive)[0]))], 0.4)
    assert pilot.assumed is not None
    assert pilot.assumed.correlation == 0.4
    assert pilot.assumed.prevalence == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("targets", "scores", "reason"),
    [([1, 0, 0, 0], [0.9, 0.1, 0.2, 0.3], "fewer than two"), ([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.3], "of 1")],
)
def test_a_pilot_that_says_nothing_says_why(targets: list[int], scores: list[float], reason: str) -> None:
    (pilot, *_) = pilots_of([table_of(targets, scores)], 0.5)
    assert pilot.assumed is None
    assert pilot.reason is not None
    assert reason in pilot.reason


def test_no_increasing_transformation_changes_the_correlation_within_classes() -> None:
    positive = np.arange(300) < 100
    one, other = binormal(5, (0.9, 0.8), 0.5, positive)
    found = correlation_within_classes(positive, one, other)
    assert found == pytest.approx(correlation_within_classes(positive, np.exp(one), other**3))
    assert found == pytest.approx(0.5, abs=0.1)
