"""Characteristics of a split: patients by age and sex, images by projection, studies by label of each finding."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrtool.choices import Blank
from cxrtool.data.identity import Texts
from cxrtool.data.manifest import Manifest

OLDEST_STATED = 89
"""Ages above this are only counted: the privacy rule of HIPAA (45 CFR 164.514) has them stated as one group."""
NOT_GIVEN = "not given"


@dataclass(frozen=True)
class LabelCounts:
    """Studies by label of one finding, before any policy.

    A study has the first of positive, negative, uncertain and blank that any of its images has.
    """

    positive: int
    negative: int
    uncertain: int
    blank: int

    def prevalence(self, blank: Blank) -> float | None:
        """Return positives / (positives + negatives); blank labels are negatives or do not count. None without any."""
        counted = self.positive + self.negative + (self.blank if blank is Blank.NEGATIVE else 0)
        return self.positive / counted if counted else None


@dataclass(frozen=True)
class Characteristics:
    """Patients, studies and images of a split.

    Attributes:
        patients: number of patients.
        studies: number of studies.
        images: number of images.
        ages: first quartile, median and third quartile of the patients' ages in years, each at the first study; None
            if no age is given.
        ages_known: number of patients with an age.
        over_89: number of patients above `OLDEST_STATED` years.
        sexes: number of patients by sex, the most frequent first.
        projections: number of images by projection, likewise.
        labels: studies by label, by finding.
    """

    patients: int
    studies: int
    images: int
    ages: tuple[float, float, float] | None
    ages_known: int
    over_89: int
    sexes: Mapping[str, int]
    projections: Mapping[str, int]
    labels: Mapping[str, LabelCounts]

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self | None:
        """Return the characteristics that `to_dict` described; None if some are missing, as in older files."""
        if not all(field.name in content for field in fields(cls)):
            return None
        labels = {finding: LabelCounts(**counts) for finding, counts in content["labels"].items()}
        ages = None if content["ages"] is None else tuple(content["ages"])
        return cls(**{**content, "labels": labels, "ages": ages})


def characteristics_of(manifest: Manifest) -> Characteristics:
    """Count the patients, studies, images and labels of a manifest."""
    ages, sexes = _by_patient(manifest)
    stated = ages[~np.isnan(ages)]
    quartiles = None if len(stated) == 0 else tuple(float(age) for age in np.quantile(stated, [0.25, 0.5, 0.75]))
    return Characteristics(
        patients=len(ages),
        studies=len(set(manifest.studies)),
        images=len(manifest),
        ages=quartiles,  # type: ignore[arg-type]  # three quartiles
        ages_known=len(stated),
        over_89=int((stated > OLDEST_STATED).sum()),
        sexes=_counts(sexes),
        projections=_counts(manifest.projections),
        labels=dict(zip(manifest.findings, _labels(manifest), strict=True)),
    )


def _by_patient(manifest: Manifest) -> tuple[NDArray[np.float32], list[str]]:
    """Return the lowest age of each patient, NaN without one, and the sex, ``differs`` if rows disagree."""
    place, patients = pd.factorize(manifest.patients)
    ages = np.full(len(patients), np.nan, dtype=np.float32)
    np.fmin.at(ages, place, manifest.ages)
    codes, names = pd.factorize(manifest.sexes)
    lowest, highest = np.full(len(patients), len(names), dtype=np.int64), np.full(len(patients), -1, dtype=np.int64)
    np.minimum.at(lowest, place, codes)
    np.maximum.at(highest, place, codes)
    pairs = zip(lowest.tolist(), highest.tolist(), strict=True)
    return ages, [str(names[one]) if one == other else "differs" for one, other in pairs]


def _counts(texts: Texts | list[str]) -> dict[str, int]:
    return dict(Counter(str(text) or NOT_GIVEN for text in texts).most_common())


def _labels(manifest: Manifest) -> list[LabelCounts]:
    """Count studies by label, [F]."""
    place, studies = pd.factorize(manifest.studies)
    return [_label_counts(raw, place, len(studies)) for raw in manifest.raw_labels.T]


def _label_counts(raw: NDArray[np.float32], place: NDArray[np.int64], studies: int) -> LabelCounts:
    """Count studies by label of one finding, from the labels [N] of images and the number of each one's study [N]."""
    rank = np.full(studies, 3, dtype=np.int8)
    for value, label in ((2, -1), (1, 0), (0, 1)):  # a later one stands before an earlier one
        rank[place[raw == label]] = value
    return LabelCounts(*np.bincount(rank, minlength=4).tolist())
