"""Confidence intervals by the bootstrap over patients.

Images of one patient are alike, so that drawing images would give intervals that are much too narrow. A draw is stored
as one weight per row, the number of times its patient was drawn: no row is copied, and many draws are counted in one
pass over sorted scores.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrtool.errors import RequestError
from cxrtool.evaluation.ranking import rank_by_score
from cxrtool.evaluation.table import PredictionTable

Draws = NDArray[np.float64]
FIGURES = ("auroc", "auprc")
_CHUNK = 32  # draws per random generator
_BLOCK = 2**15  # weights at a time: with more, intermediate results no longer fit the processor's cache
_THREADS = 2

FEW_PATIENTS = 20
"""Number of patients below which intervals mean little."""
NO_DRAW = "no draw of patients defines this figure"
ONE_PATIENT = "the rows are of one patient, so there is nothing to draw from"


def few_patients_warnings(split: str, patients: int) -> tuple[str, ...]:
    """Return a warning if a split has too few patients for intervals, else nothing."""
    if patients == 1:
        return (f"the {split} split has one patient only, so there are no intervals",)
    if patients < FEW_PATIENTS:
        return (
            f"the {split} split has {patients} patients only: with fewer than {FEW_PATIENTS}, intervals mean little",
        )
    return ()


@dataclass(frozen=True)
class Interval:
    """Confidence interval of a figure.

    Attributes:
        low: lower end, None if no draw defines the figure.
        high: upper end, likewise.
        undefined_draws: number of draws left out because they do not define the figure, such as those without a class.
        reason: why there is no interval; None if there is one.
        method: name of the method that gave it, such as ``percentile``; None if there is none.
    """

    low: float | None
    high: float | None
    undefined_draws: int = 0
    reason: str | None = None
    method: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "low": self.low,
            "high": self.high,
            "undefined_draws": self.undefined_draws,
            "reason": self.reason,
            "method": self.method,
        }


@dataclass(frozen=True)
class BootstrapSettings:
    """How patients are drawn.

    Attributes:
        draws: number of draws.
        seed: random seed of the draws.
        confidence: level of the intervals, between 0 and 1.
    """

    draws: int = 1000
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not (self.draws >= 1 and 0 < self.confidence < 1 and self.seed >= 0):
            raise RequestError(
                f"cannot use {self.draws} draws, seed {self.seed}, confidence {self.confidence:g}",
                "Use at least 1 draw, a seed of at least 0 and a confidence between 0 and 1.",
            )


class PatientDraws:
    """Draws of patients with replacement, as weights of rows.

    Two tables with the same patients and settings get the same draws, so that their figures are paired. A single
    patient gives no draws: all weights are 0, which leaves every figure undefined, instead of intervals of width 0.

    Args:
        patients: patient of each row.
        settings: number of draws and seed.
    """

    def __init__(self, patients: Sequence[str], settings: BootstrapSettings) -> None:
        names, self._group = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
        self._patients = len(names)
        self.settings = settings
        self.rows = len(self._group)

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """Yield weights [b, N] float32 of some draws at a time, whole numbers from 0."""
        for start in range(0, self.settings.draws, _CHUNK):
            yield self.chunk(start)

    def starts(self) -> range:
        """Return the first draw of each chunk."""
        return range(0, self.settings.draws, _CHUNK)

    def chunk(self, start: int) -> NDArray[np.float32]:
        """Return weights [b, N] float32 of the chunk that begins with draw `start`."""
        count = min(_CHUNK, self.settings.draws - start)
        if self._patients < 2:
            return np.zeros((count, self.rows), dtype=np.float32)
        rng = np.random.default_rng(np.random.SeedSequence(self.settings.seed, spawn_key=(start,)))
        drawn = rng.integers(0, self._patients, (count, self._patients))
        weights = np.stack([np.bincount(row, minlength=self._patients) for row in drawn]).astype(np.float32)
        return weights[:, self._group]


def percentile_interval(values: Draws, confidence: float = 0.95) -> Interval:
    """Return the percentile interval (Efron & Tibshirani 1993, chapter 13) of draws [B], which are NaN if undefined."""
    defined = values[~np.isnan(values)]
    undefined = len(values) - len(defined)
    if len(defined) == 0:
        return Interval(None, None, undefined, NO_DRAW)
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high), undefined, method="percentile")


class _Ranked:
    """One finding's rows by falling score, which gives areas for many weights at once."""

    def __init__(
        self,
        targets: NDArray[np.float32],
        scores: NDArray[np.float64],
        rows: NDArray[np.int64],
    ) -> None:
        ranking = rank_by_score(targets, scores)
        self._rows = rows[ranking.order]
        self._positive = ranking.positive.astype(np.float32)
        self._ends = ranking.ends

    def figures(self, weights: NDArray[np.float32]) -> dict[str, Draws]:
        """Return AUROC and average precision, [b] each, for weights [b, N]."""
        drawn = weights[:, self._rows]
        if not drawn.shape[1]:
            return {name: np.full(len(weights), np.nan) for name in FIGURES}
        # Whole numbers below 2**24 are exact in float32.
        positives_to = np.cumsum(drawn * self._positive, axis=1)
        all_to = np.cumsum(drawn, axis=1)
        positives = positives_to[:, -1].astype(np.float64)
        negatives = all_to[:, -1] - positives
        tp, called = positives_to[:, self._ends], all_to[:, self._ends]
        return _areas(tp, called, positives, negatives)


def _areas(
    tp: NDArray[np.float32], called: NDArray[np.float32], positives: Draws, negatives: Draws
) -> dict[str, Draws]:
    """Sum trapezoids under the ROC curve and steps under the precision-recall curve, over distinct scores [b, G]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        fp = called - tp
        before = np.empty_like(tp)
        before[:, 0] = 0
        before[:, 1:] = tp[:, :-1]
        width = np.diff(fp, axis=1, prepend=np.float32(0))
        pairs = np.einsum("bg,bg->b", width, (tp + before).astype(np.float64)) / 2
        precision = np.zeros_like(tp, dtype=np.float64)
        np.divide(tp, called, out=precision, where=called > 0, dtype=np.float64)
        steps = np.einsum("bg,bg->b", tp - before, precision)
        both = (positives > 0) & (negatives > 0)
        auroc = np.where(both, pairs / (positives * negatives), np.nan)
        auprc = np.where(both, steps / positives, np.nan)
    return {"auroc": auroc, "auprc": auprc}


def bootstrap(table: PredictionTable, settings: BootstrapSettings) -> dict[str, dict[str, Draws]]:
    """Compute the areas for every draw of patients.

    Args:
        table: predictions and labels; masked cells do not count.
        settings: number of draws and seed.

    Returns:
        Draws [B] float64, NaN where undefined, by finding and figure, ``auroc`` and ``auprc``, and under ``mean`` those
        of `mean_over_findings`.
    """
    draws = PatientDraws(table.patients, settings)
    ranked = {finding: _rank(table, column) for column, finding in enumerate(table.findings)}

    count = max(1, _BLOCK // max(1, draws.rows))

    def run(start: int) -> list[dict[str, dict[str, Draws]]]:
        weights = draws.chunk(start)
        blocks = [weights[first : first + count] for first in range(0, len(weights), count)]
        return [{finding: one.figures(block) for finding, one in ranked.items()} for block in blocks]

    with ThreadPoolExecutor(_THREADS) as pool:
        parts = [part for some in pool.map(run, draws.starts()) for part in some]
    found = {
        finding: {name: np.concatenate([part[finding][name] for part in parts]) for name in parts[0][finding]}
        for finding in table.findings
    }
    return found | {"mean": {name: mean_over_findings(found, name) for name in FIGURES}}


def _rank(table: PredictionTable, column: int) -> _Ranked:
    rows = np.flatnonzero(table.mask[:, column])
    return _Ranked(table.targets[rows, column], table.scores[rows, column], rows)


def mean_over_findings(draws: Mapping[str, Mapping[str, Draws]], name: str) -> Draws:
    """Average a figure over the findings that define it in any draw, [B]; NaN in a draw that lacks one of them."""
    values = np.stack([draws[finding][name] for finding in draws])
    kept = values[~np.isnan(values).all(axis=1)]
    mean: Draws = kept.mean(axis=0) if len(kept) else np.full(values.shape[1], np.nan)
    return mean
