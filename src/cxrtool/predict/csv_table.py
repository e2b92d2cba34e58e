"""The CSV table of ``cxr predict``, written row by row, and continued after an interrupted run.

Rows are written to a hidden file beside the table, which is renamed when it is complete. An interrupted run leaves that
file, and the next run keeps its rows if the model and all settings that affect numbers are the same. Only complete
batches are kept, because the last digit of a row can depend on the number of images in its batch.
"""

import csv
import io
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Self, TextIO

from cxrtool.data.images import reader
from cxrtool.errors import RequestError, WriteError
from cxrtool.evaluation.table_kind import MARK, TableKind, check_resumable
from cxrtool.files import cannot_write, csv_cell, csv_row, sync_folder, write_json
from cxrtool.findings import Findings
from cxrtool.locks import LOCKED_FILES_CAN_BE_RENAMED, NoLocksError, is_same_file, try_lock
from cxrtool.predict.classifier import Classifier
from cxrtool.predict.prediction import Prediction
from cxrtool.settings import RuntimeSettings
from cxrtool.text import printable

log = logging.getLogger(__name__)


def columns_of(findings: Findings) -> tuple[str, ...]:
    """Return the columns of a table of predictions of these findings."""
    return ("path", *findings, "positive", "error", "warnings", MARK)


@dataclass(frozen=True)
class TableIdentity:
    """Everything that the numbers in a row depend on, besides its image."""

    model_sha256: str
    thresholds: dict[str, float]
    backend: str
    precision: str
    raw: bool
    batch_size: int
    strict: bool
    window: str | None
    hash_paths: bool
    max_megapixels: int
    max_file_mib: int
    reader: str

    @classmethod
    def of(cls, classifier: Classifier, settings: RuntimeSettings, raw: bool = False, hash_paths: bool = False) -> Self:
        """Return the identity of tables written by `classifier`, loaded with these settings."""
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
            max_megapixels=settings.max_megapixels,
            max_file_mib=settings.max_file_mib,
            reader=reader(),
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table."""
        return columns_of(Findings(tuple(self.thresholds)))


@dataclass(frozen=True)
class OpenTable:
    """A table that is being written.

    Attributes:
        paths: paths that have no row yet.
        done: number of rows kept from an interrupted run.
        failed: number of these rows with an error.
        write: function that adds a row.
    """

    paths: Iterator[Path]
    done: int
    failed: int
    write: Callable[[Prediction], None]


@contextmanager
def open_table(
    path: Path,
    paths: Iterator[Path],
    identity: TableIdentity,
    name_of: Callable[[str], str],
    resume: bool,
    before_rename: Callable[[Path], None] | None = None,
) -> Iterator[OpenTable]:
    """Write a table that is renamed to `path` when the block succeeds.

    Args:
        path: path of the table.
        paths: radiographs, in order.
        identity: everything that numbers in the table depend on.
        name_of: returns the text in the column `path` for the name of an input.
        resume: keep the rows of an interrupted run.
        before_rename: called with the path of the complete file before it gets its name.

    Raises:
        RequestError: the interrupted run had another model, other settings or other inputs; another process is writing
            this table; or the table to resume is one of ``cxr eval``.
        WriteError: the table cannot be written.
    """
    partial, about = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.partial.json")
    error_in_block: OSError | None = None
    columns = identity.columns
    if resume:
        check_resumable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("a+", encoding="utf-8", newline="") as file:
            _lock(file, partial, path)
            file.seek(0)
            # As bytes, since a kill may leave half a character.
            kept, size = _kept_rows(bytes(file.buffer.read()), about, identity, columns) if resume else ([], 0)
            paths = _same_inputs(paths, kept, name_of)
            file.truncate(size)  # kept rows are not rewritten, so that a kill cannot lose them
            write_json(about, asdict(identity))
            if not size:
                file.write(csv_row(columns))

            def write(prediction: Prediction) -> None:
                try:
                    file.write(row_of(prediction, name_of(prediction.given), identity.thresholds))
                except OSError as error:
                    raise _write_error(path, error) from error

            try:
                yield OpenTable(paths, len(kept), sum(bool(row[columns.index("error")]) for row in kept), write)
            except OSError as error:
                error_in_block = error
                raise
            file.flush()
            os.fsync(file.fileno())
            if before_rename is not None:
                before_rename(partial)
            if not LOCKED_FILES_CAN_BE_RENAMED:
                file.close()
            partial.replace(path)
            sync_folder(path.parent)
        about.unlink(missing_ok=True)
    except OSError as error:
        if error is error_in_block:
            raise
        raise _write_error(path, error) from error


def _write_error(path: Path, error: OSError) -> WriteError:
    advice = "Check permissions and free space, then continue from the rows written so far with --resume-csv."
    return WriteError(cannot_write(path, error).message, advice)


def _lock(file: TextIO, partial: Path, path: Path) -> None:
    """Lock the table, or warn if files cannot be locked.

    Raises:
        RequestError: another process is writing it.
    """
    try:
        free = try_lock(file.fileno())
    except NoLocksError as error:
        log.warning("%s cannot be locked (%s): do not let a second process write it", path, error.strerror or error)
        return
    if not free or not is_same_file(file.fileno(), partial):  # another process may have just finished the table
        raise RequestError(f"another process is writing {path}", "Wait for it to finish, or choose another --csv.")


def row_of(prediction: Prediction, name: str, findings: Iterable[str]) -> str:
    """Return the row of a prediction, in the order of `columns_of`: text, floats, empty cells where there is none.

    Args:
        prediction: what was predicted, or the error.
        name: text in the column `path`.
        findings: names of the findings, in order.
    """
    numbers = [prediction.probabilities.get(finding) for finding in findings]
    codes = ";".join(warning.code for warning in prediction.warnings)
    # The name of a file, which its error may quote, may hold line breaks; programs that count lines would miscount.
    error = None if prediction.error is None else printable(prediction.error)
    return csv_row([name, *numbers, ";".join(prediction.positives), error, codes, TableKind.PREDICTION.value])


def _records(content: bytes) -> list[bytes]:
    """Return the complete records of a CSV file, each with its line end; a line break within quotes ends none."""
    records, record = [], b""
    for line in content.split(b"\n")[:-1]:  # what follows the last line end is half written
        record += line + b"\n"
        if record.count(b'"') % 2 == 0:  # a quote within a cell is doubled
            records.append(record)
            record = b""
    return records


def _kept_rows(
    content: bytes, about: Path, identity: TableIdentity, columns: Sequence[str]
) -> tuple[list[list[str]], int]:
    """Return the rows of the complete batches of an interrupted run, and their size in bytes with the header."""
    records = _records(content)
    if len(records) < 2:
        return [], 0
    try:
        before = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    if records[0] != csv_row(columns).encode():
        raise RequestError(
            "the unfinished table has other columns: it was written by another version of cxrtool",
            "Leave out --resume-csv to start again.",
        )
    wanted = asdict(identity)
    changed = [name for name in wanted if before.get(name) != wanted[name]]
    if changed:
        raise RequestError(
            f"the unfinished table was written with another {', '.join(changed).replace('_', ' ')}",
            "Use the same model and settings, or leave out --resume-csv to start again.",
        )
    whole = b"".join(records[: 1 + (len(records) - 1) // identity.batch_size * identity.batch_size])
    return list(csv.reader(io.StringIO(whole.decode(errors="replace"), newline="")))[1:], len(whole)


def _same_inputs(paths: Iterator[Path], kept: Sequence[list[str]], name_of: Callable[[str], str]) -> Iterator[Path]:
    for number, (path, row) in enumerate(zip(islice(paths, len(kept)), kept, strict=False), start=1):
        name = name_of(str(path))
        if csv_cell(name) != row[0]:
            raise RequestError(
                f"row {number} of the unfinished table is {row[0]}, but input {number} is {name}",
                "Give the same inputs, or leave out --resume-csv to start again.",
            )
    return chain(paths)
