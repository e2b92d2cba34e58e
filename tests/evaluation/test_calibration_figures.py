"""Calibration figures against other implementations, by hand, and in repeated samples."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.metrics import brier_score_loss

from cxrtool.evaluation.calibration import Scaling, logit
from cxrtool.evaluation.calibration_figures import (
    BINS,
    ONE_CLASS,
    SEPARATED,
    binned_figures,
    brier,
    calibration_figures,
    expected_calibration_error,
)
from cxrtool.evaluation.intervals import ONE_PATIENT, BootstrapSettings
from cxrtool.findings import Findings
from tests_support import table_of


def sample(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = 1 / (1 + np.exp(-rng.normal(-0.5, 1.5, count)))
    return (rng.random(count) < true).astype(float), true


def test_brier_equals_scikit_learn() -> None:
    targets, true = sample(500, 0)
    assert brier(targets, true) == pytest.approx(brier_score_loss(targets, true), abs=1e-12)


def test_ece_by_hand() -> None:
    # Bin 0: 0.05, 0.05 with one positive; bin 9: 0.95 and 1.0, both positive.
    assert expected_calibration_error([0, 1, 1, 1], [0.05, 0.05, 0.95, 1.0]) == pytest.approx(0.5 * 0.45 + 0.5 * 0.025)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=80))
def test_the_brier_score_is_the_sum_of_its_parts(rows: list[tuple[bool, float]]) -> None:
    """Each part computed from its definition: Murphy 1973, and Stephenson et al. 2008 for those within bins."""
    y, p = np.array([row[0] for row in rows], float), np.array([row[1] for row in rows])
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    shares, means = np.zeros(len(y)), np.zeros(len(y))
    for index in np.unique(place):
        shares[place == index], means[place == index] = y[place == index].mean(), p[place == index].mean()
    found = binned_figures(y, p)
    assert found["reliability"] == pytest.approx(np.mean((means - shares) ** 2), abs=1e-12)
    assert found["resolution"] == pytest.approx(np.mean((shares - y.mean()) ** 2), abs=1e-12)
    assert found["uncertainty"] == pytest.approx(y.mean() * (1 - y.mean()), abs=1e-12)
    within = np.mean((p - means) ** 2) - 2 * np.mean((p - means) * (y - shares))
    assert found["within_bins"] == pytest.approx(within, abs=1e-12)
    parts = found["reliability"] - found["resolution"] + found["uncertainty"] + found["within_bins"]
    assert np.mean((p - y) ** 2) == pytest.approx(parts, abs=1e-12)


def test_slope_intercept_and_the_large_maximise_the_likelihood() -> None:
    targets, true = sample(300, 3)
    shown = 1 / (1 + np.exp(-(2 * logit(true) + 0.7)))
    x = logit(shown)

    def loss(parameters: np.ndarray) -> float:
        z = parameters[0] * x + parameters[1]
        return float(np.sum(np.logaddexp(0, z) - targets * z))

    both = minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-8}).x
    large = minimize(lambda c: loss(np.array([1.0, c[0]])), [0.0], method="BFGS", options={"gtol": 1e-8}).x
    found = calibration_figures(table_of(targets, shown))["Edema"]
    np.testing.assert_allclose([found.slope, found.intercept, found.in_the_large], [*both, large[0]], atol=1e-4)
    assert found.intervals == {}


def test_the_wald_interval_is_that_of_the_inverse_information() -> None:
    """With one row per patient; the robust variance is close to it where the model holds."""
    targets, true = sample(4000, 5)
    found = calibration_figures(table_of(targets, true), None, BootstrapSettings(20, confidence=0.9))["Edema"]
    assert found.slope is not None
    z = found.slope * logit(true) + (found.intercept or 0)
    weight = 1 / (2 + np.exp(z) + np.exp(-z))
    design = np.column_stack((logit(true), np.ones(4000)))
    deviation = np.sqrt(np.linalg.inv((design * weight[:, None]).T @ design)[0, 0])
    interval = found.intervals["slope"]
    assert interval.low is not None
    assert interval.high is not None
    assert interval.high - interval.low == pytest.approx(2 * 1.6449 * deviation, rel=0.06)
    assert (interval.high + interval.low) / 2 == pytest.approx(found.slope)


def test_rows_of_one_patient_widen_the_intervals() -> None:
    targets, true = sample(200, 6)
    single = table_of(targets, true)
    names = tuple(f"patient{row // 2}" for row in range(400))
    double = replace(table_of(np.repeat(targets, 2), np.repeat(true, 2)), patients=names)
    settings = BootstrapSettings(400)
    one = calibration_figures(single, None, settings)["Edema"].intervals
    two = calibration_figures(double, None, settings)["Edema"].intervals
    for name in ("slope", "in_the_large", "brier"):
        widths = [(part[name].high or 0) - (part[name].low or 0) for part in (one, two)]
        assert widths[1] == pytest.approx(widths[0], rel=0.15), name


def test_intervals_hold_the_truth() -> None:
    """In repeated samples of calibrated probabilities; true values from a large sample."""
    big = binned_figures(*sample(400_000, 99))
    truth = {name: big[name] for name in ("brier", "resolution")} | {
        "slope": 1.0,
        "intercept": 0.0,
        "in_the_large": 0.0,
    }
    held = dict.fromkeys(truth, 0)
    for seed in range(60):
        table = table_of(*sample(200, seed)).with_findings(Findings(("Edema",)))
        intervals = calibration_figures(table, None, BootstrapSettings(200))["Edema"].intervals
        for name, value in truth.items():
            low, high = intervals[name].low, intervals[name].high
            assert low is not None
            assert high is not None
            held[name] += low <= value <= high
    assert min(held.values()) >= 51, held  # 0.95 of 60 is 57, standard deviation 1.7


def test_ece_is_above_zero_by_chance() -> None:
    """The ECE of calibrated probabilities is what `ece_by_chance` says, not 0."""
    pairs = []
    for seed in range(40):
        found = calibration_figures(table_of(*sample(150, seed)))["Edema"]
        assert found.ece is not None
        assert found.ece_by_chance is not None
        pairs.append((found.ece, found.ece_by_chance))
    ece, chance = np.mean(pairs, axis=0)
    assert ece > 0.05
    assert chance == pytest.approx(ece, rel=0.1)


def test_scalings_are_applied() -> None:
    targets, true = sample(100, 8)
    scaling = Scaling(0.5, 1.0)
    table = table_of(targets, true)
    found = calibration_figures(table, dict.fromkeys(table.findings, scaling))["Edema"]
    assert found.brier == pytest.approx(np.mean((scaling.apply(true) - targets) ** 2))


def test_undefined_figures_are_none_with_a_reason() -> None:
    settings = BootstrapSettings(20)
    empty = calibration_figures(table_of(np.zeros(0), np.zeros(0)))["Edema"]
    assert empty.brier is None
    assert empty.slope is None
    assert empty.curve == ()
    one_class = calibration_figures(table_of([0, 0, 0], [0.1, 0.2, 0.3]), None, settings)["Edema"]
    assert one_class.intervals["slope"].reason == ONE_CLASS
    assert one_class.brier == pytest.approx((0.01 + 0.04 + 0.09) / 3)
    for targets, scores in (([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]), ([0, 1, 0, 1], [0.3] * 4)):
        apart = calibration_figures(table_of(targets, scores), None, settings)["Edema"]
        assert apart.slope is None
        assert apart.intervals["slope"].reason == SEPARATED
        assert apart.intervals["in_the_large"].low is not None
    table = replace(table_of([0, 1, 0, 1], [0.3, 0.6, 0.7, 0.2]), patients=("a",) * 4)
    assert {one.reason for one in calibration_figures(table, None, settings)["Edema"].intervals.values()} == {
        ONE_PATIENT
    }
