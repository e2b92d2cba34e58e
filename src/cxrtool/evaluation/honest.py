"""Rates at thresholds chosen on other rows than those they count, on the split that chose the thresholds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.intervals import ONE_PATIENT, BootstrapSettings, Interval, PatientDraws, percentile_interval
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
        Rates by finding. Intervals of recall and specificity are Wilson's for the effective number of rows, those of F1
        and balanced accuracy percentile intervals over draws of patients. Neither contains the chance of the divisions,
        which is averaged away, nor that of choosing on other rows of the population, which is small beside it.
    """
    patients, group = np.unique(np.asarray(table.patients, dtype=object).astype(str), return_inverse=True)
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
    # True positives, false positives, positives and negatives that each row adds, for each finding.
    parts = np.stack((positive * called, negative * called, positive, negative), axis=2).astype(np.float64)
    rates = _rates_of(parts.sum(axis=0)[None])
    intervals = [{}] * len(table.findings) if settings is None else _intervals(table, parts, rates, settings)
    return {
        finding: HonestRates(
            **{name: or_none(float(rates[name][0, column])) for name in _RATES}, intervals=intervals[column]
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
    """Return each rate [B, F] of sums [B, F, 4]; NaN where undefined."""
    tp, fp, positives, negatives = np.moveaxis(sums, 2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, specificity = tp / positives, 1 - fp / negatives
        f1 = 2 * tp / (tp + fp + positives)
    return {"f1": f1, "balanced_accuracy": (recall + specificity) / 2, "recall": recall, "specificity": specificity}


def _intervals(
    table: PredictionTable, parts: Array, rates: Mapping[str, Array], settings: BootstrapSettings
) -> list[dict[str, Interval]]:
    _, group = np.unique(np.asarray(table.patients, dtype=object).astype(str), return_inverse=True)
    first = np.unique(group, return_index=True)[1]
    findings = len(table.findings)
    if len(first) == 1:
        return [dict.fromkeys(_RATES, Interval(None, None, reason=ONE_PATIENT)) for _ in range(findings)]
    by_patient = np.zeros((len(first), *parts.shape[1:]))
    np.add.at(by_patient, group, parts)
    flat = by_patient.reshape(len(first), findings * parts.shape[2])
    draws = PatientDraws(table.patients, settings)
    sums = np.concatenate([weights[:, first].astype(np.float64) @ flat for weights in draws.chunks()])
    drawn = _rates_of(sums.reshape(len(sums), findings, 4))
    found = []
    for column in range(findings):
        ends = {name: percentile_interval(drawn[name][:, column], settings.confidence) for name in _RATES[:2]}
        for name, of_class in (("recall", 2), ("specificity", 3)):
            kept = parts[:, column, of_class] > 0
            share = float(rates[name][0, column])
            if not kept.any():
                ends[name] = Interval(None, None, reason="no row of this class")
                continue
            calls = parts[kept, column, of_class - 2] > 0.5
            low, high = wilson(share, effective_rows(calls, group[kept]), settings.confidence)
            ends[name] = Interval(float(low), float(high), method="Wilson")
        found.append(ends)
    return found
