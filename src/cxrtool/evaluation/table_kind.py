"""The two kinds of prediction tables, and how to tell which kind a file is.

In a table of ``cxr eval`` a finding's column holds its label, and the next column its probability; in a table of
``cxr predict`` the finding's column holds the probability. The last column, `MARK`, names the kind in every row, so
that sorting or removing rows does not lose it. Older tables without that column are recognised by their other columns.
"""

import csv
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path

from cxrtool.errors import RequestError

MARK = "table"
"""Name of the column that holds the kind."""
Row = Mapping[str, str | None]


class TableKind(StrEnum):
    """Kind of a table of predictions: of ``cxr eval`` or of ``cxr predict``."""

    EVALUATION = "evaluation"
    PREDICTION = "prediction"


_ADVICE = {
    TableKind.EVALUATION: "Give a predictions.csv of cxr eval.",
    TableKind.PREDICTION: "Give a table of cxr predict --csv.",
}
_MEANING = {
    TableKind.EVALUATION: "a table of cxr eval, whose columns named after findings are labels",
    TableKind.PREDICTION: "a table of cxr predict, whose columns named after findings are probabilities without labels",
}


def score_column(finding: str, are_probabilities: bool = True) -> str:
    """Return the name of a finding's column of scores in a table of ``cxr eval``, which says what the scores are."""
    return f"{finding} {'probability' if are_probabilities else 'score'}"


def findings_in(header: Collection[str], are_probabilities: bool = True) -> tuple[str, ...]:
    """Return the findings in a table of ``cxr eval``, in order: the columns that have a column of scores too."""
    return tuple(name for name in header if score_column(name, are_probabilities) in header)


def kind_of(header: Collection[str], marks: Collection[str]) -> TableKind | None:
    """Return a table's kind by its marks, or else by its columns; None if unknown or if rows of both kinds are mixed.

    Args:
        header: names of the columns.
        marks: distinct values in column `MARK`; empty if there is no such column.
    """
    if marks:
        (mark,) = marks if len(marks) == 1 else ("",)
        return TableKind(mark) if mark in list(TableKind) else None
    if "study" in header and (findings_in(header) or findings_in(header, are_probabilities=False)):
        return TableKind.EVALUATION
    return TableKind.PREDICTION if {"path", "positive", "error"} <= set(header) else None


def check_kind(path: Path, header: Collection[str], marks: Collection[str], needed: TableKind) -> None:
    """Check that a table is not of another kind than `needed`; one without mark and of unknown columns passes.

    Raises:
        RequestError: it is of the other kind, mixes kinds, or has an unknown mark.
    """
    if len(marks) > 1:
        shown = " and ".join(repr(mark) for mark in sorted(marks)[:2])
        raise RequestError(f"{path} mixes rows with {shown} in column {MARK!r}", _ADVICE[needed])
    kind = kind_of(header, marks)
    if kind is None and marks:
        raise RequestError(
            f"{path} has {next(iter(marks))!r} in column {MARK!r}, which names no kind of table", _ADVICE[needed]
        )
    if kind not in (None, needed):
        raise RequestError(f"{path} is {_MEANING[kind]}", _ADVICE[needed])


@contextmanager
def open_rows(path: Path, needed: TableKind | None = None) -> Iterator[tuple[list[str], Iterator[Row]]]:
    """Open a CSV file and yield its column names and an iterator over its rows.

    Raises:
        RequestError: the file cannot be read or is not CSV; the advice asks for a table of kind `needed`.
    """
    advice = "Give a table of cxr eval or cxr predict." if needed is None else _ADVICE[needed]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            first = next(reader, None)  # also reads the header
            yield list(reader.fieldnames or ()), chain(() if first is None else (first,), reader)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}", advice) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is not a CSV file: {error}", advice) from None


def marks_of(rows: Iterable[Row]) -> set[str]:
    """Return the distinct values in column `MARK`; empty if rows have no such column."""
    return {row[MARK] or "" for row in rows if MARK in row}


@dataclass(frozen=True)
class TableSummary:
    """Summary of a table, as ``cxr info FILE.csv`` shows it.

    Attributes:
        path: path of the file.
        kind: kind of the table.
        rows: number of rows.
        columns: names of the columns, in order.
    """

    path: Path
    kind: TableKind
    rows: int
    columns: tuple[str, ...]

    @property
    def meaning(self) -> str:
        """Description of the kind in words."""
        return _MEANING[self.kind]

    def to_dict(self) -> dict[str, object]:
        """Return the document of ``cxr info FILE.csv --json``."""
        return {
            "path": str(self.path),
            MARK: self.kind.value,
            "meaning": self.meaning,
            "rows": self.rows,
            "columns": list(self.columns),
        }


def describe_table(path: Path) -> TableSummary:
    """Determine the kind and size of a table, reading one row at a time.

    Raises:
        RequestError: the file cannot be read, is of neither kind, or mixes both.
    """
    count, marks = 0, set[str]()
    with open_rows(path) as (header, rows):
        for row in rows:
            count += 1
            marks |= marks_of((row,))
    kind = kind_of(header, marks)
    if kind is None:
        mixed = len(marks) > 1
        raise RequestError(
            f"{path} mixes rows of several kinds of tables"
            if mixed
            else f"{path} is not a table of cxr eval or cxr predict",
            "Give a predictions.csv of cxr eval, a table of cxr predict --csv, a run folder or a bundle.",
        )
    return TableSummary(path, kind, count, tuple(header))


def check_resumable(path: Path) -> None:
    """Check that ``cxr predict --resume-csv`` may continue with this file; a missing file passes.

    Raises:
        RequestError: the file is a table of ``cxr eval``.
    """
    if not path.is_file():
        return
    with open_rows(path, TableKind.PREDICTION) as (header, rows):
        first = next(rows, None)
        marks = marks_of(() if first is None else (first,))
    if kind_of(header, marks) is TableKind.EVALUATION:
        raise RequestError(f"{path} is {_MEANING[TableKind.EVALUATION]}", "Name another file with --csv.")
