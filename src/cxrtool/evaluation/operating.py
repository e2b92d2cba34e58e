"""Thresholds in use: stability, predictive values, net benefit, and rates on rows that did not choose them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxrtool.choices import Criterion
from cxrtool.errors import RequestError
from cxrtool.evaluation.curves import roc_rates
from cxrtool.evaluation.intervals import BootstrapSettings, Interval, PatientDraws, percentile_interval
from cxrtool.evaluation.metrics import Counts, confusion, or_none, ratio
from cxrtool.evaluation.ranking import Array
from cxrtool.evaluation.table import PredictionTable
from cxrtool.evaluation.thresholds import choose_threshold, curve_of_counts, threshold_curve


def sensitivity_at_specificity(targets: ArrayLike, scores: ArrayLike, specificity: float) -> float:
    """Return the largest sensitivity at a specificity of at least `specificity`; NaN with one class."""
    tpr, fpr = roc_rates(targets, scores)
    return float(tpr[fpr <= 1 - specificity + 1e-12].max()) if len(tpr) else float("nan")


def specificity_at_sensitivity(targets: ArrayLike, scores: ArrayLike, sensitivity: float) -> float:
    """Return the largest specificity at a sensitivity of at least `sensitivity`; NaN with one class."""
    tpr, fpr = roc_rates(targets, scores)
    return float(1 - fpr[tpr >= sensitivity - 1e-12].min()) if len(tpr) else float("nan")


@dataclass(frozen=True)
class PredictiveValues:
    """Predictive values of a decision at a given prevalence.

    Attributes:
        prevalence: in (0, 1).
        ppv: positive predictive value, None where undefined.
        npv: negative predictive value, None where undefined.
    """

    prevalence: float
    ppv: float | None
    npv: float | None


def predictive_values(sensitivity: float, specificity: float, prevalence: float) -> PredictiveValues:
    """Compute PPV and NPV by Bayes' rule (Altman & Bland 1994, BMJ 309:102).

    Raises:
        RequestError: the prevalence is not between 0 and 1.
    """
    if not 0 < prevalence < 1:
        raise RequestError(f"prevalence {prevalence:g} is not between 0 and 1", "Give a share, such as 0.1.")
    tp, fp = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    tn, fn = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    return PredictiveValues(prevalence, or_none(ratio(tp, tp + fp)), or_none(ratio(tn, tn + fn)))


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit per case at each threshold probability, [T] float64 each.

    Attributes:
        thresholds: probability at or above which one acts.
        model: net benefit of acting on the model's probabilities.
        everyone: net benefit of acting in every case. That of never acting is 0.
    """

    thresholds: Array
    model: Array
    everyone: Array


def decision_curve(targets: ArrayLike, probabilities: ArrayLike, thresholds: Array | None = None) -> DecisionCurve:
    """Compute net benefit TP / n - FP / n * t / (1 - t) (Vickers & Elkin 2006, Medical Decision Making 26:565).

    Args:
        targets: [N] of 0 and 1.
        probabilities: [N] in [0, 1], preferably calibrated.
        thresholds: in [0, 1); None uses 0.01 to 0.80.
    """
    grid = np.round(np.arange(1, 81) / 100, 2) if thresholds is None else thresholds
    positive = np.asarray(targets) > 0.5
    count = len(positive)
    odds = grid / (1 - grid)
    cases = [confusion(positive, probabilities, threshold) for threshold in grid]
    tp, fp = np.array([c.tp for c in cases]), np.array([c.fp for c in cases])
    prevalence = positive.mean() if count else np.nan
    return DecisionCurve(
        thresholds=grid,
        model=(tp - fp * odds) / max(count, 1),
        everyone=prevalence - (1 - prevalence) * odds,
    )


def threshold_stability(
    table: PredictionTable,
    criterion: Criterion,
    grid: Array,
    target: float | None,
    settings: BootstrapSettings,
) -> dict[str, Interval]:
    """Return an interval of each finding's threshold over draws of patients.

    A wide interval means that the split is too small to determine a threshold.
    """
    draws = PatientDraws(table.patients, settings)
    chosen: dict[str, list[float]] = {finding: [] for finding in table.findings}
    called = table.scores[:, :, None] >= grid  # [N, 5, T]
    positive = (table.targets > 0.5) & table.mask
    for weights in draws.chunks():
        for column, finding in enumerate(table.findings):
            hits = weights * positive[:, column]
            alarms = weights * (table.mask[:, column] & ~positive[:, column])
            decided = called[:, column].astype(np.float32)
            tp, fp = (hits @ decided).astype(np.float64), (alarms @ decided).astype(np.float64)
            positives, negatives = hits.sum(axis=1), alarms.sum(axis=1)
            for row in range(len(weights)):
                if not (positives[row] and negatives[row]):
                    chosen[finding].append(np.nan)
                    continue
                curve = curve_of_counts(tp[row], fp[row], positives[row], negatives[row], grid)
                chosen[finding].append(float(grid[choose_threshold(curve, criterion, target)[0]]))
    return {finding: percentile_interval(np.array(values), settings.confidence) for finding, values in chosen.items()}


@dataclass(frozen=True)
class HonestRates:
    """Rates of a finding at thresholds chosen on other rows than those counted; None where undefined.

    Attributes:
        f1: mean over repeats, as are the others.
        balanced_accuracy: mean of recall and specificity.
        recall: sensitivity.
        specificity: specificity.
    """

    f1: float | None
    balanced_accuracy: float | None
    recall: float | None
    specificity: float | None


def honest_rates(
    table: PredictionTable,
    criterion: Criterion,
    grid: Array,
    target: float | None,
    folds: int = 5,
    repeats: int = 20,
    seed: int = 0,
) -> dict[str, HonestRates]:
    """Estimate by nested resampling the rates that thresholds chosen on this split have on new patients.

    Patients are divided into folds, each fold is decided with thresholds chosen on the other folds, and counts are
    pooled over folds. Rates are averaged over `repeats` random divisions.
    """
    patients, group = np.unique(np.asarray(table.patients, dtype=object).astype(str), return_inverse=True)
    counts: dict[str, list[Counts]] = {finding: [] for finding in table.findings}
    for repeat in range(repeats):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(repeat,)))
        fold = (rng.permutation(len(patients)) % folds)[group]
        for column, finding in enumerate(table.findings):
            counts[finding].append(_held_out_counts(table, column, fold, criterion, grid, target))
    return {finding: _mean_rates(repeated) for finding, repeated in counts.items()}


def _held_out_counts(
    table: PredictionTable,
    column: int,
    fold: NDArray[np.int64],
    criterion: Criterion,
    grid: Array,
    target: float | None,
) -> Counts:
    counts = table.mask[:, column]
    targets, probabilities = table.targets[:, column], table.scores[:, column]
    total = np.zeros(4, dtype=int)
    for index in np.unique(fold):
        inner, outer = counts & (fold != index), counts & (fold == index)
        threshold = 0.5
        if len(np.unique(targets[inner])) == 2:
            curve = threshold_curve(targets[inner], probabilities[inner], grid)
            threshold = float(grid[choose_threshold(curve, criterion, target)[0]])
        part = confusion(targets[outer], probabilities[outer], threshold)
        total += [part.tp, part.fp, part.fn, part.tn]
    return Counts(*(int(number) for number in total))


def _mean_rates(repeats: Sequence[Counts]) -> HonestRates:
    def mean(name: str) -> float | None:
        values = np.array([getattr(counts, name) for counts in repeats], dtype=np.float64)
        return None if np.isnan(values).all() else float(np.nanmean(values))

    return HonestRates(mean("f1"), mean("balanced_accuracy"), mean("recall"), mean("specificity"))


@dataclass(frozen=True)
class OperatingPoint:
    """Figures of one finding at fixed rates and at its threshold; None where undefined.

    Attributes:
        sensitivity_at: sensitivity by required specificity, ``0.90`` and ``0.95``.
        specificity_at: specificity by required sensitivity, likewise.
        predictive_values: at the threshold, for the given prevalence or the split's own.
    """

    sensitivity_at: Mapping[str, float | None]
    specificity_at: Mapping[str, float | None]
    predictive_values: PredictiveValues | None


FIXED_RATES = (0.90, 0.95)


def operating_points(
    table: PredictionTable, thresholds: Mapping[str, float] | None, prevalence: float | None = None
) -> dict[str, OperatingPoint]:
    """Compute operating points by finding.

    Args:
        table: predictions and labels.
        thresholds: by finding, for the predictive values; None leaves these out.
        prevalence: for the predictive values; None uses each finding's own in the table.
    """
    found = {}
    for column, finding in enumerate(table.findings):
        counts = table.mask[:, column]
        targets, scores = table.targets[counts, column], table.scores[counts, column]
        values = None
        share = prevalence if prevalence is not None else (float((targets > 0.5).mean()) if len(targets) else 0.0)
        if thresholds is not None and 0 < share < 1:
            rates = confusion(targets, scores, thresholds[finding])
            if not np.isnan(rates.recall + rates.specificity):
                values = predictive_values(rates.recall, rates.specificity, share)
        found[finding] = OperatingPoint(
            {f"{rate:.2f}": or_none(sensitivity_at_specificity(targets, scores, rate)) for rate in FIXED_RATES},
            {f"{rate:.2f}": or_none(specificity_at_sensitivity(targets, scores, rate)) for rate in FIXED_RATES},
            values,
        )
    return found
