"""Which of the two tables called predictions.csv a file is.

In the table of ``cxr eval`` a finding's column is its label, and its probability stands in the column beside it; in the
table of ``cxr predict`` it is the probability. Each says which it is in its last column, `MARK`, in every row, so that
rows that were sorted or taken out still say it. Tables of versions without that column are known by their columns.
"""

import csv
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path

from cxrtool.errors import RequestError
from cxrtool.findings import FINDINGS

MARK = "table"
"""The column's name."""
Row = Mapping[str, str | None]


class TableKind(StrEnum):
    """What a table of predictions is of."""

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


def probability_column(finding: str) -> str:
    """The column of a finding's probability in the table of ``cxr eval``."""
    return f"{finding} probability"


def needed_columns(kind: TableKind) -> list[str]:
    """Columns that every table of this kind has."""
    if kind is TableKind.PREDICTION:
        return ["path", *FINDINGS, "positive", "error"]
    return ["study", *FINDINGS, *(probability_column(finding) for finding in FINDINGS)]


def kind_of(header: Collection[str], marks: Collection[str]) -> TableKind | None:
    """What a table is by its marks, else by its columns; None for neither, or for rows of both.

    Args:
        header: names of its columns.
        marks: all that its rows say under `MARK`; empty where it has no such column.
    """
    if marks:
        (mark,) = marks if len(marks) == 1 else ("",)
        return TableKind(mark) if mark in list(TableKind) else None
    return next((kind for kind in TableKind if set(needed_columns(kind)) <= set(header)), None)


def refuse_other_kind(path: Path, header: Collection[str], marks: Collection[str], needed: TableKind) -> None:
    """Refuse a table that says it is not `needed`; one that says nothing, and fits no kind, passes.

    Raises:
        RequestError: it is of the other kind, of rows of several, or of a kind that is not known.
    """
    if len(marks) > 1:
        shown = " and ".join(repr(mark) for mark in sorted(marks)[:2])
        raise RequestError(f"{path} mixes rows that say {shown} under {MARK!r}", _ADVICE[needed])
    kind = kind_of(header, marks)
    if kind is None and marks:
        raise RequestError(f"{path} says {next(iter(marks))!r} under {MARK!r}", _ADVICE[needed])
    if kind not in (None, needed):
        raise RequestError(f"{path} is {_MEANING[kind]}", _ADVICE[needed])


@contextmanager
def open_rows(path: Path, needed: TableKind | None = None) -> Iterator[tuple[list[str], Iterator[Row]]]:
    """The columns of a CSV file and its rows, read as they are taken.

    Raises:
        RequestError: the file cannot be read or is not CSV; the advice asks for a table of the kind `needed`.
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
        raise RequestError(f"{path} is not CSV: {error}", advice) from None


def marks_of(rows: Iterable[Row]) -> set[str]:
    """All that rows say under `MARK`; empty where they have no such column."""
    return {row[MARK] or "" for row in rows if MARK in row}


@dataclass(frozen=True)
class TableSummary:
    """What ``cxr info FILE.csv`` says of a table.

    Attributes:
        path: the file.
        kind: whose table it is.
        rows: how many.
        columns: their names, in order.
    """

    path: Path
    kind: TableKind
    rows: int
    columns: tuple[str, ...]

    @property
    def meaning(self) -> str:
        """In a sentence."""
        return _MEANING[self.kind]

    def to_dict(self) -> dict[str, object]:
        """As ``cxr info FILE.csv --json`` prints it."""
        return {
            "path": str(self.path),
            MARK: self.kind.value,
            "meaning": self.meaning,
            "rows": self.rows,
            "columns": list(self.columns),
        }


def describe_table(path: Path) -> TableSummary:
    """Which table a CSV file is; it is read through, a row at a time.

    Raises:
        RequestError: it cannot be read, is neither, or mixes both.
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
            f"{path} mixes rows of several tables" if mixed else f"{path} is no table of cxr eval or cxr predict",
            "Give a predictions.csv of cxr eval, a table of cxr predict --csv, a run folder or a bundle.",
        )
    return TableSummary(path, kind, count, tuple(header))


def refuse_resuming(path: Path) -> None:
    """Refuse to go on with a table that is not ``cxr predict``'s; a file that is not there passes.

    Raises:
        RequestError: it is a table of ``cxr eval``.
    """
    if not path.is_file():
        return
    with open_rows(path, TableKind.PREDICTION) as (header, rows):
        first = next(rows, None)
        marks = marks_of(() if first is None else (first,))
    if kind_of(header, marks) is TableKind.EVALUATION:
        raise RequestError(f"{path} is {_MEANING[TableKind.EVALUATION]}", "Name another file with --csv.")
