"""Intervals against a published example, against scikit-learn draw by draw, and by simulated coverage."""

from dataclasses import replace

import numpy as np
import pytest

from cxrtool.errors import RequestError
from cxrtool.evaluation.delong import delong
from cxrtool.evaluation.drawn_areas import bootstrap_areas
from cxrtool.evaluation.intervals import (
    BootstrapSettings,
    PatientDraws,
    mean_over_findings,
    percentile_interval,
)
from cxrtool.findings import FINDINGS
from tests_support import random_table, table_of


def test_patients_are_drawn_with_all_their_rows() -> None:
    patients = tuple(f"p{n // 3}" for n in range(60))
    weights = np.concatenate(list(PatientDraws(patients, BootstrapSettings(draws=40, seed=9)).chunks()))
    assert weights.shape == (40, 60)
    for weight in weights.astype(int):
        assert {len(set(weight[n : n + 3])) for n in range(0, 60, 3)} == {1}, "a patient's rows are drawn together"
        assert weight[::3].sum() == 20, "as many patients are drawn as there are"


def test_draws_without_a_class_are_counted_and_left_out() -> None:
    targets = np.zeros(200)
    targets[:3] = 1
    table = table_of(targets, np.linspace(0, 1, 200))
    draws = bootstrap_areas([table], BootstrapSettings(draws=1000))[0]["Edema"]["auroc"]
    undefined = int(np.isnan(draws).sum())
    # (1 - 3/200)^200 = 4.9 % of the draws have no positive.
    assert 25 <= undefined <= 80
    interval = percentile_interval(draws)
    assert interval.undefined_draws == undefined
    assert interval.low is not None


def test_a_mean_over_findings_is_undefined_in_a_draw_that_lacks_one() -> None:
    full, gaps, never = np.array([0.9, 0.8, 0.6]), np.array([0.5, np.nan, 0.7]), np.full(3, np.nan)
    draws = {finding: {"auroc": full} for finding in FINDINGS[2:]}
    draws |= {FINDINGS[0]: {"auroc": gaps}, FINDINGS[1]: {"auroc": never}}
    # The finding without any defined draw is left out of all; the one with gaps counts, or the draw does not.
    expected = [(0.5 + 3 * 0.9) / 4, np.nan, (0.7 + 3 * 0.6) / 4]
    np.testing.assert_allclose(mean_over_findings(draws, "auroc"), expected)


def test_a_single_study_has_no_interval() -> None:
    table = random_table(1)
    (draws,) = bootstrap_areas([table], BootstrapSettings(draws=10))
    assert percentile_interval(draws["Edema"]["auroc"]).low is None
    assert percentile_interval(draws["mean"]["auroc"]).low is None


def test_the_seed_decides_the_draws() -> None:
    table = random_table(50)
    first, again, other = (
        bootstrap_areas([table], BootstrapSettings(70, seed))[0]["mean"]["auroc"] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_interval_covers_as_often_as_it_says() -> None:
    """Use 400 samples of 100 patients with two similar studies each; the true AUROC is 0.76 (d' = 1)."""
    rng = np.random.default_rng(7)
    truth = 0.7602499  # Phi(1 / sqrt(2))
    covered_by_patient = covered_by_study = 0
    runs = 400
    for _ in range(runs):
        targets = np.repeat(rng.random(100) < 0.4, 2)
        own = np.repeat(rng.normal(size=100), 2)
        scores = targets + np.sqrt(0.9) * own + np.sqrt(0.1) * rng.normal(size=200)
        probabilities = 1 / (1 + np.exp(-scores))
        table = table_of(targets, probabilities)
        table = replace(table, patients=tuple(f"p{n // 2}" for n in range(200)))
        drawn = bootstrap_areas([table], BootstrapSettings(200, seed=int(rng.integers(2**31))))[0]["Edema"]["auroc"]
        low, high = np.nanquantile(drawn, [0.025, 0.975])
        covered_by_patient += low <= truth <= high
        naive = delong(targets, probabilities).interval
        covered_by_study += (naive.low or 0) <= truth <= (naive.high or 0)
    # The standard error of a share of 0.95 over 400 runs is 0.011.
    assert 0.915 <= covered_by_patient / runs <= 0.985
    assert covered_by_study / runs < covered_by_patient / runs - 0.05, "rows taken as independent cover too seldom"


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(RequestError, match="0 draws"):
        BootstrapSettings(draws=0)
