"""ROC and precision-recall curves, and their bands."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cxrtool.evaluation.intervals import BootstrapSettings, PatientDraws
from cxrtool.evaluation.ranking import Array, rank_by_score
from cxrtool.evaluation.table import PredictionTable


def roc_rates(targets: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """True and false positive rates of every threshold, from none called to all; empty with one class."""
    ranking = rank_by_score(targets, scores)
    positives = int(ranking.positive.sum())
    negatives = len(ranking.positive) - positives
    if not (positives and negatives):
        return np.array([]), np.array([])
    return np.append(0, ranking.hits) / positives, np.append(0, ranking.alarms) / negatives


def roc_curve(targets: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """False and true positive rates over all distinct scores, from (0, 0) to (1, 1); empty with one class."""
    tpr, fpr = roc_rates(targets, scores)
    return fpr, tpr


def precision_recall_curve(targets: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """Recall and precision over all distinct scores, from the highest; empty with one class."""
    positive = np.asarray(targets) > 0.5
    tpr, fpr = roc_rates(targets, scores)
    if not len(tpr):
        return tpr, fpr
    tp, fp = tpr[1:] * positive.sum(), fpr[1:] * (~positive).sum()
    return tpr[1:], tp / (tp + fp)


GRID = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Band:
    """A region around a curve.

    Attributes:
        x: [101], from 0 to 1.
        low: [101], the lower end at each x; NaN where no draw has the curve.
        high: [101], likewise.
    """

    x: Array
    low: Array
    high: Array


def curve_bands(table: PredictionTable, column: int, settings: BootstrapSettings) -> tuple[Band, Band]:
    """Of one finding: sensitivity over 1 - specificity, and precision over recall.

    The band is pointwise: at each x it holds the curve's height with the wished confidence, not the whole curve.
    """
    rows = np.flatnonzero(table.mask[:, column])
    ranking = rank_by_score(table.targets[rows, column], table.probabilities[rows, column])
    order, ends, positive = rows[ranking.order], ranking.ends, ranking.positive
    heights: list[Array] = []
    precisions: list[Array] = []
    draws = PatientDraws(table.patients, settings)
    for weights in draws.chunks() if len(order) else ():
        drawn = weights[:, order].astype(np.float64)
        tp = np.cumsum(drawn * positive, axis=1)[:, ends]
        fp = np.cumsum(drawn * ~positive, axis=1)[:, ends]
        for hits, alarms in zip(tp, fp, strict=True):
            if hits[-1] and alarms[-1]:
                tpr, fpr = np.append(0, hits / hits[-1]), np.append(0, alarms / alarms[-1])
                heights.append(np.interp(GRID, fpr, tpr))
                called = hits + alarms
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
