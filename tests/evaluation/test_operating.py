from dataclasses import replace

import numpy as np
import pytest

from cxrtool.choices import Criterion
from cxrtool.errors import RequestError
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.evaluation.operating import (
    decision_curve,
    honest_rates,
    operating_points,
    predictive_values,
    sensitivity_at_specificity,
    specificity_at_sensitivity,
    threshold_stability,
)
from cxrtool.evaluation.thresholds import threshold_grid, tune_thresholds
from cxrtool.findings import FINDINGS
from tests_support import random_table, table_of

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


def test_a_threshold_is_stable_with_much_data_and_not_with_little() -> None:
    rng = np.random.default_rng(0)

    def spread(count: int) -> float:
        targets = rng.integers(0, 2, count)
        table = table_of(targets, 1 / (1 + np.exp(-(1.5 * targets - 0.7 + rng.normal(size=count)))))
        found = threshold_stability(table, Criterion.YOUDEN, threshold_grid(), None, BootstrapSettings(200))["Edema"]
        return (found.high or 0) - (found.low or 0)

    assert spread(4000) < 0.6 * spread(60)


def test_the_threshold_of_each_draw_is_the_one_tuned_on_its_rows() -> None:
    from cxrtool.evaluation.intervals import PatientDraws, percentile_interval

    table = random_table(40)
    settings, grid = BootstrapSettings(24, seed=3), threshold_grid()
    chosen = []
    for weight in np.concatenate(list(PatientDraws(table.patients, settings).chunks())).astype(int):
        rows = np.repeat(np.arange(40), weight)
        drawn = table.select(rows)
        drawn = replace(drawn, ids=tuple(map(str, range(len(rows)))))
        chosen.append(tune_thresholds(drawn, Criterion.F1, grid).thresholds["Edema"])
    expected = percentile_interval(np.array(chosen))
    found = threshold_stability(table, Criterion.F1, grid, None, settings)["Edema"]
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_resampling_removes_the_optimism_of_thresholds_chosen_on_noise() -> None:
    """For scores without information, Youden's J is above zero at its best threshold, but not on other rows."""
    rng = np.random.default_rng(1)
    best, resampled = [], []
    for _ in range(12):
        table = table_of(rng.integers(0, 2, 80), rng.random(80))
        tuned = tune_thresholds(table, Criterion.YOUDEN, threshold_grid())
        best.append(tuned.values["Edema"])
        rates = honest_rates(table, Criterion.YOUDEN, threshold_grid(), None, repeats=4)["Edema"]
        resampled.append((rates.recall or 0) + (rates.specificity or 0) - 1)
    assert np.mean(np.array(best, dtype=float)) > 0.08
    assert abs(np.mean(resampled)) < 0.06
