"""Figures that measure calibration, with intervals: in the large, slope, Brier score with its parts, ECE."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxrtool.evaluation.calibration import Array, Scaling, expit, logit, newton_logistic
from cxrtool.evaluation.intervals import (
    ONE_PATIENT,
    BootstrapSettings,
    Interval,
    PatientDraws,
    number_patients,
    percentile_interval,
)
from cxrtool.evaluation.metrics import or_none
from cxrtool.evaluation.reliability import ReliabilityBin, reliability_curve
from cxrtool.evaluation.table import PredictionTable

BINS = 10
"""Number of bins of equal width over which the Brier score is divided and ECE is computed."""
ONE_CLASS = "there is one class only"
SEPARATED = "a threshold separates the classes without error, or all scores are equal, so the fit has no limit"
_POWER = {"ece": 1, "reliability": 2, "resolution": 2}  # means of gaps in bins, or of their squares
_FACTORS = np.linspace(0, 4, 161)


@dataclass(frozen=True)
class CalibrationFigures:
    """Calibration figures of one finding; None without rows, or where undefined.

    Attributes:
        brier: mean squared difference of probability and outcome (Brier 1950), in [0, 1]; lower is better. It is
            ``reliability - resolution + uncertainty + within_bins`` exactly.
        reliability: mean over rows of (mean probability - share of positives)² in their bin, of ten of equal width; 0
            is calibrated. Murphy 1973, Journal of Applied Meteorology 12:595.
        resolution: mean over rows of (share of positives in their bin - prevalence)²; higher is better.
        uncertainty: prevalence x (1 - prevalence).
        within_bins: what probabilities that differ within a bin add: their variance less twice their covariance with
            the outcome (Stephenson et al. 2008, Weather and Forecasting 23:752).
        ece: expected calibration error (Naeini 2015), the mean over rows of |mean probability - share of positives| in
            their bin, of the same ten. It is never below 0, and so too high on few rows: compare `ece_by_chance`.
        ece_by_chance: the ECE that the same probabilities would have on average if they were calibrated.
        mean_probability: mean over rows.
        prevalence: share of positives.
        in_the_large: log-odds to add to all probabilities so that their mean is the prevalence; 0 is calibrated
            (Cox 1958, Biometrika 45:562; Steyerberg 2010, Epidemiology 21:128). Below 0: probabilities are too high.
        slope: of the logistic regression of the outcome on the logit; 1 is calibrated, below 1 the probabilities are
            too extreme (Miller 1991, Statistics in Medicine 10:1213; Van Calster 2019, BMC Medicine 17:230).
        intercept: of the same regression.
        curve: see `reliability_curve`.
        intervals: by name of figure.
    """

    brier: float | None
    ece: float | None
    mean_probability: float | None
    prevalence: float | None
    reliability: float | None = None
    resolution: float | None = None
    uncertainty: float | None = None
    within_bins: float | None = None
    ece_by_chance: float | None = None
    in_the_large: float | None = None
    slope: float | None = None
    intercept: float | None = None
    curve: tuple[ReliabilityBin, ...] = ()
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return vars(self) | {
            "curve": [asdict(part) for part in self.curve],
            "intervals": {name: interval.to_dict() for name, interval in self.intervals.items()},
        }


def brier(targets: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the mean squared difference between probability and outcome (Brier 1950); NaN without rows."""
    return binned_figures(targets, probabilities)["brier"]


def expected_calibration_error(targets: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the expected calibration error in [0, 1]; NaN without rows. See `CalibrationFigures`."""
    return binned_figures(targets, probabilities)["ece"]


def binned_figures(targets: ArrayLike, probabilities: ArrayLike) -> dict[str, float]:
    """Return the Brier score with its parts, ECE, mean probability and prevalence, as `CalibrationFigures` names them.

    Args:
        targets: [N] of 0 and 1.
        probabilities: [N] in [0, 1].
    """
    sums = _summands(np.asarray(targets) > 0.5, np.asarray(probabilities, dtype=np.float64)).sum(axis=0)
    return {name: float(values[0]) for name, values in _figures_of_sums(sums[None]).items()}


def _summands(positive: NDArray[np.bool_], probabilities: Array) -> Array:
    """Return what each row adds to the sums that the figures need, [N, 1 + 3 x BINS]."""
    place = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    inside = (place[:, None] == np.arange(BINS)).astype(np.float64)
    squared = (probabilities - positive) ** 2
    return np.column_stack((squared, inside, inside * positive[:, None], inside * probabilities[:, None]))


def _bins_of_sums(sums: Array) -> tuple[Array, Array, Array, Array]:
    """Return the share of rows and the gap in each bin, the deviation of its share of positives, and the prevalence.

    The gap is mean probability - share of positives, the deviation share of positives - prevalence; [B, BINS] each, and
    [B] the prevalence, of sums [B, 1 + 3 x BINS]. All are NaN for a draw without rows, and 0 in a bin without rows.
    """
    rows, positives, total = (sums[:, 1 + BINS * part : 1 + BINS * (part + 1)] for part in range(3))
    count = rows.sum(axis=1)
    count = np.where(count > 0, count, np.nan)
    prevalence = positives.sum(axis=1) / count
    filled = np.where(rows > 0, rows, 1)
    gap = np.where(rows > 0, (total - positives) / filled, 0)
    deviation = np.where(rows > 0, positives / filled - prevalence[:, None], 0)
    return rows / count[:, None], gap, deviation, prevalence


def _figures_of_sums(sums: Array) -> dict[str, Array]:
    """Return each figure of sums [B, 1 + 3 x BINS]; NaN for a draw without rows."""
    share_of_rows, gap, deviation, prevalence = _bins_of_sums(sums)
    count = sums[:, 1 : 1 + BINS].sum(axis=1)
    count = np.where(count > 0, count, np.nan)
    score = sums[:, 0] / count
    reliability = (share_of_rows * gap**2).sum(axis=1)
    resolution = (share_of_rows * deviation**2).sum(axis=1)
    uncertainty = prevalence * (1 - prevalence)
    return {
        "brier": score,
        "reliability": reliability,
        "resolution": resolution,
        "uncertainty": uncertainty,
        "within_bins": score - (reliability - resolution + uncertainty),
        "ece": (share_of_rows * np.abs(gap)).sum(axis=1),
        "mean_probability": sums[:, 1 + 2 * BINS :].sum(axis=1) / count,
        "prevalence": prevalence,
    }


def _ece_by_chance(probabilities: Array) -> float:
    """Return the mean ECE of calibrated probabilities: a gap in a bin is nearly normal, with variance sum p (1 - p)."""
    place = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    variance = np.bincount(place, probabilities * (1 - probabilities), minlength=BINS)
    return float(np.sqrt(2 / np.pi * variance).sum() / len(probabilities)) if len(probabilities) else float("nan")


def calibration_figures(
    table: PredictionTable,
    scalings: Mapping[str, Scaling] | None = None,
    settings: BootstrapSettings | None = None,
) -> dict[str, CalibrationFigures]:
    """Compute figures by finding, of raw probabilities or of those that `scalings` calibrate.

    Args:
        table: raw probabilities and labels; masked cells do not count.
        scalings: by finding; None for raw probabilities.
        settings: draws of patients and confidence; None leaves out the intervals.

    Returns:
        Figures by finding. Intervals of slope, intercept and calibration in the large are those of the regression, with
        the larger of its own variance and the one robust to rows of one patient (Liang & Zeger 1986, Biometrika 73:13).
        The others are percentile intervals over draws of patients; those of ECE, reliability and resolution, which
        chance makes larger, hold the values under which the one observed is not rare.
    """
    positive = [table.targets[table.mask[:, column], column] > 0.5 for column in range(len(table.findings))]
    values = []
    for column, finding in enumerate(table.findings):
        raw = table.scores[table.mask[:, column], column].astype(np.float64)
        values.append(raw if scalings is None else scalings[finding].apply(raw))
    intervals = [{}] * len(values) if settings is None else _drawn_intervals(table, positive, values, settings)
    found = {}
    for column, finding in enumerate(table.findings):
        binned = {name: or_none(value) for name, value in binned_figures(positive[column], values[column]).items()}
        patients = np.asarray(table.patients, dtype=object)[table.mask[:, column]]
        confidence = None if settings is None else settings.confidence
        fitted, ends = _regressions(positive[column], values[column], patients, confidence)
        chance = or_none(_ece_by_chance(values[column]))
        curve = reliability_curve(positive[column], values[column], list(patients), confidence or 0.95)
        found[finding] = CalibrationFigures(
            **binned, **fitted, ece_by_chance=chance, curve=curve, intervals={**intervals[column], **ends}
        )
    return found


def _drawn_intervals(
    table: PredictionTable, positive: list[NDArray[np.bool_]], values: list[Array], settings: BootstrapSettings
) -> list[dict[str, Interval]]:
    """Return the intervals of the figures of `binned_figures`, by finding in the order of the table."""
    parts = [_summands(*one) for one in zip(positive, values, strict=True)]
    width = 1 + 3 * BINS
    _, group = number_patients(table.patients)
    first = np.unique(group, return_index=True)[1]
    by_patient = np.zeros((len(first), width * len(parts)))
    for column, part in enumerate(parts):
        np.add.at(by_patient[:, width * column : width * (column + 1)], group[table.mask[:, column]], part)
    draws = PatientDraws(table.patients, settings)
    sums = np.concatenate([weights[:, first].astype(np.float64) @ by_patient for weights in draws.chunks()])
    found = []
    for column, part in enumerate(parts):
        of_finding = sums[:, width * column : width * (column + 1)]
        drawn, point = _figures_of_sums(of_finding), part.sum(axis=0)[None]
        ends = {name: percentile_interval(values, settings.confidence) for name, values in drawn.items()}
        defined = of_finding[of_finding[:, 1 : 1 + BINS].any(axis=1)]
        if len(defined):
            ends |= {
                name: _inverted(name, point, defined, ends[name].undefined_draws, settings.confidence)
                for name in _POWER
            }
        found.append(ends)
    if len(first) == 1:
        return [{name: Interval(None, None, reason=ONE_PATIENT) for name in one} for one in found]
    return found


def _inverted(name: str, point: Array, drawn: Array, undefined: int, confidence: float) -> Interval:
    """Return the interval of a mean of |gap| or gap² over bins, which chance makes larger.

    For true gaps that are those observed times a factor, the figure that would be observed is one of gaps plus the
    deviations of the draws. The interval holds the figures of all factors under which the one observed is no rarer than
    `confidence` allows; 0 is among them if chance alone explains it.
    """
    shares, *kinds, _ = _bins_of_sums(point)
    drawn_shares, *drawn_kinds, _ = _bins_of_sums(drawn)
    kind, power = int(name == "resolution"), _POWER[name]
    gap, noise = kinds[kind][0], drawn_kinds[kind] - kinds[kind]
    observed = float((shares[0] * np.abs(gap) ** power).sum())
    below = np.array(
        [np.mean((drawn_shares * np.abs(factor * gap + noise) ** power).sum(axis=1) <= observed) for factor in _FACTORS]
    )
    tail = (1 - confidence) / 2
    allowed = _FACTORS[(below >= tail) & (below <= 1 - tail)]
    first = 0.0 if below[0] <= 1 - tail else float(allowed.min(initial=1.0))
    last = float(allowed.max(initial=0.0))
    method = "inverted bootstrap"
    return Interval(observed * first**power, observed * last**power, undefined, method=method)


def _regressions(
    positive: NDArray[np.bool_], probabilities: Array, patients: NDArray[np.object_], confidence: float | None
) -> tuple[dict[str, float | None], dict[str, Interval]]:
    """Return calibration in the large, slope and intercept, and the interval of each."""
    names = ("in_the_large", "slope", "intercept")
    scores = logit(probabilities)
    if positive.all() or not positive.any():
        reason = ONE_CLASS
        return dict.fromkeys(names), {} if confidence is None else dict.fromkeys(names, _none(reason))
    ones = np.ones((len(scores), 1))
    large, large_sd = _fit(ones, positive, patients, scores)
    fitted: dict[str, float | None] = {"in_the_large": float(large[0]), "slope": None, "intercept": None}
    deviations = {"in_the_large": float(large_sd[0])}
    low, high = scores[positive], scores[~positive]
    if not (low.min() >= high.max() or low.max() <= high.min()):
        both, both_sd = _fit(np.column_stack((scores, ones)), positive, patients, np.zeros(len(scores)))
        fitted |= {"slope": float(both[0]), "intercept": float(both[1])}
        deviations |= {"slope": float(both_sd[0]), "intercept": float(both_sd[1])}
    if confidence is None:
        return fitted, {}
    if len(set(patients)) == 1:
        return fitted, dict.fromkeys(names, _none(ONE_PATIENT))
    reach = NormalDist().inv_cdf((1 + confidence) / 2)
    ends = {}
    for name in names:
        value, deviation = fitted[name], deviations.get(name, 0.0)
        ends[name] = (
            _none(SEPARATED)
            if value is None
            else Interval(value - reach * deviation, value + reach * deviation, method="Wald, robust")
        )
    return fitted, ends


def _none(reason: str) -> Interval:
    return Interval(None, None, reason=reason)


def _fit(
    design: Array, positive: NDArray[np.bool_], patients: NDArray[np.object_], offset: Array
) -> tuple[Array, Array]:
    """Return the coefficients of a logistic regression [K] and their standard deviations [K]."""
    outcome = positive.astype(np.float64)
    found = newton_logistic(design, outcome, np.zeros(design.shape[1]), offset=offset)
    fitted = expit(design @ found + offset)
    inverse = np.linalg.pinv((design * (fitted * (1 - fitted))[:, None]).T @ design)
    names, group = np.unique(patients.astype(str), return_inverse=True)
    scores = np.zeros((len(names), design.shape[1]))
    np.add.at(scores, group, design * (outcome - fitted)[:, None])
    robust = inverse @ (scores.T @ scores) @ inverse * len(names) / max(len(names) - 1, 1)
    return found, np.sqrt(np.maximum(np.diag(inverse), np.diag(robust)))
