"""What a pilot table says of a finding, for planning a larger test set."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.area_intervals import area_design_effect
from cxrtool.evaluation.delong import delong, influence, paired_difference
from cxrtool.evaluation.intervals import number_patients
from cxrtool.evaluation.power import Assumptions, area_covariance
from cxrtool.evaluation.ranking import midranks
from cxrtool.evaluation.table import PredictionTable

Array = NDArray[np.float64]
TOO_FEW = "fewer than two positives or negatives"
NO_SKILL = "an AUROC of 0.5 or less, or of 1"


@dataclass(frozen=True)
class Pilot:
    """A finding in a pilot.

    Attributes:
        finding: name of the finding.
        studies: number of studies with a label.
        assumed: what the pilot says; None if it says nothing.
        reason: why `assumed` is None.
    """

    finding: str
    studies: int
    assumed: Assumptions | None
    reason: str | None = None


def pilots_of(tables: Sequence[PredictionTable], correlation: float) -> tuple[Pilot, ...]:
    """Measure AUROC, prevalence, correlation and variances of each finding on one table, or on two of the same rows.

    The AUROC is the mean of both models'. The variance of an AUROC is DeLong's times the design effect of patients
    (Obuchowski 1997), that of the difference Obuchowski's; each is kept as a factor of the binormal variance at the
    pilot's numbers of cases, which `Assumptions` scales to other numbers.

    Args:
        tables: one table, or two with the same rows in the same order.
        correlation: of scores within a class, where there is one table.
    """
    first = tables[0]
    _, patients = number_patients(first.patients)
    return tuple(_pilot(tables, column, patients, correlation) for column in range(len(first.findings)))


def _pilot(
    tables: Sequence[PredictionTable],
    column: int,
    patients: NDArray[np.int64],
    correlation: float,
) -> Pilot:
    first = tables[0]
    finding, rows = first.findings.names[column], np.flatnonzero(first.mask[:, column])
    positive = first.targets[rows, column] > 0.5
    _, group = np.unique(patients[rows], return_inverse=True)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if min(positives, negatives) < 2:
        return Pilot(finding, len(rows), None, TOO_FEW)
    scores = [table.scores[rows, column] for table in tables]
    measured = [delong(positive, one) for one in scores]
    area = float(np.mean([one.auroc for one in measured]))
    if not 0.5 < area < 1:
        return Pilot(finding, len(rows), None, NO_SKILL)
    binormal = area_covariance(area, area, 1.0, positives, negatives)
    variance = float(np.mean([one.standard_error**2 for one in measured]))
    design_effect = float(np.mean([area_design_effect(positive, one, group) for one in scores]))
    area_effect = max(variance * design_effect / binormal, 1e-6)
    if len(tables) == 1:
        assumed = Assumptions(area, positives / len(rows), correlation, design_effect, area_effect, area_effect)
        return Pilot(finding, len(rows), assumed)
    shared = min(max(correlation_within_classes(positive, scores[0], scores[1]), 0.0), 0.999)
    count = int(group.max()) + 1
    parts = [influence(positive, one, group, count) for one in scores]
    error = paired_difference(parts[:1], parts[1:]).standard_error
    expected = 2 * (binormal - area_covariance(area, area, shared, positives, negatives))
    factor = error**2 / expected if error > 0 else area_effect
    assumed = Assumptions(area, positives / len(rows), shared, design_effect, area_effect, factor)
    return Pilot(finding, len(rows), assumed)


def correlation_within_classes(positive: NDArray[np.bool_], first: Array, second: Array) -> float:
    """Return the correlation of two models' normal scores (van der Waerden) within classes, pooled over both.

    Ranks are taken within each class, so that no increasing transformation of scores changes it.
    """
    products = np.zeros((2, 2))
    for kept in (positive, ~positive):
        scores = np.stack([_normal_scores(one[kept]) for one in (first, second)])
        products += scores @ scores.T
    size = np.sqrt(products[0, 0] * products[1, 1])
    return float(products[0, 1] / size) if size > 0 else 0.0


def _normal_scores(values: Array) -> Array:
    normal = NormalDist()
    return np.array([normal.inv_cdf(rank / (len(values) + 1)) for rank in midranks(values)])
