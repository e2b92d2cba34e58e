"""DeLong's variance of AUROC."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from cxrtool.evaluation.intervals import Draws, Interval


@dataclass(frozen=True)
class DeLong:
    """An AUROC with its standard error.

    Attributes:
        auroc: in [0, 1].
        standard_error: of `auroc`.
        interval: normal, cut at 0 and 1.
    """

    auroc: float
    standard_error: float
    interval: Interval


def delong(targets: ArrayLike, scores: ArrayLike, confidence: float = 0.95) -> DeLong:
    """AUROC with DeLong's standard error, rows taken as independent.

    DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837, by the ranks of Sun & Xu 2014, IEEE SPL 21:1389. Where a
    patient has several rows the interval is too narrow; the bootstrap over patients is not.

    Args:
        targets: [N] of 0 and 1.
        scores: [N].
        confidence: of the interval.

    Returns:
        NaN and an empty interval where a class has fewer than two rows.
    """
    v10, v01 = structural_components(targets, scores)
    if len(v10) < 2 or len(v01) < 2:
        return DeLong(float("nan"), float("nan"), Interval(None, None))
    area = float(v10.mean())
    error = float(np.sqrt(v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01)))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return DeLong(area, error, Interval(max(0.0, area - reach), min(1.0, area + reach)))


def structural_components(targets: ArrayLike, scores: ArrayLike) -> tuple[Draws, Draws]:
    """DeLong's placements: of each positive the share of negatives below it [P], of each negative of positives above.

    Ties count one half; the mean of either is the AUROC.
    """
    positive = np.asarray(targets) > 0.5
    values = np.asarray(scores, dtype=np.float64)
    above, below = values[positive], values[~positive]
    return _placements(above, below), 1 - _placements(below, above)


def _placements(values: Draws, others: Draws) -> Draws:
    ordered = np.sort(others)
    lower = np.searchsorted(ordered, values, side="left")
    lower_or_equal = np.searchsorted(ordered, values, side="right")
    return (lower + lower_or_equal) / 2 / max(1, len(others))
