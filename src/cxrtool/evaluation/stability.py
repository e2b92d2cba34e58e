"""How well a split determines a threshold: an interval for the threshold that is best in the population."""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Criterion
from cxrtool.evaluation.intervals import ONE_PATIENT, BootstrapSettings, Interval, PatientDraws
from cxrtool.evaluation.proportions import effective_rows
from cxrtool.evaluation.ranking import Array, rank_by_score
from cxrtool.evaluation.table import PredictionTable
from cxrtool.evaluation.thresholds import ThresholdSearch, curve_of_counts, values_of

ONE_CLASS = "there is one class only, so no threshold is chosen"
_MOST_TRIED = 500  # thresholds between scores; more would not change the ends that are shown
_BLOCK = 2**20  # differences at a time


def threshold_stability(
    table: PredictionTable, search: ThresholdSearch, settings: BootstrapSettings
) -> dict[str, Interval]:
    """Return an interval of the threshold that the criterion chooses in the population, by finding.

    A wide interval means that the split is too small to determine a threshold. Drawing patients and choosing on each draw
    gives intervals that are too narrow, because the place of a maximum is not a smooth figure (Abrevaya & Huang 2005,
    Econometrica 73:1175). Instead:

    - For a target recall the threshold is a quantile of the positives' scores, for a target specificity one of the
      negatives', and order statistics bound it (exact for independent rows; the number of rows is divided by the design
      effect where a patient has several). With too few rows an end is 0 or 1.
    - For F1, balanced accuracy and Youden's J the interval spans the thresholds whose figure is not clearly below that
      of the chosen one: those whose difference is within `confidence` of 0, by the standard deviation of the difference
      over draws of patients, with the two-sided level halved because the chosen one is the best of many.

    ``docs/measurements/calibration.md`` holds the coverage of both in simulations.
    """
    draws = PatientDraws(table.patients, settings)
    one_patient = len(set(table.patients)) == 1
    found = {}
    for column, finding in enumerate(table.findings):
        rows = np.flatnonzero(table.mask[:, column])
        positive = table.targets[rows, column] > 0.5
        if one_patient or len(np.unique(positive)) < 2:
            found[finding] = Interval(None, None, reason=ONE_PATIENT if one_patient else ONE_CLASS)
        elif search.target is not None:
            kept = positive if search.criterion is Criterion.RECALL else ~positive
            patients = np.asarray(table.patients, dtype=object)[rows][kept]
            found[finding] = _quantile_interval(table.scores[rows, column][kept], patients, search, settings.confidence)
        else:
            found[finding] = _near_best(table.scores[rows, column], positive, rows, search, draws)
    return found


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


def _near_best(
    scores: Array, positive: NDArray[np.bool_], rows: NDArray[np.int64], search: ThresholdSearch, draws: PatientDraws
) -> Interval:
    """Return the ends of the thresholds whose figure is not clearly below that of the chosen one."""
    targets = positive.astype(np.float32)
    choice = search.choose(targets, scores)
    assert choice is not None
    tried = np.union1d(_thinned(search.candidates(scores), search.grid), [choice.threshold])
    best = int(np.searchsorted(tried, choice.threshold))
    ranking = rank_by_score(targets, scores)
    called = ranking.called_at(tried)
    order = rows[ranking.order]

    def figures(weights: Array) -> Array:
        """Return the criterion of each draw at each threshold, [b, T]; NaN for a draw without both classes."""
        drawn = weights[:, order]
        hits = np.cumsum(np.pad(drawn * ranking.positive, ((0, 0), (1, 0))), axis=1)
        total = np.cumsum(np.pad(drawn, ((0, 0), (1, 0))), axis=1)
        positives, negatives = hits[:, -1:], total[:, -1:] - hits[:, -1:]
        tp = hits[:, called]
        curve = curve_of_counts(tp, total[:, called] - tp, positives, negatives, tried)
        return np.where((positives > 0) & (negatives > 0), values_of(curve, search.criterion), np.nan)

    point = figures(np.ones((1, draws.rows)))[0]
    drawn = np.concatenate([figures(weights.astype(np.float64)) for weights in draws.chunks()])
    defined = drawn[~np.isnan(drawn[:, 0])]
    undefined = len(drawn) - len(defined)
    if len(defined) < 2:
        return Interval(None, None, undefined, "too few draws of patients have both classes")
    spread = np.std(defined[:, [best]] - defined, axis=0)
    reach = NormalDist().inv_cdf(1 - (1 - draws.settings.confidence) / 4)
    near = tried[point[best] - point <= reach * spread + 1e-12]
    return Interval(float(near[0]), float(near[-1]), undefined, method="not clearly below the best")


def _thinned(candidates: Array, grid: Array) -> Array:
    """Return at most about `_MOST_TRIED` of the candidates, with the grid, evenly spread over their ranks."""
    if len(candidates) <= _MOST_TRIED:
        return candidates
    places = np.linspace(0, len(candidates) - 1, _MOST_TRIED).round().astype(int)
    return np.union1d(candidates[places], grid)
