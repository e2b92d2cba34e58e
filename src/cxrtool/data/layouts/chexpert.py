"""CheXpert (Irvin et al. 2019, AAAI, arXiv:1901.07031).

train.csv has 223,414 images of 64,540 patients, 191,027 of them frontal; valid.csv has 234 images of 200 patients,
and the test sheet 668 images of 500 patients. In train.csv, labels come from reports: 1 is positive, 0 negative, -1
uncertain, and a blank label was not mentioned. Radiologists labelled valid and test with 1 and 0.

CheXpert-v1.0-small and a merged CheXpert-v1.0 hold ``train/`` and ``valid/`` beside the sheets. The download of
CheXpert-v1.0 comes in four folders instead, ``CheXpert-v1.0 batch 1 (validate & csv)`` to ``batch 4 (train 3)``, of
which the last three hold the patients of train without ``train/``.
"""

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from cxrtool.data.identity import ALIASES
from cxrtool.data.layouts.any_sheet import read_rows
from cxrtool.data.layouts.base import Wanted
from cxrtool.data.sheets import Sheet, read_sheet
from cxrtool.errors import RequestError, SheetError
from cxrtool.sheet_options import SPLITS, SheetColumns

SHEET_NAMES = {
    "train": ("train.csv",),
    "valid": ("valid.csv",),
    "test": ("test.csv", "test_labels.csv"),
}
FIRST_BATCH = "CheXpert-v1.0 batch 1 (validate & csv)"
TRAIN_BATCHES = tuple(f"CheXpert-v1.0 batch {number} (train {number - 1})" for number in (2, 3, 4))


def find_sheet(root: Path, split: str) -> Path | None:
    """Return the sheet of a split; None if the folder has none."""
    return next((root / name for name in SHEET_NAMES[split] if (root / name).is_file()), None)


def available_splits(root: Path) -> tuple[str, ...]:
    """Return the splits that have a sheet in `root`.

    Raises:
        RequestError: the folder does not exist or contains no sheet.
    """
    if not root.is_dir():
        raise RequestError(f"data folder {root} does not exist", "Give a folder in CheXpert's layout.")
    found = tuple(split for split in SPLITS if find_sheet(root, split))
    if not found:
        names = [name for split in SPLITS for name in SHEET_NAMES[split]]
        raise SheetError(
            f"{root} contains no label sheet",
            f"Its name must be one of {', '.join(names)}, or name it with --sheet. Or give the folder of a data set "
            "that docs/data.md lists.",
        )
    return found


@dataclass(frozen=True)
class CheXpert:
    """A folder with train.csv, valid.csv and test.csv or test_labels.csv.

    Attributes:
        root: the data folder.
        columns: columns of these sheets that have other names than CheXpert's.
    """

    root: Path
    columns: SheetColumns = field(default_factory=SheetColumns)
    title: str = "CheXpert"

    def splits(self) -> tuple[str, ...]:
        """See `Layout`."""
        return available_splits(self.root)

    def sheet(self, split: str, wanted: Wanted) -> Sheet:
        """See `Layout`; CheXpert's 223,414 rows take about a second."""
        splits = available_splits(self.root)
        path = find_sheet(self.root, split)
        if path is None:
            names = " or ".join(SHEET_NAMES[split])
            raise SheetError(f"{self.root} has no {names}", f"It has sheets for: {', '.join(splits)}.")
        if self.columns:
            return read_rows(path, wanted, self.columns)
        required = ("Path", *wanted.columns)
        if wanted.partial:
            return read_sheet(path, required, ALIASES, wanted.findings)
        return read_sheet(path, required + wanted.findings, ALIASES)


@dataclass(frozen=True)
class CheXpertBatches:
    """CheXpert-v1.0 in its four folders; the sheets are in the first of them or beside them."""

    root: Path
    title: str = "CheXpert-v1.0 in four folders"

    @staticmethod
    def recognised(root: Path) -> bool:
        """Return whether the folder has one of the four, and no train or valid folder that merges them."""
        there = any((root / name).is_dir() for name in (FIRST_BATCH, *TRAIN_BATCHES))
        return there and not (root / "train").is_dir()

    def splits(self) -> tuple[str, ...]:
        """See `Layout`."""
        return available_splits(self._folder)

    def sheet(self, split: str, wanted: Wanted) -> Sheet:
        """See `Layout`."""
        sheet = CheXpert(self._folder).sheet(split, wanted)
        paths = [self._place(path) for path in sheet.frame["Path"].tolist()]
        return replace(sheet, frame=sheet.frame.assign(Path=paths))

    @property
    def _folder(self) -> Path:
        beside = any(find_sheet(self.root, split) for split in SPLITS)
        return self.root if beside else self.root / FIRST_BATCH

    @cached_property
    def _batch_of(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for batch in TRAIN_BATCHES:
            for start in (batch, f"{batch}/train"):
                if (self.root / start).is_dir():
                    found |= dict.fromkeys(os.listdir(self.root / start), start)
        return found

    def _place(self, path: str) -> str:
        """Return where an image is: ``CheXpert-v1.0/train/patient00001/...`` lies in a folder without ``train/``."""
        start, split, rest = path.partition("/train/")
        if split:
            return f"{self._batch_of.get(rest.partition('/')[0], start + '/train')}/{rest}"
        start, split, rest = path.partition("/valid/")
        return f"{FIRST_BATCH}/valid/{rest}" if split else path
