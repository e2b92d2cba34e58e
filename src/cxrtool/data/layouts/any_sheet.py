"""Any sheet: columns under other names, one column that lists findings, rows of several splits in one file."""

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from cxrtool.data.identity import ALIASES
from cxrtool.data.layouts.base import FilesRead, Wanted, labels_of_names, separated_names, splits_of, unknown_names
from cxrtool.data.sheets import Sheet, plain_name, sheet_of
from cxrtool.data.text_file import TextFile, read_text_file
from cxrtool.errors import RequestError, SheetError
from cxrtool.findings import canonical
from cxrtool.sheet_options import SPLITS, FilesBySplit, SheetColumns

PATHS = ("path", "image_path", "path_to_image", "image_index", "image", "image_id", "file_name", "filename", "file")
"""Usual names of the column of paths, the preferred one first."""
_SPLIT = "split"
_LIST = "Finding Labels"


@dataclass(frozen=True)
class GivenSheets:
    """Sheets named by ``--sheet``; paths of images in them are relative to the data folder.

    Attributes:
        root: the data folder.
        files: one file for all splits, or one for each.
        columns: columns that have other names than the usual ones.
    """

    root: Path
    files: FilesBySplit
    columns: SheetColumns
    title: str = "the given sheet"
    _read: FilesRead = field(default_factory=FilesRead, repr=False, compare=False)

    def splits(self) -> tuple[str, ...] | None:
        """See `Layout`."""
        if not self.root.is_dir():
            raise RequestError(f"data folder {self.root} does not exist", "Images are relative to --data.")
        if self.files.single is None:
            return tuple(split for split in SPLITS if split in self.files.by_split)
        file = self._read.read(self.files.single)
        column = _split_column(file, self.columns)
        if column is None:
            return None
        there = set(splits_of(sheet_of(file, (column,)), column))
        return tuple(split for split in SPLITS if split in there)

    def sheet(self, split: str, wanted: Wanted) -> Sheet:
        """See `Layout`."""
        path = self.files.of(split)
        if path is None:
            raise SheetError(
                f"--sheet names no sheet of {split}", f"Add {split}=FILE to --sheet {','.join(self.files.by_split)}=..."
            )
        return rows_of(self._read.read(path), wanted, self.columns, split if self.files.single else None)


def read_rows(path: Path, wanted: Wanted, columns: SheetColumns, split: str | None = None) -> Sheet:
    """Read the rows of a sheet whose columns have any names.

    A finding has a column, or is named in the one column that lists findings: then it is 1 where it is named, 0 where
    it is not, and blank where the cell is blank.

    Args:
        path: the sheet.
        wanted: findings and further columns to read.
        columns: columns by meaning and finding; others are found by their usual names.
        split: keep only the rows of this split, if a column says to which split they belong.

    Raises:
        SheetError: the sheet cannot be used, or a column is missing.
    """
    return rows_of(read_text_file(path), wanted, columns, split)


def rows_of(file: TextFile, wanted: Wanted, columns: SheetColumns, split: str | None = None) -> Sheet:
    """Return the rows of a file that was read; arguments and errors are those of `read_rows`."""
    meanings = {meaning: name for meaning, name in columns.by_meaning.items() if meaning in ALIASES}
    given = {"Path": columns.by_meaning.get("path") or _path_column(file), **columns.findings}
    listed = _list_column(file, columns, wanted)
    dividing = _split_column(file, columns) if split else None
    others = {"listed": listed, "dividing": dividing}
    meanings |= {meaning: name for meaning, name in others.items() if name}
    needed = ("Path", *wanted.columns)
    findings = wanted.findings
    if not wanted.partial and not listed:
        needed, findings = needed + findings, ()
    sheet = sheet_of(file, needed, ALIASES, findings, given, meanings)
    if listed:
        sheet = _with_listed(sheet, sheet.named["listed"][0], columns.separator, wanted)
    if dividing:
        sheet = _of_split(sheet, sheet.named["dividing"][0], str(split))
    return sheet


def _path_column(file: TextFile) -> str:
    if "Path" in file.header:
        return "Path"
    plain = {plain_name(name): name for name in reversed(file.header)}
    found = next((plain[plain_name(name)] for name in PATHS if plain_name(name) in plain), None)
    if found is None:
        studies = " It lists studies: give a sheet of images, and this one with --labels." if "study" in plain else ""
        raise SheetError(
            f"{file.path} has no column of paths",
            f"Name it with --columns path=NAME.{studies} It has {', '.join(file.header)}.",
        )
    return found


def _split_column(file: TextFile, columns: SheetColumns) -> str | None:
    named = columns.by_meaning.get("split")
    if named is not None:
        sheet_of(file, (), given={_SPLIT: named})  # refuses a column that is not there
        return named
    return next((name for name in file.header if plain_name(name) == _SPLIT), None)


def _list_column(file: TextFile, columns: SheetColumns, wanted: Wanted) -> str | None:
    """Return the column that lists findings: the one that was named, or NIH's if no finding has a column of its own."""
    named = columns.by_meaning.get("labels")
    if named is not None or _LIST not in file.header or columns.findings:
        return named
    own = {canonical(name) for name in file.header}
    return None if any(finding in own for finding in wanted.findings) else _LIST


def _with_listed(sheet: Sheet, column: str, separator: str, wanted: Wanted) -> Sheet:
    findings = [finding for finding in wanted.findings if finding not in sheet.frame]
    counts: Counter[str] = Counter()
    for cell, number in Counter(sheet.frame[column].tolist()).items():
        counts.update(dict.fromkeys(separated_names(cell, separator) or (), number))
    if findings and not any(finding in counts for finding in findings):
        examples = ", ".join(repr(name) for name, _ in counts.most_common(3))
        raise SheetError(
            f"{sheet.path}: no cell of {column!r} names any of {', '.join(findings)}",
            f"It names {examples}. Set --findings, or what separates names as --columns separator=;.",
        )
    notes = [
        f"{sheet.path.name}: no row names {finding}, which is therefore negative in all rows"
        for finding in findings
        if finding not in counts
    ]
    unknown = unknown_names(counts, wanted.findings)
    if unknown:
        notes.append(f"{sheet.path.name}: {unknown}")
    labels = labels_of_names(sheet.frame[column], partial(separated_names, separator=separator), findings)
    return replace(sheet, labels=labels, notes=(*sheet.notes, *notes))


def _of_split(sheet: Sheet, column: str, split: str) -> Sheet:
    splits = splits_of(sheet, column)
    blank = int((splits == "").sum())
    notes = (f"{sheet.path.name}: {blank:,} rows belong to no split and are left out",) if blank else ()
    rows = np.asarray(splits == split, dtype=np.bool_)
    if not rows.any():
        there = ", ".join(sorted({str(one) for one in splits} - {""}))
        raise SheetError(f"{sheet.path} has no row of {split} in {column!r}", f"It has {there}.")
    return replace(sheet.select(rows), notes=(*sheet.notes, *notes))
