"""Do probabilities mean what they say? Reliability, and a monotone map that mends them."""

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
from cxrtool.findings import FINDINGS

Array = NDArray[np.float64]
BINS = 10
_MOST_LOGIT = 30.0


@dataclass(frozen=True)
class Scaling:
    """A monotone map of one finding's probabilities: ``sigmoid(slope * logit(p) + intercept)``.

    Bundles and export records hold it as it is; pydantic checks what a file says.

    Attributes:
        slope: above 0; temperature scaling's 1 / T.
        intercept: 0 for temperature scaling.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    slope: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    intercept: Annotated[float, Field(allow_inf_nan=False)]

    def apply(self, probabilities: ArrayLike) -> Array:
        """Calibrated probabilities, float64, of any shape; order is kept but where float64 cannot tell them from 1."""
        if self == UNSCALED:
            return np.asarray(probabilities, dtype=np.float64)
        return 1 / (1 + np.exp(-(self.slope * logit(probabilities) + self.intercept)))


UNSCALED = Scaling(1.0, 0.0)
"""Leaves probabilities as they are."""


def logit(probabilities: ArrayLike) -> Array:
    """``log(p / (1 - p))``, cut at -30 and 30 so that 0 and 1 stay finite."""
    values = np.asarray(probabilities, dtype=np.float64)
    with np.errstate(divide="ignore"):
        cut: Array = np.clip(np.log(values) - np.log1p(-values), -_MOST_LOGIT, _MOST_LOGIT)
    return cut


@dataclass(frozen=True)
class Calibration:
    """A scaling per finding and where it was fitted.

    Attributes:
        method: ``temperature`` or ``platt``.
        scalings: by finding.
        split: the rows came from.
        rows: how many.
        warnings: findings left as they are, and why.
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
        table: of valid.
        method: which.
        test_allowed: fit on the test split all the same; its figures are then no longer out of sample.

    Returns:
        A finding with one class, or whose best slope is not above 0 (scores that rank the wrong way), keeps its
        probabilities, and a warning says so.

    Raises:
        RequestError: the rows are of test, or nobody knows of which split.
    """
    if table.split == UNKNOWN_SPLIT or (table.split == "test" and not test_allowed):
        raise RequestError(
            f"a calibration is not fitted on the {table.split} split: its figures would no longer be out of sample",
            "Use --split valid.",
        )
    scalings: dict[str, Scaling] = {}
    warnings: list[str] = []
    for column, finding in enumerate(FINDINGS):
        counts = table.mask[:, column]
        targets, probabilities = table.targets[counts, column], table.probabilities[counts, column]
        scaling = UNSCALED
        if len(np.unique(targets)) < 2:
            warnings.append(f"{finding} has one class only on {table.split}: its probabilities stay as they are")
        else:
            fitted = fit_scaling(targets, probabilities, method)
            if fitted.slope > 0:
                scaling = fitted
            else:
                warnings.append(f"{finding} ranks the wrong way on {table.split}: its probabilities stay as they are")
        scalings[finding] = scaling
    return Calibration(method, scalings, table.split, len(table), tuple(warnings))


def fit_scaling(targets: ArrayLike, probabilities: ArrayLike, method: CalibrationMethod) -> Scaling:
    """The scaling of one finding; see `fit_calibration`. The slope may come out at or below 0."""
    from sklearn.linear_model import LogisticRegression

    positive = np.asarray(targets) > 0.5
    scores = logit(probabilities)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    soft = np.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # scikit-learn takes no soft targets: each row stands once as positive and once as negative, with its share.
    model = LogisticRegression(C=np.inf, fit_intercept=method is CalibrationMethod.PLATT, tol=1e-10, max_iter=1000)
    model.fit(
        np.tile(scores, 2)[:, None],
        np.repeat([1, 0], len(scores)),
        sample_weight=np.concatenate((soft, 1 - soft)),
    )
    intercept = float(model.intercept_[0]) if method is CalibrationMethod.PLATT else 0.0
    return Scaling(float(model.coef_[0, 0]), intercept)


def calibrate_probabilities(probabilities: ArrayLike, scalings: Mapping[str, Scaling]) -> Array:
    """Each column of [N, 5] through its finding's scaling, float64."""
    values = np.asarray(probabilities, dtype=np.float64)
    return np.column_stack([scalings[finding].apply(values[:, column]) for column, finding in enumerate(FINDINGS)])


def brier(targets: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared distance between probability and outcome (Brier 1950); NaN without rows."""
    distance = np.asarray(probabilities, dtype=np.float64) - (np.asarray(targets) > 0.5)
    return float(np.mean(distance**2)) if len(distance) else float("nan")


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose probability falls into one of `BINS` equal parts of [0, 1].

    Attributes:
        low: its lower end, which belongs to it.
        high: its upper end.
        rows: how many.
        mean_probability: None without rows.
        positive_share: likewise.
    """

    low: float
    high: float
    rows: int
    mean_probability: float | None
    positive_share: float | None


def reliability(targets: ArrayLike, probabilities: ArrayLike) -> tuple[ReliabilityBin, ...]:
    """Ten bins of equal width: what was said, and what was so."""
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
    """Mean over rows of |mean probability - share of positives| of their bin (Naeini 2015), ten equal bins; in [0, 1].

    NaN without rows. It depends on the binning and is biased upwards on few rows.
    """
    bins = reliability(targets, probabilities)
    rows = sum(part.rows for part in bins)
    gaps = [part.rows * abs((part.mean_probability or 0) - (part.positive_share or 0)) for part in bins]
    return ratio(sum(gaps), rows)


@dataclass(frozen=True)
class CalibrationFigures:
    """How well one finding's probabilities mean what they say; None where there is no row.

    Attributes:
        brier: in [0, 1], lower is better.
        ece: expected calibration error over ten bins of equal width.
        mean_probability: said.
        prevalence: was so.
    """

    brier: float | None
    ece: float | None
    mean_probability: float | None
    prevalence: float | None


def calibration_figures(
    table: PredictionTable, scalings: Mapping[str, Scaling] | None = None
) -> dict[str, CalibrationFigures]:
    """Figures by finding, of probabilities as they are or through `scalings`."""
    found = {}
    for column, finding in enumerate(FINDINGS):
        counts = table.mask[:, column]
        targets, raw = table.targets[counts, column], table.probabilities[counts, column]
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
