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


_NOTHING = 1e-20
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
    positive row less one and patients with a negative row less one: with 8 positives the normal distribution calls 7
    to 11 % of null differences significant where it says 5 % (benchmarks/null_p.py).

    Student's t hardly ever calls an AUROC of 0.94 different from one of 0.5 with 8 positives and 30 comparisons,
    because it allows for any variance. The guarded error bounds it from below by what two models of the same AUROC
    would have (`_null_variance`), and so needs the normal distribution only.

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
    found = [_Contribution.of(one, other) for one, other in pairs]
    variance = _variance_of_sum(found, [1.0] * len(found))
    if variance <= _NOTHING and value != 0:
        variance = sum(_guessing(one) for one, _ in pairs)
        return Estimate(value, math.sqrt(variance) / len(pairs))
    alone = [_variance_of_sum([one], [1.0]) for one in found]
    inflation = [
        max(1.0, _null_variance(*pair) / own) if own > _NOTHING else 1.0 for pair, own in zip(pairs, alone, strict=True)
    ]
    error, guarded = (
        math.sqrt(one) / len(pairs) for one in (variance, max(variance, _variance_of_sum(found, inflation)))
    )
    freedom = satterthwaite([part for one in found for part in one.parts])
    return Estimate(value, error, freedom, guarded)


@dataclass(frozen=True, eq=False)
class _Contribution:
    """A finding's share in the variance of a difference: by patient, and what is assumed where a class has one."""

    scaled: Draws  # [2, P], of both classes, with each class's factor
    crossed: Draws  # [2, P], with the factor of all patients
    parts: tuple[tuple[float, float], ...]
    assumed: float

    @classmethod
    def of(cls, one: Influence, other: Influence) -> "_Contribution":
        sums = np.stack([one.positive - other.positive, one.negative - other.negative])
        counts = np.array([one.positives, one.negatives])
        same = one.area == other.area and not sums.any()
        single = counts < 2
        factors = np.where(single, 0.0, counts / np.maximum(1, counts - 1))
        variances = factors * (sums**2).sum(axis=1)
        all_factor = one.patients / max(1, one.patients - 1)
        return cls(
            scaled=sums * np.sqrt(factors)[:, None],
            crossed=sums * math.sqrt(all_factor),
            parts=tuple((float(variances[side]), float(counts[side] - 1)) for side in (0, 1) if not single[side]),
            assumed=0.0 if same else _BY_CHANCE * float(single.sum()),
        )


def _variance_of_sum(findings: Sequence[_Contribution], inflation: Sequence[float]) -> float:
    """Return the variance of the summed differences of several findings, each with its variance inflated."""
    factors = np.sqrt(inflation)
    scaled = sum(factor * one.scaled for factor, one in zip(factors, findings, strict=True))
    crossed = sum(factor * one.crossed for factor, one in zip(factors, findings, strict=True))
    assumed = sum(factor**2 * one.assumed for factor, one in zip(factors, findings, strict=True))
    return max(0.0, float(assumed + (scaled**2).sum() + 2 * (crossed[0] @ crossed[1])))


def _guessing(one: Influence) -> float:
    return _BY_CHANCE * (1 / one.positives + 1 / one.negatives)


def _null_variance(one: Influence, other: Influence) -> float:
    """Return the variance of the difference of two models that both have the mean of their AUROCs.

    Hanley & McNeil 1982, Radiology 143:29, equation 1, for each; they are correlated as their placements within classes
    are. Patients with a positive or negative row take the place of rows.
    """
    area = (one.area + other.area) / 2
    both, neither = area / (2 - area), 2 * area**2 / (1 + area)
    positives, negatives = one.positives, one.negatives
    single = (area * (1 - area) + (positives - 1) * (both - area**2) + (negatives - 1) * (neither - area**2)) / (
        positives * negatives
    )
    ours, theirs = (np.concatenate([each.positive * positives, each.negative * negatives]) for each in (one, other))
    size = float((ours @ ours) * (theirs @ theirs))
    correlation = float(ours @ theirs) / math.sqrt(size) if size > 0 else 0.0
    return 2 * single * (1 - max(0.0, correlation))


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
