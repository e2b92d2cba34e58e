"""A model's ROC curve at a reader's specificity, and the paired difference there over draws of patients."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.intervals import ONE_PATIENT, Draws, Interval, PatientDraws, percentile_interval
from cxrtool.evaluation.metrics import FEW_CASES
from cxrtool.evaluation.paired_rates import newcombe_paired
from cxrtool.evaluation.ranking import Array, rank_by_score

Flags = NDArray[np.bool_]
_FEW_ERRORS = 10
"""Positives times the distance of either sensitivity from 0 and 1 below which a percentile interval is not used."""
ONE_CLASS = "a class is missing among the studies that the reader read"


@dataclass(frozen=True, eq=False)
class PairedPoint:
    """A reader's point and the model's ROC curve at the same specificity.

    Attributes:
        model_sensitivity: height of the model's curve there, NaN if a class is missing.
        difference: `model_sensitivity` minus the reader's sensitivity.
        interval: of `difference`.
        draws: [B], the difference in each draw of patients, NaN where undefined.
    """

    model_sensitivity: float
    difference: float
    interval: Interval
    draws: Draws


class PairedRows:
    """The studies that a reader read, by falling score of the model.

    The model's curve is joined by straight lines, as it is drawn and as its area is measured: a point between two
    thresholds is reached by using either at random (Scott, Niranjan & Prager 1998, British Machine Vision Conference).
    Where the curve is vertical at the reader's specificity, its upper end counts.

    Args:
        positive: [N], whether each study has the finding.
        scores: [N], of the model.
        called: [N], whether the reader calls each study positive.
        rows: [N], position of each study among the rows that are drawn.
        patients: [N], patient of each study as a number from 0.
    """

    def __init__(
        self, positive: Flags, scores: Array, called: Flags, rows: NDArray[np.int64], patients: NDArray[np.int64]
    ) -> None:
        ranking = rank_by_score(positive, scores)
        self._ends, self._positive = ranking.ends, ranking.positive
        self._called, self._rows, self._patients = called[ranking.order], rows[ranking.order], patients[ranking.order]
        self._positives = int(positive.sum())
        self._negatives = len(positive) - self._positives

    def compare(self, draws: PatientDraws) -> PairedPoint:
        """Compare model and reader, with the threshold chosen again in each draw to match the reader there."""
        if not (self._positives and self._negatives):
            nothing = np.full(draws.settings.draws, np.nan)
            return PairedPoint(np.nan, np.nan, Interval(None, None, reason=ONE_CLASS), nothing)
        (model,), (reader,) = self._sensitivities(np.ones((1, len(self._rows)), dtype=np.float32))
        values = self._drawn(draws, of_positives=True)
        interval = self._interval(values, draws, (float(model), float(reader)))
        return PairedPoint(float(model), float(model - reader), interval, values)

    def _drawn(self, draws: PatientDraws, of_positives: bool) -> Draws:
        """Return the difference in each draw, [B]; without `of_positives`, only negatives are drawn."""
        found = []
        for weights in draws.chunks():
            own = weights[:, self._rows]
            found.append(np.subtract(*self._sensitivities(own if of_positives else np.where(self._positive, 1, own))))
        return np.concatenate(found)

    def _sensitivities(self, weights: NDArray[np.float32]) -> tuple[Array, Array]:
        """Return the sensitivity of the model at the reader's specificity and that of the reader, [b] each."""
        # Whole numbers below 2**24 are exact in float32.
        hits = self._curve(weights * self._positive)
        alarms = self._curve(weights * ~self._positive)
        positives, negatives = hits[:, -1], alarms[:, -1]
        target = (weights * (self._called & ~self._positive)).sum(axis=1, dtype=np.float64)
        draw = np.arange(len(weights))
        last = (alarms <= target[:, None]).sum(axis=1) - 1  # the last threshold with no more alarms than the reader
        after = np.minimum(last + 1, alarms.shape[1] - 1)
        step = alarms[draw, after] - alarms[draw, last]
        share = np.divide(target - alarms[draw, last], step, out=np.zeros(len(weights)), where=step > 0)
        reached = hits[draw, last] + share * (hits[draw, after] - hits[draw, last])
        with np.errstate(divide="ignore", invalid="ignore"):
            model = np.where(negatives > 0, reached / positives, np.nan)
            return model, (weights * (self._called & self._positive)).sum(axis=1, dtype=np.float64) / positives

    def _curve(self, weights: NDArray[np.float32]) -> Array:
        """Return the weight at or above each distinct score, from 0, [b, G + 1]."""
        counted = np.cumsum(weights, axis=1)[:, self._ends].astype(np.float64)
        return np.concatenate([np.zeros((len(weights), 1)), counted], axis=1)

    def _interval(self, values: Draws, draws: PatientDraws, sensitivities: tuple[float, float]) -> Interval:
        undefined, confidence = int(np.isnan(values).sum()), draws.settings.confidence
        if len(np.unique(self._patients)) == 1:
            return Interval(None, None, undefined, ONE_PATIENT)
        nearest = min(min(rate, 1 - rate) for rate in sensitivities)
        if min(self._positives, self._negatives) >= FEW_CASES and self._positives * nearest >= _FEW_ERRORS:
            return percentile_interval(values, confidence)
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        low, high = newcombe_paired(
            self._model_calls()[self._positive],
            self._called[self._positive].astype(np.float64),
            self._patients[self._positive],
            confidence,
            z**2 * float(np.nanvar(self._drawn(draws, of_positives=False))),
        )
        return Interval(low, high, undefined, method="newcombe 10, with draws of negatives")

    def _model_calls(self) -> Array:
        """Return with which probability the model calls each study positive at the reader's specificity, [N]."""
        target = float((self._called & ~self._positive).sum())
        alarms = np.append(0.0, np.cumsum(~self._positive)[self._ends])
        whole = int(np.searchsorted(alarms, target, "right")) - 1  # groups of tied scores that are called
        sizes = np.diff(self._ends, prepend=-1)
        share = np.zeros(len(sizes))
        share[:whole] = 1
        if whole < len(sizes):
            share[whole] = (target - alarms[whole]) / (alarms[whole + 1] - alarms[whole])
        return np.repeat(share, sizes)
