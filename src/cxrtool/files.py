"""Atomic writing of files, digests, JSON without NaN, and CSV."""

import csv
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cxrtool.errors import WriteError
from cxrtool.locks import new_partial

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; if the block succeeds, sync it and rename it to `path`.

    The folder is synced too, so that the new name survives a power failure. A killed process leaves either the old file
    or the new one (docs/reliability.md).

    Raises:
        WriteError: the folder is not writable or the disk is full.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = stack.enter_context(new_partial(path))
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise cannot_write(path, error) from error
        finally:
            partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to disk, as `os.fsync` does for the content of a file, if the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def link_or_copy(path: Path, kept: Path) -> None:
    """Give the file at `path` the second name `kept`, atomically; `path` may be replaced afterwards.

    Raises:
        WriteError: `kept` cannot be written.
    """
    with replacing(kept) as partial:
        partial.unlink()
        try:
            os.link(path, partial)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, partial)


def cannot_write(path: Path, error: OSError) -> WriteError:
    """Return the error to raise if `path` cannot be written."""
    return WriteError(f"cannot write {path}: {error.strerror or error}", "Check permissions and free space.")


def write_bytes(path: Path, *pieces: bytes | memoryview) -> None:
    """Write `pieces`, one after the other, to `path` atomically."""
    with replacing(path) as partial, partial.open("wb") as file:
        file.writelines(pieces)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` atomically."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def json_ready(value: object) -> object:
    """Convert `value` for JSON: NaN and infinities become None, keys text, numpy values plain ones."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_ready(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy here
        return json_ready(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(value: object) -> str:
    """Return `value` as indented JSON (RFC 8259, so without NaN), with keys in their order."""
    return json.dumps(json_ready(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON to `path` atomically."""
    write_text(path, to_json(value))


def csv_cell(value: object) -> object:
    """Convert `value` for a CSV cell: None and NaN become empty; text that could be a formula gets a leading quote."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        value = value.encode("utf-8", errors="backslashreplace").decode("utf-8")
        return "'" + value if value.startswith(_FORMULA_STARTS) else value
    return value


def csv_row(cells: Sequence[object]) -> str:
    """Return one line of CSV (RFC 4180, but ``\\n`` as line end). Floats are read back exactly."""
    text = io.StringIO()
    # With this line end the writer also quotes cells with \\r, which some readers take for the end of a row.
    csv.writer(text, lineterminator="\r\n").writerow([csv_cell(cell) for cell in cells])
    return text.getvalue().removesuffix("\r\n") + "\n"


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as CSV to `path` atomically."""
    write_text(path, csv_row(header) + "".join(csv_row(row) for row in rows))


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
