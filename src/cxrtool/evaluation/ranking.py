"""Cases sorted by score, from which every curve, area and count over thresholds is computed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ranking:
    """N cases by falling score; ties keep their original order.

    Attributes:
        order: [N] int64, original position of each case.
        scores: [N] float64, falling.
        positive: [N] bool, whether each case is positive, in the order of `scores`.
        ends: [G] int64, last position of each of the G distinct scores; a threshold never divides a group of ties.
    """

    order: NDArray[np.int64]
    scores: Array
    positive: NDArray[np.bool_]
    ends: NDArray[np.int64]

    @property
    def hits(self) -> NDArray[np.int64]:
        """True positives when each distinct score is the threshold, [G]."""
        return np.cumsum(self.positive, dtype=np.int64)[self.ends]

    @property
    def alarms(self) -> NDArray[np.int64]:
        """False positives when each distinct score is the threshold, [G]."""
        return self.ends + 1 - self.hits

    def called_at(self, thresholds: ArrayLike) -> NDArray[np.int64]:
        """Count the scores at or above each threshold; has the shape of `thresholds`."""
        called: NDArray[np.int64] = np.searchsorted(-self.scores, -np.asarray(thresholds, dtype=np.float64), "right")
        return called

    def counts_at(self, thresholds: ArrayLike) -> tuple[Array, Array]:
        """Count true and false positives of ``score >= threshold``, float64 in the shape of `thresholds`."""
        called = self.called_at(thresholds)
        tp = np.concatenate(([0], np.cumsum(self.positive)))[called]
        return tp.astype(np.float64), (called - tp).astype(np.float64)


def rank_by_score(targets: ArrayLike, scores: ArrayLike) -> Ranking:
    """Sort cases by falling score.

    Args:
        targets: [N] of 0 and 1.
        scores: [N], any scale; not NaN.
    """
    values = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1) if len(ordered) else np.zeros(0, np.int64)
    return Ranking(order, ordered, (np.asarray(targets) > 0.5)[order], ends)


def midranks(values: Array) -> Array:
    """Return ranks from 1, [N]; tied values get the mean of their ranks."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group]
