"""Figures over thresholds in many draws of patients at once."""

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Criterion
from cxrtool.evaluation.ranking import Array
from cxrtool.evaluation.thresholds import ThresholdCurve, ThresholdSearch, curve_of_counts, values_of

ONE_CLASS = "there is one class only, so no threshold is chosen"
_MOST_TRIED = 500  # thresholds between scores; more would not change the ends that are shown


class DrawnCurve:
    """One finding's figures at each threshold that a search tries, for weights of the rows of a table.

    Args:
        targets: [n] of 0 and 1, of both classes.
        scores: [n].
        rows: [n], place of each in the table.
        count: number of rows of the table.
        search: how thresholds are chosen.
    """

    def __init__(
        self, targets: NDArray[np.float32], scores: Array, rows: NDArray[np.int64], count: int, search: ThresholdSearch
    ) -> None:
        from scipy.sparse import csr_array

        choice = search.choose(targets, scores)
        assert choice is not None
        self._search = search
        self.tried = np.union1d(_thinned(search.candidates(scores), search.grid), [choice.threshold])
        self.chosen = int(np.searchsorted(self.tried, choice.threshold))
        # A row of these counts the rows of the table between two thresholds: sums over many draws are one product.
        place, size = np.searchsorted(self.tried, scores, "right"), (len(self.tried) + 1, count)
        self._hits, self._alarms = (
            csr_array((np.ones(kept.sum(), np.float32), (place[kept], rows[kept])), shape=size)
            for kept in (targets > 0.5, targets <= 0.5)
        )

    def figures(self, weights: NDArray[np.float32]) -> ThresholdCurve:
        """Return the figures of draws that have both classes, [b', T] each, for weights [b, N]."""
        # From the highest threshold down; the last column counts every row.
        tp, fp = (
            np.cumsum((part @ weights.T).T[:, ::-1], axis=1, dtype=np.float64) for part in (self._hits, self._alarms)
        )
        both = (tp[:, -1] > 0) & (fp[:, -1] > 0)
        tp, fp = tp[both], fp[both]
        return curve_of_counts(tp[:, -2::-1], fp[:, -2::-1], tp[:, -1:], fp[:, -1:], self.tried)

    def choose(self, curve: ThresholdCurve) -> NDArray[np.int64]:
        """Return the place of the threshold chosen in each draw, [b']: of equally good ones the lowest.

        With a target recall it is the highest. Where no threshold reaches the target, it is the lowest for recall
        and the highest for specificity.
        """
        values = values_of(curve, self._search.criterion)
        if self._search.target is None:
            return np.asarray(values.argmax(axis=1))
        enough = values >= self._search.target - 1e-12
        last = len(self.tried) - 1
        if self._search.criterion is Criterion.RECALL:
            return np.where(enough.any(axis=1), last - enough[:, ::-1].argmax(axis=1), 0)
        return np.where(enough.any(axis=1), enough.argmax(axis=1), last)


def _thinned(candidates: Array, grid: Array) -> Array:
    """Return at most about `_MOST_TRIED` of the candidates, with the grid, evenly spread over their ranks."""
    if len(candidates) <= _MOST_TRIED:
        return candidates
    places = np.linspace(0, len(candidates) - 1, _MOST_TRIED).round().astype(int)
    return np.union1d(candidates[places], grid)
