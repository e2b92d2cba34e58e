"""One paired difference between two models: its interval, p-values and what could have been found."""

import math
from dataclasses import dataclass

from cxrtool.evaluation.intervals import Interval
from cxrtool.evaluation.paired_test import ALPHA, Estimate

MEAN = "mean"


@dataclass(frozen=True)
class Difference:
    """The first candidate's figure minus the second's.

    Attributes:
        first: name of a candidate.
        second: name of another candidate.
        finding: name of a finding, or ``mean``.
        figure: ``auroc`` or ``auprc``.
        value: the difference, None where undefined.
        interval: by the method of `p_value`.
        p_value: two-sided, None where undefined.
        p_holm: p-value corrected for all comparisons of this figure, separately for means and for findings.
        p_method: ``delong`` (one row per patient) or ``obuchowski``, both as in `paired_difference`; ``bootstrap``,
            counted; ``normal tail``, of the bootstrap's standard error; ``identical``, of the same scores. None where
            undefined.
        p_delong: p-value of DeLong's or Obuchowski's test by the normal distribution; None for AUPRC.
        p_bootstrap: p-value by counting draws of patients.
        bootstrap_interval: percentiles over draws of patients.
        p_without_seeds: p-value without the spread between trainings; None unless `covers_seeds`.
        covers_seeds: whether interval and p-value contain the spread between trainings of each recipe.
        estimate: the difference with its standard error, from which `detectable` comes.
        alpha: `p_holm` counts as beyond chance below this level: 0.05, or less if the interval's confidence is higher.
        comparisons: number of comparisons that `p_holm` corrects for.
        detectable: smallest true difference found with a probability of 80 %, corrected for `comparisons`.
        margin: margin of non-inferiority, None if none was given.
    """

    first: str
    second: str
    finding: str
    figure: str
    value: float | None
    interval: Interval
    p_value: float | None
    p_holm: float | None
    p_method: str | None
    p_delong: float | None
    p_bootstrap: float | None
    bootstrap_interval: Interval
    p_without_seeds: float | None
    covers_seeds: bool
    estimate: Estimate
    alpha: float = ALPHA
    comparisons: int = 0
    detectable: float | None = None
    margin: float | None = None

    @property
    def identical(self) -> bool:
        """Whether the scores of both are the same."""
        return self.p_method == "identical"

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        low, high = self.interval.low, self.interval.high
        return low is not None and high is not None and (low > 0 or high < 0)

    @property
    def beyond_chance(self) -> bool:
        """Whether the corrected p-value is below `alpha` and the interval excludes zero."""
        return self.p_holm is not None and self.p_holm < self.alpha and self.excludes_zero

    @property
    def first_not_inferior(self) -> bool | None:
        """Whether the interval shows the first to be worse than the second by less than the margin."""
        return None if self.margin is None or self.interval.low is None else self.interval.low > -self.margin

    @property
    def second_not_inferior(self) -> bool | None:
        """Whether the interval shows the second to be worse than the first by less than the margin."""
        return None if self.margin is None or self.interval.high is None else self.interval.high < self.margin

    @property
    def better(self) -> str:
        """Name of the candidate with the larger figure."""
        return self.first if (self.value or 0) > 0 else self.second

    @property
    def worse(self) -> str:
        """Name of the candidate with the smaller figure."""
        return self.second if (self.value or 0) > 0 else self.first

    @property
    def size(self) -> float:
        """Difference without its sign, 0 where undefined."""
        return abs(self.value or 0.0)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "first": self.first,
            "second": self.second,
            "finding": self.finding,
            "figure": self.figure,
            "difference": self.value,
            "interval": self.interval.to_dict(),
            "p_value": self.p_value,
            "p_holm": self.p_holm,
            "beyond_chance": self.beyond_chance,
            "p_method": self.p_method,
            "p_delong": self.p_delong,
            "p_bootstrap": self.p_bootstrap,
            "bootstrap_interval": self.bootstrap_interval.to_dict(),
            "covers_seeds": self.covers_seeds,
            "p_without_seeds": self.p_without_seeds,
            "standard_error": finite_or_none(self.estimate.standard_error),
            "degrees_of_freedom": finite_or_none(self.estimate.degrees_of_freedom),
            "alpha": self.alpha,
            "comparisons": self.comparisons,
            "detectable": self.detectable,
            "identical": self.identical,
            "margin": self.margin,
            "first_not_inferior": self.first_not_inferior,
            "second_not_inferior": self.second_not_inferior,
        }


def finite_or_none(value: float) -> float | None:
    """Return None for NaN and infinity."""
    return value if math.isfinite(value) else None
