"""Intervals of rates: sensitivity, specificity, predictive values, hit rates, and figures made of two of them.

A rate of 100 % in a few cases is no certainty, and a bootstrap of it has width 0. These intervals are Wilson's, with
the number of cases reduced where patients have several.
"""

from math import hypot

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.intervals import ONE_PATIENT, Interval
from cxrtool.evaluation.proportions import effective_rows, wilson

Flags = NDArray[np.bool_]
NO_CASE = "no case counts for this figure"


def rate_interval(outcomes: Flags, patients: NDArray[np.int64], confidence: float = 0.95) -> Interval:
    """Return the interval of a rate: Wilson's, of as many cases as `effective_rows`.

    Args:
        outcomes: [N], whether each case is a success.
        patients: [N], patient of each case as a number from 0.
        confidence: level of the interval.
    """
    if not len(outcomes):
        return Interval(None, None, reason=NO_CASE)
    low, high = wilson(outcomes.mean(), effective_rows(outcomes, patients), confidence)
    return Interval(float(low), float(high), method="wilson")


def threshold_intervals(
    positive: Flags, called: Flags, patients: NDArray[np.int64], confidence: float = 0.95
) -> dict[str, Interval]:
    """Return intervals of the figures at a threshold, by name.

    Recall, specificity, precision and NPV are rates. F1 is 2 J / (1 + J) of the rate J = TP / (TP + FP + FN) (Hand,
    Christen & Kirielle 2021, Machine Learning 110:451), so its interval is that of J transformed. Balanced accuracy is
    the mean of two independent rates, whose intervals are combined by squaring and adding (Newcombe 1998, Statistics in
    Medicine 17:873).

    Args:
        positive: [N], whether each case has the finding.
        called: [N], whether each case is at or above the threshold.
        patients: [N], patient of each case as a number from 0.
        confidence: level of the intervals.
    """
    if len(np.unique(patients)) == 1:
        names = ("recall", "specificity", "precision", "npv", "f1", "balanced_accuracy")
        return dict.fromkeys(names, Interval(None, None, reason=ONE_PATIENT))

    def over(kept: Flags, outcomes: Flags) -> Interval:
        return rate_interval(outcomes[kept], patients[kept], confidence)

    found = {
        "recall": over(positive, called),
        "specificity": over(~positive, ~called),
        "precision": over(called, positive),
        "npv": over(~called, ~positive),
    }
    overlap = over(positive | called, positive & called)
    f1 = overlap
    if overlap.low is not None and overlap.high is not None:
        low, high = (2 * end / (1 + end) for end in (overlap.low, overlap.high))
        f1 = Interval(low, high, method="wilson of TP / (TP + FP + FN)")
    halves = (_mean_rate(called[positive]), _mean_rate(~called[~positive]))
    return found | {"f1": f1, "balanced_accuracy": _mean_of(halves, (found["recall"], found["specificity"]))}


def _mean_rate(outcomes: Flags) -> float:
    return float(outcomes.mean()) if len(outcomes) else np.nan


def _mean_of(rates: tuple[float, float], intervals: tuple[Interval, Interval]) -> Interval:
    """Return the interval of the mean of two independent rates."""
    lows = [rate - one.low for rate, one in zip(rates, intervals, strict=True) if one.low is not None]
    highs = [one.high - rate for rate, one in zip(rates, intervals, strict=True) if one.high is not None]
    if len(lows) < 2 or len(highs) < 2:
        return Interval(None, None, reason=NO_CASE)
    middle = sum(rates) / 2
    low, high = middle - hypot(*lows) / 2, middle + hypot(*highs) / 2
    return Interval(max(0.0, low), min(1.0, high), method="two wilson intervals, squares added")


def quotient_interval(rates: tuple[float, float], intervals: tuple[Interval, Interval]) -> tuple[float, float] | None:
    """Return the interval of the quotient of two independent rates, from theirs; None if one has no interval.

    Donner & Zou 2012, Statistical Methods in Medical Research 21:347, equation 9 (MOVER-R). The upper end is infinite
    if the lower end of the denominator is 0.
    """
    (top, bottom), (over, under) = rates, intervals
    if over.low is None or over.high is None or under.low is None or under.high is None:
        return None
    product = top * bottom

    def root(own: float, other: float) -> float:
        return float(np.sqrt(max(0.0, product**2 - own * other * (2 * top - own) * (2 * bottom - other))))

    low = (product - root(over.low, under.high)) / (under.high * (2 * bottom - under.high))
    below = under.low * (2 * bottom - under.low)
    return max(0.0, low), (product + root(over.high, under.low)) / below if below > 0 else np.inf
