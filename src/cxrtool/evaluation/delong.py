"""DeLong's variance of AUROC, and Obuchowski's of differences where patients have several studies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxrtool.evaluation.intervals import Draws, Interval
from cxrtool.evaluation.paired_test import Estimate, satterthwaite
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


_BY_CHANCE = 1 / 6
"""Variance of the difference of two independent placements without discrimination: each is uniform, 1/12."""


@dataclass(frozen=True, eq=False)
class Influence:
    """What each patient adds to an AUROC.

    Attributes:
        area: the AUROC, NaN if a class is missing.
        positive: [P], sum over the patient's positive rows of (placement - area) / positive rows.
        negative: [P], the same of the negative rows.
        positives: number of patients with a positive row.
        negatives: number of patients with a negative row.
        patients: number of patients with either.
        repeated: whether any patient has several rows.
    """

    area: float
    positive: Draws
    negative: Draws
    positives: int
    negatives: int
    patients: int
    repeated: bool


def influence(targets: ArrayLike, scores: ArrayLike, patients: NDArray[np.int64], count: int) -> Influence:
    """Compute what each patient adds to an AUROC: the sums of Obuchowski 1997, Biometrics 53:567.

    Args:
        targets: [N] of 0 and 1.
        scores: [N], any scale.
        patients: [N], patient of each row as a number from 0.
        count: number of patients P.
    """
    positive = np.asarray(targets) > 0.5
    above, below = structural_components(targets, scores)
    groups = (patients[positive], patients[~positive])
    area = float(above.mean()) if len(above) and len(below) else math.nan
    sums = [
        np.bincount(group, part - area, count) / max(1, len(part))
        for group, part in zip(groups, (above, below), strict=True)
    ]
    positives, negatives = (len(np.unique(group)) for group in groups)
    found = len(np.unique(patients))
    return Influence(area, sums[0], sums[1], positives, negatives, found, found < len(patients))


def mean_influence(runs: Sequence[Influence]) -> Influence:
    """Average what each patient adds over several runs on the same rows."""
    return replace(
        runs[0],
        area=float(np.mean([run.area for run in runs])),
        positive=np.mean([run.positive for run in runs], axis=0),
        negative=np.mean([run.negative for run in runs], axis=0),
    )


def paired_difference(first: Sequence[Influence], second: Sequence[Influence]) -> Estimate:
    """Return the difference of two means of AUROC on the same rows, with its standard error.

    The variance is Obuchowski's (1997, Biometrics 53:567): sums over a patient's rows take the place of DeLong's
    components. With one row per patient it is DeLong's (1988, Biometrics 44:837). The covariance between findings comes
    from the same sums. Degrees of freedom are Satterthwaite's (1946) of the parts of each finding, patients with a
    positive row less one and patients with a negative row less one: with 8 positives the normal distribution calls 9 %
    of null differences significant where it says 5 % (benchmarks/null_p.py).

    Where a class has one patient, or the estimated variance is 0 although the areas differ, the variance is that of two
    independent models that guess.

    Args:
        first: what each patient adds to the first model's AUROC, of each finding.
        second: the same for the second model; findings, rows and labels are the same.

    Returns:
        NaN where no finding has both classes, or if there is one patient only.
    """
    pairs = [pair for pair in zip(first, second, strict=True) if not math.isnan(pair[0].area)]
    if not pairs or max(one.patients for one, _ in pairs) < 2:
        return Estimate(math.nan, math.nan)
    value = float(np.mean([one.area - other.area for one, other in pairs]))
    parts: list[tuple[float, float]] = []
    assumed = 0.0
    scaled, crossed = np.zeros((2, len(pairs[0][0].positive))), np.zeros((2, len(pairs[0][0].positive)))
    for one, other in pairs:
        same = one.area == other.area and np.array_equal(one.negative, other.negative)
        sums = (one.positive - other.positive, one.negative - other.negative)
        for side, (part, patients) in enumerate(zip(sums, (one.positives, one.negatives), strict=True)):
            if patients < 2:
                assumed += 0.0 if same else _BY_CHANCE
                continue
            factor = patients / (patients - 1)
            scaled[side] += part * math.sqrt(factor)
            crossed[side] += part * math.sqrt(one.patients / (one.patients - 1))
            parts.append((factor * float(part @ part), patients - 1.0))
    variance = assumed + float((scaled**2).sum()) + 2 * float(crossed[0] @ crossed[1])
    if variance <= 1e-20 and value != 0:
        variance = sum(_BY_CHANCE * (1 / one.positives + 1 / one.negatives) for one, _ in pairs)
    if assumed:
        parts.append((assumed, math.inf))
    error = math.sqrt(max(0.0, variance)) / len(pairs)
    return Estimate(value, error, satterthwaite(parts))


def compare_areas(
    targets: ArrayLike, first: ArrayLike, second: ArrayLike, patients: ArrayLike | None = None
) -> Estimate:
    """Return the difference of two AUROCs on the same rows, with its standard error; see `paired_difference`.

    Args:
        targets: [N] of 0 and 1.
        first: [N], scores of one model.
        second: [N], scores of another.
        patients: [N], patient of each row; None takes each row as a patient of its own.
    """
    rows = len(np.asarray(targets))
    names = np.arange(rows) if patients is None else np.asarray(patients)
    found, group = np.unique(names, return_inverse=True)
    one, other = (influence(targets, scores, group, len(found)) for scores in (first, second))
    return paired_difference([one], [other])
