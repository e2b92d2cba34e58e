import numpy as np
import pytest

from cxrtool.errors import RequestError
from cxrtool.evaluation.calibration import Scaling
from cxrtool.evaluation.operating import (
    decision_curve,
    decision_curves,
    operating_points,
    predictive_values,
    sensitivity_at_specificity,
    specificity_at_sensitivity,
)
from cxrtool.findings import FINDINGS
from tests_support import random_table

TARGETS, SCORES = [0, 0, 0, 0, 1, 1, 0, 1], [0.1, 0.2, 0.3, 0.4, 0.35, 0.8, 0.6, 0.9]


def test_rates_by_hand() -> None:
    # Thresholds from the top: 0.9 (1/3, 1), 0.8 (2/3, 1), 0.6 (2/3, 4/5), 0.4 (2/3, 3/5), 0.35 (1, 3/5)
    assert sensitivity_at_specificity(TARGETS, SCORES, 0.9) == pytest.approx(2 / 3)
    assert sensitivity_at_specificity(TARGETS, SCORES, 0.6) == pytest.approx(1)
    assert specificity_at_sensitivity(TARGETS, SCORES, 1.0) == pytest.approx(3 / 5)
    assert specificity_at_sensitivity(TARGETS, SCORES, 0.5) == pytest.approx(1)
    assert np.isnan(sensitivity_at_specificity([1, 1], [0.1, 0.2], 0.9))


def test_predictive_values_by_hand() -> None:
    # Of 1,000: 100 ill, 90 found; 900 well, 180 alarmed.
    values = predictive_values(0.9, 0.8, 0.1)
    assert values.ppv == pytest.approx(90 / 270)
    assert values.npv == pytest.approx(720 / 730)
    with pytest.raises(RequestError):
        predictive_values(0.9, 0.8, 0)
    assert predictive_values(0, 1, 0.1).ppv is None


def test_at_the_splits_own_prevalence_ppv_is_the_precision() -> None:
    table = random_table(200, seed=1)
    points = operating_points(table, dict.fromkeys(FINDINGS, 0.4))
    counts = table.mask[:, 0]
    called = table.scores[counts, 0] >= 0.4
    values = points["Atelectasis"].predictive_values
    assert values is not None
    assert values.ppv == pytest.approx(table.targets[counts, 0][called].mean())


def test_a_decision_curve_by_hand() -> None:
    curve = decision_curve([1, 1, 0, 0], [0.9, 0.3, 0.6, 0.1], np.array([0.2, 0.5]))
    # At 0.2: TP 2, FP 1: 2/4 - 1/4 x 0.25; at 0.5: TP 1, FP 1: 1/4 - 1/4 x 1.
    np.testing.assert_allclose(curve.model, [0.5 - 0.0625, 0.0])
    np.testing.assert_allclose(curve.everyone, [0.5 - 0.5 * 0.25, 0.0])


def test_decision_curves_are_of_the_calibrated_probabilities_and_without_rows_none() -> None:
    table = random_table(60)
    halved = dict.fromkeys(FINDINGS, Scaling(1.0, -np.log(2)))
    curves = decision_curves(table, halved)
    counts = table.mask[:, 1]
    odds = table.scores[counts, 1] / (1 - table.scores[counts, 1] + 1e-300)
    called = odds / 2 >= 0.25 / 0.75
    positive = table.targets[counts, 1] > 0.5
    at = curves["Cardiomegaly"].thresholds.tolist().index(0.25)
    expected = (positive & called).mean() - (~positive & called).mean() / 3
    assert curves["Cardiomegaly"].model[at] == pytest.approx(expected)
    plain = curves["Cardiomegaly"].to_dict()
    assert plain["model"][at] == pytest.approx(expected)
    none = decision_curve([], []).to_dict()
    assert none["everyone"][0] is None
