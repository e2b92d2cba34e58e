"""What a test set can show: the smallest detectable difference of AUROC, and the cases that an interval needs.

Scores are taken as binormal with equal variances (after any increasing transformation of the scores, which AUROC does
not see). The variance of an AUROC and the covariance of two are then exact: those of the Mann-Whitney statistic (Bamber
1975, Journal of Mathematical Psychology 12:387), with probabilities of pairs from the bivariate normal distribution
(Plackett 1954, Biometrika 41:351). Hanley & McNeil's exponential approximation (1982) gives 1.2 to 2.3 times these
variances, and so asks for as many times more studies (benchmarks/power.py).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cxrtool.errors import RequestError
from cxrtool.evaluation.area_intervals import newcombe, percentile_holds
from cxrtool.evaluation.paired_test import ALPHA, POWER
from cxrtool.evaluation.proportions import wilson

_NORMAL = NormalDist()
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)
_NORMAL_NODES, _NORMAL_WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
MOST_CASES = 10**9
"""Number of studies above which none is named."""


def area_covariance(first: float, second: float, correlation: float, positives: float, negatives: float) -> float:
    """Return the covariance of the empirical AUROCs of two models on the same cases.

    Args:
        first: true AUROC of one model, in (0, 1).
        second: that of the other; with the same AUROC and a correlation of 1, the result is the variance of one AUROC.
        correlation: of the two models' scores within a class, in [0, 1].
        positives: number of independent positives; a fraction if it was divided by a design effect.
        negatives: likewise.
    """
    h, k = _NORMAL.inv_cdf(first), _NORMAL.inv_cdf(second)
    # Two pairs that share one case of two are half as correlated as two that share both.
    one = _excess(h, k, correlation / 2)
    return (_excess(h, k, correlation) + (positives + negatives - 2) * one) / (positives * negatives)


def _excess(h: float, k: float, correlation: float) -> float:
    """Return P(X < h, Y < k) - P(X < h) P(Y < k) of standard normal X and Y with this correlation (Plackett 1954)."""
    end = math.asin(correlation)
    angle = end / 2 * (_NODES + 1)
    exponent = (h * h + k * k - 2 * h * k * np.sin(angle)) / (2 * np.cos(angle) ** 2)
    return float(end / 2 * (_WEIGHTS @ np.exp(-exponent)) / (2 * math.pi))


def _cdf(values: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import ndtr

    found: NDArray[np.float64] = ndtr(values)
    return found


@dataclass(frozen=True)
class Assumptions:
    """What is assumed of a finding, or measured on a pilot.

    Attributes:
        auroc: of the model, or of the worse of two, in (0.5, 1).
        prevalence: share of positives, in (0, 1).
        correlation: of two models' scores within a class, in [0, 1).
        design_effect: factor of all variances because patients have several studies.
        area_effect: factor of the variance of an AUROC against that of independent binormal cases: the design effect,
            and on a pilot also what the shape of its scores adds or takes.
        difference_effect: the same of the variance of a difference.

    Raises:
        RequestError: a value is outside its range.
    """

    auroc: float
    prevalence: float
    correlation: float
    design_effect: float = 1.0
    area_effect: float = 1.0
    difference_effect: float = 1.0

    def __post_init__(self) -> None:
        if not 0.5 < self.auroc < 1:
            raise RequestError(f"an AUROC of {self.auroc:g} is not between 0.5 and 1", "Assume one such as 0.85.")
        if not 0 < self.prevalence < 1:
            raise RequestError(f"prevalence {self.prevalence:g} is not between 0 and 1", "Give a share, such as 0.1.")
        if not 0 <= self.correlation < 1:
            raise RequestError(
                f"a correlation of {self.correlation:g} is not in [0, 1)",
                "Give that of the two models' scores among positives (or negatives), such as 0.6.",
            )
        if not min(self.design_effect, self.area_effect, self.difference_effect) > 0:
            raise RequestError("a design effect must be above 0", "Give 1 if each patient has one study.")

    def cases(self, studies: float) -> tuple[float, float]:
        """Return the numbers of positives and negatives among so many studies, not rounded."""
        return studies * self.prevalence, studies * (1 - self.prevalence)

    def difference_error(self, difference: float, studies: float) -> float:
        """Return the standard error of the difference of two AUROCs, `auroc` and `auroc` + `difference`."""
        better = self.auroc + difference
        cases = self.cases(studies)
        own = area_covariance(self.auroc, self.auroc, 1.0, *cases) + area_covariance(better, better, 1.0, *cases)
        shared = area_covariance(self.auroc, better, self.correlation, *cases)
        return math.sqrt(self.difference_effect * max(0.0, own - 2 * shared))

    def gain_moments(self, difference: float, studies: float) -> tuple[float, float]:
        """Return the skewness of the difference, and the variance of its estimated standard error over its variance.

        They are those of the means of DeLong's components, a case's placement in one model less that in the other. The
        covariance of a mean with its estimated variance is the third moment over the squared number of cases.
        """
        h, k = _NORMAL.inv_cdf(self.auroc) * math.sqrt(2), _NORMAL.inv_cdf(self.auroc + difference) * math.sqrt(2)
        first, other = np.meshgrid(_NORMAL_NODES, _NORMAL_NODES)
        second = self.correlation * first + math.sqrt(1 - self.correlation**2) * other
        weights = np.outer(_NORMAL_WEIGHTS, _NORMAL_WEIGHTS) / (2 * math.pi)
        gains = _cdf(second + k) - _cdf(first + h)
        centred = gains - (weights * gains).sum()
        two, three, four = (float((weights * centred**power).sum()) for power in (2, 3, 4))
        cases = np.array(self.cases(studies)) / self.difference_effect
        variance = float((two / cases).sum())
        skewness = float((three / cases**2).sum()) / variance**1.5
        return skewness, float(((four - two**2) / cases**3).sum()) / (4 * variance**2)


@dataclass(frozen=True)
class TwoSidedTest:
    """A two-sided test.

    Attributes:
        alpha: level of a comparison: of all, divided by their number (Bonferroni, the first step of Holm's).
        power: probability with which a true difference is found.

    Raises:
        RequestError: a value is not between 0 and 1.
    """

    alpha: float = ALPHA
    power: float = POWER

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and 0 < self.power < 1):
            raise RequestError(
                f"level {self.alpha:g} or power {self.power:g} is not between 0 and 1", "Give such as 0.05 and 0.8."
            )

    def reach(self, assumed: Assumptions, difference: float, studies: float) -> float:
        """Return the difference that is found with this power if errors are those at `difference`.

        The test finds D > z x its estimated error. Errors are estimated larger where D is larger, because gains are
        skewed, so that D - z x error varies less than D does.
        """
        z = _NORMAL.inv_cdf(1 - self.alpha / 2)
        error = assumed.difference_error(difference, studies)
        skewness, spread = assumed.gain_moments(difference, studies)
        narrowing = math.sqrt(max(0.1, 1 - z * skewness + z**2 * spread))
        return (z + _NORMAL.inv_cdf(self.power) * narrowing) * error


def detectable_difference(assumed: Assumptions, studies: float, test: TwoSidedTest) -> float | None:
    """Return the smallest true gain in AUROC that is found with the given power; None if even an AUROC of 1 is not.

    In large samples it is (z(1 - alpha / 2) + z(power)) x standard error (Obuchowski & McClish 1997, Statistics in
    Medicine 16:1529). The error is that with the difference, because DeLong's and Obuchowski's tests estimate it from
    the data; see `TwoSidedTest.reach` for small samples.
    """
    most = 1 - assumed.auroc
    if min(assumed.cases(studies)) < 1:
        return None

    def found(difference: float) -> bool:
        return test.reach(assumed, difference, studies) <= difference

    if not found(most * (1 - 1e-6)):
        return None
    low, high = 0.0, most * (1 - 1e-6)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def studies_to_detect(assumed: Assumptions, difference: float, test: TwoSidedTest) -> int | None:
    """Return the number of studies with which a true gain in AUROC is found with the given power.

    Raises:
        RequestError: the difference is not above 0, or the better AUROC would not be below 1.
    """
    if not (difference > 0 and assumed.auroc + difference < 1 - 1e-9):
        raise RequestError(
            f"a difference of {difference:g} from an AUROC of {assumed.auroc:g} does not stay below 1",
            f"Give one between 0 and {1 - assumed.auroc:g}.",
        )
    fewest = math.ceil(1 / min(assumed.prevalence, 1 - assumed.prevalence))
    return smallest(lambda studies: test.reach(assumed, difference, studies) <= difference, fewest)


def auroc_width(assumed: Assumptions, studies: float, confidence: float) -> float:
    """Return the expected width of the interval that `auroc_interval` gives for the assumed AUROC.

    With enough cases for percentiles, it is that of the normal distribution; else that of `newcombe`.
    """
    positives, negatives = assumed.cases(studies)
    fewest = min(positives, negatives)
    if percentile_holds(fewest, fewest, assumed.auroc):
        variance = assumed.area_effect * area_covariance(assumed.auroc, assumed.auroc, 1.0, positives, negatives)
        return 2 * _NORMAL.inv_cdf((1 + confidence) / 2) * math.sqrt(variance)
    effect = assumed.design_effect
    low, high = newcombe(assumed.auroc, positives / effect, negatives / effect, confidence)
    return high - low


def studies_for_width(assumed: Assumptions, width: float, confidence: float) -> int | None:
    """Return the number of studies with which the interval of the AUROC is no wider than `width`."""
    fewest = math.ceil(2 / min(assumed.prevalence, 1 - assumed.prevalence))
    return smallest(lambda studies: auroc_width(assumed, studies, confidence) <= width, fewest)


def cases_for_rate(rate: float, width: float, confidence: float, design_effect: float = 1.0) -> int | None:
    """Return the number of cases with which Wilson's interval of a rate is no wider than `width`.

    The cases are positives for a sensitivity, and negatives for a specificity.
    """

    def narrow(cases: float) -> bool:
        low, high = wilson(rate, cases / design_effect, confidence)
        return float(high - low) <= width

    return smallest(narrow, 1)


def smallest(holds: Callable[[float], bool], fewest: int) -> int | None:
    """Return the smallest whole number from `fewest` for which `holds`, which holds for all larger ones too."""
    high = fewest
    while not holds(high):
        high *= 2
        if high > MOST_CASES:
            return None
    low = max(fewest - 1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
