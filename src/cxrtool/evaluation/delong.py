"""DeLong's variance of AUROC."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxrtool.evaluation.intervals import Draws, Interval
from cxrtool.evaluation.ranking import rank_by_score


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
    ranking = rank_by_score(targets, scores)
    positive = np.asarray(targets) > 0.5
    positives = int(positive.sum())
    negatives = len(positive) - positives
    sizes = np.diff(ranking.ends, prepend=-1)
    below = _placed(negatives - ranking.alarms, ranking.alarms, negatives)
    above = 1 - _placed(positives - ranking.hits, ranking.hits, positives)
    placements = np.empty(len(positive))
    placements[ranking.order] = np.where(ranking.positive, np.repeat(below, sizes), np.repeat(above, sizes))
    return placements[positive], placements[~positive]


def _placed(lower: NDArray[np.int64], called: NDArray[np.int64], others: int) -> Draws:
    """Of each distinct score the share of `others` cases below it, ties as one half; [G]."""
    tied = np.diff(called, prepend=0)
    placed: Draws = (lower + lower + tied) / 2 / max(1, others)
    return placed
