"""Reliability curves: the share of positives over the mean probability, with a band and counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from cxrtool.evaluation.calibration import Array
from cxrtool.evaluation.proportions import effective_rows, wilson

MOST_BINS = 10
ROWS_PER_BIN = 20
"""Smallest number of rows in a bin, where there are as many: a share of fewer says little."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows with neighbouring probabilities.

    Attributes:
        low: lowest probability in the bin.
        high: highest probability.
        rows: number of rows.
        positives: number of positives.
        mean_probability: mean over rows.
        positive_share: share of positives.
        share_low: lower end of the share's interval (Wilson's, for the effective number of rows).
        share_high: upper end.
    """

    low: float
    high: float
    rows: int
    positives: int
    mean_probability: float
    positive_share: float
    share_low: float
    share_high: float


_SAME = 1e-12
"""Difference of two shares that is rounding."""


def reliability_curve(
    targets: ArrayLike,
    probabilities: ArrayLike,
    patients: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> tuple[ReliabilityBin, ...]:
    """Compare mean probability and share of positives in bins of neighbouring rows, by rising probability.

    Bins hold equally many rows: ten bins, or fewer so that each has at least `ROWS_PER_BIN`. Neighbouring bins whose
    shares fall are pooled until none does (isotonic regression, as in the CORP diagram of Dimitriadis et al. 2021,
    PNAS 118:e2016191118), so the curve rises and chance does not make it zigzag. Equal probabilities share a bin.

    Args:
        targets: [N] of 0 and 1.
        probabilities: [N] in [0, 1].
        patients: [N], patient of each row, for the width of the band; None takes each row for a patient.
        confidence: of the band, at each bin.

    Returns:
        Bins with strictly rising shares and mean probabilities; none without rows.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    positive = np.asarray(targets) > 0.5
    names = np.arange(len(values)).astype(str) if patients is None else np.asarray(patients, dtype=object).astype(str)
    order = np.argsort(values, kind="stable")
    values, positive, names = values[order], positive[order], names[order]
    found = []
    for start, end in _rising(positive.astype(np.float64), _edges(values)):
        inside = slice(start, end)
        share = float(positive[inside].mean())
        low, high = wilson(share, effective_rows(positive[inside], names[inside]), confidence)
        found.append(
            ReliabilityBin(
                low=float(values[start]),
                high=float(values[end - 1]),
                rows=end - start,
                positives=int(positive[inside].sum()),
                mean_probability=float(values[inside].mean()),
                positive_share=share,
                share_low=float(low),
                share_high=float(high),
            )
        )
    return tuple(found)


def _edges(values: Array) -> list[int]:
    """Return the first row of each bin and the number of rows; no edge divides equal values."""
    bins = max(1, min(MOST_BINS, len(values) // ROWS_PER_BIN))
    wanted = [round(len(values) * place / bins) for place in range(1, bins)]
    edges = [0]
    for start in (int(np.searchsorted(values, values[row])) for row in wanted):
        if start - edges[-1] >= ROWS_PER_BIN and len(values) - start >= ROWS_PER_BIN:
            edges.append(start)
    return [*edges, len(values)] if len(values) else []


def _rising(outcome: Array, edges: list[int]) -> list[tuple[int, int]]:
    """Pool neighbouring bins until the mean outcome rises from each to the next."""
    from sklearn.isotonic import IsotonicRegression

    bins = list(pairwise(edges))
    if not bins:
        return []
    shares, sizes = [outcome[start:end].mean() for start, end in bins], [end - start for start, end in bins]
    fitted = IsotonicRegression().fit_transform(np.arange(len(bins)), shares, sample_weight=sizes)
    firsts = np.flatnonzero(np.diff(fitted, prepend=-1) > _SAME)
    starts = [bins[place][0] for place in firsts]
    return list(pairwise([*starts, edges[-1]]))
