"""Studies that a model got wrong, the most confident mistakes first."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cxrtool.choices import MistakeKind
from cxrtool.evaluation.table import PredictionTable, to_study_level


@dataclass(frozen=True)
class Mistake:
    """Wrong decision on one finding of one study.

    Attributes:
        finding: name of the finding.
        kind: ``false-positive`` or ``false-negative``.
        rank: from 1, among this finding's mistakes of this kind, the most confident first.
        study: name of the study.
        path: path in the sheet of the study's image with the largest probability.
        probability: raw probability of the study.
        threshold: the decision is positive at or above it.
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
    """List false positives by falling and false negatives by rising probability, for each finding.

    Args:
        images: an image-level table, which names the image file of a mistake; a study-level one names the study.
        thresholds: by finding; a study is positive if its probability is at or above the threshold.
        kind: kind of mistakes to list.
        finding: name of the only finding to list; None lists all.
        top: most mistakes to list per finding and kind; None lists all.
    """
    studies = to_study_level(images)
    most_probable = _most_probable_images(images, studies)
    found: list[Mistake] = []
    for column, name in enumerate(images.findings):
        if finding not in (None, name):
            continue
        probabilities = studies.scores[:, column]
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
                    path=images.ids[most_probable[row, column]],
                    probability=float(probabilities[row]),
                    threshold=thresholds[name],
                )
                for rank, row in enumerate(chosen, start=1)
            ]
    return tuple(found)


def _most_probable_images(images: PredictionTable, studies: PredictionTable) -> np.ndarray:
    """Return the position of the image that gave a study its probability, for each study and finding, [N, 5]."""
    place = {study: row for row, study in enumerate(studies.ids)}
    most_probable = np.full(studies.scores.shape, -1, dtype=np.int64)
    for position, study in enumerate(images.studies):
        row = place[study]
        # As in `to_study_level`: images with a masked label do not count beside others.
        for column in np.flatnonzero(images.mask[position] | ~studies.mask[row]):
            best = most_probable[row, column]
            if best < 0 or images.scores[position, column] > images.scores[best, column]:
                most_probable[row, column] = position
    return most_probable
