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
        standard_error: standard error of `auroc`.
        interval: normal approximation, clipped to [0, 1].
    """

    auroc: float
    standard_error: float
    interval: Interval


def delong(targets: ArrayLike, scores: ArrayLike, confidence: float = 0.95) -> DeLong:
    """Compute AUROC and DeLong's standard error, with rows taken as independent.

    DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837, by the ranks of Sun & Xu 2014, IEEE SPL 21:1389. If
    patients have several rows, this interval is too narrow; the bootstrap over patients is not.

    Args:
        targets: [N] of 0 and 1.
        scores: [N], any scale.
        confidence: level of the interval.

    Returns:
        NaN and an empty interval if a class has fewer than two rows.
    """
    v10, v01 = structural_components(targets, scores)
    if len(v10) < 2 or len(v01) < 2:
        return DeLong(float("nan"), float("nan"), Interval(None, None))
    area = float(v10.mean())
    error = float(np.sqrt(v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01)))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return DeLong(area, error, Interval(max(0.0, area - reach), min(1.0, area + reach)))


def structural_components(targets: ArrayLike, scores: ArrayLike) -> tuple[Draws, Draws]:
    """Return DeLong's placements of the positives [P] and of the negatives [N].

    A positive's placement is the share of negatives below it, a negative's is the share of positives above it; ties
    count one half. The mean of either array is the AUROC.
    """
    ranking = rank_by_score(targets, scores)
    positive = np.asarray(targets) > 0.5
    positives = int(positive.sum())
    negatives = len(positive) - positives
    sizes = np.diff(ranking.ends, prepend=-1)
    below = _placements(negatives - ranking.alarms, ranking.alarms, negatives)
    above = 1 - _placements(positives - ranking.hits, ranking.hits, positives)
    placements = np.empty(len(positive))
    placements[ranking.order] = np.where(ranking.positive, np.repeat(below, sizes), np.repeat(above, sizes))
    return placements[positive], placements[~positive]


def _placements(lower: NDArray[np.int64], called: NDArray[np.int64], others: int) -> Draws:
    """Return the share of `others` cases below each distinct score, ties as one half; [G]."""
    tied = np.diff(called, prepend=0)
    found: Draws = (lower + lower + tied) / 2 / max(1, others)
    return found
