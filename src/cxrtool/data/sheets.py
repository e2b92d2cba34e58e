"""Strict reading of label sheets: errors that pandas would silently repair or shift are refused with their line."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrtool.data.text_file import TextFile, read_text_file
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
    """Read columns of a file that `read_text_file` reads.

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
    return sheet_of(read_text_file(path), required, aliases, optional)


def sheet_of(
    file: TextFile,
    required: Sequence[str],
    aliases: Mapping[str, Sequence[str]] | None = None,
    optional: Sequence[str] = (),
) -> Sheet:
    """Return columns of a file that was read; arguments and errors are those of `read_sheet`."""
    columns = {name: _find_column(file.path, file.header, name) for name in required}
    present = {canonical(name) for name in file.header}
    columns |= {name: _find_column(file.path, file.header, name) for name in optional if name in present}
    named = columns_by_meaning(file.header, aliases or {})
    wanted = dict.fromkeys((*columns.values(), *(name for names in named.values() for name in names)))
    frame = file.columns(list(wanted)).rename(columns={column: name for name, column in columns.items()})
    return Sheet(file.path, file.sha256, frame, file.lines, named)


def columns_by_meaning(header: Sequence[str], aliases: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return the columns by meaning, the preferred one first; see `read_sheet`."""
    plain = [plain_name(name) for name in header]
    found = {}
    for meaning, names in aliases.items():
        places = [place for name in names for place, given in enumerate(plain) if given == plain_name(name)]
        if places:
            found[meaning] = tuple(header[place] for place in places)
    return found


def plain_name(name: str) -> str:
    """Return the name of a column without case, spaces, ``_``, ``-`` and ``/``, in which sheets differ."""
    return re.sub(r"[\s_/-]", "", name).casefold()


def _find_column(path: Path, header: Sequence[str], name: str) -> str:
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
