"""Files of readers: a study in each row, 0 or 1 for each finding, as those of CheXpert's radiologists."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.text_file import read_text_file
from cxrtool.errors import RequestError
from cxrtool.evaluation.readers import Readings
from cxrtool.evaluation.table import PredictionTable
from cxrtool.findings import Findings

_ADVICE = "Give a CSV file with a column Study and a column of 0 and 1 for each finding."
_CALLS = {"": np.nan, "0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0}


@dataclass(frozen=True, eq=False)
class ReaderFile:
    """A reader's file, not yet matched with a table.

    Attributes:
        name: name of the reader: the file's name without suffix.
        path: the file.
        findings: names of the findings, as far as the file has them.
        calls: for each study, as written, 0, 1 or NaN (blank) for each of `findings`.
    """

    name: str
    path: Path
    findings: tuple[str, ...]
    calls: dict[str, tuple[float, ...]]


def read_readers(paths: Sequence[Path], findings: Findings) -> tuple[ReaderFile, ...]:
    """Read the files of several readers, of any kind that `read_text_file` reads.

    Other columns than the study and the findings are ignored.

    Raises:
        RequestError: a file cannot be read, has no column ``Study`` or none of the findings, has a study twice, or
            holds something other than 0, 1 and blanks in a finding's column; or two files have the same name.
    """
    files = tuple(_read(path, findings) for path in paths)
    for one in files:
        alike = [other.path for other in files if other.name == one.name]
        if len(alike) > 1:
            raise RequestError(
                f"two readers are called {one.name!r}: {alike[0]} and {alike[1]}",
                "Give each file once, and rename one of two files of the same name.",
            )
    return files


def _read(path: Path, findings: Findings) -> ReaderFile:
    file = read_text_file(path)
    header, rows = file.header, file.columns(file.header).to_dict("records")
    studies = [name for name in header if name.strip().lower() == "study"]
    if len(studies) != 1:
        raise RequestError(f"{path} has {'no' if not studies else 'more than one'} column 'Study'", _ADVICE)
    columns = {findings.find(name): name for name in header if name.strip().lower() in map(str.lower, findings)}
    if not columns:
        raise RequestError(f"{path} has no column for any of {', '.join(findings)}", _ADVICE)
    calls: dict[str, tuple[float, ...]] = {}
    for row in rows:
        study = (row[studies[0]] or "").strip()
        if not study or study in calls:
            fault = f"the study {study!r} twice" if study else "a row without a study"
            raise RequestError(f"{path} has {fault}", "Keep one row for each study.")
        calls[study] = tuple(_call(path, study, name, row[name]) for name in columns.values())
    return ReaderFile(path.stem, path, tuple(columns), calls)


def _call(path: Path, study: str, column: str, cell: str | None) -> float:
    text = (cell or "").strip()
    if text not in _CALLS:
        raise RequestError(
            f"{path}: study {study!r} has {text!r} in column {column!r}, where a reader says 0 or 1",
            "Write 0 or 1 there, or leave the cell blank if the reader did not say.",
        )
    return _CALLS[text]


def match_readers(files: Sequence[ReaderFile], table: PredictionTable) -> tuple[tuple[Readings, ...], tuple[str, ...]]:
    """Bring readings into the rows and columns of a table, matched by study, and say what was left out.

    A study is matched as written, or by its last two parts: ``CheXpert-v1.0/test/patient64741/study1`` is
    ``patient64741/study1``.

    Raises:
        RequestError: a file has none of the table's studies, or two rows of it are the same study.
    """
    place = {study: row for row, study in enumerate(table.studies)}
    matched = [_match(one, table, place) for one in files]
    return tuple(readings for readings, _ in matched), tuple(note for _, notes in matched for note in notes)


def _match(file: ReaderFile, table: PredictionTable, place: dict[str, int]) -> tuple[Readings, list[str]]:
    columns = [table.findings.index(name) for name in file.findings]
    values = np.full(table.targets.shape, np.nan)
    of_row: dict[int, str] = {}
    others = 0
    for study, calls in file.calls.items():
        row = place.get(study, place.get("/".join(study.rstrip("/").split("/")[-2:])))
        if row is None:
            others += 1
            continue
        if row in of_row:
            raise RequestError(
                f"{file.path}: {of_row[row]!r} and {study!r} are the same study", "Keep one row for each study."
            )
        of_row[row] = study
        values[row, columns] = calls
    if not of_row:
        example = next(iter(file.calls), "nothing")
        raise RequestError(
            f"{file.path} has none of the {len(place):,} studies of the {table.split} split: it has {example!r}, where "
            f"the split has {table.studies[0]!r}",
            "Give readings of the same studies, or choose their split with --split.",
        )
    mask = ~np.isnan(values)
    return Readings(file.name, values == 1, mask), _notes(file, table, mask, len(of_row), others)


def _notes(file: ReaderFile, table: PredictionTable, mask: NDArray[np.bool_], rows: int, others: int) -> list[str]:
    notes = []
    if rows < len(table):
        notes.append(f"reader {file.name}: {rows:,} of {len(table):,} studies are in the file; figures are of those")
    if others:
        notes.append(f"reader {file.name}: left out are studies that are not in the {table.split} split ({others:,})")
    absent = [name for name in table.findings if name not in file.findings]
    if absent:
        notes.append(f"reader {file.name}: no column for {', '.join(absent)}")
    columns = [table.findings.index(name) for name in file.findings]
    read = mask.any(axis=1)
    blank = int((~mask[read][:, columns] & table.mask[read][:, columns]).sum())
    if blank:
        notes.append(f"reader {file.name}: left out are blank cells ({blank:,})")
    return notes
