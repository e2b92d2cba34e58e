from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from cxrtool.choices import Criterion
from cxrtool.evaluation.honest import honest_rates
from cxrtool.evaluation.intervals import ONE_PATIENT, BootstrapSettings
from cxrtool.evaluation.metrics import confusion
from cxrtool.evaluation.thresholds import ThresholdSearch, threshold_grid, tune_thresholds
from tests_support import random_table, table_of

YOUDEN = ThresholdSearch(Criterion.YOUDEN, threshold_grid())


def test_resampling_removes_the_optimism_of_thresholds_chosen_on_noise() -> None:
    """For scores without information, Youden's J is above zero at its best threshold, but not on other rows."""
    rng = np.random.default_rng(1)
    best, resampled = [], []
    for _ in range(12):
        table = table_of(rng.integers(0, 2, 80), rng.random(80))
        best.append(tune_thresholds(table, YOUDEN).values["Edema"])
        rates = honest_rates(table, YOUDEN, repeats=4)["Edema"]
        resampled.append((rates.recall or 0) + (rates.specificity or 0) - 1)
    assert np.mean(np.array(best, dtype=float)) > 0.08
    assert abs(np.mean(resampled)) < 0.06


def test_each_fold_is_decided_by_the_thresholds_of_the_others() -> None:
    """One division, done again with the public functions: tune on four folds, count on the fifth."""
    table = random_table(60, seed=4)
    rng = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(0,)))
    names = np.unique(np.array(table.patients))
    fold = dict(zip(names, rng.permutation(60) % 5, strict=True))
    place = np.array([fold[patient] for patient in table.patients])
    total = np.zeros(4)
    for index in range(5):
        threshold = tune_thresholds(table.select(np.flatnonzero(place != index)), YOUDEN).thresholds["Edema"]
        outer = (place == index) & table.mask[:, 3]
        part = confusion(table.targets[outer, 3], table.scores[outer, 3], threshold)
        total += [part.tp, part.fp, part.fn, part.tn]
    found = honest_rates(table, YOUDEN, repeats=1, seed=7)["Edema"]
    tp, fp, fn, tn = total
    assert found.recall == pytest.approx(tp / (tp + fn))
    assert found.specificity == pytest.approx(tn / (tn + fp))
    assert found.f1 == pytest.approx(2 * tp / (2 * tp + fp + fn))


def test_intervals_of_recall_and_specificity_are_wilsons() -> None:
    table = random_table(80, seed=2)
    found = honest_rates(table, YOUDEN, BootstrapSettings(200))["Edema"]
    counts = table.mask[:, 3]
    for name, label in (("recall", 1), ("specificity", 0)):
        rows = int((table.targets[counts, 3] == label).sum())
        share = getattr(found, name)
        interval = found.intervals[name]
        nearest = binomtest(round(share * rows), rows).proportion_ci(0.95, method="wilson")
        assert interval.low == pytest.approx(nearest.low, abs=0.02)
        assert interval.high == pytest.approx(nearest.high, abs=0.02)
    for name in ("f1", "balanced_accuracy"):
        low, high = found.intervals[name].low, found.intervals[name].high
        assert low is not None
        assert high is not None
        assert low < getattr(found, name) < high


def test_undefined_rates_are_none() -> None:
    settings = BootstrapSettings(20)
    found = honest_rates(table_of([0, 0, 0, 0], [0.1, 0.2, 0.6, 0.7]), YOUDEN, settings)["Edema"]
    assert (found.recall, found.specificity) == (None, 0.5)
    assert found.intervals["recall"].reason is not None
    table = replace(table_of([0, 1, 0], [0.1, 0.2, 0.3]), patients=("a",) * 3)
    assert honest_rates(table, YOUDEN, settings)["Edema"].intervals["recall"].reason == ONE_PATIENT
    assert honest_rates(table_of([], []), YOUDEN, settings)["Edema"].f1 is None
