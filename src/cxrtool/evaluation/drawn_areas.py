"""Areas under curves of several tables for the same draws of patients.

Weights are [rows, draws], so that numpy adds whole rows of draws at a time. Negatives between two scores of positives
are summed before anything is accumulated: with one positive in ten, a tenth of the sums remain.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.intervals import BootstrapSettings, Draws, PatientDraws, mean_over_findings
from cxrtool.evaluation.ranking import rank_by_score
from cxrtool.evaluation.table import PredictionTable

AREAS = ("auroc", "auprc")
_BLOCK = 2**21  # weights at a time
_THREADS = 2

Weights = NDArray[np.float32]


def bootstrap_areas(
    tables: Sequence[PredictionTable], settings: BootstrapSettings
) -> list[dict[str, dict[str, Draws]]]:
    """Compute AUROC and average precision of several tables for every draw of patients.

    Args:
        tables: predictions of several models for the same rows, patients, labels and findings.
        settings: number of draws and seed.

    Returns:
        For each table, draws [B] float64, NaN where undefined, by finding (and ``mean``, see `mean_over_findings`) and
        figure, ``auroc`` and ``auprc``.
    """
    draws = PatientDraws(tables[0].patients, settings)
    findings = tables[0].findings.names
    areas = [
        _Areas(table.targets[rows, column], table.scores[rows, column], rows)
        for table in tables
        for column in range(len(findings))
        for rows in [np.flatnonzero(table.mask[:, column])]
    ]
    count = max(1, _BLOCK // max(1, draws.rows))

    def run(start: int) -> NDArray[np.float64]:
        chunk = draws.chunk(start)
        blocks = [np.ascontiguousarray(chunk[first : first + count].T) for first in range(0, len(chunk), count)]
        return np.concatenate([np.stack([one.of(block) for one in areas]) for block in blocks], axis=2)

    with ThreadPoolExecutor(_THREADS) as pool:
        found = np.concatenate(list(pool.map(run, draws.starts())), axis=2)
    found = found.reshape(len(tables), len(findings), len(AREAS), -1)
    results = [
        {
            finding: dict(zip(AREAS, of_finding, strict=True))
            for finding, of_finding in zip(findings, of_table, strict=True)
        }
        for of_table in found
    ]
    return [one | {"mean": {name: mean_over_findings(one, name) for name in AREAS}} for one in results]


class _Areas:
    """One finding's rows by falling score, which gives areas for many weights at once.

    Negatives are cut where a distinct score of positives begins and ends; `_above` and `_down_to` say how many pieces
    lie above each such score, and at or above it.
    """

    def __init__(self, targets: NDArray[np.float32], scores: NDArray[np.float64], rows: NDArray[np.int64]) -> None:
        ranking = rank_by_score(targets, scores)
        group = np.repeat(np.arange(len(ranking.ends)), np.diff(ranking.ends, prepend=-1))
        ordered, positive = rows[ranking.order], ranking.positive
        self._positives, self._negatives = ordered[positive], ordered[~positive]
        levels, self._starts = np.unique(group[positive], return_index=True)
        first = np.searchsorted(group[~positive], levels, "left")
        last = np.searchsorted(group[~positive], levels, "right")
        cuts = np.unique(np.concatenate(([0], first, last)))
        self._cuts = cuts[cuts < len(self._negatives)]
        self._above, self._down_to = np.searchsorted(self._cuts, first), np.searchsorted(self._cuts, last)

    def of(self, weights: Weights) -> NDArray[np.float64]:
        """Return AUROC and average precision, [2, b], for weights [N, b], which are whole numbers from 0."""
        if not (len(self._positives) and len(self._negatives)):
            return np.full((len(AREAS), weights.shape[1]), np.nan)
        # Whole numbers below 2**24 are exact in float32.
        hits = np.add.reduceat(weights[self._positives], self._starts, axis=0)
        pieces = np.add.reduceat(weights[self._negatives], self._cuts, axis=0)
        alarms = np.concatenate([np.zeros_like(pieces[:1]), np.cumsum(pieces, axis=0)])
        above, down_to = alarms[self._above], alarms[self._down_to]
        found = np.cumsum(hits, axis=0)
        positives, negatives = found[-1].astype(np.float64), alarms[-1].astype(np.float64)
        lost = np.einsum("gb,gb->b", hits, above + down_to, dtype=np.float64) / 2
        called = found + down_to
        precision = np.divide(found, called, out=np.zeros(called.shape), where=called > 0, dtype=np.float64)
        steps = np.einsum("gb,gb->b", hits, precision)
        with np.errstate(divide="ignore", invalid="ignore"):
            both = (positives > 0) & (negatives > 0)
            return np.where(both, np.stack([1 - lost / (positives * negatives), steps / positives]), np.nan)
