"""Writing files so that a reader never sees half of one, digests, and JSON without NaN."""

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
    """Give a temporary path beside `path`; when the block ends well, sync it and rename it onto `path`.

    In-place saves were unreadable after 18 of 20 kills, these after none (see docs/reliability.md). The folder is
    synced too, so that the new name outlives a power cut.

    Raises:
        WriteError: the folder cannot be written or the disk is full.
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
    """Make the names in a folder last, as `os.fsync` does for a file's bytes; not every file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def link_or_copy(path: Path, kept: Path) -> None:
    """Give the file at `path` the second name `kept`, in one step; `path` may be replaced afterwards.

    Raises:
        WriteError: it cannot be.
    """
    with replacing(kept) as partial:
        partial.unlink()
        try:
            os.link(path, partial)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, partial)


def cannot_write(path: Path, error: OSError) -> WriteError:
    """What to say when `path` could not be written."""
    return WriteError(f"cannot write {path}: {error.strerror or error}", "Check the folder's rights and free space.")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` in one step."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` in one step."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def json_ready(value: object) -> object:
    """`value` with NaN and infinities (JSON has none) as None, keys as text, numpy scalars as Python's."""
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
    """One JSON document (RFC 8259, so never NaN), indented, in the order given."""
    return json.dumps(json_ready(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON to `path` in one step."""
    write_text(path, to_json(value))


def csv_cell(value: object) -> object:
    """`value` as a CSV cell: None and NaN empty; text that a spreadsheet would run gets a leading quote."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        value = value.encode("utf-8", errors="backslashreplace").decode("utf-8")
        return "'" + value if value.startswith(_FORMULA_STARTS) else value
    return value


def csv_row(cells: Sequence[object]) -> str:
    """One line of CSV (RFC 4180, ``\\n`` line ends). Floats are written so that they read back to the bit."""
    text = io.StringIO()
    # The writer quotes what holds a character of its line end: a bare \\r in a cell would begin a row elsewhere.
    csv.writer(text, lineterminator="\r\n").writerow([csv_cell(cell) for cell in cells])
    return text.getvalue().removesuffix("\r\n") + "\n"


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as CSV to `path` in one step."""
    write_text(path, csv_row(header) + "".join(csv_row(row) for row in rows))


def sha256_of_file(path: Path) -> str:
    """The file's SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
