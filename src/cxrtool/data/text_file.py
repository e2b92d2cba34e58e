"""Strict reading of delimited and Parquet files as text, with the line of each row."""

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrtool.errors import SheetError

_LARGEST = 4 * 2**30
"""Bytes to which a compressed file may expand."""


@dataclass(frozen=True, eq=False)
class TextFile:
    """A file of rows and named columns.

    Attributes:
        path: the file.
        sha256: digest of the file as it is on disk.
        header: names of the columns, as written.
        lines: [N] int64, line number of each row, where the header is line 1; in Parquet, which has no lines, its row
            number plus 1.
        content: the text of a delimited file, None for Parquet and JSON lines.
        delimiter: a comma or a tab.
        frame: all columns of a Parquet file or of JSON lines as text; None for a delimited file, whose columns are
            parsed when needed.
    """

    path: Path
    sha256: str
    header: tuple[str, ...]
    lines: NDArray[np.int64]
    content: bytes | None
    delimiter: str
    frame: pd.DataFrame | None

    def columns(self, names: Sequence[str]) -> pd.DataFrame:
        """Return columns as text; blank cells are empty strings.

        Raises:
            SheetError: the file cannot be parsed.
        """
        if self.content is None:
            assert self.frame is not None
            return self.frame[list(names)]
        if not names:
            return pd.DataFrame(index=range(len(self.lines)))
        try:
            frame = pd.read_csv(
                io.BytesIO(self.content),
                sep=self.delimiter,
                usecols=list(names),
                dtype=object,
                keep_default_na=False,
                na_filter=False,
                encoding="utf-8-sig",
            )
        except (pd.errors.ParserError, ValueError) as error:
            raise SheetError(
                f"{self.path} cannot be read: {' '.join(str(error).split())}", "Save it again as CSV UTF-8."
            ) from None
        if len(frame) != len(self.lines):
            raise SheetError(f"{self.path} has blank lines inside quotes", "Remove the line breaks from cells.")
        return frame


def read_text_file(path: Path) -> TextFile:
    """Read a CSV file (RFC 4180), a file separated by tabs or JSON lines, any of them compressed by gzip, or Parquet.

    Text is UTF-8 with or without a byte order mark. Tabs separate if the first line has tabs and no commas.

    Raises:
        SheetError: the file is missing, empty, not UTF-8, has no rows, rows of different lengths or an open quote, or
            a column is repeated or has spaces around its name. The message names the file and, if there is one, the
            line.
    """
    raw = _read_bytes(path)
    sha256 = hashlib.sha256(raw).hexdigest()
    if raw[:4] == b"PAR1":
        frame = _read_parquet(path, raw)
        header = [str(name) for name in frame.columns]
        _check_header(path, header)
        return TextFile(path, sha256, tuple(header), np.arange(2, len(frame) + 2), None, "", frame)
    content = _checked_text(path, _expanded(path, raw) if raw[:2] == b"\x1f\x8b" else raw)
    if content[:1] == b"{":
        frame, lines = _read_json_lines(path, content)
        header = [str(name) for name in frame.columns]
        _check_header(path, header)
        return TextFile(path, sha256, tuple(header), lines, None, "", frame)
    first = _first_line(content)
    delimiter = "\t" if b"\t" in first and b"," not in first else ","
    header = _read_header(path, content, delimiter)
    _check_header(path, header)
    lines = _line_numbers(path, content, len(header), delimiter)
    if len(lines) == 0:
        raise SheetError(f"{path} has a header but no rows", "Check that the whole sheet was copied.")
    return TextFile(path, sha256, tuple(header), lines, content, delimiter, None)


def _first_line(content: bytes) -> bytes:
    end = content.find(b"\n")
    return content if end < 0 else content[:end]


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SheetError(f"cannot read {path}: {error.strerror}", "Check the path.") from None
    if not content.strip():
        raise SheetError(f"{path} is empty", "Copy it again.")
    return content


def _expanded(path: Path, content: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            text = file.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error):
        raise SheetError(f"{path} is not a complete gzip file", "Copy it again.") from None
    if len(text) > _LARGEST:
        raise SheetError(f"{path} expands to more than {_LARGEST:,} bytes", "Give a smaller file.")
    return text


def _read_parquet(path: Path, content: bytes) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(io.BytesIO(content))
    except ImportError:
        raise SheetError(
            f"{path} is a Parquet file, which needs pyarrow", "Install it: pip install 'cxrtool[parquet]'."
        ) from None
    except Exception as error:  # noqa: BLE001 - pyarrow's errors have no common base class
        raise SheetError(f"{path} is not a Parquet file: {' '.join(str(error).split())}", "Copy it again.") from None
    if not len(frame):
        raise SheetError(f"{path} has no rows", "Check that the whole table was copied.")
    missing = frame.isna()
    return frame.astype(str).mask(missing, "")


def _read_json_lines(path: Path, content: bytes) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Return the objects of a file with one JSON object in each line as text, and their lines; null is blank."""
    rows, lines = [], []
    for number, line in enumerate(content.decode("utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise SheetError(f"{path} line {number} is not a JSON object", "Write one object in each line.")
        rows.append({name: "" if value is None else str(value) for name, value in row.items()})
        lines.append(number)
    return pd.DataFrame(rows, dtype=object).fillna(""), np.array(lines, dtype=np.int64)


def _checked_text(path: Path, content: bytes) -> bytes:
    if not content.strip():
        raise SheetError(f"{path} is empty", "Copy it again.")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise SheetError(f"{path} is UTF-16", "Save it as CSV UTF-8.")
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise SheetError(f"{path} line {line} contains a NUL byte", "Save it as CSV UTF-8.")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SheetError(f"{path} line {line} is not UTF-8", "Save it as CSV UTF-8.") from None
    return content


def _read_header(path: Path, content: bytes, delimiter: str) -> list[str]:
    first = _first_line(content).decode("utf-8-sig").rstrip("\r")
    try:
        header = next(csv.reader([first], delimiter=delimiter), [])
    except csv.Error as error:
        raise SheetError(f"{path} line 1 is not CSV ({error})", "Save it as CSV UTF-8.") from None
    if len(header) == 1 and ";" in header[0]:
        raise SheetError(f"{path} is separated by semicolons", "Save it with commas as separators.")
    return header


def _check_header(path: Path, header: Sequence[str]) -> None:
    for name in header:
        if header.count(name) > 1:
            raise SheetError(f"{path} has the column {name!r} twice", "Remove one of them.")
        if name != name.strip():
            raise SheetError(f"{path} has the column {name!r} with spaces around it", f"Name it {name.strip()!r}.")


def _line_numbers(path: Path, content: bytes, columns: int, delimiter: str) -> NDArray[np.int64]:
    """Return the line number of each row after the header, and refuse rows with another number of cells."""
    if b'"' in content or b"\r" in content.replace(b"\r\n", b""):
        return _line_numbers_quoted(path, content, columns, delimiter)
    characters = np.frombuffer(content if content.endswith(b"\n") else content + b"\n", dtype=np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    starts = np.concatenate(([0], ends[:-1] + 1))
    cells = np.add.reduceat(characters == ord(delimiter), starts, dtype=np.int32) + 1
    lengths = ends - starts - (characters[np.maximum(ends - 1, 0)] == ord("\r"))
    lines = np.flatnonzero(lengths > 0) + 1
    wrong = lines[cells[lines - 1] != columns]
    if len(wrong):
        raise _ragged(path, int(wrong[0]), int(cells[wrong[0] - 1]), columns)
    return lines[1:].astype(np.int64)


def _line_numbers_quoted(path: Path, content: bytes, columns: int, delimiter: str) -> NDArray[np.int64]:
    reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=delimiter, strict=True)
    lines, previous = [], 0
    try:
        for row in reader:
            line, previous = previous + 1, reader.line_num
            if row and len(row) != columns:
                raise _ragged(path, line, len(row), columns)
            if row:
                lines.append(line)
    except csv.Error as error:
        raise SheetError(
            f"{path} from line {previous + 1} is not CSV ({error})", "Close the quote, or remove it."
        ) from None
    return np.array(lines[1:], dtype=np.int64)


def _ragged(path: Path, line: int, found: int, expected: int) -> SheetError:
    return SheetError(
        f"{path} line {line} has {found} cells, but the header has {expected}",
        "Put quotes around a cell that contains a comma, or fix that line.",
    )
