"""The CSV of ``cxr predict``: rows as they come, and going on where an interrupted run stopped.

Rows go to a hidden file beside the table, which takes the table's name when all are there. A run that is stopped, by
whatever, leaves that file; its rows are taken over by the next one if the model and all that moves a number are the
same. Whole batches only: a row alone in a batch may differ in its last digit from the same row among others.
"""

import csv
import io
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Self, TextIO

from cxrtool.errors import RequestError, WriteError
from cxrtool.evaluation.table_kind import MARK, TableKind, check_resumable
from cxrtool.files import cannot_write, csv_cell, csv_row, sync_folder, write_json
from cxrtool.findings import FINDINGS
from cxrtool.locks import NoLocksError, is_same_file, try_lock
from cxrtool.predict.classifier import Classifier
from cxrtool.predict.prediction import Prediction
from cxrtool.settings import RuntimeSettings

log = logging.getLogger(__name__)

COLUMNS = ("path", *FINDINGS, "positive", "error", "warnings", MARK)


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

    @classmethod
    def of(cls, classifier: Classifier, settings: RuntimeSettings, raw: bool = False, hash_paths: bool = False) -> Self:
        """Of what `classifier`, loaded with these settings, writes."""
        how = classifier.engine.how
        return cls(
            model_sha256=classifier.sha256,
            thresholds=dict(classifier.thresholds),
            backend=str(how.backend),
            precision=str(how.precision),
            raw=raw,
            batch_size=settings.batch_size,
            strict=settings.strict,
            window=settings.window,
            hash_paths=hash_paths,
        )


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
        RequestError: the stopped run had another model, other settings or other inputs; another process writes this
            table; or it is to be resumed and is a table of ``cxr eval``.
        CxrError: it cannot be written.
    """
    partial, about = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.partial.json")
    of_the_block: OSError | None = None
    if resume:
        check_resumable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("a+", encoding="utf-8", newline="") as file:
            locked = _lock(file, partial, path)
            file.seek(0)
            kept, size = _kept_rows(file.read(), about, identity) if resume else ([], 0)
            paths = _same_inputs(paths, kept, name_of)
            file.truncate(size)  # what is kept stays where it is: a kill now must not lose it
            write_json(about, asdict(identity))
            if not size:
                file.write(csv_row(COLUMNS))

            def write(prediction: Prediction) -> None:
                try:
                    file.write(csv_row(_cells(prediction, name_of(prediction.file))))
                except OSError as error:
                    raise _full(path, error) from error

            try:
                yield OpenTable(paths, len(kept), sum(bool(row[COLUMNS.index("error")]) for row in kept), write)
            except OSError as error:
                of_the_block = error
                raise
            file.flush()
            os.fsync(file.fileno())
            if not locked:
                file.close()  # Windows, where there are no such locks, renames no open file
            partial.replace(path)
            sync_folder(path.parent)
        about.unlink(missing_ok=True)
    except OSError as error:
        if error is of_the_block:
            raise
        raise _full(path, error) from error


def _full(path: Path, error: OSError) -> WriteError:
    advice = "Check rights and free space; rows that were written stay, and --resume-csv goes on from them."
    return WriteError(cannot_write(path, error).message, advice)


def _lock(file: TextIO, partial: Path, path: Path) -> bool:
    """Whether the table is ours alone now; False where files cannot be locked, and nobody can say.

    Raises:
        RequestError: another process writes it.
    """
    try:
        free = try_lock(file.fileno())
    except NoLocksError as error:
        log.warning("%s cannot be locked (%s): let no second process write it", path, error.strerror or error)
        return False
    if free and is_same_file(file.fileno(), partial):  # not if another has finished its table in between
        return True
    raise RequestError(f"another process writes {path}", "Wait for it, or name another --csv.")


def _cells(prediction: Prediction, name: str) -> list[object]:
    numbers = [prediction.probabilities.get(finding) for finding in FINDINGS]
    codes = ";".join(warning.code for warning in prediction.warnings)
    return [name, *numbers, ";".join(prediction.positives), prediction.error, codes, TableKind.PREDICTION.value]


def _kept_rows(text: str, about: Path, identity: TableIdentity) -> tuple[list[list[str]], int]:
    """The rows of the whole batches that a stopped run wrote, and how many bytes they take with the header."""
    # The last line may be half written. No cell holds a line break.
    lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
    if len(lines) < 2:
        return [], 0
    try:
        before = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    if lines[0] != csv_row(COLUMNS):
        raise RequestError(
            "the stopped table has other columns: another version of cxrtool began it",
            "Leave out --resume-csv to begin again.",
        )
    wanted = asdict(identity)
    changed = [name for name in wanted if before.get(name) != wanted[name]]
    if changed:
        raise RequestError(
            f"the stopped table was made with another {', '.join(changed).replace('_', ' ')}",
            "Take what it was made with, or leave out --resume-csv to begin anew.",
        )
    whole = lines[: 1 + (len(lines) - 1) // identity.batch_size * identity.batch_size]
    return list(csv.reader(io.StringIO("".join(whole))))[1:], len("".join(whole).encode())


def _same_inputs(paths: Iterator[Path], kept: Sequence[list[str]], name_of: Callable[[Path], str]) -> Iterator[Path]:
    for number, (path, row) in enumerate(zip(islice(paths, len(kept)), kept, strict=False), start=1):
        if csv_cell(name_of(path)) != row[0]:
            raise RequestError(
                f"row {number} of the stopped table is {row[0]}, and input {number} is {name_of(path)}",
                "Give the same inputs, or leave out --resume-csv to begin anew.",
            )
    return chain(paths)
