"""Calibration of probabilities by a monotone map per finding, fitted with care where there are few positives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, Field

from cxrtool.choices import CalibrationMethod
from cxrtool.errors import RequestError
from cxrtool.evaluation.table import UNKNOWN_SPLIT, PredictionTable, same_sheet

Array = NDArray[np.float64]
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


SLOPE_SD = 0.25
"""Standard deviation of the prior of a slope, whose mean is 1."""
FEWEST_OF_A_CLASS = 3
"""Number of positives, and of negatives, below which a finding is not calibrated."""
FEW_OF_A_CLASS = 20
"""Number of positives, and of negatives, below which a finding is calibrated only if it is clearly wrong."""
_CHANCE = {CalibrationMethod.TEMPERATURE: 3.841, CalibrationMethod.PLATT: 5.991}  # 95 % of chi squared, 1 and 2 degrees
_MOST_STEPS = 100
_SMALLEST_STEP = 1e-10
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
        warnings: findings whose probabilities are not changed, or whose fit rests on few positives or negatives.
    """

    method: CalibrationMethod
    scalings: Mapping[str, Scaling]
    split: str
    rows: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CalibrationOrigin:
    """Where a bundle's calibration was fitted.

    Attributes:
        split: name of the split.
        sheet_sha256: digest of that split's sheet.
    """

    split: str
    sheet_sha256: str

    def fitted_on(self, table: PredictionTable) -> bool:
        """Return whether the calibration was fitted on the sheet that `table` comes from."""
        return same_sheet(self.split, self.sheet_sha256, table)


def fit_calibration(table: PredictionTable, method: CalibrationMethod, test_allowed: bool = False) -> Calibration:
    """Fit a scaling per finding; see `fit_scaling`.

    A fit to a handful of positives harms more often than it helps if the probabilities were right before. Below
    `FEWEST_OF_A_CLASS` positives or negatives the probabilities of a finding are not changed. Below `FEW_OF_A_CLASS`
    they are changed only if the labels contradict them: if the fit raises the likelihood by more than chance does in
    one of twenty samples of calibrated probabilities (a test before the fit, as Vergouwe et al. 2017, Statistics in
    Medicine 36:4529). ``docs/measurements/calibration.md`` holds the simulation behind both numbers.

    Args:
        table: predictions and labels, of the valid split.
        method: with a slope, or with slope and intercept.
        test_allowed: accept the test split, whose figures are then no longer out of sample.

    Returns:
        Scalings of all findings. Besides the cases above, the probabilities of a finding whose best slope is not above
        0 (scores that rank the wrong way) are not changed. A warning reports each.

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
        scalings[finding], reason = _fit_if_supported(targets, probabilities, method)
        if reason:
            warnings.append(f"{finding} on {table.split}: {reason}")
    return Calibration(method, scalings, table.split, len(table), tuple(warnings))


def _fit_if_supported(targets: ArrayLike, probabilities: ArrayLike, method: CalibrationMethod) -> tuple[Scaling, str]:
    """Return the scaling, and why it is none or rests on little (empty if all is well)."""
    positive = np.asarray(targets) > 0.5
    positives, negatives = int(positive.sum()), int((~positive).sum())
    fewer = min(positives, negatives)
    counted = f"{positives} positive and {negatives} negative rows"
    if fewer == 0:
        return UNSCALED, "it has only one class there; its probabilities are not changed"
    if fewer < FEWEST_OF_A_CLASS:
        return UNSCALED, (
            f"{counted} are too few to fit (fewer than {FEWEST_OF_A_CLASS} of a class); its probabilities are not "
            "changed"
        )
    fitted = fit_scaling(positive, probabilities, method)
    if fitted.slope <= 0:
        return UNSCALED, "its probabilities rank the wrong way; they are not changed"
    if fewer >= FEW_OF_A_CLASS:
        return fitted, ""
    gain = 2 * (_log_likelihood(positive, probabilities, fitted) - _log_likelihood(positive, probabilities, UNSCALED))
    if gain < _CHANCE[method]:
        return UNSCALED, (
            f"{counted} do not show that its probabilities are wrong; they are not changed (with fewer than "
            f"{FEW_OF_A_CLASS} of a class, only a clear error is corrected)"
        )
    return (
        fitted,
        (f"fitted to {counted} only, fewer than {FEW_OF_A_CLASS} of a class: slope and intercept are uncertain"),
    )


def _log_likelihood(positive: NDArray[np.bool_], probabilities: ArrayLike, scaling: Scaling) -> float:
    z = scaling.slope * logit(probabilities) + scaling.intercept
    return float(np.sum(positive * z - np.logaddexp(0, z)))


def fit_scaling(targets: ArrayLike, probabilities: ArrayLike, method: CalibrationMethod) -> Scaling:
    """Fit the scaling of one finding, shrunk towards a slope of 1.

    Temperature scaling (Guo et al. 2017, arXiv:1706.04599) has a slope, Platt scaling (1999) an intercept too. Both are
    logistic regressions on the logit, with Platt's targets (N+ + 1) / (N+ + 2) and 1 / (N- + 2), and with a normal
    prior of the slope, of mean 1 and standard deviation `SLOPE_SD`. Without it 12 studies can give a slope of 25 where
    they are separated without error; on hundreds of positives it makes no difference that matters.

    Args:
        targets: [N] of 0 and 1, of both classes.
        probabilities: [N] in [0, 1].
        method: with a slope, or with slope and intercept.

    Returns:
        The most probable scaling. Its slope may be 0 or negative.
    """
    positive = np.asarray(targets) > 0.5
    scores = logit(probabilities)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    soft = np.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.column_stack((scores, np.ones_like(scores)))
    if method is CalibrationMethod.TEMPERATURE:
        design = design[:, :1]
    prior_mean = np.array([1.0, 0.0])[: design.shape[1]]
    precision = np.array([1 / SLOPE_SD**2, 0.0])[: design.shape[1]]
    found = newton_logistic(design, soft, prior_mean, precision)
    return Scaling(float(found[0]), float(found[1]) if len(found) > 1 else 0.0)


def newton_logistic(
    design: Array, targets: Array, start: Array, precision: Array | None = None, offset: Array | None = None
) -> Array:
    """Fit a logistic regression by Newton's method, with halved steps where a full one would not improve it.

    Args:
        design: [N, K], one column per coefficient.
        targets: [N] in [0, 1].
        start: [K], first guess, and mean of the normal prior.
        precision: [K], 1 / variance of the prior of each coefficient; None for maximum likelihood.
        offset: [N], added to the logit; None for 0.

    Returns:
        [K], the coefficients. Where they do not exist (classes that can be separated, without a prior) they are large.
    """
    weight = np.zeros(len(start)) if precision is None else precision
    base = np.zeros(len(design)) if offset is None else offset

    def loss(coefficients: Array) -> float:
        z = design @ coefficients + base
        return float(np.sum(np.logaddexp(0, z) - targets * z) + np.sum(weight * (coefficients - start) ** 2) / 2)

    found, best = start, loss(start)
    for _ in range(_MOST_STEPS):
        fitted = expit(design @ found + base)
        gradient = design.T @ (fitted - targets) + weight * (found - start)
        hessian = (design * (fitted * (1 - fitted))[:, None]).T @ design + np.diag(weight + 1e-12)
        step = np.linalg.solve(hessian, gradient)
        tried, value = found - step, loss(found - step)
        while not value <= best and np.abs(step).max() > _SMALLEST_STEP:
            step /= 2
            tried, value = found - step, loss(found - step)
        if not value <= best or np.abs(step).max() < _SMALLEST_STEP:
            break
        found, best = tried, value
    return found


def expit(logits: ArrayLike) -> Array:
    """Return ``1 / (1 + exp(-z))``, float64, without overflow."""
    return np.exp(-np.logaddexp(0, -np.asarray(logits, dtype=np.float64)))


def calibrate_probabilities(probabilities: ArrayLike, scalings: Mapping[str, Scaling]) -> Array:
    """Apply each finding's scaling to its column of `probabilities` [N, F], in the order of `scalings`; float64."""
    values = np.asarray(probabilities, dtype=np.float64)
    return np.column_stack([scaling.apply(values[:, column]) for column, scaling in enumerate(scalings.values())])
