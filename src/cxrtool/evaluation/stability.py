"""How well a split determines a threshold: an interval for the threshold that is best in the population."""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Criterion
from cxrtool.evaluation.drawn_curve import ONE_CLASS, DrawnCurve
from cxrtool.evaluation.intervals import ONE_PATIENT, BootstrapSettings, Interval, PatientDraws
from cxrtool.evaluation.proportions import effective_rows
from cxrtool.evaluation.ranking import Array
from cxrtool.evaluation.table import PredictionTable
from cxrtool.evaluation.thresholds import ThresholdSearch, values_of


def threshold_stability(
    table: PredictionTable, search: ThresholdSearch, settings: BootstrapSettings
) -> dict[str, Interval]:
    """Return an interval of the threshold that the criterion chooses in the population, by finding.

    A wide interval means that the split is too small to determine a threshold. Drawing patients and choosing on each
    draw gives intervals that are too narrow, because the place of a maximum is not a smooth figure (Abrevaya & Huang
    2005, Econometrica 73:1175). Instead:

    - For a target recall the threshold is a quantile of the positives' scores, for a target specificity one of the
      negatives', and order statistics bound it (exact for independent rows; the number of rows is divided by the design
      effect where a patient has several). With too few rows an end is 0 or 1.
    - For F1, balanced accuracy and Youden's J the interval spans the thresholds that could be the best: those whose
      figure lies below the best one by no more than it does in `confidence` of the draws of patients where it is the
      best in truth. A draw's deviation is that of the largest difference over rivals that are not clearly worse
      (moment selection, Andrews & Soares 2010, Econometrica 78:119; confidence sets by inverted tests, Romano & Shaikh
      2010, Econometrica 78:169).

    ``docs/measurements/calibration.md`` holds the coverage of both in simulations.
    """
    one_patient = len(set(table.patients)) == 1
    found: dict[str, Interval] = {}
    curves: dict[str, DrawnCurve] = {}
    drawn: dict[str, list[Array]] = {}
    for column, finding in enumerate(table.findings):
        rows = np.flatnonzero(table.mask[:, column])
        positive, scores = table.targets[rows, column] > 0.5, table.scores[rows, column]
        if one_patient or len(np.unique(positive)) < 2:
            found[finding] = Interval(None, None, reason=ONE_PATIENT if one_patient else ONE_CLASS)
        elif search.target is not None:
            kept = positive if search.criterion is Criterion.RECALL else ~positive
            patients = np.asarray(table.patients, dtype=object)[rows][kept]
            found[finding] = _quantile_interval(scores[kept], patients, search, settings.confidence)
        else:
            curves[finding] = DrawnCurve(table.targets[rows, column], scores, rows, len(table), search)
            drawn[finding] = []
    for weights in PatientDraws(table.patients, settings).chunks() if curves else ():
        for finding, curve in curves.items():
            drawn[finding].append(values_of(curve.figures(weights), search.criterion))
    every_row = np.ones((1, len(table)), np.float32)
    for finding, curve in curves.items():
        point = values_of(curve.figures(every_row), search.criterion)[0]
        found[finding] = _near_best(curve, point, np.concatenate(drawn[finding]), settings)
    return {finding: found[finding] for finding in table.findings}


def _quantile_interval(
    scores: Array, patients: NDArray[np.object_], search: ThresholdSearch, confidence: float
) -> Interval:
    """Bound the quantile that a target asks for by order statistics (David & Nagaraja 2003, section 7.1)."""
    from scipy.special import bdtr

    target = search.target or 0.0
    share_below = 1 - target if search.criterion is Criterion.RECALL else target
    ordered = np.sort(scores)
    count = len(ordered)
    # Rows of one patient are counted by how alike they are on one side of the quantile.
    effective = max(1, round(effective_rows(scores < np.quantile(ordered, share_below), patients)))
    below = bdtr(np.arange(effective + 1.0), effective, share_below)
    tail = (1 - confidence) / 2
    first = int(np.searchsorted(below, tail, "right"))  # fewer below have a probability of at most `tail`
    last = int(np.searchsorted(below, 1 - tail)) + 1
    low, high = int(np.floor(first * count / effective)), int(np.ceil(last * count / effective))
    ends = (ordered[low - 1] if low >= 1 else 0.0, ordered[high - 1] if high <= count else 1.0)
    return Interval(float(ends[0]), float(ends[1]), method="order statistics")


def _near_best(curve: DrawnCurve, point: Array, drawn: Array, settings: BootstrapSettings) -> Interval:
    """Return the ends of the thresholds that could be the best, of the criterion [T] and its draws [b, T]."""
    undefined = settings.draws - len(drawn)
    if len(drawn) < 2:
        return Interval(None, None, undefined, "too few draws of patients have both classes")
    below = point[curve.chosen] - point
    spread = np.std(drawn[:, [curve.chosen]] - drawn, axis=0)
    rivals = below <= NormalDist().inv_cdf(1 - (1 - settings.confidence) / 4) * spread + 1e-12
    deviation = drawn - point
    excess = deviation[:, rivals].max(axis=1, keepdims=True) - deviation
    near = curve.tried[below <= np.quantile(excess, settings.confidence, axis=0) + 1e-12]
    return Interval(float(near[0]), float(near[-1]), undefined, method="could be the best")
