"""Multi-reader analysis by the model of Obuchowski and Rockette: conclusions on readers and cases beyond those studied.

Obuchowski & Rockette 1995, Communications in Statistics - Simulation and Computation 24:285, with the degrees of
freedom of Hillis 2007, Statistics in Medicine 26:596. Two designs are covered: readers against a model that reads alone
(`against_readers`), and readers who all read by several modalities (`compare_modalities`).
"""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxrtool.evaluation.delong import structural_components
from cxrtool.evaluation.paired_test import Estimate

Array = NDArray[np.float64]
_NOTHING = 1e-20  # a variance that only rounding leaves


def jackknifed_areas(targets: ArrayLike, scores: ArrayLike, patients: ArrayLike) -> Array:
    """Return the AUROC of each rater without each patient, [P, K]; NaN where a class is then missing.

    Args:
        targets: [N] of 0 and 1.
        scores: [K, N], of each rater, on any scale; 0/1 readings are scores of two values.
        patients: [N], patient of each row.
    """
    positive = np.asarray(targets) > 0.5
    ratings = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    names, group = np.unique(np.asarray(patients), return_inverse=True)
    count = len(names)
    positives = positive.sum() - np.bincount(group, positive, count)
    negatives = (~positive).sum() - np.bincount(group, ~positive, count)
    both = np.intersect1d(group[positive], group[~positive])
    found = np.empty((count, len(ratings)))
    for rater, values in enumerate(ratings):
        above, below = structural_components(targets, values)
        # Pairs of the patient's positives with all negatives, and of all positives with the patient's negatives.
        lost = np.bincount(group[positive], above, count) * (~positive).sum()
        lost += np.bincount(group[~positive], below, count) * positive.sum()
        for patient in both:  # their own pairs were counted twice
            own = group == patient
            gap = values[own & positive][:, None] - values[own & ~positive]
            lost[patient] -= float((gap > 0).sum() + (gap == 0).sum() / 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            found[:, rater] = (above.sum() * (~positive).sum() - lost) / (positives * negatives)
    found[(positives == 0) | (negatives == 0)] = np.nan
    return found


def jackknife_covariance(values: Array) -> Array:
    """Return the covariance matrix [K, K] of K figures from their values without each patient, [P, K]."""
    deviations = values - values.mean(axis=0)
    found: Array = (len(values) - 1) / len(values) * deviations.T @ deviations
    return found


@dataclass(frozen=True)
class AgainstReaders:
    """A model's figure minus the average reader's.

    Attributes:
        estimate: the difference; its standard error and degrees of freedom generalise to readers and cases.
        mean_square: variance of the differences between readers, MS(R).
        covariance: mean covariance of the differences of two readers, Cov2, which comes from the cases.
        readers: number of readers.
    """

    estimate: Estimate
    mean_square: float
    covariance: float
    readers: int


def against_readers(differences: ArrayLike, covariance: ArrayLike) -> AgainstReaders:
    """Compare a model that reads alone with the population of readers that some readers are drawn from.

    Hillis 2007, section 5.3, for one modality: the variance of the mean is [MS(R) + r max(Cov2, 0)] / r, with
    [MS(R) + r max(Cov2, 0)]^2 / {MS(R)^2 / (r - 1)} degrees of freedom. The model is fixed, so that it is applied to
    the differences between model and reader (Chakraborty 2017, Observer Performance Methods for Diagnostic Imaging,
    chapter 22).

    Args:
        differences: [r], the model's figure minus each reader's.
        covariance: [r, r], covariance of `differences` over draws of cases, by jackknife or bootstrap.

    Returns:
        NaN as standard error with fewer than two readers: one reader says nothing of others.
    """
    values, matrix = np.asarray(differences, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    readers = len(values)
    value = float(values.mean()) if readers else math.nan
    if readers < 2:
        return AgainstReaders(Estimate(value, math.nan), math.nan, math.nan, readers)
    between = float(values.var(ddof=1))
    shared = float((matrix.sum() - np.trace(matrix)) / (readers * (readers - 1)))
    total = between + readers * max(shared, 0.0)
    freedom = total**2 / (between**2 / (readers - 1)) if between > _NOTHING else math.inf
    return AgainstReaders(Estimate(value, math.sqrt(total / readers), freedom), between, shared, readers)


@dataclass(frozen=True)
class Modalities:
    """Test of several modalities that the same readers read.

    Attributes:
        means: [t], mean over readers of each modality.
        f: the F statistic of equal means.
        degrees_of_freedom: of its numerator and denominator.
        p_value: of the F test.
        differences: of each pair of modalities, first minus second, by their positions.
        covariances: Cov1 (same reader, two modalities), Cov2 (two readers, same modality) and Cov3 (both differ).
    """

    means: tuple[float, ...]
    f: float
    degrees_of_freedom: tuple[float, float]
    p_value: float
    differences: dict[tuple[int, int], Estimate]
    covariances: tuple[float, float, float]


def compare_modalities(figures: ArrayLike, covariance: ArrayLike) -> Modalities:
    """Compare modalities that all readers used on all cases, such as reading without and with a model.

    Obuchowski & Rockette 1995; the denominator of F is MS(T*R) + r max(Cov2 - Cov3, 0), with the degrees of freedom of
    Hillis 2007, equation 15.

    Args:
        figures: [t, r], figure of each modality and reader; at least two of each.
        covariance: [t r, t r], covariance of the flattened `figures` over draws of cases.
    """
    from scipy.special import fdtrc

    values = np.asarray(figures, dtype=np.float64)
    modalities, readers = values.shape
    means = values.mean(axis=1)
    residual = values - means[:, None] - values.mean(axis=0) + values.mean()
    of_modalities = readers * float(((means - values.mean()) ** 2).sum()) / (modalities - 1)
    freedom = (modalities - 1) * (readers - 1)
    of_both = float((residual**2).sum()) / freedom
    blocks = np.asarray(covariance, dtype=np.float64).reshape(modalities, readers, modalities, readers)
    same_modality = np.eye(modalities, dtype=np.bool_)[:, None, :, None]
    same_reader = np.eye(readers, dtype=np.bool_)[None, :, None, :]

    def mean_of(kept: NDArray[np.bool_]) -> float:
        return float(blocks[np.broadcast_to(kept, blocks.shape)].mean())

    one, two, three = (
        mean_of(same_reader & ~same_modality),
        mean_of(~same_reader & same_modality),
        mean_of(~same_reader & ~same_modality),
    )
    below = of_both + readers * max(two - three, 0.0)
    lower = below**2 / (of_both**2 / freedom) if of_both > _NOTHING else math.inf
    error = math.sqrt(2 / readers * below)
    f = of_modalities / below
    return Modalities(
        means=tuple(float(mean) for mean in means),
        f=f,
        degrees_of_freedom=(modalities - 1, lower),
        p_value=float(fdtrc(modalities - 1, min(lower, 1e9), f)),
        differences={
            (first, second): Estimate(float(means[first] - means[second]), error, lower)
            for first, second in combinations(range(modalities), 2)
        },
        covariances=(one, two, three),
    )
