"""The studies that a model got wrong, the surest first."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cxrtool.choices import Level, MistakeKind
from cxrtool.errors import RequestError
from cxrtool.evaluation.table import PredictionTable, to_study_level
from cxrtool.findings import FINDINGS


@dataclass(frozen=True)
class Mistake:
    """One finding of one study, decided against its label.

    Attributes:
        finding: its name.
        kind: ``false positive`` or ``false negative``.
        rank: from 1, among this finding's mistakes of this kind; the surest first.
        study: which.
        path: of its image with the largest probability, as in the sheet.
        probability: the study's.
        threshold: positive at or above it.
    """

    finding: str
    kind: str
    rank: int
    study: str
    path: str
    probability: float
    threshold: float


def find_mistakes(
    images: PredictionTable,
    thresholds: Mapping[str, float],
    kind: MistakeKind = MistakeKind.BOTH,
    finding: str | None = None,
    top: int | None = None,
) -> tuple[Mistake, ...]:
    """False positives by falling probability, false negatives by rising, per finding.

    Args:
        images: an image-level table, so that a mistake leads to a file.
        thresholds: by finding; the decision is the study's, ``>=``.
        kind: which.
        finding: only this one.
        top: at most so many of each finding and kind.

    Raises:
        RequestError: the table is not at image level.
    """
    if images.level is not Level.IMAGE:
        raise RequestError("mistakes are found in a table of images, this one is of studies", "Use --level image.")
    studies = to_study_level(images)
    surest = _surest_images(images, studies)
    found: list[Mistake] = []
    for column, name in enumerate(FINDINGS):
        if finding not in (None, name):
            continue
        probabilities = studies.probabilities[:, column].astype(np.float64)
        positive = studies.targets[:, column] > 0.5
        called = probabilities >= thresholds[name]
        counts = studies.mask[:, column]
        groups = {
            MistakeKind.FALSE_POSITIVE: (counts & called & ~positive, -probabilities),
            MistakeKind.FALSE_NEGATIVE: (counts & ~called & positive, probabilities),
        }
        for wrong, (rows, order) in groups.items():
            if kind not in (MistakeKind.BOTH, wrong):
                continue
            chosen = np.flatnonzero(rows)
            chosen = chosen[np.argsort(order[chosen], kind="stable")][:top]
            found += [
                Mistake(
                    finding=name,
                    kind=wrong.value,
                    rank=rank,
                    study=studies.ids[row],
                    path=images.ids[surest[row, column]],
                    probability=float(probabilities[row]),
                    threshold=thresholds[name],
                )
                for rank, row in enumerate(chosen, start=1)
            ]
    return tuple(found)


def _surest_images(images: PredictionTable, studies: PredictionTable) -> np.ndarray:
    """Of each study and finding, the position of its image with the largest probability, [N, 5]."""
    place = {study: row for row, study in enumerate(studies.ids)}
    surest = np.full(studies.probabilities.shape, -1, dtype=np.int64)
    for position, study in enumerate(images.studies):
        row = place[study]
        for column in range(len(FINDINGS)):
            best = surest[row, column]
            if best < 0 or images.probabilities[position, column] > images.probabilities[best, column]:
                surest[row, column] = position
    return surest
