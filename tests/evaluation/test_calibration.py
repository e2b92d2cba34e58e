import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.metrics import brier_score_loss

from cxrtool.choices import CalibrationMethod
from cxrtool.errors import RequestError
from cxrtool.evaluation.calibration import (
    UNSCALED,
    Scaling,
    brier,
    calibration_figures,
    expected_calibration_error,
    fit_calibration,
    fit_scaling,
    logit,
    reliability,
)
from cxrtool.evaluation.metrics import auroc, average_precision
from tests_support import random_table, table_of


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def sample(count: int = 40_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw outcomes with their probabilities."""
    rng = np.random.default_rng(seed)
    true = sigmoid(rng.normal(-0.5, 1.5, count))
    return (rng.random(count) < true).astype(float), true


def test_temperature_is_recovered() -> None:
    targets, true = sample()
    scaling = fit_scaling(targets, sigmoid(3 * logit(true)), CalibrationMethod.TEMPERATURE)
    assert scaling.slope == pytest.approx(1 / 3, rel=0.03)
    assert scaling.intercept == 0


def test_platt_undoes_the_shift_of_pos_weight() -> None:
    targets, true = sample()
    scaling = fit_scaling(targets, sigmoid(logit(true) + np.log(8)), CalibrationMethod.PLATT)
    assert scaling.slope == pytest.approx(1, rel=0.03)
    assert scaling.intercept == pytest.approx(-np.log(8), rel=0.03)


@pytest.mark.parametrize("method", list(CalibrationMethod))
def test_no_other_scaling_has_a_larger_likelihood(method: CalibrationMethod) -> None:
    targets, true = sample(300, seed=5)
    distorted = sigmoid(2 * logit(true) + 0.7)
    positives, negatives = targets.sum(), (1 - targets).sum()
    soft = np.where(targets > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(parameters: np.ndarray) -> float:
        z = parameters[0] * logit(distorted) + (parameters[1] if len(parameters) > 1 else 0)
        return float(np.sum(np.logaddexp(0, z) - soft * z))

    start = np.ones(1) if method is CalibrationMethod.TEMPERATURE else np.array([1.0, 0.0])
    best = minimize(loss, start, method="BFGS", options={"gtol": 1e-8}).x
    found = fit_scaling(targets, distorted, method)
    np.testing.assert_allclose([found.slope, found.intercept][: len(best)], best, rtol=1e-3, atol=1e-4)


@given(
    st.floats(0.05, 2),
    st.floats(-4, 4),
    st.lists(st.integers(1, 999), min_size=4, max_size=60, unique=True),
)
def test_calibration_keeps_the_order(slope: float, intercept: float, thousandths: list[int]) -> None:
    raw = np.array(thousandths) / 1000
    calibrated = Scaling(slope, intercept).apply(raw)
    assert ((calibrated >= 0) & (calibrated <= 1)).all()
    targets = np.arange(len(raw)) % 2
    assert auroc(targets, calibrated) == auroc(targets, raw)
    assert average_precision(targets, calibrated) == average_precision(targets, raw)


def test_a_perfectly_separated_split_gives_a_finite_slope() -> None:
    scaling = fit_scaling([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], CalibrationMethod.PLATT)
    assert np.isfinite(scaling.slope)
    assert scaling.slope > 0


def test_reversed_scores_and_a_single_class_are_not_calibrated() -> None:
    table = table_of(np.arange(40) < 20, np.linspace(0, 1, 40))
    fitted = fit_calibration(table, CalibrationMethod.PLATT)
    assert fitted.scalings["Edema"] == UNSCALED
    assert "wrong way" in fitted.warnings[0]
    fitted = fit_calibration(table_of(np.zeros(10), np.linspace(0, 1, 10)), CalibrationMethod.PLATT)
    assert "one class" in fitted.warnings[0]


def test_test_is_refused() -> None:
    from dataclasses import replace

    table = replace(random_table(30), split="test")
    with pytest.raises(RequestError, match="test split"):
        fit_calibration(table, CalibrationMethod.PLATT)
    assert fit_calibration(table, CalibrationMethod.PLATT, test_allowed=True).split == "test"


def test_brier_equals_scikit_learn() -> None:
    targets, true = sample(500)
    assert brier(targets, true) == pytest.approx(brier_score_loss(targets, true), abs=1e-12)


def test_reliability_and_ece_by_hand() -> None:
    # Bin 0: 0.05, 0.05 with one positive; bin 9: 0.95 and 1.0, both positive.
    targets, values = [0, 1, 1, 1], [0.05, 0.05, 0.95, 1.0]
    bins = reliability(targets, values)
    assert [part.rows for part in bins] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert bins[0].positive_share == 0.5
    assert bins[9].mean_probability == pytest.approx(0.975)
    assert expected_calibration_error(targets, values) == pytest.approx(0.5 * 0.45 + 0.5 * 0.025)


def test_a_calibrated_sample_has_a_small_error_and_no_rows_give_nan() -> None:
    targets, true = sample()
    assert expected_calibration_error(targets, true) < 0.02
    empty = table_of(np.zeros(0), np.zeros(0))
    assert calibration_figures(empty)["Edema"].brier is None


def test_logit_of_the_ends_is_finite() -> None:
    assert np.isfinite(logit([0.0, 1.0])).all()
