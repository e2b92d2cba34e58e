"""Calibration of probabilities: figures that measure it, and a monotone map that improves it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, Field

from cxrtool.choices import CalibrationMethod
from cxrtool.errors import RequestError
from cxrtool.evaluation.metrics import ratio
from cxrtool.evaluation.table import UNKNOWN_SPLIT, PredictionTable

Array = NDArray[np.float64]
BINS = 10
_MAX_LOGIT = 30.0


@dataclass(frozen=True)
class Scaling:
    """Monotone map of one finding's probabilities: ``sigmoid(slope * logit(p) + intercept)``.

    Bundles and export records store it; pydantic validates it when a file is read.

    Attributes:
        slope: above 0; 1 / T for temperature scaling.
        intercept: 0 for temperature scaling.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    slope: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    intercept: Annotated[float, Field(allow_inf_nan=False)]

    def apply(self, probabilities: ArrayLike) -> Array:
        """Return calibrated probabilities, float64, any shape. Order is kept, except where float64 rounds to 1."""
        if self == UNSCALED:
            return np.asarray(probabilities, dtype=np.float64)
        return 1 / (1 + np.exp(-(self.slope * logit(probabilities) + self.intercept)))


UNSCALED = Scaling(1.0, 0.0)
"""Scaling that leaves probabilities unchanged."""


def logit(probabilities: ArrayLike) -> Array:
    """Return ``log(p / (1 - p))``, clipped to [-30, 30] so that it is finite for 0 and 1."""
    values = np.asarray(probabilities, dtype=np.float64)
    with np.errstate(divide="ignore"):
        clipped: Array = np.clip(np.log(values) - np.log1p(-values), -_MAX_LOGIT, _MAX_LOGIT)
    return clipped


@dataclass(frozen=True)
class Calibration:
    """A scaling per finding, and the data on which it was fitted.

    Attributes:
        method: ``temperature`` or ``platt``.
        scalings: by finding.
        split: name of the split.
        rows: number of rows.
        warnings: findings whose probabilities are not changed, and why.
    """

    method: CalibrationMethod
    scalings: Mapping[str, Scaling]
    split: str
    rows: int
    warnings: tuple[str, ...] = ()


def fit_calibration(table: PredictionTable, method: CalibrationMethod, test_allowed: bool = False) -> Calibration:
    """Fit a scaling per finding by maximum likelihood.

    Temperature scaling (Guo et al. 2017, arXiv:1706.04599) has a slope, Platt scaling (1999) an intercept too. Both are
    logistic regressions on the logit, with Platt's targets (N+ + 1) / (N+ + 2) and 1 / (N- + 2), which keep the slope
    finite where a small split is separated without error.

    Args:
        table: predictions and labels, of the valid split.
        method: with a slope, or with slope and intercept.
        test_allowed: accept the test split, whose figures are then no longer out of sample.

    Returns:
        Scalings of all findings. The probabilities of a finding with only one class, or whose best slope is not above
        0 (scores that rank the wrong way), are not changed, and a warning reports it.

    Raises:
        RequestError: the rows come from the test split or from an unknown one.
    """
    if table.split == UNKNOWN_SPLIT or (table.split == "test" and not test_allowed):
        raise RequestError(
            f"cannot fit a calibration on the {table.split} split: figures on it would no longer be out of sample",
            "Use --split valid.",
        )
    scalings: dict[str, Scaling] = {}
    warnings: list[str] = []
    for column, finding in enumerate(table.findings):
        counts = table.mask[:, column]
        targets, probabilities = table.targets[counts, column], table.scores[counts, column]
        scaling = UNSCALED
        if len(np.unique(targets)) < 2:
            warnings.append(f"{finding} has only one class on {table.split}: its probabilities are not changed")
        else:
            fitted = fit_scaling(targets, probabilities, method)
            if fitted.slope > 0:
                scaling = fitted
            else:
                warnings.append(f"probabilities of {finding} rank the wrong way on {table.split}: they are not changed")
        scalings[finding] = scaling
    return Calibration(method, scalings, table.split, len(table), tuple(warnings))


def fit_scaling(targets: ArrayLike, probabilities: ArrayLike, method: CalibrationMethod) -> Scaling:
    """Fit the scaling of one finding; see `fit_calibration`. The slope may be 0 or negative."""
    from sklearn.linear_model import LogisticRegression

    positive = np.asarray(targets) > 0.5
    scores = logit(probabilities)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    soft = np.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # scikit-learn accepts no soft targets: each row occurs once as positive, once as negative, weighted by its share.
    model = LogisticRegression(C=np.inf, fit_intercept=method is CalibrationMethod.PLATT, tol=1e-10, max_iter=1000)
    model.fit(
        np.tile(scores, 2)[:, None],
        np.repeat([1, 0], len(scores)),
        sample_weight=np.concatenate((soft, 1 - soft)),
    )
    intercept = float(model.intercept_[0]) if method is CalibrationMethod.PLATT else 0.0
    return Scaling(float(model.coef_[0, 0]), intercept)


def calibrate_probabilities(probabilities: ArrayLike, scalings: Mapping[str, Scaling]) -> Array:
    """Apply each finding's scaling to its column of `probabilities` [N, F], in the order of `scalings`; float64."""
    values = np.asarray(probabilities, dtype=np.float64)
    return np.column_stack([scaling.apply(values[:, column]) for column, scaling in enumerate(scalings.values())])


def brier(targets: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the mean squared difference between probability and outcome (Brier 1950); NaN without rows."""
    difference = np.asarray(probabilities, dtype=np.float64) - (np.asarray(targets) > 0.5)
    return float(np.mean(difference**2)) if len(difference) else float("nan")


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose probability falls into one of `BINS` equal parts of [0, 1].

    Attributes:
        low: lower end, inclusive.
        high: upper end.
        rows: number of rows.
        mean_probability: None without rows.
        positive_share: share of positives, None without rows.
    """

    low: float
    high: float
    rows: int
    mean_probability: float | None
    positive_share: float | None


def reliability(targets: ArrayLike, probabilities: ArrayLike) -> tuple[ReliabilityBin, ...]:
    """Compare mean probability and share of positives in ten bins of equal width."""
    positive = np.asarray(targets) > 0.5
    values = np.asarray(probabilities, dtype=np.float64)
    place = np.minimum((values * BINS).astype(int), BINS - 1)
    bins = []
    for index in range(BINS):
        here = place == index
        rows = int(here.sum())
        bins.append(
            ReliabilityBin(
                low=index / BINS,
                high=(index + 1) / BINS,
                rows=rows,
                mean_probability=float(values[here].mean()) if rows else None,
                positive_share=float(positive[here].mean()) if rows else None,
            )
        )
    return tuple(bins)


def expected_calibration_error(targets: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the expected calibration error (Naeini 2015) in [0, 1], over ten bins of equal width; NaN without rows.

    It is the mean over rows of |mean probability - share of positives| in their bin. It depends on the binning and is
    biased upwards on few rows.
    """
    bins = reliability(targets, probabilities)
    rows = sum(part.rows for part in bins)
    gaps = [part.rows * abs((part.mean_probability or 0) - (part.positive_share or 0)) for part in bins]
    return ratio(sum(gaps), rows)


@dataclass(frozen=True)
class CalibrationFigures:
    """Calibration figures of one finding; None without rows.

    Attributes:
        brier: in [0, 1], lower is better.
        ece: expected calibration error over ten bins of equal width.
        mean_probability: mean over rows.
        prevalence: share of positives.
    """

    brier: float | None
    ece: float | None
    mean_probability: float | None
    prevalence: float | None


def calibration_figures(
    table: PredictionTable, scalings: Mapping[str, Scaling] | None = None
) -> dict[str, CalibrationFigures]:
    """Compute figures by finding, of raw probabilities or of those that `scalings` calibrate."""
    found = {}
    for column, finding in enumerate(table.findings):
        counts = table.mask[:, column]
        targets, raw = table.targets[counts, column], table.scores[counts, column]
        values = raw.astype(np.float64) if scalings is None else scalings[finding].apply(raw)
        if not len(values):
            found[finding] = CalibrationFigures(None, None, None, None)
            continue
        found[finding] = CalibrationFigures(
            brier=brier(targets, values),
            ece=expected_calibration_error(targets, values),
            mean_probability=float(values.mean()),
            prevalence=float((targets > 0.5).mean()),
        )
    return found
