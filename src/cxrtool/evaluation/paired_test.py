"""P-values and intervals of a paired difference, and what it takes to find one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from cxrtool.evaluation.intervals import Draws, Interval

ALPHA = 0.05
"""Level below which a corrected p-value counts as beyond chance."""
POWER = 0.8
"""Probability with which a detectable difference is found."""
UNDEFINED_DIFFERENCE = "a class is missing, or all rows are of one patient"
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Estimate:
    """A difference with its standard error.

    Attributes:
        value: the difference, NaN if undefined.
        standard_error: its standard error, NaN if undefined.
        degrees_of_freedom: of Student's t for value / standard error; infinite for the normal distribution.
        guarded_error: a standard error that is not too small by chance, to which the normal distribution applies;
            infinite if there is none. Tests and intervals use the error that gives the narrower interval.
    """

    value: float
    standard_error: float
    degrees_of_freedom: float = math.inf
    guarded_error: float = math.inf

    @property
    def p_value(self) -> float:
        """Two-sided p-value; 1 where the difference is 0, NaN if undefined."""
        by_t = _two_sided(self.value, self.standard_error, self.degrees_of_freedom)
        return min(by_t, _two_sided(self.value, self.guarded_error, math.inf))

    @property
    def normal_p_value(self) -> float:
        """Two-sided p-value by the normal distribution, as the papers of DeLong and Obuchowski have it."""
        return _two_sided(self.value, self.standard_error, math.inf)

    def interval(self, confidence: float, method: str) -> Interval:
        """Return value ± quantile x standard error, clipped to [-1, 1]."""
        if math.isnan(self.standard_error):
            return Interval(None, None, reason=UNDEFINED_DIFFERENCE)
        reach = self._reach((1 + confidence) / 2)
        return Interval(max(-1.0, self.value - reach), min(1.0, self.value + reach), method=method)

    def detectable(self, comparisons: int, alpha: float = ALPHA) -> float:
        """Return the smallest true difference found with a probability of 80 %, in [0, 1]; NaN if undefined.

        It is (t(1 - alpha / 2 / comparisons) + t(0.8)) x standard error (Chow, Shao & Wang 2008, Sample Size
        Calculations in Clinical Research, chapter 3, solved for the difference), at the level of Holm's first step.
        """
        if math.isnan(self.standard_error):
            return math.nan
        return min(1.0, self._reach(1 - alpha / 2 / max(1, comparisons), POWER))

    def _reach(self, *probabilities: float) -> float:
        """Return the sum of quantiles x standard error, by the error that makes it smaller."""
        by_t = sum(quantile(one, self.degrees_of_freedom) for one in probabilities) * self.standard_error
        if math.isinf(self.guarded_error):
            return by_t
        return min(by_t, sum(quantile(one, math.inf) for one in probabilities) * self.guarded_error)

    def with_seeds(self, *runs: Draws) -> "Estimate":
        """Add the spread between trainings to the standard error.

        A candidate's figure is the mean over its k runs, whose variance between runs adds s^2 / k. Degrees of freedom
        are those of the sum (Welch 1947, Biometrika 34:28; Satterthwaite 1946, Biometrics Bulletin 2:110).

        Args:
            runs: figures of the runs of each candidate, [k] with k >= 2.
        """
        parts = [(self.standard_error**2, self.degrees_of_freedom)]
        parts += [(float(one.var(ddof=1)) / len(one), len(one) - 1.0) for one in runs]
        variance = sum(part for part, _ in parts)
        return Estimate(self.value, math.sqrt(variance), satterthwaite(parts))


def satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Return the degrees of freedom of a sum of independent variances, each with its own; infinite if all are 0."""
    spread = sum(variance**2 / freedom for variance, freedom in parts if math.isfinite(freedom))
    return sum(variance for variance, _ in parts) ** 2 / spread if spread > 0 else math.inf


def quantile(probability: float, degrees_of_freedom: float) -> float:
    """Return a quantile of Student's t, of the normal distribution for infinite degrees of freedom."""
    if math.isinf(degrees_of_freedom):
        return _NORMAL.inv_cdf(probability)
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, probability))


def _two_sided(value: float, error: float, degrees_of_freedom: float) -> float:
    if math.isnan(value) or math.isnan(error):
        return math.nan
    if value == 0:
        return 1.0
    if error == 0:
        return 0.0
    z = abs(value) / error
    if math.isinf(degrees_of_freedom):
        return math.erfc(z / math.sqrt(2))
    from scipy.special import stdtr

    return 2 * float(stdtr(degrees_of_freedom, -z))


def bootstrap_estimate(value: float, draws: Draws) -> Estimate:
    """Return a difference with the standard deviation of its draws [B], which are NaN if undefined."""
    defined = draws[~np.isnan(draws)]
    return Estimate(value, float(defined.std(ddof=1)) if len(defined) > 1 else math.nan)


def counted_p_value(draws: Draws) -> float:
    """Return the two-sided p-value of bootstrap draws [B] of a difference; NaN if no draw is defined.

    It is twice the smaller share of draws at or beyond zero, with one added to both counts (Davison & Hinkley 1997,
    4.2), and at most 1.
    """
    defined = draws[~np.isnan(draws)]
    if len(defined) == 0:
        return math.nan
    return min(1.0, 2 * (_tail(defined) + 1) / (len(defined) + 1))


def at_floor(draws: Draws) -> bool:
    """Return whether all defined draws lie on one side of zero, so that counting gives its smallest p-value."""
    defined = draws[~np.isnan(draws)]
    return len(defined) > 0 and _tail(defined) == 0


def smallest_counted_p_value(draws: int) -> float:
    """Return the p-value below which counting this number of draws cannot fall."""
    return 2 / (draws + 1)


def _tail(defined: Draws) -> int:
    return min(int((defined <= 0).sum()), int((defined >= 0).sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values by Holm's step-down method (1979, Scandinavian Journal of Statistics 6:65); order is kept."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    largest = 0.0
    for step, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[index]))
        corrected[index] = largest
    return [float(value) for value in corrected]
