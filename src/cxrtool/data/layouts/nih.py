"""NIH ChestX-ray14 (Wang et al. 2017, CVPR, arXiv:1705.02315): 112,120 frontal images of 30,805 patients.

Data_Entry_2017.csv (since 2020 Data_Entry_2017_v2020.csv) lists the findings that were read from each report in one
column, separated by ``|``: a finding is 1 where it is named and 0 where it is not; ``No Finding`` stands for none of
the 14. There is no uncertain (-1) and no blank label, and no label of any other finding. train_val_list.txt (86,524
images) is train and test_list.txt (25,596) is test; there is no valid. Without these two lists, the rows are not
divided. Images lie in ``images_001/images`` to ``images_012/images``, in ``images``, or beside the sheet.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from cxrtool.data.identity import ALIASES
from cxrtool.data.layouts.base import (
    FilesRead,
    Wanted,
    find_file,
    labels_of_names,
    locate,
    separated_names,
    unknown_names,
)
from cxrtool.data.sheets import Sheet, joint_digest, sheet_of
from cxrtool.errors import SheetError
from cxrtool.files import sha256_of_file
from cxrtool.findings import NIH14

_SHEETS = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
_FOLDERS = ("images", *(f"images_{number:03}/images" for number in range(1, 13)), "")
_LABELLED = (*NIH14, "No Finding")
_COLUMN = "Finding Labels"


@dataclass(frozen=True)
class Nih:
    """NIH ChestX-ray14 as downloaded."""

    root: Path
    title: str = "NIH ChestX-ray14"
    _read: FilesRead = field(default_factory=FilesRead, repr=False, compare=False)

    @staticmethod
    def recognised(root: Path) -> bool:
        """Return whether the folder has the sheet."""
        return find_file(root, *_SHEETS) is not None

    def splits(self) -> tuple[str, ...] | None:
        """See `Layout`."""
        self._sheet_file()
        return tuple(split for split, name in _LISTS.items() if (self.root / name).is_file()) or None

    def sheet(self, split: str, wanted: Wanted) -> Sheet:
        """See `Layout`."""
        file = self._read.read(self._sheet_file())
        sheet = sheet_of(file, ("Image Index", _COLUMN, *wanted.columns), ALIASES)
        names = sheet.frame["Image Index"].tolist()
        digests, notes = [sheet.sha256], []
        if self.splits() is not None:
            listed, digest = self._listed(split)
            digests.append(digest)
            rows = np.array([name in listed for name in names], dtype=np.bool_)
            absent = len(listed) - int(rows.sum())
            if absent:
                notes.append(f"{_LISTS[split]}: {absent:,} images are not in {file.path.name}")
            if not rows.any():
                raise SheetError(f"{file.path} has no image of {_LISTS[split]}", "Use the files of one version.")
            sheet = sheet.select(rows)
            names = sheet.frame["Image Index"].tolist()
        counts = Counter(name for cell in sheet.frame[_COLUMN] for name in separated_names(cell, "|") or ())
        unknown = unknown_names(counts, _LABELLED)
        notes += [f"{file.path.name}: {unknown}"] if unknown else []
        findings = [finding for finding in wanted.findings if finding in _LABELLED]
        labels = labels_of_names(sheet.frame[_COLUMN], partial(separated_names, separator="|"), findings)
        frame = sheet.frame.assign(Path=locate(self.root, names, _FOLDERS))
        return replace(sheet, frame=frame, labels=labels, sha256=joint_digest(*digests), notes=tuple(notes))

    def _sheet_file(self) -> Path:
        found = find_file(self.root, *_SHEETS)
        if found is None:
            raise SheetError(f"{self.root} has no {_SHEETS[0]} and no {_SHEETS[1]}", "Copy one of them.")
        return found

    def _listed(self, split: str) -> tuple[frozenset[str], str]:
        """Return the images that the list of a split names, and the digest of the list."""
        path = self.root / _LISTS.get(split, "")
        if split not in _LISTS or not path.is_file():
            there = ", ".join(name for name in _LISTS.values() if (self.root / name).is_file())
            raise SheetError(
                f"NIH ChestX-ray14 has no list of {split}; there is {there}",
                "Divide train into train and valid by patient with cxr split, and name the sheets with --sheet.",
            )
        return frozenset(path.read_text(encoding="utf-8").split()), sha256_of_file(path)
