"""What every layout of a data set does, and what several of them need."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrtool.data.sheets import Sheet
from cxrtool.data.text_file import TextFile, read_text_file
from cxrtool.errors import SheetError
from cxrtool.findings import PRESETS, canonical

SUFFIXES = (".jpg", ".png", ".jpeg", ".dcm", ".dicom")
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validate": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
_EXAMPLES = 3


@dataclass(frozen=True)
class Wanted:
    """What is read of a sheet.

    Attributes:
        findings: findings whose labels are read.
        columns: further columns to keep.
        partial: leave out findings without labels; otherwise they are refused.
    """

    findings: tuple[str, ...]
    columns: tuple[str, ...] = ()
    partial: bool = False


class Layout(Protocol):
    """The files of a data set.

    Attributes:
        root: folder that the paths of images are relative to.
        title: name for messages.
    """

    @property
    def root(self) -> Path: ...

    @property
    def title(self) -> str: ...

    def splits(self) -> tuple[str, ...] | None:
        """Return the splits that there are; None if the rows are not divided into splits.

        Raises:
            RequestError: the folder does not exist.
            SheetError: a file is missing or cannot be read.
        """

    def sheet(self, split: str, wanted: Wanted) -> Sheet:
        """Return the rows of a split, or all if they are not divided, with a column ``Path`` relative to `root`.

        Raises:
            SheetError: a file is missing or cannot be used; the message names it, and the line if there is one.
        """


class FilesRead:
    """Text files, each read once however many splits and questions need it."""

    def __init__(self) -> None:
        self._files: dict[Path, TextFile] = {}

    def read(self, path: Path) -> TextFile:
        """Return a file; see `read_text_file` for errors."""
        if path not in self._files:
            self._files[path] = read_text_file(path)
        return self._files[path]


def find_file(folder: Path, *names: str) -> Path | None:
    """Return the first of these files, or of these compressed by gzip, that the folder has."""
    candidates = [folder / f"{name}{ending}" for name in names for ending in ("", ".gz")]
    return next((path for path in candidates if path.is_file()), None)


def known_split(cell: str) -> str | None:
    """Return the split that a cell names, such as ``valid`` for ``validate``; None if it is none."""
    return _SPLIT_NAMES.get(cell.strip().lower())


def splits_of(sheet: Sheet, column: str) -> NDArray[np.object_]:
    """Return the split of each row, [N] text, empty where the cell is blank.

    Raises:
        SheetError: a cell names no split.
    """
    codes, spellings = pd.factorize(sheet.frame[column])
    known = [known_split(text) if text.strip() else "" for text in spellings]
    if None in known:
        wrong = known.index(None)
        row = int((codes == wrong).argmax())
        raise SheetError(
            f"{sheet.path} line {sheet.lines[row]}: {column} is {spellings[wrong]!r}",
            "It must be train, valid or test.",
        )
    found: NDArray[np.object_] = np.array(known, dtype=object)[codes]
    return found


def locate(root: Path, names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Return the path of each image: in the first folder that has it, under this name or with another suffix.

    Args:
        root: folder that paths are relative to.
        names: [N] names of files, with or without a suffix.
        folders: folders to look in, each listed once; an image that none of them has is taken to be in the first.
    """
    exact: dict[str, str] = {}
    stems: dict[str, str] = {}
    for folder in folders:
        try:
            listed = os.listdir(root / folder)
        except OSError:
            continue
        for name in listed:
            path = f"{folder}/{name}" if folder else name
            exact.setdefault(name, path)
            stem, dot, _ = name.rpartition(".")
            if dot and name.lower().endswith(SUFFIXES):
                stems.setdefault(stem, path)
    start = f"{folders[0]}/" if folders and folders[0] else ""
    return [exact.get(name) or stems.get(_stem(name)) or f"{start}{name}" for name in names]


def _stem(name: str) -> str:
    return name.rpartition(".")[0] if name.lower().endswith(SUFFIXES) else name


def labels_of_names(
    cells: Sequence[str] | pd.Series,
    names_in: Callable[[str], frozenset[str] | None],
    findings: Sequence[str],
) -> dict[str, NDArray[np.float32]]:
    """Return labels from cells that list findings: 1 if named, 0 if not, NaN in a cell that states nothing.

    Args:
        cells: [N] text.
        names_in: function that returns the findings that a cell names, or None if it states nothing.
        findings: findings to return.
    """
    codes, spellings = pd.factorize(np.asarray(cells, dtype=object))
    named = [names_in(str(spelling)) for spelling in spellings]
    return {
        finding: np.array([np.nan if one is None else float(finding in one) for one in named], dtype=np.float32)[codes]
        for finding in findings
    }


def separated_names(cell: str, separator: str) -> frozenset[str] | None:
    """Return the findings that a cell names, under the names used here; None if it is blank."""
    names = [canonical(part) for part in cell.split(separator) if part.strip()]
    return frozenset(names) if names else None


def unknown_names(counts: Mapping[str, int], findings: Sequence[str]) -> str:
    """Return a part of a note on names that are neither requested nor the name of any finding; empty without such."""
    known = {*findings, *(name for preset in PRESETS.values() for name in preset)}
    unknown = {name: count for name, count in counts.items() if name not in known}
    if not unknown:
        return ""
    examples = ", ".join(f"{name!r} ({count:,} rows)" for name, count in list(unknown.items())[:_EXAMPLES])
    return f"{len(unknown)} names are no finding that is known here: {examples}"
