import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from cxrtool.choices import CalibrationMethod
from cxrtool.errors import RequestError
from cxrtool.evaluation.calibration import (
    FEW_OF_A_CLASS,
    FEWEST_OF_A_CLASS,
    SLOPE_SD,
    UNSCALED,
    CalibrationOrigin,
    Scaling,
    fit_calibration,
    fit_scaling,
    logit,
    newton_logistic,
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
def test_no_other_scaling_is_more_probable(method: CalibrationMethod) -> None:
    targets, true = sample(300, seed=5)
    distorted = sigmoid(2 * logit(true) + 0.7)
    positives, negatives = targets.sum(), (1 - targets).sum()
    soft = np.where(targets > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(parameters: np.ndarray) -> float:
        z = parameters[0] * logit(distorted) + (parameters[1] if len(parameters) > 1 else 0)
        return float(np.sum(np.logaddexp(0, z) - soft * z) + (parameters[0] - 1) ** 2 / (2 * SLOPE_SD**2))

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


def test_a_split_separated_without_error_gives_a_slope_near_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        targets = np.arange(12) < rng.integers(2, 10)
        probabilities = np.where(targets, rng.uniform(0.51, 0.6, 12), rng.uniform(0.4, 0.49, 12))
        for method in CalibrationMethod:
            # The prior pays for at most what the likelihood can gain, 12 ln 2: (slope - 1)^2 / (2 SD^2) < 12 ln 2.
            assert 0 < fit_scaling(targets, probabilities, method).slope < 1 + SLOPE_SD * np.sqrt(24 * np.log(2))


def test_maximum_likelihood_equals_scikit_learn() -> None:
    targets, true = sample(400, seed=2)
    design = np.column_stack((logit(true), np.ones(400)))
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(design[:, :1], targets)
    found = newton_logistic(design, targets, np.zeros(2))
    np.testing.assert_allclose(found, [model.coef_[0, 0], model.intercept_[0]], atol=1e-4)


def test_reversed_scores_and_a_single_class_are_not_calibrated() -> None:
    table = table_of(np.arange(40) < 20, np.linspace(0, 1, 40))
    fitted = fit_calibration(table, CalibrationMethod.PLATT)
    assert fitted.scalings["Edema"] == UNSCALED
    assert "wrong way" in fitted.warnings[0]
    fitted = fit_calibration(table_of(np.zeros(10), np.linspace(0, 1, 10)), CalibrationMethod.PLATT)
    assert "one class" in fitted.warnings[0]


def test_fewer_than_three_of_a_class_are_not_fitted() -> None:
    probabilities = np.concatenate((np.full(FEWEST_OF_A_CLASS - 1, 0.99), np.full(60, 0.9)))
    for targets in (np.arange(62) < FEWEST_OF_A_CLASS - 1, np.arange(62) >= FEWEST_OF_A_CLASS - 1):
        fitted = fit_calibration(table_of(targets, probabilities), CalibrationMethod.PLATT)
        assert fitted.scalings["Edema"] == UNSCALED
        assert "too few" in fitted.warnings[0]


@pytest.mark.parametrize(("shift", "most", "least"), [(0.0, 0.1, 0.0), (2.0, 1.0, 0.95)])
def test_four_positives_change_probabilities_only_if_these_are_clearly_wrong(
    shift: float, most: float, least: float
) -> None:
    """Of calibrated probabilities few are changed; of those that pos_weight shifted, nearly all."""
    rng = np.random.default_rng(4)
    changed = []
    for _ in range(60):
        targets = np.arange(100) < 4
        logits = 1.5 * (rng.normal(size=100) + 1.5 * targets) - 1.125 + np.log(0.04 / 0.96)
        fitted = fit_calibration(table_of(targets, sigmoid(logits + shift)), CalibrationMethod.PLATT)
        changed.append(fitted.scalings["Edema"] != UNSCALED)
        assert ("do not show" in fitted.warnings[0]) != changed[-1]
    assert least <= np.mean(changed) <= most


def test_with_twenty_of_each_class_every_finding_is_fitted_without_a_warning() -> None:
    targets = np.arange(3 * FEW_OF_A_CLASS) < FEW_OF_A_CLASS
    scores = np.random.default_rng(0).normal(size=len(targets)) + targets
    fitted = fit_calibration(table_of(targets, sigmoid(scores)), CalibrationMethod.PLATT)
    assert UNSCALED not in fitted.scalings.values()
    assert fitted.warnings == ()


def test_the_origin_is_known_by_digest_and_without_one_by_split() -> None:
    from dataclasses import replace

    table = replace(random_table(5), sheet_sha256="a")
    assert CalibrationOrigin("valid", "a").fitted_on(table)
    assert not CalibrationOrigin("valid", "b").fitted_on(table)
    assert CalibrationOrigin("valid", "").fitted_on(table)
    assert not CalibrationOrigin("test", "").fitted_on(table)


def test_test_is_refused() -> None:
    from dataclasses import replace

    table = replace(random_table(30), split="test")
    with pytest.raises(RequestError, match="test split"):
        fit_calibration(table, CalibrationMethod.PLATT)
    assert fit_calibration(table, CalibrationMethod.PLATT, test_allowed=True).split == "test"


def test_logit_of_the_ends_is_finite() -> None:
    assert np.isfinite(logit([0.0, 1.0])).all()
