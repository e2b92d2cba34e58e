"""Interval of the difference of two sensitivities on the same positives, where draws hold too few errors."""

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.proportions import effective_rows, wilson

Array = NDArray[np.float64]


def newcombe_paired(
    first: Array, second: Array, patients: NDArray[np.int64], confidence: float = 0.95, variance: float = 0.0
) -> tuple[float, float]:
    """Return the interval of the difference of two rates on the same cases.

    Method 10 of Newcombe 1998, Statistics in Medicine 17:2635: both Wilson intervals, squares added, less what the
    rates share by their correlation, which is corrected for continuity.

    Args:
        first: [N], 1 where the first rater is right, or the probability of it.
        second: [N], likewise for the second rater.
        patients: [N], patient of each case as a number from 0; the number of cases is reduced as in `effective_rows`.
        confidence: level of the interval.
        variance: of the difference from another source, multiplied by the squared normal quantile and added to both
            sides; a threshold that depends on other cases is one.
    """
    rates = float(first.mean()), float(second.mean())
    lows, highs = zip(*(_wilson(one, patients, confidence) for one in (first, second)), strict=True)
    below = rates[0] - lows[0], rates[1] - lows[1]
    above = highs[0] - rates[0], highs[1] - rates[1]
    shared = _correlation(first, second)
    value = rates[0] - rates[1]
    down = below[0] ** 2 - 2 * shared * below[0] * above[1] + above[1] ** 2
    up = above[0] ** 2 - 2 * shared * above[0] * below[1] + below[1] ** 2
    low, high = value - sqrt(max(0.0, down) + variance), value + sqrt(max(0.0, up) + variance)
    return max(-1.0, low), min(1.0, high)


def _wilson(outcomes: Array, patients: NDArray[np.int64], confidence: float) -> tuple[float, float]:
    low, high = wilson(outcomes.mean(), effective_rows(outcomes, patients), confidence)
    return float(low), float(high)


def _correlation(first: Array, second: Array) -> float:
    """Return the correlation of two raters as in Newcombe's method 10: [max(ad - bc - n/2, 0)] / root if ad > bc."""
    count = len(first)
    both, one, other = float(first @ second), float(first.sum()), float(second.sum())
    root = sqrt(max(0.0, one * (count - one) * other * (count - other)))
    crossed = count * both - one * other  # ad - bc, of the table of both raters
    if root == 0:
        return 0.0
    return (max(crossed - count / 2, 0.0) if crossed > 0 else crossed) / root
