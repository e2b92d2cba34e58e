"""Intervals against a published example, against scikit-learn draw by draw, and by simulated coverage."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, roc_auc_score

from cxrtool.errors import RequestError
from cxrtool.evaluation.curves import curve_bands
from cxrtool.evaluation.delong import delong, structural_components
from cxrtool.evaluation.intervals import BootstrapSettings, PatientDraws, bootstrap, percentile_interval
from cxrtool.evaluation.metrics import auroc
from cxrtool.findings import FINDINGS
from tests_support import random_table, table_of

OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1
3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0
2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1
3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0
3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1
3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""
"""Albumin, total protein, Krebs-Goplerud score and outcome: the data of DeLong et al. 1988, as SAS prints them."""


@pytest.mark.parametrize(
    ("column", "area", "error", "low", "high"),
    [(0, 0.7366, 0.0927, 0.5549, 0.9182), (1, 0.6478, 0.1000, 0.4518, 0.8439), (2, 0.7258, 0.1028, 0.5243, 0.9273)],
)
def test_delong_gives_the_figures_of_their_paper(
    column: int, area: float, error: float, low: float, high: float
) -> None:
    data = np.array(OVARIAN.split(), dtype=float).reshape(-1, 4)
    scores = 10 - data[:, 2] if column == 2 else data[:, column]
    found = delong(data[:, 3], scores)
    assert found.auroc == pytest.approx(area, abs=5e-5)
    assert found.standard_error == pytest.approx(error, abs=5e-5)
    assert found.interval.low == pytest.approx(low, abs=5e-5)
    assert found.interval.high == pytest.approx(high, abs=5e-5)


@given(st.integers(0, 2**31))
def test_delongs_components_average_to_the_auroc(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = np.concatenate(([0, 1], rng.integers(0, 2, 40)))
    scores = rng.integers(0, 8, 42)
    above, below = structural_components(targets, scores)
    assert above.mean() == pytest.approx(auroc(targets, scores))
    assert below.mean() == pytest.approx(auroc(targets, scores))


def test_delong_of_one_study_is_empty() -> None:
    assert delong([1], [0.3]).interval.low is None


def test_every_draw_is_scikit_learns_on_the_drawn_rows() -> None:
    """The weighted figures against rows really repeated, with ties and masked cells."""
    table = replace(random_table(60, seed=4), patients=tuple(f"p{n // 3}" for n in range(60)))
    settings = BootstrapSettings(draws=40, seed=9)
    threshold = 0.37
    found = bootstrap(table, settings, dict.fromkeys(FINDINGS, threshold))
    weights = np.concatenate(list(PatientDraws(table.patients, settings).chunks()))
    assert weights.shape == (40, 60)
    for draw, weight in enumerate(weights.astype(int)):
        assert {len(set(weight[n : n + 3])) for n in range(0, 60, 3)} == {1}, "a patient's rows are drawn together"
        assert weight[::3].sum() == 20, "as many patients are drawn as there are"
        for column, finding in enumerate(FINDINGS):
            rows = np.repeat(np.arange(60), weight)
            rows = rows[table.mask[rows, column]]
            truth, score = table.targets[rows, column], table.probabilities[rows, column].astype(float)
            figures = {name: values[draw] for name, values in found[finding].items()}
            assert figures["auroc"] == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
            assert figures["auprc"] == pytest.approx(average_precision_score(truth, score), abs=1e-12)
            called = score >= threshold
            assert figures["f1"] == pytest.approx(f1_score(truth, called), abs=1e-12)
            assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, called), abs=1e-12)
    means = np.mean([found[finding]["auroc"] for finding in FINDINGS], axis=0)
    np.testing.assert_allclose(found["mean"]["auroc"], means)


def test_draws_that_lack_a_class_are_counted_and_left_out() -> None:
    targets = np.zeros(200)
    targets[:3] = 1
    table = table_of(targets, np.linspace(0, 1, 200))
    draws = bootstrap(table, BootstrapSettings(draws=1000))["Edema"]["auroc"]
    lacking = int(np.isnan(draws).sum())
    # (1 - 3/200)^200 = 4.9 % of the draws have no positive.
    assert 25 <= lacking <= 80
    interval = percentile_interval(draws)
    assert interval.undefined_draws == lacking
    assert interval.low is not None


def test_one_study_has_no_interval() -> None:
    table = random_table(1)
    draws = bootstrap(table, BootstrapSettings(draws=10), dict.fromkeys(FINDINGS, 0.5))
    assert percentile_interval(draws["Edema"]["auroc"]).low is None
    assert percentile_interval(draws["mean"]["auroc"]).low is None


def test_the_seed_decides_the_draws() -> None:
    table = random_table(50)
    first, again, other = (bootstrap(table, BootstrapSettings(70, seed))["mean"]["auroc"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_interval_covers_as_often_as_it_says() -> None:
    """400 samples of 100 patients with two alike studies each; a true AUROC of 0.76 (d' = 1)."""
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
        drawn = bootstrap(table, BootstrapSettings(200, seed=int(rng.integers(2**31))))["Edema"]["auroc"]
        low, high = np.nanquantile(drawn, [0.025, 0.975])
        covered_by_patient += low <= truth <= high
        naive = delong(targets, probabilities).interval
        covered_by_study += (naive.low or 0) <= truth <= (naive.high or 0)
    # The standard error of a share of 0.95 over 400 runs is 0.011.
    assert 0.915 <= covered_by_patient / runs <= 0.985
    assert covered_by_study / runs < covered_by_patient / runs - 0.05, "rows taken as independent cover too seldom"


def test_bands_hold_their_curve() -> None:
    table = random_table(120, seed=2)
    for band in curve_bands(table, 0, BootstrapSettings(200)):
        assert ((band.low <= band.high) & (band.low >= 0) & (band.high <= 1)).all()
        assert band.x[0] == 0
        assert band.x[-1] == 1


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(RequestError, match="0 draws"):
        BootstrapSettings(draws=0)
