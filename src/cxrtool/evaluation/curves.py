"""ROC and precision-recall curves, and their confidence bands."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cxrtool.evaluation.intervals import BootstrapSettings, PatientDraws
from cxrtool.evaluation.ranking import Array, rank_by_score
from cxrtool.evaluation.table import PredictionTable


def roc_rates(targets: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """Return true and false positive rates at every threshold, from (0, 0) to (1, 1); empty with one class."""
    ranking = rank_by_score(targets, scores)
    positives = int(ranking.positive.sum())
    negatives = len(ranking.positive) - positives
    if not (positives and negatives):
        return np.array([]), np.array([])
    return np.append(0, ranking.hits) / positives, np.append(0, ranking.alarms) / negatives


def roc_curve(targets: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """Return false and true positive rates over all distinct scores, from (0, 0) to (1, 1); empty with one class."""
    tpr, fpr = roc_rates(targets, scores)
    return fpr, tpr


def precision_recall_curve(targets: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """Return recall and precision over all distinct scores, from the highest; empty with one class."""
    positive = np.asarray(targets) > 0.5
    tpr, fpr = roc_rates(targets, scores)
    if not len(tpr):
        return tpr, fpr
    tp, fp = tpr[1:] * positive.sum(), fpr[1:] * (~positive).sum()
    return tpr[1:], tp / (tp + fp)


GRID = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Band:
    """Confidence band of a curve.

    Attributes:
        x: [101], from 0 to 1.
        low: [101], lower end at each x; NaN if no draw defines the curve.
        high: [101], upper end, likewise.
    """

    x: Array
    low: Array
    high: Array


def curve_bands(table: PredictionTable, column: int, settings: BootstrapSettings) -> tuple[Band, Band]:
    """Return the bands of one finding's ROC curve and precision-recall curve.

    They are pointwise: the confidence holds at each x, not for the whole curve at once.
    """
    rows = np.flatnonzero(table.mask[:, column])
    ranking = rank_by_score(table.targets[rows, column], table.scores[rows, column])
    order, ends, positive = rows[ranking.order], ranking.ends, ranking.positive
    heights: list[Array] = []
    precisions: list[Array] = []
    draws = PatientDraws(table.patients, settings)
    for weights in draws.chunks() if len(order) else ():
        drawn = weights[:, order]  # sums of whole numbers below 2**24 are exact in float32
        tp, both = np.cumsum(drawn * positive, axis=1)[:, ends], np.cumsum(drawn, axis=1)[:, ends]
        for counts in zip(tp, both, strict=True):
            hits, called = (one.astype(np.float64) for one in counts)
            alarms = called - hits
            if hits[-1] and alarms[-1]:
                tpr, fpr = np.append(0, hits / hits[-1]), np.append(0, alarms / alarms[-1])
                heights.append(np.interp(GRID, fpr, tpr))
                first = np.searchsorted(tpr[1:], np.maximum(GRID, 1e-9) - 1e-12)
                safe = np.where(called > 0, called, 1)
                precisions.append((hits / safe)[first])
    return _band(heights, settings.confidence), _band(precisions, settings.confidence)


def _band(curves: list[Array], confidence: float) -> Band:
    if not curves:
        nothing = np.full(len(GRID), np.nan)
        return Band(GRID, nothing, nothing)
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.stack(curves), [tail, 1 - tail], axis=0)
    return Band(GRID, low, high)
