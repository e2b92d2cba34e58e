"""Decisions: rates at fixed sensitivity or specificity, predictive values and net benefit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from cxrtool.errors import RequestError
from cxrtool.evaluation.calibration import Scaling
from cxrtool.evaluation.curves import roc_rates
from cxrtool.evaluation.intervals import Interval, number_patients
from cxrtool.evaluation.metrics import confusion, or_none, ratio
from cxrtool.evaluation.ranking import Array, rank_by_score
from cxrtool.evaluation.rates import quotient_interval, threshold_intervals
from cxrtool.evaluation.table import PredictionTable


def sensitivity_at_specificity(targets: ArrayLike, scores: ArrayLike, specificity: float) -> float:
    """Return the largest sensitivity at a specificity of at least `specificity`; NaN with one class."""
    tpr, fpr = roc_rates(targets, scores)
    return float(tpr[fpr <= 1 - specificity + 1e-12].max()) if len(tpr) else float("nan")


def specificity_at_sensitivity(targets: ArrayLike, scores: ArrayLike, sensitivity: float) -> float:
    """Return the largest specificity at a sensitivity of at least `sensitivity`; NaN with one class."""
    tpr, fpr = roc_rates(targets, scores)
    return float(1 - fpr[tpr >= sensitivity - 1e-12].min()) if len(tpr) else float("nan")


NO_INTERVAL = Interval(None, None, reason="the figure is undefined")


@dataclass(frozen=True)
class PredictiveValues:
    """Predictive values of a decision at a given prevalence.

    Attributes:
        prevalence: in (0, 1).
        ppv: positive predictive value, None where undefined.
        npv: negative predictive value, None where undefined.
        ppv_interval: interval of `ppv`.
        npv_interval: interval of `npv`.
    """

    prevalence: float
    ppv: float | None
    npv: float | None
    ppv_interval: Interval = NO_INTERVAL
    npv_interval: Interval = NO_INTERVAL


def predictive_values(
    sensitivity: float, specificity: float, prevalence: float, intervals: Mapping[str, Interval] | None = None
) -> PredictiveValues:
    """Compute PPV and NPV by Bayes' rule (Altman & Bland 1994, BMJ 309:102).

    Their intervals are those of the false share of one rate over the other, (1 - specificity) / sensitivity and
    (1 - sensitivity) / specificity, by `quotient_interval`; the prevalence is taken as known.

    Args:
        sensitivity: in [0, 1].
        specificity: in [0, 1].
        prevalence: between 0 and 1.
        intervals: those of ``recall`` and ``specificity``; None gives no intervals.

    Raises:
        RequestError: the prevalence is not between 0 and 1.
    """
    if not 0 < prevalence < 1:
        raise RequestError(f"prevalence {prevalence:g} is not between 0 and 1", "Give a share, such as 0.1.")
    tp, fp = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    tn, fn = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    odds = prevalence / (1 - prevalence)
    recalls, specificities = (intervals or {}).get("recall"), (intervals or {}).get("specificity")
    return PredictiveValues(
        prevalence,
        or_none(ratio(tp, tp + fp)),
        or_none(ratio(tn, tn + fn)),
        _interval_at((specificity, specificities), (sensitivity, recalls), 1 / odds),
        _interval_at((sensitivity, recalls), (specificity, specificities), odds),
    )


def _interval_at(wrong: tuple[float, Interval | None], right: tuple[float, Interval | None], odds: float) -> Interval:
    """Return the interval of 1 / (1 + odds x (1 - wrong) / right)."""
    if wrong[1] is None or right[1] is None or right[0] == 0:
        return NO_INTERVAL
    low, high = wrong[1].low, wrong[1].high
    complement = Interval(None if high is None else 1 - high, None if low is None else 1 - low)
    ends = quotient_interval((1 - wrong[0], right[0]), (complement, right[1]))
    if ends is None:
        return NO_INTERVAL
    return Interval(1 / (1 + odds * ends[1]), 1 / (1 + odds * ends[0]), method="quotient of two wilson intervals")


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

    def to_dict(self) -> dict[str, list[float | None]]:
        """Return plain values for JSON; None without rows."""
        columns = {"thresholds": self.thresholds, "model": self.model, "everyone": self.everyone}
        return {name: [or_none(float(value)) for value in values] for name, values in columns.items()}


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
    tp, fp = rank_by_score(positive, probabilities).counts_at(grid)
    prevalence = positive.mean() if count else np.nan
    return DecisionCurve(
        thresholds=grid,
        model=(tp - fp * odds) / max(count, 1),
        everyone=prevalence - (1 - prevalence) * odds,
    )


def decision_curves(table: PredictionTable, scalings: Mapping[str, Scaling] | None = None) -> dict[str, DecisionCurve]:
    """Compute each finding's `decision_curve`, of probabilities that `scalings` calibrate, or of raw ones."""
    curves = {}
    for column, finding in enumerate(table.findings):
        counts = table.mask[:, column]
        raw = table.scores[counts, column]
        used = raw if scalings is None else scalings[finding].apply(raw)
        curves[finding] = decision_curve(table.targets[counts, column], used)
    return curves


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
    table: PredictionTable,
    thresholds: Mapping[str, float] | None,
    prevalence: float | None = None,
    confidence: float = 0.95,
) -> dict[str, OperatingPoint]:
    """Compute operating points by finding.

    Args:
        table: predictions and labels.
        thresholds: by finding, for the predictive values; None leaves these out.
        prevalence: for the predictive values; None uses each finding's own in the table.
        confidence: level of their intervals.
    """
    found = {}
    _, patients = number_patients(table.patients)
    for column, finding in enumerate(table.findings):
        counts = table.mask[:, column]
        targets, scores = table.targets[counts, column], table.scores[counts, column]
        values = None
        share = prevalence if prevalence is not None else (float((targets > 0.5).mean()) if len(targets) else 0.0)
        if thresholds is not None and 0 < share < 1:
            rates = confusion(targets, scores, thresholds[finding])
            if not np.isnan(rates.recall + rates.specificity):
                called = scores >= thresholds[finding]
                intervals = threshold_intervals(targets > 0.5, called, patients[counts], confidence)
                values = predictive_values(rates.recall, rates.specificity, share, intervals)
                if prevalence is None:  # then they are shares of the rows themselves
                    values = replace(values, ppv_interval=intervals["precision"], npv_interval=intervals["npv"])
        found[finding] = OperatingPoint(
            {f"{rate:.2f}": or_none(sensitivity_at_specificity(targets, scores, rate)) for rate in FIXED_RATES},
            {f"{rate:.2f}": or_none(specificity_at_sensitivity(targets, scores, rate)) for rate in FIXED_RATES},
            values,
        )
    return found
