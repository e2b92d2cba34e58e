from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from cxrtool.choices import Criterion
from cxrtool.evaluation.honest import honest_rates
from cxrtool.evaluation.intervals import ONE_PATIENT, BootstrapSettings
from cxrtool.evaluation.metrics import confusion
from cxrtool.evaluation.proportions import wilson
from cxrtool.evaluation.thresholds import ThresholdSearch, threshold_grid, tune_thresholds
from cxrtool.findings import Findings
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


def test_intervals_are_at_least_as_wide_as_wilsons() -> None:
    table = random_table(80, seed=2)
    found = honest_rates(table, YOUDEN, BootstrapSettings(200))["Edema"]
    counts = table.mask[:, 3]
    for name, label in (("recall", 1), ("specificity", 0)):
        rows = int((table.targets[counts, 3] == label).sum())
        low, high = wilson(getattr(found, name), rows, 0.95)
        assert (found.intervals[name].low or 0) <= low
        assert (found.intervals[name].high or 0) >= high
    for name in ("f1", "balanced_accuracy"):
        low, high = found.intervals[name].low, found.intervals[name].high
        assert low is not None
        assert high is not None
        assert low < getattr(found, name) < high


def test_intervals_hold_the_rates_of_the_stored_threshold() -> None:
    """Of 160 rows, 8 positive. The threshold varies, so that Wilson's interval of specificity holds it in 70 % only."""
    rng = np.random.default_rng(5)
    held = {"recall": 0, "specificity": 0}
    targets = np.arange(160) < 8
    for _ in range(40):
        table = table_of(targets, 1 / (1 + np.exp(-(rng.normal(size=160) + 1.5 * targets))))
        table = table.with_findings(Findings(("Edema",)))
        threshold = tune_thresholds(table, YOUDEN).thresholds["Edema"]
        found = honest_rates(table, YOUDEN, BootstrapSettings(100), repeats=5)["Edema"].intervals
        cut = np.log(threshold / (1 - threshold))
        for name, real in (("recall", norm.sf(cut - 1.5)), ("specificity", norm.cdf(cut))):
            low, high = found[name].low, found[name].high
            assert low is not None
            assert high is not None
            held[name] += low <= real <= high
    assert held["specificity"] >= 35, held
    assert held["recall"] >= 31, held


def test_undefined_rates_are_none() -> None:
    settings = BootstrapSettings(20)
    found = honest_rates(table_of([0, 0, 0, 0], [0.1, 0.2, 0.6, 0.7]), YOUDEN, settings)["Edema"]
    assert (found.recall, found.specificity) == (None, 0.5)
    assert found.intervals["recall"].reason is not None
    table = replace(table_of([0, 1, 0], [0.1, 0.2, 0.3]), patients=("a",) * 3)
    assert honest_rates(table, YOUDEN, settings)["Edema"].intervals["recall"].reason == ONE_PATIENT
    assert honest_rates(table_of([], []), YOUDEN, settings)["Edema"].f1 is None
