"""Readers beside a model: sensitivity and specificity of each, and the model's ROC curve at each reader's specificity.

Rajpurkar et al. 2018, PLoS Medicine 15:e1002686, and Irvin et al. 2019, arXiv:1901.07031, draw readers as points beside
a model's curves and count those below it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.intervals import BootstrapSettings, Interval
from cxrtool.evaluation.metrics import or_none
from cxrtool.evaluation.multi_reader import AgainstReaders

MAJORITY = "majority vote"
METHOD = "obuchowski-rockette"
SENSITIVITY, AREA = "sensitivity", "auroc"
"""Figures of a multi-reader analysis: sensitivity at each reader's specificity, and area."""
NOTE_ON_AREA = (
    "a reader's area is that under one point, (sensitivity + specificity) / 2, which a whole curve exceeds at the same "
    "skill: the comparison of areas favours the model, that of sensitivities does not"
)


@dataclass(frozen=True, eq=False)
class Readings:
    """What one reader says of the studies of a table.

    Attributes:
        name: name of the reader.
        positive: [N, F] bool, in the rows and columns of the table.
        mask: [N, F] bool, False where the reader says nothing.
    """

    name: str
    positive: NDArray[np.bool_]
    mask: NDArray[np.bool_]


def majority_vote(readings: Sequence[Readings]) -> Readings:
    """Return the vote of the readers: positive if more than half of those who read the study say so.

    A tie, which only an even number of readers can have, is negative: it is no majority.
    """
    votes = np.sum([one.positive & one.mask for one in readings], axis=0)
    voters = np.sum([one.mask for one in readings], axis=0)
    return Readings(MAJORITY, 2 * votes > voters, voters > 0)


_COUNTS = ("reader", "finding", "positives", "negatives", "not_read")
_RATES = ("sensitivity", "specificity", "precision", "model_sensitivity", "difference")
_PLACES = ("above_by_point", "above_by_interval", "below_by_interval")


@dataclass(frozen=True)
class ReaderFigures:
    """One reader and the model on the studies that the reader read; figures are None where undefined.

    Attributes:
        reader: name of the reader, or `MAJORITY`.
        finding: name of the finding.
        positives: number of positives that the reader read.
        negatives: number of negatives that the reader read.
        not_read: number of studies with a label that the reader did not read.
        sensitivity: of the reader.
        specificity: of the reader.
        precision: positive predictive value of the reader.
        model_sensitivity: height of the model's ROC curve at the reader's specificity.
        difference: `model_sensitivity` minus `sensitivity`.
        intervals: of ``sensitivity``, ``specificity``, ``precision`` and ``difference``.
    """

    reader: str
    finding: str
    positives: int
    negatives: int
    not_read: int
    sensitivity: float | None
    specificity: float | None
    precision: float | None
    model_sensitivity: float | None
    difference: float | None
    intervals: Mapping[str, Interval]

    @property
    def above_by_point(self) -> bool | None:
        """Whether the reader's point lies below the model's ROC curve."""
        return None if self.difference is None else self.difference > 0

    @property
    def above_by_interval(self) -> bool | None:
        """Whether the whole interval of the difference is above 0."""
        low = self.intervals["difference"].low
        return None if low is None else low > 0

    @property
    def below_by_interval(self) -> bool | None:
        """Whether the whole interval of the difference is below 0."""
        high = self.intervals["difference"].high
        return None if high is None else high < 0

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {name: getattr(self, name) for name in (*_COUNTS, *_RATES, *_PLACES)} | {
            "intervals": {name: one.to_dict() for name, one in self.intervals.items()}
        }

    def to_row(self) -> dict[str, object]:
        """Return plain values for a CSV file, with both ends of each interval."""
        plain = {name: value for name, value in self.to_dict().items() if name != "intervals"}
        for name, one in self.intervals.items():
            plain |= {f"{name}_low": one.low, f"{name}_high": one.high, f"{name}_method": one.method}
        return plain


@dataclass(frozen=True)
class AverageReader:
    """The model against the average reader, for readers and patients beyond those studied.

    Readers who read no positive or no negative of the finding are left out.

    Attributes:
        finding: name of the finding.
        figure: ``sensitivity``, at each reader's specificity, or ``auroc``, which for a reader is the mean of
            sensitivity and specificity.
        model: mean of the model's figure; at the readers' specificities for ``sensitivity``.
        readers: mean of the readers' figure.
        studies: number of studies that count: for ``auroc`` those that every reader read, for ``sensitivity`` the
            fewest that any of them read.
        analysis: the difference, model minus average reader.
        interval: of the difference.
    """

    finding: str
    figure: str
    model: float | None
    readers: float | None
    studies: int
    analysis: AgainstReaders
    interval: Interval

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        estimate = self.analysis.estimate
        return {
            "figure": self.figure,
            "model": self.model,
            "average_reader": self.readers,
            "difference": or_none(estimate.value),
            "interval": self.interval.to_dict(),
            "p_value": or_none(estimate.p_value),
            "standard_error": or_none(estimate.standard_error),
            "degrees_of_freedom": estimate.degrees_of_freedom if np.isfinite(estimate.degrees_of_freedom) else None,
            "readers": self.analysis.readers,
            "studies": self.studies,
            "ms_readers": or_none(self.analysis.mean_square),
            "cov2": or_none(self.analysis.covariance),
        }


@dataclass(frozen=True)
class ReaderStudy:
    """A model and its readers on one table.

    Attributes:
        readers: names, in the order given.
        rows: figures by finding, then reader, the majority vote last.
        averages: the model against the average reader, by finding and figure; empty with a single reader.
        settings: how patients are drawn.
        notes: what was left out or assumed.
    """

    readers: tuple[str, ...]
    rows: tuple[ReaderFigures, ...]
    averages: tuple[AverageReader, ...]
    settings: BootstrapSettings
    notes: tuple[str, ...] = ()

    def of(self, finding: str) -> tuple[ReaderFigures, ...]:
        """Return the figures of one finding, the majority vote last."""
        return tuple(row for row in self.rows if row.finding == finding)

    def to_dict(self) -> dict[str, object]:
        """Return the part ``readers`` of metrics.json."""
        findings = tuple(dict.fromkeys(row.finding for row in self.rows))
        return {
            "names": list(self.readers),
            "majority": "positive if more than half of the readers of a study say so; a tie is negative",
            "labels": {
                finding: {
                    "readers": [row.to_dict() for row in self.of(finding)],
                    "average_reader": [one.to_dict() for one in self.averages if one.finding == finding],
                }
                for finding in findings
            },
            "notes": [*self.notes, *((NOTE_ON_AREA,) if self.averages else ())],
        }
