"""Metrics of probabilities against labels: pure functions of arrays, and all figures of a finding.

A case is decided positive if its probability is at or above the threshold.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxrtool.choices import Level
from cxrtool.errors import CxrError
from cxrtool.evaluation.ranking import Ranking, rank_by_score
from cxrtool.evaluation.table import PredictionTable


def auroc(targets: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve: the Mann-Whitney statistic, with ties counted one half.

    Hanley & McNeil 1982, Radiology 143:29.

    Args:
        targets: [N] of 0 and 1.
        scores: [N], any scale; only their order counts.

    Returns:
        In [0, 1]; NaN if a class is missing.

    Raises:
        CxrError: a score is NaN.
    """
    ranking = _ranked(targets, scores)
    positives = int(ranking.positive.sum())
    negatives = len(ranking.positive) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    hits, alarms = ranking.hits, ranking.alarms
    # Positives above each negative and half of those tied with it, doubled so that the sum is of whole numbers.
    doubled = np.sum(np.diff(alarms, prepend=0) * (hits + np.concatenate(([0], hits[:-1]))))
    return float(doubled / 2 / (positives * negatives))


def average_precision(targets: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the precision-recall curve as a step function: sum of (recall step) x precision.

    This is scikit-learn's ``average_precision_score``; tied scores are one step.

    Returns:
        In (0, 1]; NaN if a class is missing (scikit-learn returns 0 without positives).

    Raises:
        CxrError: a score is NaN.
    """
    ranking = _ranked(targets, scores)
    positives = int(ranking.positive.sum())
    if positives in (0, len(ranking.positive)):
        return float("nan")
    precision = ranking.hits / (ranking.ends + 1)
    return float(np.sum(np.diff(ranking.hits, prepend=0) / positives * precision))


def _ranked(targets: ArrayLike, scores: ArrayLike) -> Ranking:
    values = np.asarray(scores, dtype=np.float64)
    rows = np.flatnonzero(np.isnan(values))
    if len(rows):
        raise CxrError(f"{len(rows)} scores are NaN, the first in row {rows[0]}", "Fix the predictions.")
    return rank_by_score(targets, values)


FEW_CASES = 30
"""Positives or negatives below which a finding's figures are marked as resting on few cases."""


@dataclass(frozen=True)
class Counts:
    """Number of cases by label and decision. A rate is NaN if its denominator is 0."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def precision(self) -> float:
        """TP / (TP + FP), the positive predictive value."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """TP / (TP + FN), the sensitivity."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP)."""
        return ratio(self.tn, self.tn + self.fp)

    @property
    def npv(self) -> float:
        """TN / (TN + FN), the negative predictive value."""
        return ratio(self.tn, self.tn + self.fn)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of recall and specificity."""
        return (self.recall + self.specificity) / 2


def ratio(numerator: float, denominator: float) -> float:
    """Return the quotient; NaN if the denominator is 0."""
    return numerator / denominator if denominator else float("nan")


def confusion(targets: ArrayLike, probabilities: ArrayLike, threshold: float) -> Counts:
    """Count decisions ``probability >= threshold`` against labels; both are [N]."""
    positive = np.asarray(targets) > 0.5
    called = np.asarray(probabilities, dtype=np.float64) >= threshold
    return Counts(
        tp=int((positive & called).sum()),
        fp=int((~positive & called).sum()),
        fn=int((positive & ~called).sum()),
        tn=int((~positive & ~called).sum()),
    )


@dataclass(frozen=True)
class ThresholdMetrics:
    """Metrics of one finding at its threshold; None where undefined."""

    threshold: float
    f1: float | None
    precision: float | None
    recall: float | None
    specificity: float | None
    npv: float | None
    balanced_accuracy: float | None
    tp: int
    fp: int
    fn: int
    tn: int


@dataclass(frozen=True)
class FindingMetrics:
    """Metrics of one finding; None where undefined.

    Attributes:
        auroc: see `auroc`.
        auprc: see `average_precision`.
        positives: number of positive labels.
        negatives: number of negative labels.
        ignored: number of masked labels, which do not count.
        at_threshold: metrics at the threshold, None without one.
    """

    auroc: float | None
    auprc: float | None
    positives: int
    negatives: int
    ignored: int
    at_threshold: ThresholdMetrics | None

    @property
    def few_cases(self) -> bool:
        """Whether there are fewer than `FEW_CASES` positives or negatives."""
        return min(self.positives, self.negatives) < FEW_CASES

    def to_dict(self) -> dict[str, object]:
        """Return all values by name, with those at the threshold beside the others."""
        content = asdict(self)
        at_threshold = content.pop("at_threshold")
        return content | {"few_cases": self.few_cases} | (at_threshold or {})


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one split.

    Attributes:
        split: name of the split.
        level: unit of a row.
        images: number of images behind all rows.
        studies: number of distinct studies.
        mean_auroc: mean over the findings that define it; None if none does.
        mean_auprc: likewise.
        labels: metrics by finding.
        warnings: which metrics are undefined, and why.
    """

    split: str
    level: Level
    images: int
    studies: int
    mean_auroc: float | None
    mean_auprc: float | None
    labels: Mapping[str, FindingMetrics]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "split": self.split,
            "level": self.level.value,
            "images": self.images,
            "studies": self.studies,
            "mean": {"auroc": self.mean_auroc, "auprc": self.mean_auprc},
            "labels": {finding: metrics.to_dict() for finding, metrics in self.labels.items()},
            "warnings": list(self.warnings),
        }


def evaluate(table: PredictionTable, thresholds: Mapping[str, float] | None = None) -> Evaluation:
    """Compute metrics per finding and their means.

    Args:
        table: predictions and labels; masked cells do not count.
        thresholds: by finding; None leaves out the metrics at thresholds.

    Returns:
        The metrics. AUROC and AUPRC of a finding with only one class are None and left out of the means, with a
        warning.
    """
    labels, warnings = {}, []
    for column, finding in enumerate(table.findings):
        metrics = _finding_metrics(table, column, None if thresholds is None else thresholds[finding])
        labels[finding] = metrics
        if metrics.auroc is None:
            reason = (
                "no label that counts"
                if metrics.positives + metrics.negatives == 0
                else ("no positive" if metrics.positives == 0 else "no negative")
            )
            warnings.append(
                f"{finding} has {reason} in the {table.split} split: its AUROC and AUPRC are undefined and left out of "
                "the means"
            )
    return Evaluation(
        split=table.split,
        level=table.level,
        images=int(table.images.sum()),
        studies=len(set(table.studies)),
        mean_auroc=_mean([metrics.auroc for metrics in labels.values()]),
        mean_auprc=_mean([metrics.auprc for metrics in labels.values()]),
        labels=labels,
        warnings=tuple(warnings),
    )


def _finding_metrics(table: PredictionTable, column: int, threshold: float | None) -> FindingMetrics:
    counts = table.mask[:, column]
    targets, probabilities = table.targets[counts, column], table.scores[counts, column]
    positives = int((targets > 0.5).sum())
    return FindingMetrics(
        auroc=or_none(auroc(targets, probabilities)),
        auprc=or_none(average_precision(targets, probabilities)),
        positives=positives,
        negatives=len(targets) - positives,
        ignored=int((~counts).sum()),
        at_threshold=None if threshold is None else _at_threshold(targets, probabilities, threshold),
    )


def _at_threshold(
    targets: NDArray[np.float32], probabilities: NDArray[np.float64], threshold: float
) -> ThresholdMetrics:
    counts = confusion(targets, probabilities, threshold)
    return ThresholdMetrics(
        threshold=threshold,
        f1=or_none(counts.f1),
        precision=or_none(counts.precision),
        recall=or_none(counts.recall),
        specificity=or_none(counts.specificity),
        npv=or_none(counts.npv),
        balanced_accuracy=or_none(counts.balanced_accuracy),
        tp=counts.tp,
        fp=counts.fp,
        fn=counts.fn,
        tn=counts.tn,
    )


def or_none(value: float) -> float | None:
    """Return `value`, or None for NaN, which is how files and tables show an undefined figure."""
    return None if np.isnan(value) else value


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
