"""Figures by subgroup: sex, age band, projection or any column of the sheet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.area_intervals import auprc_interval, auroc_interval
from cxrtool.evaluation.intervals import Interval, number_patients
from cxrtool.evaluation.metrics import FEW_CASES, FindingMetrics, evaluate
from cxrtool.evaluation.table import PredictionTable

MOST_GROUPS = 20
"""Groups of one attribute that get figures: the largest. A column of many values, such as an id, is no subgroup."""
AGE_BANDS = ((0, 40), (40, 60), (60, 80), (80, 200))


@dataclass(frozen=True)
class SubgroupFigures:
    """Figures of one finding in one group.

    Attributes:
        attribute: ``sex``, ``age``, ``projection`` or a column of the sheet.
        group: value of the attribute; ``not given`` if blank.
        finding: name of the finding.
        studies: number of rows in the group, whatever their label.
        metrics: see `FindingMetrics`.
        auroc_interval: see `auroc_interval`, without draws.
        auprc_interval: likewise.
    """

    attribute: str
    group: str
    finding: str
    studies: int
    metrics: FindingMetrics
    auroc_interval: Interval
    auprc_interval: Interval

    @property
    def small(self) -> bool:
        """Whether the group has fewer than `FEW_CASES` positives or negatives of the finding."""
        return self.metrics.few_cases

    def to_dict(self) -> dict[str, object]:
        """Return all values by name, for JSON and CSV."""
        return {
            "attribute": self.attribute,
            "group": self.group,
            "finding": self.finding,
            "studies": self.studies,
            "small": self.small,
            **self.metrics.to_dict(),
            "auroc_low": self.auroc_interval.low,
            "auroc_high": self.auroc_interval.high,
            "auprc_low": self.auprc_interval.low,
            "auprc_high": self.auprc_interval.high,
        }


def age_band(text: str) -> str:
    """Return the band of an age, such as ``40-59`` for ``47``; blank if it is not a number."""
    try:
        age = float(text)
    except ValueError:
        return ""
    found = next((f"{low}-{high - 1}" for low, high in AGE_BANDS if low <= age < high), "")
    return {"0-39": "under 40", "80-199": "80 and over"}.get(found, found)


def subgroup_figures(
    table: PredictionTable,
    attributes: Sequence[str],
    confidence: float = 0.95,
    thresholds: Mapping[str, float] | None = None,
) -> tuple[SubgroupFigures, ...]:
    """Compute figures by group and finding for each attribute, except those that are missing or blank in every row.

    Only the `MOST_GROUPS` largest groups of an attribute get figures; `capped_group_warnings` says where others are.
    """
    found: list[SubgroupFigures] = []
    for attribute in attributes:
        for group, places in largest_groups(table, attribute).items():
            rows = np.array(places, dtype=np.int64)
            found += _group_figures(table.select(rows), attribute, group or "not given", confidence, thresholds)
    return tuple(found)


def largest_groups(table: PredictionTable, attribute: str) -> dict[str, list[int]]:
    """Return the rows of the `MOST_GROUPS` largest groups, sorted by name; blank is a group too."""
    rows_of = _rows_by_group(table, attribute)
    largest = sorted(rows_of, key=lambda group: (-len(rows_of[group]), group))[:MOST_GROUPS]
    return {group: rows_of[group] for group in sorted(largest)}


def capped_group_warnings(table: PredictionTable, attributes: Sequence[str]) -> tuple[str, ...]:
    """Return one warning per attribute that has more than `MOST_GROUPS` groups."""
    counts = {attribute: len(_rows_by_group(table, attribute)) for attribute in attributes}
    return tuple(
        f"{attribute}: figures of the {MOST_GROUPS} largest of {count:,} groups only"
        for attribute, count in counts.items()
        if count > MOST_GROUPS
    )


def _rows_by_group(table: PredictionTable, attribute: str) -> dict[str, list[int]]:
    """Return the rows of each group; none if the attribute is missing or blank in every row."""
    values = table.attributes.get(attribute, ())
    if attribute == "age":
        values = tuple(age_band(value) for value in values)
    found: dict[str, list[int]] = {}
    for row, value in enumerate(values if any(values) else ()):
        found.setdefault(value, []).append(row)
    return found


def _group_figures(
    table: PredictionTable,
    attribute: str,
    group: str,
    confidence: float,
    thresholds: Mapping[str, float] | None,
) -> list[SubgroupFigures]:
    evaluation = evaluate(table, thresholds)
    _, patients = number_patients(table.patients)
    return [
        SubgroupFigures(
            attribute=attribute,
            group=group,
            finding=finding,
            studies=len(table),
            metrics=evaluation.labels[finding],
            auroc_interval=auroc_interval(*_cases(table, column, patients), None, confidence),
            auprc_interval=auprc_interval(*_cases(table, column, patients), None, confidence),
        )
        for column, finding in enumerate(table.findings)
    ]


def _cases(
    table: PredictionTable, column: int, patients: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
    """Return targets, scores and patients of the rows that count for a finding."""
    counts = table.mask[:, column]
    return table.targets[counts, column], table.scores[counts, column], patients[counts]


def small_group_warnings(figures: Sequence[SubgroupFigures]) -> tuple[str, ...]:
    """Return one warning per attribute that has small groups."""
    warnings = []
    for attribute in dict.fromkeys(item.attribute for item in figures):
        small = [f"{item.group} ({item.finding})" for item in figures if item.attribute == attribute and item.small]
        if small:
            more = f" and {len(small) - 3} more" if len(small) > 3 else ""
            warnings.append(
                f"{attribute}: fewer than {FEW_CASES} positives or negatives in {', '.join(small[:3])}{more}: "
                "too few for reliable figures"
            )
    return tuple(warnings)
