"""The CSV of ``cxr predict``: rows as they come, and going on where an interrupted run stopped.

Rows go to a hidden file beside the table, which takes the table's name when all are there. A run that is stopped, by
whatever, leaves that file; its rows are taken over by the next one if the model and all that moves a number are the
same. Whole batches only: a row alone in a batch may differ in its last digit from the same row among others.
"""

import csv
import fcntl
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

from cxrtool.errors import RequestError
from cxrtool.files import cannot_write, csv_cell, csv_row, write_json
from cxrtool.findings import FINDINGS
from cxrtool.inference.classifier import Prediction

COLUMNS = ("path", *FINDINGS, "positive", "error", "warnings")


@dataclass(frozen=True)
class TableIdentity:
    """All that a row's numbers depend on besides its image."""

    model_sha256: str
    thresholds: dict[str, float]
    backend: str
    precision: str
    raw: bool
    batch_size: int
    strict: bool
    window: str | None
    hash_paths: bool


@dataclass(frozen=True)
class OpenTable:
    """A table that is being written.

    Attributes:
        paths: those that have no row yet.
        done: rows taken over.
        failed: of these, the ones with an error.
        write: adds a row.
    """

    paths: Iterator[Path]
    done: int
    failed: int
    write: Callable[[Prediction], None]


@contextmanager
def open_table(
    path: Path, paths: Iterator[Path], identity: TableIdentity, name_of: Callable[[Path], str], resume: bool
) -> Iterator[OpenTable]:
    """Write a table that appears under `path` when the block ends well.

    Args:
        path: of the table.
        paths: the radiographs, in order.
        identity: see there.
        name_of: what stands in a row for a path.
        resume: take over the rows of a run that was stopped.

    Raises:
        RequestError: the stopped run had another model, other settings or other inputs; or another process writes
            this table.
        CxrError: it cannot be written.
    """
    partial, about = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.partial.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("a+", encoding="utf-8", newline="") as file:
            _lock(file, path)
            file.seek(0)
            kept = _kept_rows(file.read(), about, identity) if resume else []
            paths = _same_inputs(paths, kept, name_of)
            file.seek(0)
            file.truncate()
            file.write("".join(csv_row(row) for row in (COLUMNS, *kept)))
            write_json(about, asdict(identity))

            def write(prediction: Prediction) -> None:
                file.write(csv_row(_cells(prediction, name_of(prediction.path))))

            yield OpenTable(paths, len(kept), sum(bool(row[-2]) for row in kept), write)
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
        about.unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise cannot_write(path, error) from error


def _lock(file: TextIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RequestError(f"another process writes {path}", "Wait for it, or name another --csv.") from None


def _cells(prediction: Prediction, name: str) -> list[object]:
    numbers = [prediction.probabilities.get(finding) for finding in FINDINGS]
    codes = ";".join(warning.code for warning in prediction.warnings)
    return [name, *numbers, ";".join(prediction.positives), prediction.error, codes]


def _kept_rows(text: str, about: Path, identity: TableIdentity) -> list[list[str]]:
    """The rows of the whole batches that a stopped run wrote."""
    whole = text[: text.rfind("\n") + 1]  # the last line may be half written; no cell holds a line break
    rows = list(csv.reader(io.StringIO(whole)))[1:]
    if not rows:
        return []
    try:
        before = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    wanted = asdict(identity)
    changed = [name for name in wanted if before.get(name) != wanted[name]]
    if changed:
        raise RequestError(
            f"the stopped table was made with another {', '.join(changed).replace('_', ' ')}",
            "Take what it was made with, or leave out --resume-csv to begin anew.",
        )
    return rows[: len(rows) // identity.batch_size * identity.batch_size]


def _same_inputs(paths: Iterator[Path], kept: Sequence[list[str]], name_of: Callable[[Path], str]) -> Iterator[Path]:
    for number, (path, row) in enumerate(zip(islice(paths, len(kept)), kept, strict=False), start=1):
        if csv_cell(name_of(path)) != row[0]:
            raise RequestError(
                f"row {number} of the stopped table is {row[0]}, and input {number} is {name_of(path)}",
                "Give the same inputs, or leave out --resume-csv to begin anew.",
            )
    return chain(paths)
