"""How well a split determines a threshold: an interval for the threshold that is best in the population."""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Criterion
from cxrtool.evaluation.intervals import ONE_PATIENT, BootstrapSettings, Interval, PatientDraws
from cxrtool.evaluation.proportions import effective_rows
from cxrtool.evaluation.ranking import Array
from cxrtool.evaluation.table import PredictionTable
from cxrtool.evaluation.thresholds import ThresholdSearch, curve_of_counts, values_of

ONE_CLASS = "there is one class only, so no threshold is chosen"
_MOST_TRIED = 500  # thresholds between scores; more would not change the ends that are shown


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
    curves: dict[str, _DrawnCurve] = {}
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
            curves[finding] = _DrawnCurve(scores, positive, rows, len(table), search)
    for weights in PatientDraws(table.patients, settings).chunks() if curves else ():
        for curve in curves.values():
            curve.draw(weights)
    found |= {finding: curve.near_best(settings.confidence) for finding, curve in curves.items()}
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


class _DrawnCurve:
    """One finding's criterion at each threshold that is tried, in the split and in draws of patients."""

    def __init__(
        self, scores: Array, positive: NDArray[np.bool_], rows: NDArray[np.int64], count: int, search: ThresholdSearch
    ) -> None:
        from scipy.sparse import csr_array

        choice = search.choose(positive.astype(np.float32), scores)
        assert choice is not None
        self.criterion = search.criterion
        self.tried = np.union1d(_thinned(search.candidates(scores), search.grid), [choice.threshold])
        # A row of these counts the rows of the table between two thresholds: sums over many draws are one product.
        place, size = np.searchsorted(self.tried, scores, "right"), (len(self.tried) + 1, count)
        self._hits, self._alarms = (
            csr_array((np.ones(kept.sum(), np.float32), (place[kept], rows[kept])), shape=size)
            for kept in (positive, ~positive)
        )
        self.point = self._figures(np.ones((1, count), np.float32))[0]
        self.best = int(np.searchsorted(self.tried, choice.threshold))
        self.drawn: list[Array] = []

    def draw(self, weights: NDArray[np.float32]) -> None:
        """Add draws of patients, given as weights [b, N]."""
        self.drawn.append(self._figures(weights))

    def _figures(self, weights: NDArray[np.float32]) -> Array:
        """Return the criterion at each threshold, [b, T]; NaN for a draw without both classes."""
        # From the highest threshold down; the last column counts every row.
        tp, fp = (
            np.cumsum((part @ weights.T).T[:, ::-1], axis=1, dtype=np.float64) for part in (self._hits, self._alarms)
        )
        positives, negatives = tp[:, -1:], fp[:, -1:]
        curve = curve_of_counts(tp[:, -2::-1], fp[:, -2::-1], positives, negatives, self.tried)
        return np.where((positives > 0) & (negatives > 0), values_of(curve, self.criterion), np.nan)

    def near_best(self, confidence: float) -> Interval:
        """Return the ends of the thresholds that could be the best; see `threshold_stability`."""
        drawn = np.concatenate(self.drawn)
        defined = drawn[~np.isnan(drawn[:, 0])]
        undefined = len(drawn) - len(defined)
        if len(defined) < 2:
            return Interval(None, None, undefined, "too few draws of patients have both classes")
        below = self.point[self.best] - self.point
        spread = np.std(defined[:, [self.best]] - defined, axis=0)
        rivals = below <= NormalDist().inv_cdf(1 - (1 - confidence) / 4) * spread + 1e-12
        deviation = defined - self.point
        excess = deviation[:, rivals].max(axis=1, keepdims=True) - deviation
        near = self.tried[below <= np.quantile(excess, confidence, axis=0) + 1e-12]
        return Interval(float(near[0]), float(near[-1]), undefined, method="could be the best")


def _thinned(candidates: Array, grid: Array) -> Array:
    """Return at most about `_MOST_TRIED` of the candidates, with the grid, evenly spread over their ranks."""
    if len(candidates) <= _MOST_TRIED:
        return candidates
    places = np.linspace(0, len(candidates) - 1, _MOST_TRIED).round().astype(int)
    return np.union1d(candidates[places], grid)
