"""Intervals of AUROC and average precision, by the method that holds for their number of cases.

The percentile interval over draws of patients contains the true AUROC in 70 to 87 % of samples with eight positives,
and in 86 % with forty positives and an AUROC of 0.99, where it states 95 % (benchmarks/coverage.py). `auroc_interval`
and `auprc_interval` use it only where it holds, and name the method that they used.
"""

from collections.abc import Callable
from math import exp, log, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxrtool.evaluation.delong import delong, influence
from cxrtool.evaluation.intervals import ONE_PATIENT, Draws, Interval, percentile_interval
from cxrtool.evaluation.metrics import FEW_CASES, auroc, average_precision

_FEW_ERRORS = 10
"""Cases of the smaller class times the distance to 1 (or 0) below which a percentile interval is not used."""
_FEWEST_ERRORS = 3
"""The same below which the standard deviation of draws of an average precision is too small."""
ONE_CASE = "one positive or negative case only"


def newcombe(area: float, positives: float, negatives: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of an AUROC: method 5 of Newcombe 2006, Statistics in Medicine 25:559.

    Its ends are the areas t with |t - area| = z sqrt(v(t)), where v is Hanley & McNeil's variance (1982, Radiology
    143:29) with half of all cases in each class within its bracket.

    Args:
        area: in [0, 1].
        positives: number of positives above 0; a fraction if it was divided by a design effect.
        negatives: likewise.
        confidence: level of the interval.
    """
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    half = max(0.0, (positives + negatives) / 2 - 1)

    def outside(true: float) -> bool:
        spread = 1 + half * ((1 - true) / (2 - true) + true / (1 + true))
        return (true - area) ** 2 > z2 * true * (1 - true) * spread / (positives * negatives)

    low = 0.0 if area <= 0 else _boundary(outside, 0.0, area)
    high = 1.0 if area >= 1 else _boundary(outside, 1.0, area)
    return low, high


def _boundary(outside: Callable[[float], bool], far: float, near: float) -> float:
    """Return by bisection where `outside` changes between `far`, where it holds, and `near`, where it does not."""
    for _ in range(60):
        middle = (far + near) / 2
        far, near = (middle, near) if outside(middle) else (far, middle)
    return (far + near) / 2


def logit_interval(value: float, error: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return an interval of a figure in (0, 1) that is symmetric in log-odds, from its standard error there."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = log(value / (1 - value))
    low, high = (1 / (1 + exp(-(middle + sign * z * error))) for sign in (-1, 1))
    return low, high


def area_design_effect(targets: ArrayLike, scores: ArrayLike, patients: NDArray[np.int64]) -> float:
    """Return how many times larger an AUROC's variance over patients is than over as many independent cases.

    It is the ratio of Obuchowski's variance (1997, Biometrics 53:567) to DeLong's, at least 1 and at most the mean
    number of cases per patient, which is also used where DeLong's is 0.

    Args:
        targets: [N] of 0 and 1.
        scores: [N], any scale.
        patients: [N], patient of each case as a number from 0.
    """
    names, group = np.unique(patients, return_inverse=True)
    most = len(group) / len(names)
    if most == 1:
        return 1.0
    independent = delong(targets, scores).standard_error ** 2
    if not independent > 0:
        return most
    found = influence(targets, scores, group, len(names))
    sums = found.positive + found.negative
    return float(np.clip(len(names) / (len(names) - 1) * float(sums @ sums) / independent, 1.0, most))


def auroc_interval(
    targets: ArrayLike, scores: ArrayLike, patients: NDArray[np.int64], draws: Draws | None, confidence: float = 0.95
) -> Interval:
    """Return the interval of an AUROC.

    It is the percentile interval of `draws` if there are draws, at least `FEW_CASES` of each class, and the smaller
    class times the distance of the AUROC from 1 and from 0 is at least 10; otherwise `newcombe`, with both numbers of
    cases divided by `area_design_effect`.

    Args:
        targets: [N] of 0 and 1.
        scores: [N], any scale.
        patients: [N], patient of each case as a number from 0.
        draws: [B], the AUROC in draws of patients; None if there are none.
        confidence: level of the interval.
    """
    positive = np.asarray(targets) > 0.5
    positives, negatives = int(positive.sum()), int((~positive).sum())
    undefined = 0 if draws is None else int(np.isnan(draws).sum())
    reason = _no_interval(positives, negatives, patients)
    if reason:
        return Interval(None, None, undefined, reason)
    area = auroc(targets, scores)
    if draws is not None and percentile_holds(min(positives, negatives), min(positives, negatives), area):
        return percentile_interval(draws, confidence)
    effect = area_design_effect(targets, scores, patients)
    low, high = newcombe(area, positives / effect, negatives / effect, confidence)
    return Interval(low, high, undefined, method="newcombe 5")


def auprc_interval(
    targets: ArrayLike, scores: ArrayLike, patients: NDArray[np.int64], draws: Draws | None, confidence: float = 0.95
) -> Interval:
    """Return the interval of an average precision.

    It is the percentile interval of `draws` by the same rule as `auroc_interval`, where positives are multiplied by the
    distance from 1 and from 0. Otherwise it is symmetric in log-odds: with the draws' standard deviation if there are
    `FEW_CASES` of each class and positives times the distance from 1 is at least 3, else with 1 / sqrt(P t (1 - t)) of
    P patients with a positive (Boyd, Eng & Page 2013, ECML PKDD, section 4.1).
    """
    positive = np.asarray(targets) > 0.5
    positives, negatives = int(positive.sum()), int((~positive).sum())
    undefined = 0 if draws is None else int(np.isnan(draws).sum())
    reason = _no_interval(positives, negatives, patients)
    if reason:
        return Interval(None, None, undefined, reason)
    value = average_precision(targets, scores)
    fewest = min(positives, negatives)
    if draws is not None and percentile_holds(fewest, positives, value):
        return percentile_interval(draws, confidence)
    # An average precision of 1 has no log-odds; half a case is taken as wrong.
    inner = min(value, 1 - 0.5 / (positives + 1))
    holds = fewest >= FEW_CASES and positives * (1 - value) >= _FEWEST_ERRORS
    deviation = float(np.nanstd(draws)) if draws is not None and holds else 0.0
    method = "logit of the draws"
    error = deviation / (inner * (1 - inner))
    if error == 0:
        different = len(np.unique(patients[positive]))
        error, method = 1 / sqrt(different * inner * (1 - inner)), "logit"
    low, high = logit_interval(inner, error, confidence)
    return Interval(min(low, value), 1.0 if value == 1 else max(high, value), undefined, method=method)


def percentile_holds(fewest: float, cases: float, value: float) -> bool:
    """Return whether percentiles of draws hold for an area of `value` with so many cases, `fewest` of a class."""
    return fewest >= FEW_CASES and cases * min(value, 1 - value) >= _FEW_ERRORS


def _no_interval(positives: int, negatives: int, patients: NDArray[np.int64]) -> str | None:
    if min(positives, negatives) == 0:
        return "one class only"
    if min(positives, negatives) == 1:
        return ONE_CASE
    return ONE_PATIENT if len(np.unique(patients)) == 1 else None
