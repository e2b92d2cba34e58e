"""Rates at thresholds chosen on other rows than those they count, on the split that chose the thresholds."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.drawn_curve import ONE_CLASS, DrawnCurve
from cxrtool.evaluation.intervals import (
    ONE_PATIENT,
    BootstrapSettings,
    Interval,
    PatientDraws,
    number_patients,
    percentile_interval,
)
from cxrtool.evaluation.metrics import or_none
from cxrtool.evaluation.proportions import effective_rows, wilson
from cxrtool.evaluation.ranking import Array
from cxrtool.evaluation.table import PredictionTable
from cxrtool.evaluation.thresholds import ThresholdSearch

FOLDS, REPEATS = 5, 20
_UNTUNED = 0.5
_RATES = ("f1", "balanced_accuracy", "recall", "specificity")


@dataclass(frozen=True)
class HonestRates:
    """Rates of a finding at thresholds chosen on other rows than those counted; None where undefined.

    Attributes:
        f1: over all repeats together, as are the others.
        balanced_accuracy: mean of recall and specificity.
        recall: sensitivity.
        specificity: specificity.
        intervals: by name of rate.
    """

    f1: float | None
    balanced_accuracy: float | None
    recall: float | None
    specificity: float | None
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        rates = {name: getattr(self, name) for name in _RATES}
        return rates | {"intervals": {name: interval.to_dict() for name, interval in self.intervals.items()}}


def honest_rates(
    table: PredictionTable,
    search: ThresholdSearch,
    settings: BootstrapSettings | None = None,
    folds: int = FOLDS,
    repeats: int = REPEATS,
    seed: int = 0,
) -> dict[str, HonestRates]:
    """Estimate by nested resampling the rates that thresholds chosen on this split have on new patients.

    Patients are divided into folds and each fold is decided with thresholds chosen on the other folds, in `repeats`
    random divisions. The share of divisions that call a row positive is its decision, a number in [0, 1]; rates are
    those of the mean counts.

    Args:
        table: predictions and labels; masked cells do not count.
        search: how thresholds are chosen.
        settings: draws of patients and confidence; None leaves out the intervals.
        folds: parts of each division.
        repeats: number of divisions.
        seed: of the divisions.

    Returns:
        Rates by finding. Their intervals contain the chance of the choice too: thresholds are chosen again on each draw
        of patients, and the percentile interval of the rates there is moved to the honest rate (location-shifted
        bootstrap, Noma et al. 2021, Statistics in Medicine 40:5691). That of recall and specificity is at least as wide
        as Wilson's for the effective number of rows, because few rows of a class give draws that vary too little.
    """
    patients, group = number_patients(table.patients)
    divisions = []
    for repeat in range(repeats):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(repeat,)))
        divisions.append((rng.permutation(len(patients)) % folds)[group])
    called = np.zeros(table.scores.shape)
    for column in range(len(table.findings)):
        # In the order of scores, because sorting what is sorted already takes little time.
        order = np.flatnonzero(table.mask[:, column])
        order = order[np.argsort(-table.scores[order, column], kind="stable")]
        targets, scores = table.targets[order, column], table.scores[order, column]
        called[order, column] = np.mean([_decided(targets, scores, fold[order], search) for fold in divisions], axis=0)
    positive = (table.targets > 0.5) & table.mask
    negative = table.mask & ~positive
    sums = [(kept * part).sum(axis=0) for part in (called, 1) for kept in (positive, negative)]
    rates = _rates_of(np.column_stack(sums).astype(np.float64))
    intervals: list[dict[str, Interval]] = [{} for _ in table.findings]
    if settings is not None:
        intervals = _intervals(table, search, called, rates, settings)
    return {
        finding: HonestRates(
            **{name: or_none(float(rates[name][column])) for name in _RATES}, intervals=intervals[column]
        )
        for column, finding in enumerate(table.findings)
    }


def _decided(targets: NDArray[np.float32], scores: Array, fold: NDArray[np.int64], search: ThresholdSearch) -> Array:
    """Return the decision on each row, 0 or 1, by the threshold chosen on the rows of the other folds, [N]."""
    called = np.zeros(len(scores))
    for index in np.unique(fold):
        inner, outer = fold != index, fold == index
        choice = search.choose(targets[inner], scores[inner])
        called[outer] = scores[outer] >= (_UNTUNED if choice is None else choice.threshold)
    return called


def _rates_of(sums: Array) -> dict[str, Array]:
    """Return each rate [F] of sums [F, 4]; NaN where undefined."""
    tp, fp, positives, negatives = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, specificity = tp / positives, 1 - fp / negatives
        f1 = 2 * tp / (tp + fp + positives)
    return {"f1": f1, "balanced_accuracy": (recall + specificity) / 2, "recall": recall, "specificity": specificity}


def _intervals(
    table: PredictionTable,
    search: ThresholdSearch,
    called: Array,
    rates: Mapping[str, Array],
    settings: BootstrapSettings,
) -> list[dict[str, Interval]]:
    """Return the interval of each rate, by finding in the order of the table."""
    one_patient = len(set(table.patients)) == 1
    curves: dict[int, DrawnCurve] = {}
    for column in range(len(table.findings)):
        rows = np.flatnonzero(table.mask[:, column])
        if not one_patient and len(np.unique(table.targets[rows, column])) == 2:
            targets, scores = table.targets[rows, column], table.scores[rows, column]
            curves[column] = DrawnCurve(targets, scores, rows, len(table), search)
    drawn: dict[tuple[int, str], list[Array]] = {(column, name): [] for column in curves for name in _RATES}
    for weights in PatientDraws(table.patients, settings).chunks() if curves else ():
        for column, curve in curves.items():
            figures = curve.figures(weights)
            chosen = curve.choose(figures)[:, None]
            for name in _RATES:
                drawn[column, name].append(np.take_along_axis(getattr(figures, name), chosen, axis=1)[:, 0])
    reason = ONE_PATIENT if one_patient else ONE_CLASS
    found: list[dict[str, Interval]] = []
    for column in range(len(table.findings)):
        if column not in curves:
            found.append(dict.fromkeys(_RATES, Interval(None, None, reason=reason)))
            continue
        ends = {}
        for name in _RATES:
            values = np.concatenate(drawn[column, name])
            ends[name] = _shifted(values, float(rates[name][column]), settings)
        for name, label in (("recall", 1), ("specificity", 0)):
            kept = table.mask[:, column] & ((table.targets[:, column] > 0.5) == label)
            effective = effective_rows(called[kept, column] > 0.5, np.asarray(table.patients, dtype=object)[kept])
            ends[name] = _at_least_wilson(ends[name], float(rates[name][column]), effective, settings.confidence)
        found.append(ends)
    return found


def _shifted(values: Array, rate: float, settings: BootstrapSettings) -> Interval:
    """Return the percentile interval of draws, moved so that their mean is the honest rate."""
    moved = np.clip(values - values.mean() + rate, 0, 1) if len(values) else values
    found = percentile_interval(moved, settings.confidence)
    return replace(found, undefined_draws=settings.draws - len(values), method=found.method and "shifted percentile")


def _at_least_wilson(found: Interval, rate: float, rows: float, confidence: float) -> Interval:
    low, high = (float(end) for end in wilson(rate, rows, confidence))
    if found.low is None or found.high is None:
        return found
    return replace(found, low=min(found.low, low), high=max(found.high, high), method="shifted percentile, Wilson")
