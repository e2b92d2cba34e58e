"""Strict reading of label sheets: errors that pandas would silently repair or shift are refused with their line."""

import csv
import difflib
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrtool.errors import SheetError
from cxrtool.findings import canonical


@dataclass(frozen=True, eq=False)
class Sheet:
    """A CSV file as text.

    Attributes:
        path: the file.
        sha256: digest of the file.
        frame: the requested columns as text; blank cells are empty strings.
        lines: [N] int64, line number of each row; the header is line 1.
        named: columns of `frame` by meaning, the preferred one first; see `read_sheet`.
    """

    path: Path
    sha256: str
    frame: pd.DataFrame
    lines: NDArray[np.int64]
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_sheet(
    path: Path,
    required: Sequence[str],
    aliases: Mapping[str, Sequence[str]] | None = None,
    optional: Sequence[str] = (),
) -> Sheet:
    """Read columns of a CSV file (RFC 4180, UTF-8 with or without a byte order mark).

    Args:
        path: the file.
        required: columns that it must have, under these names or, for findings, other known names; see `canonical`.
        optional: columns to read if it has them, under the same names.
        aliases: names of further columns by meaning, the preferred one first; those that the file has are read. Case,
            spaces, ``_``, ``-`` and ``/`` do not matter in them.

    Raises:
        SheetError: the sheet is missing, empty, not UTF-8, has no rows, rows of different lengths or an open quote, or
            a column is missing, repeated or has spaces around its name. The message names the sheet and, if there is
            one, the line.
    """
    content = _read(path)
    header = _read_header(path, content)
    _check_header(path, header)
    columns = {name: _find_column(path, header, name) for name in required}
    present = {canonical(name) for name in header}
    columns |= {name: _find_column(path, header, name) for name in optional if name in present}
    lines = _line_numbers(path, content, len(header))
    if len(lines) == 0:
        raise SheetError(f"{path} has a header but no rows", "Check that the whole sheet was copied.")
    named = _columns_by_meaning(header, aliases or {})
    wanted = dict.fromkeys((*columns.values(), *(name for names in named.values() for name in names)))
    try:
        frame = pd.read_csv(
            io.BytesIO(content),
            usecols=list(wanted),
            dtype=str,
            keep_default_na=False,
            na_filter=False,
            encoding="utf-8-sig",
        )
    except (pd.errors.ParserError, ValueError) as error:
        raise SheetError(
            f"{path} cannot be read: {' '.join(str(error).split())}", "Save it again as CSV UTF-8."
        ) from None
    if len(frame) != len(lines):
        raise SheetError(f"{path} has blank lines inside quotes", "Remove the line breaks from cells.")
    frame = frame.rename(columns={column: name for name, column in columns.items()})
    return Sheet(path, hashlib.sha256(content).hexdigest(), frame, lines, named)


def _columns_by_meaning(header: Sequence[str], aliases: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    plain = [_plain(name) for name in header]
    found = {}
    for meaning, names in aliases.items():
        places = [place for name in names for place, given in enumerate(plain) if given == _plain(name)]
        if places:
            found[meaning] = tuple(header[place] for place in places)
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s_/-]", "", name).casefold()


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SheetError(f"cannot read {path}: {error.strerror}", "Check the data folder.") from None
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


def _read_header(path: Path, content: bytes) -> list[str]:
    first = content.split(b"\n", 1)[0].decode("utf-8-sig").rstrip("\r")
    try:
        header = next(csv.reader([first]), [])
    except csv.Error as error:
        raise SheetError(f"{path} line 1 is not CSV ({error})", "Save it as CSV UTF-8.") from None
    if len(header) == 1 and ";" in header[0]:
        raise SheetError(f"{path} is separated by semicolons", "Save it with commas as separators.")
    return header


def _check_header(path: Path, header: list[str]) -> None:
    for name in header:
        if header.count(name) > 1:
            raise SheetError(f"{path} has the column {name!r} twice", "Remove one of them.")
        if name != name.strip():
            raise SheetError(f"{path} has the column {name!r} with spaces around it", f"Name it {name.strip()!r}.")


def _find_column(path: Path, header: list[str], name: str) -> str:
    """Return the column called `name`, or a finding's column under another known name."""
    if name in header:
        return name
    known = [column for column in header if canonical(column) == name]
    if len(known) == 1:
        return known[0]
    if known:
        raise SheetError(f"{path} names {name} in two columns, {known[0]!r} and {known[1]!r}", "Remove one of them.")
    near = difflib.get_close_matches(name, header, n=1)
    hint = f"Is it {near[0]!r}? " if near else ""
    raise SheetError(f"{path} has no column {name!r}", f"{hint}It has {', '.join(header)}.")


def _line_numbers(path: Path, content: bytes, columns: int) -> NDArray[np.int64]:
    """Return the line number of each row after the header, and refuse rows with another number of cells."""
    if b'"' in content or b"\r" in content.replace(b"\r\n", b""):
        return _line_numbers_quoted(path, content, columns)
    characters = np.frombuffer(content if content.endswith(b"\n") else content + b"\n", dtype=np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    starts = np.concatenate(([0], ends[:-1] + 1))
    cells = np.add.reduceat(characters == ord(","), starts, dtype=np.int32) + 1
    lengths = ends - starts - (characters[np.maximum(ends - 1, 0)] == ord("\r"))
    lines = np.flatnonzero(lengths > 0) + 1
    wrong = lines[cells[lines - 1] != columns]
    if len(wrong):
        raise _ragged(path, int(wrong[0]), int(cells[wrong[0] - 1]), columns)
    return lines[1:].astype(np.int64)


def _line_numbers_quoted(path: Path, content: bytes, columns: int) -> NDArray[np.int64]:
    reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
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
