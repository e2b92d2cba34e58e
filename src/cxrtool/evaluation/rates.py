"""Intervals of rates: sensitivity, specificity, predictive values, hit rates, and figures made of two of them.

A rate of 100 % in a few cases is no certainty, and a bootstrap of it has width 0. These intervals are Wilson's, with the
number of cases reduced where patients have several.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.intervals import ONE_PATIENT, Interval

Flags = NDArray[np.bool_]
NO_CASE = "no case counts for this figure"


def design_effect(outcomes: Flags, patients: NDArray[np.int64]) -> float:
    """Return how many times larger the variance of a rate is than that of as many independent cases.

    It is the ratio of the variance between patients to the binomial one (Rao & Scott 1992, Biometrics 48:577). It is
    kept between 1 and the value for patients whose cases all agree, sum(n_i^2) / n (Kish 1965), which is also used where
    the rate is 0 or 1 and agreement cannot be estimated.

    Args:
        outcomes: [N], whether each case is a success.
        patients: [N], patient of each case as a number from 0.
    """
    _, group = np.unique(patients, return_inverse=True)
    sizes = np.bincount(group).astype(np.float64)
    count = len(outcomes)
    most = float((sizes**2).sum()) / max(1, count)
    rate = float(outcomes.mean()) if count else 0.0
    if most <= 1 or not 0 < rate < 1:
        return max(1.0, most)
    residuals = np.bincount(group, outcomes - rate)
    found = len(sizes) / max(1, len(sizes) - 1) * float((residuals**2).sum()) / (count * rate * (1 - rate))
    return float(np.clip(found, 1.0, most))


def wilson(rate: float, count: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval (1927, JASA 22:209) of a rate.

    Args:
        rate: successes / cases, in [0, 1].
        count: number of cases above 0; a fraction if it was divided by a design effect.
        confidence: level of the interval.
    """
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    middle = (rate + z2 / (2 * count)) / (1 + z2 / count)
    reach = np.sqrt(z2 * (rate * (1 - rate) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    # Rounding must not exclude the rate itself.
    low, high = min(float(middle - reach), rate), max(float(middle + reach), rate)
    return (0.0 if rate == 0 else max(0.0, low)), (1.0 if rate == 1 else min(1.0, high))


def rate_interval(outcomes: Flags, patients: NDArray[np.int64], confidence: float = 0.95) -> Interval:
    """Return the interval of a rate: Wilson's, with the number of cases divided by `design_effect`.

    Args:
        outcomes: [N], whether each case is a success.
        patients: [N], patient of each case as a number from 0.
        confidence: level of the interval.
    """
    if not len(outcomes):
        return Interval(None, None, reason=NO_CASE)
    effective = len(outcomes) / design_effect(outcomes, patients)
    low, high = wilson(float(outcomes.mean()), effective, confidence)
    return Interval(low, high, method="wilson")


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
    low, high = middle - np.hypot(*lows) / 2, middle + np.hypot(*highs) / 2
    return Interval(float(max(0.0, low)), float(min(1.0, high)), method="two wilson intervals, squares added")
