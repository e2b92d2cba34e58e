"""Pointwise bands around ROC and precision-recall curves, from draws of patients."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.intervals import BootstrapSettings, PatientDraws
from cxrtool.evaluation.table import PredictionTable

Array = NDArray[np.float64]
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
    order = rows[np.argsort(-table.probabilities[rows, column].astype(np.float64), kind="stable")]
    scores = table.probabilities[order, column]
    ends = np.append(np.flatnonzero(np.diff(scores)), max(len(order) - 1, 0))
    positive = table.targets[order, column] > 0.5
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
