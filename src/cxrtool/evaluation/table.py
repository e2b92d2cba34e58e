"""Tables of probabilities and labels by study or image, and their CSV files."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Level
from cxrtool.data.labels import warn_of_contradictions
from cxrtool.errors import CxrError, RequestError
from cxrtool.evaluation.table_kind import (
    MARK,
    TableKind,
    check_kind,
    findings_in,
    marks_of,
    open_rows,
    score_column,
)
from cxrtool.files import write_csv
from cxrtool.findings import CHEXPERT5, Findings
from cxrtool.text import counted

UNKNOWN_SPLIT = "unknown"
_PROVENANCE = ("images", "patient", "split", "sheet_sha256", "model_sha256")


@dataclass(frozen=True, eq=False)
class PredictionTable:
    """Predictions and labels of a split.

    Attributes:
        ids: unique name of each row: the path of an image, or a study.
        patients: patient of each row.
        studies: study of each row, such as ``patient00001/study1``.
        images: [N] int64, number of images behind each row.
        split: name of the split, which decides whether thresholds may be tuned on the table.
        level: unit of a row.
        sheet_sha256: digest of the sheet that the labels came from.
        model_sha256: digest of the weights that made the predictions.
        scores: [N, F] float64, in the order of `findings`: probabilities, or any finite numbers of which only the
            order counts. In float32, 0.3 would lie above or below a threshold of 0.3.
        targets: [N, F] float32, 0 or 1.
        mask: [N, F] bool, False where the label does not count.
        attributes: further columns as text, by name (``sex``, ``age``, ``projection``); blank if not given, ``mixed``
            if the images of a study differ.
        findings: names of the columns of `scores`, `targets` and `mask`.
        are_probabilities: whether all scores lie in [0, 1] and mean probabilities. Otherwise there are figures of ranks
            only: no calibration and no thresholds.
        patients_given: False if the source named no patients, so that `patients` repeats `studies`.

    Raises:
        CxrError: a score is NaN, infinite or, of probabilities, outside [0, 1].
    """

    ids: tuple[str, ...]
    patients: tuple[str, ...]
    studies: tuple[str, ...]
    images: NDArray[np.int64]
    split: str
    level: Level
    sheet_sha256: str
    model_sha256: str
    scores: NDArray[np.float64]
    targets: NDArray[np.float32]
    mask: NDArray[np.bool_]
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    findings: Findings = CHEXPERT5
    are_probabilities: bool = True
    patients_given: bool = True

    def __post_init__(self) -> None:
        bounded = (self.scores >= 0) & (self.scores <= 1)
        wrong = ~(bounded if self.are_probabilities else np.isfinite(self.scores)).all(axis=1)
        if wrong.any():
            names = ", ".join(self.ids[row] for row in np.flatnonzero(wrong)[:3])
            fault = (
                "probability that is NaN or outside [0, 1]" if self.are_probabilities else "score that is not finite"
            )
            raise CxrError(
                f"{counted(int(wrong.sum()), 'row has', 'rows have')} a {fault} ({names})",
                "Fix the table; if the model produced it, train again, with fp32.",
            )

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: NDArray[np.int64]) -> "PredictionTable":
        """Return the rows at these positions, in this order."""
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            patients=tuple(self.patients[row] for row in rows),
            studies=tuple(self.studies[row] for row in rows),
            images=self.images[rows],
            scores=self.scores[rows],
            targets=self.targets[rows],
            mask=self.mask[rows],
            attributes={name: tuple(values[row] for row in rows) for name, values in self.attributes.items()},
        )

    def with_findings(self, findings: Findings) -> "PredictionTable":
        """Return the columns of these findings, which the table must have, in this order."""
        columns = [self.findings.index(name) for name in findings]
        return replace(
            self,
            scores=self.scores[:, columns],
            targets=self.targets[:, columns],
            mask=self.mask[:, columns],
            findings=findings,
        )


def same_sheet(split: str, sheet_sha256: str, table: PredictionTable) -> bool:
    """Return whether a table comes from the sheet with this digest; where one is unknown, whether the split is it."""
    if sheet_sha256 and table.sheet_sha256:
        return sheet_sha256 == table.sheet_sha256
    return split == table.split


def to_study_level(table: PredictionTable) -> PredictionTable:
    """Return a table with one row per study: for each finding the largest probability over its images.

    An image whose label is masked adds neither its label nor its probability, unless those of all images of the study
    are masked; then the study's label is too. A label is positive if that of any image is. Rows are in the order in
    which studies first appear. A table at study level is returned unchanged.
    """
    if table.level is Level.STUDY:
        return table
    first: dict[str, int] = {}
    group = np.array([first.setdefault(study, len(first)) for study in table.studies], dtype=np.int64)
    shape = (len(first), len(table.findings))
    targets = np.zeros(shape, dtype=np.float32)
    np.maximum.at(targets, group, np.where(table.mask, table.targets, 0).astype(np.float32))
    mask = np.zeros(shape, dtype=np.bool_)
    np.logical_or.at(mask, group, table.mask)
    scores = np.full(shape, -np.inf)
    np.maximum.at(scores, group, np.where(table.mask | ~mask[group], table.scores, -np.inf))
    images = np.zeros(len(first), dtype=np.int64)
    np.add.at(images, group, table.images)
    patients = dict(zip(table.studies, table.patients, strict=True))
    return PredictionTable(
        ids=tuple(first),
        patients=tuple(patients[study] for study in first),
        studies=tuple(first),
        images=images,
        split=table.split,
        level=Level.STUDY,
        sheet_sha256=table.sheet_sha256,
        model_sha256=table.model_sha256,
        scores=scores,
        targets=targets,
        mask=mask,
        attributes={name: _by_group(values, group, len(first)) for name, values in table.attributes.items()},
        findings=table.findings,
        are_probabilities=table.are_probabilities,
        patients_given=table.patients_given,
    )


def _by_group(values: Sequence[str], group: NDArray[np.int64], count: int) -> tuple[str, ...]:
    found: list[set[str]] = [set() for _ in range(count)]
    for value, place in zip(values, group, strict=True):
        found[place].add(value)
    return tuple(next(iter(one)) if len(one) == 1 else "mixed" for one in found)


def write_predictions(path: Path, table: PredictionTable) -> None:
    """Write a table as CSV: ``study`` (at image level after ``path``), then label and probability of each finding.

    Numbers are written with all digits, so that reading restores them exactly; a masked label is an empty cell. The
    last column marks each row as belonging to a table of ``cxr eval``.
    """
    keys = ["study"] if table.level is Level.STUDY else ["path", "study"]
    header = [*keys]
    for finding in table.findings:
        header += [finding, score_column(finding, table.are_probabilities)]
    header += [*_PROVENANCE, *table.attributes, MARK]
    write_csv(path, header, (_row(table, row) for row in range(len(table.ids))))


def _row(table: PredictionTable, row: int) -> list[object]:
    cells: list[object] = [] if table.level is Level.STUDY else [table.ids[row]]
    cells.append(table.studies[row])
    for column in range(len(table.findings)):
        cells.append(int(table.targets[row, column]) if table.mask[row, column] else None)
        cells.append(float(table.scores[row, column]))
    cells += [
        int(table.images[row]),
        table.patients[row],
        table.split,
        table.sheet_sha256,
        table.model_sha256,
        *(values[row] for values in table.attributes.values()),
        TableKind.EVALUATION.value,
    ]
    return cells


def read_predictions(path: Path) -> PredictionTable:
    """Read a table that `write_predictions` wrote; columns are found by name, in any order.

    Without the columns after the findings, each row counts as one image of one patient, and the split is unknown.

    Raises:
        RequestError: the file is missing, is not such a table, is one of ``cxr predict``, has a row twice, or mixes
            splits.
        CxrError: a probability is NaN or outside [0, 1].
    """
    rows = _read_rows(path)
    level = Level.IMAGE if "path" in rows[0] else Level.STUDY
    ids = tuple(row["path" if level is Level.IMAGE else "study"] for row in rows)
    twice = [name for name in set(ids) if ids.count(name) > 1] if len(set(ids)) < len(ids) else []
    if twice:
        raise RequestError(f"{path} has the row {twice[0]!r} twice", "Remove one of them.")
    are_probabilities, findings = _findings_of(path, rows[0])
    labels = np.array([[_number(path, row, f, blank=True) for f in findings] for row in rows], dtype=np.float32)
    bad = np.argwhere(~np.isnan(labels) & (labels != 0) & (labels != 1))
    if len(bad):
        raise RequestError(f"{path}: row {ids[bad[0][0]]!r} has a label that is not 1, 0 or empty", "Fix that label.")
    columns = [score_column(finding, are_probabilities) for finding in findings]
    known = {"path", "study", *findings, *columns, *_PROVENANCE, MARK}
    numbers = [[_number(path, row, column) for column in columns] for row in rows]
    targets, mask = np.nan_to_num(labels, nan=0.0), ~np.isnan(labels)
    warn_of_contradictions(str(path), np.array([row["study"] for row in rows], dtype=object), targets, mask)
    return PredictionTable(
        ids=ids,
        patients=tuple(row.get("patient") or row["study"] for row in rows),
        studies=tuple(row["study"] for row in rows),
        images=np.array([int(row.get("images") or 1) for row in rows], dtype=np.int64),
        split=_single_value(path, rows, "split") or UNKNOWN_SPLIT,
        level=level,
        sheet_sha256=_single_value(path, rows, "sheet_sha256"),
        model_sha256=_single_value(path, rows, "model_sha256"),
        scores=np.array(numbers, dtype=np.float64),
        targets=targets,
        mask=mask,
        attributes={name: tuple(row[name] or "" for row in rows) for name in rows[0] if name not in known},
        findings=findings,
        are_probabilities=are_probabilities,
        patients_given=any(row.get("patient") for row in rows),
    )


def _findings_of(path: Path, header: Collection[str]) -> tuple[bool, Findings]:
    """Return whether the scores are probabilities, and the findings."""
    probabilities, scores = findings_in(header), findings_in(header, are_probabilities=False)
    if bool(probabilities) == bool(scores):
        missing = score_column(scores[0] if scores else "FINDING")
        raise RequestError(f"{path} has no column {missing!r} beside the labels", "Give a predictions.csv of cxr eval.")
    names = probabilities or scores
    return bool(probabilities), CHEXPERT5 if set(names) == set(CHEXPERT5) else Findings(names)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    with open_rows(path, TableKind.EVALUATION) as (header, found):
        rows = [dict(row) for row in found]
    check_kind(path, header, marks_of(rows), TableKind.EVALUATION)
    if "study" not in header:
        raise RequestError(f"{path} has no column 'study'", "Give a predictions.csv of cxr eval.")
    if not rows:
        raise RequestError(f"{path} has no rows", "Give a predictions.csv of cxr eval.")
    return rows


def _number(path: Path, row: dict[str, Any], column: str, blank: bool = False) -> float:
    text = (row[column] or "").strip()
    if not text and blank:
        return np.nan
    try:
        return float(text)
    except ValueError:
        raise RequestError(
            f"{path}: row {row['study']!r} has {text!r} in column {column!r}", "Write a number there."
        ) from None


def _single_value(path: Path, rows: list[dict[str, Any]], column: str) -> str:
    values = sorted({row.get(column) or "" for row in rows})
    if len(values) > 1:
        raise RequestError(f"{path} mixes {column} {values[0]!r} and {values[1]!r}", "Make a table for each.")
    return str(values[0])
