"""Strict reading of label sheets: errors that pandas would silently repair or shift are refused with their line."""

import difflib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrtool.data.text_file import TextFile, read_text_file
from cxrtool.errors import SheetError
from cxrtool.findings import canonical


@dataclass(frozen=True, eq=False)
class Sheet:
    """Rows of one or more files as text, and labels that are not cells of a column.

    Attributes:
        path: the file, or the one that lists the images.
        sha256: digest of the file; if there are several, of their digests, see `joint_digest`.
        frame: the requested columns as text; blank cells are empty strings.
        lines: [N] int64, line number of each row; the header is line 1.
        named: columns of `frame` by meaning, the preferred one first; see `read_sheet`.
        labels: [N] float32 of 1, 0, -1 and NaN (blank) of the findings that have no column of `frame`.
        notes: what was assumed or left out, with counts.
    """

    path: Path
    sha256: str
    frame: pd.DataFrame
    lines: NDArray[np.int64]
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def select(self, rows: NDArray[np.bool_]) -> Self:
        """Return the rows of a boolean mask [N]."""
        if rows.all():
            return self
        labels = {finding: values[rows] for finding, values in self.labels.items()}
        frame = self.frame[rows].reset_index(drop=True)
        return replace(self, frame=frame, lines=self.lines[rows], labels=labels)

    def has_labels(self, finding: str) -> bool:
        """Return whether there are labels of a finding."""
        return finding in self.labels or finding in self.frame

    def values(self, finding: str) -> NDArray[np.float32]:
        """Return the labels of a finding, [N] float32 of 1, 0, -1 and NaN (blank).

        Raises:
            SheetError: a cell is not a label; the message names file and line.
        """
        if finding in self.labels:
            return self.labels[finding]
        codes, spellings = pd.factorize(self.frame[finding])
        values = np.array([_label(spelling) for spelling in spellings], dtype=np.float32)
        wrong = np.flatnonzero(np.isinf(values))
        if len(wrong):
            row = int(np.isin(codes, wrong).argmax())
            raise SheetError(
                f"{self.path} line {self.lines[row]}: {finding} is {spellings[codes[row]]!r}",
                "A label is 1, 0, -1 or blank.",
            )
        return values[codes]


def _label(spelling: str) -> float:
    """Return 1, 0, -1, or NaN for a blank label; infinity if the text is not a label."""
    if not spelling.strip():
        return np.nan
    try:
        value = float(spelling)  # accepts spaces around the number, but no control characters
    except ValueError:
        return np.inf
    return value if value in (1.0, 0.0, -1.0) else np.inf


def joint_digest(*digests: str) -> str:
    """Return the digest of one file as it is, and of several files the SHA-256 of their digests in this order."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def read_sheet(
    path: Path,
    required: Sequence[str],
    aliases: Mapping[str, Sequence[str]] | None = None,
    optional: Sequence[str] = (),
) -> Sheet:
    """Read columns of a file that `read_text_file` reads; see `sheet_of`.

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
    given: Mapping[str, str] | None = None,
    meanings: Mapping[str, str] | None = None,
) -> Sheet:
    """Take columns of a file.

    Args:
        file: the file.
        required: columns that it must have, under these names or, for findings, other known names; see `canonical`.
        optional: columns to read if it has them, under the same names.
        aliases: names of further columns by meaning, the preferred one first; those that the file has are read. Case,
            spaces, ``_``, ``-`` and ``/`` do not matter in them.
        given: the file's own name of a column of `required` or `optional`, which it must have.
        meanings: the file's own name of the column with a meaning, instead of those of `aliases`.

    Raises:
        SheetError: a column is missing.
    """
    path, own = file.path, dict(given or {})
    for column in (*own.values(), *(meanings or {}).values()):
        if column not in file.header:
            raise _no_column(path, column, file.header)
    columns = {name: own.get(name) or _find_column(path, file.header, name) for name in required}
    present = {canonical(name) for name in file.header}
    columns |= {
        name: own.get(name) or _find_column(path, file.header, name)
        for name in optional
        if name in own or name in present
    }
    named = columns_by_meaning(file.header, aliases or {})
    named |= {meaning: (column,) for meaning, column in (meanings or {}).items()}
    read = dict.fromkeys((*columns.values(), *(name for names in named.values() for name in names)))
    raw = file.columns(list(read))
    names = {column: name for name, column in columns.items()}
    if len(names) == len(columns):
        named = {meaning: tuple(names.get(column, column) for column in those) for meaning, those in named.items()}
        frame = raw.rename(columns=names)
    else:  # one column of the file has two uses
        frame = raw.assign(**{name: raw[column] for name, column in columns.items()})
    return Sheet(path, file.sha256, frame, file.lines, named)


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
    raise _no_column(path, name, header)


def _no_column(path: Path, name: str, header: Sequence[str]) -> SheetError:
    near = difflib.get_close_matches(name, header, n=1)
    hint = f"Is it {near[0]!r}? " if near else ""
    return SheetError(f"{path} has no column {name!r}", f"{hint}It has {', '.join(header)}.")
