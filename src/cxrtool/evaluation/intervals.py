"""Confidence intervals by the bootstrap over patients.

Images of one patient are alike, so that drawing images would give intervals that are much too narrow. A draw is stored
as one weight per row, the number of times its patient was drawn: no row is copied, and many draws are counted in one
pass over sorted scores.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrtool.errors import RequestError

Draws = NDArray[np.float64]
_CHUNK = 32  # draws per random generator

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


def number_patients(patients: Sequence[str]) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Return the distinct names of patients in sorted order, and the position in them of each row's patient, [N]."""
    names, group = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
    return names, group


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
        names, self._group = number_patients(patients)
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


def mean_over_findings(draws: Mapping[str, Mapping[str, Draws]], name: str) -> Draws:
    """Average a figure over the findings that define it in any draw, [B]; NaN in a draw that lacks one of them."""
    values = np.stack([draws[finding][name] for finding in draws])
    kept = values[~np.isnan(values).all(axis=1)]
    mean: Draws = kept.mean(axis=0) if len(kept) else np.full(values.shape[1], np.nan)
    return mean
