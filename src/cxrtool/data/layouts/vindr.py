"""VinDr-CXR (Nguyen et al. 2022, Scientific Data 9:429, arXiv:2012.15029): 15,000 images of train and 3,000 of test.

All are PA. Three radiologists read each image of train. A finding is 1 if more than half of an image's readers marked
it, 0 if none did, and -1 (uncertain) otherwise: one vote of three is a disagreement that neither label would be right
about. No label is blank. The labels of test are the consensus of five radiologists, 1 or 0. The data name no
patients: each image counts as a patient of its own, so that intervals may be too narrow if a patient has several.

Two forms are read: PhysioNet's ``annotations/image_labels_train.csv`` and ``image_labels_test.csv`` (a column for
each finding, in train a row for each reader), and ``train.csv`` or ``vinbigdata-train.csv`` of the VinBigData
challenge (a row for each reader and box; train only). Images lie in ``train`` and ``test``, as DICOM, PNG or JPEG.
There is no valid.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrtool.data.layouts.base import Wanted, locate
from cxrtool.data.sheets import Sheet, sheet_of
from cxrtool.data.text_file import TextFile, read_text_file
from cxrtool.errors import SheetError
from cxrtool.findings import canonical

_NAMES = {
    "train": ("image_labels_train.csv", "vinbigdata-train.csv", "train.csv"),
    "test": ("image_labels_test.csv",),
}
_FOLDERS = ("", "annotations/")
_BOXES = ("image_id", "class_name", "rad_id")
_SYNONYMS = {"Pulmonary fibrosis": "Fibrosis"}


@dataclass(frozen=True)
class VinDr:
    """VinDr-CXR of PhysioNet or of the VinBigData challenge."""

    root: Path
    title: str = "VinDr-CXR"

    @staticmethod
    def recognised(root: Path) -> bool:
        """Return whether the folder has a sheet of VinDr-CXR; ``train.csv`` is one by its header."""
        return any(_sheet(root, split) is not None for split in _NAMES)

    def splits(self) -> tuple[str, ...]:
        """See `Layout`."""
        found = tuple(split for split in _NAMES if _sheet(self.root, split) is not None)
        if not found:
            raise SheetError(f"{self.root} has no sheet of VinDr-CXR", "Copy annotations/image_labels_train.csv.")
        return found

    def sheet(self, split: str, wanted: Wanted) -> Sheet:
        """See `Layout`."""
        path = _sheet(self.root, split)
        if path is None:
            raise SheetError(
                f"VinDr-CXR in {self.root} has no sheet of {split}; there are {', '.join(self.splits())}",
                "Divide train by image with cxr split, and name the sheets with --sheet.",
            )
        file = read_text_file(path)
        by_box = set(_BOXES) <= set(file.header)
        sheet = _votes_by_box(file, wanted) if by_box else _votes_by_reader(file, wanted)
        images = sheet.frame["image_id"].tolist()
        frame = sheet.frame.assign(Path=locate(self.root, images, (split, "images", "")), view="PA")
        named = {"patient": ("image_id",), "study": ("image_id",), "view": ("view",), "projection": ("view",)}
        notes = (f"{path.name} names no patients: each image counts as a patient of its own",)
        return replace(sheet, frame=frame, named=named, notes=notes)


def _sheet(root: Path, split: str) -> Path | None:
    for name in _NAMES.get(split, ()):
        for place in (root / f"{folder}{name}{ending}" for folder in _FOLDERS for ending in ("", ".gz")):
            if place.is_file() and (name != "train.csv" or _has_boxes(place)):
                return place
    return None


def _has_boxes(path: Path) -> bool:
    if (path.parent / "valid.csv").is_file():  # CheXpert's, whose sheets are read once
        return False
    with path.open("rb") as file:
        header = file.readline(1000).decode("utf-8-sig", "replace").strip()
    return set(_BOXES) <= set(header.split(","))


def name_here(name: str) -> str:
    """Return the name used here for a finding of VinDr-CXR."""
    return _SYNONYMS.get(name, canonical(name))


def vote(positive: NDArray[np.int64], readers: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return 1 where more than half of the readers marked a finding, 0 where none did, and -1 elsewhere."""
    found: NDArray[np.float32] = np.where(positive * 2 > readers, 1, np.where(positive == 0, 0, -1)).astype(np.float32)
    return found


def _votes_by_box(file: TextFile, wanted: Wanted) -> Sheet:
    sheet = sheet_of(file, tuple(dict.fromkeys((*_BOXES, *wanted.columns))))
    frame = sheet.frame.assign(finding=[name_here(name) for name in sheet.frame["class_name"]])
    codes, images = pd.factorize(frame["image_id"])
    readers = _distinct(codes, frame["rad_id"], len(images))
    there = set(frame["finding"])
    labels = {}
    for finding in (one for one in wanted.findings if one in there):
        rows = (frame["finding"] == finding).to_numpy()
        labels[finding] = vote(_distinct(codes[rows], frame["rad_id"][rows], len(images)), readers)
    first = _first_rows(codes, len(images))
    return replace(sheet, frame=sheet.frame.iloc[first].reset_index(drop=True), lines=sheet.lines[first], labels=labels)


def _votes_by_reader(file: TextFile, wanted: Wanted) -> Sheet:
    own = {name_here(name): name for name in file.header}
    given = {finding: own[finding] for finding in wanted.findings if finding in own}
    required = tuple(dict.fromkeys(("image_id", *wanted.columns)))
    sheet = sheet_of(file, required, optional=tuple(given), given=given)
    codes, images = pd.factorize(sheet.frame["image_id"])
    readers = np.bincount(codes, minlength=len(images))
    labels = {}
    for finding in given:
        values = sheet.values(finding)
        wrong = np.flatnonzero(~np.isin(values, (0, 1)))
        if len(wrong):
            line, cell = sheet.lines[wrong[0]], sheet.frame[finding].iloc[wrong[0]]
            raise SheetError(f"{sheet.path} line {line}: {finding} is {cell!r}", "A reader's label is 1 or 0.")
        labels[finding] = vote(np.bincount(codes, values == 1, len(images)).astype(np.int64), readers)
    first = _first_rows(codes, len(images))
    return replace(sheet, frame=sheet.frame.iloc[first].reset_index(drop=True), lines=sheet.lines[first], labels=labels)


def _first_rows(codes: NDArray[np.intp], images: int) -> NDArray[np.intp]:
    first = np.unique(codes, return_index=True)[1]
    assert len(first) == images
    return first


def _distinct(codes: NDArray[np.intp], readers: pd.Series, images: int) -> NDArray[np.int64]:
    """Return the number of different readers among the rows of each image, [images]."""
    pairs = pd.DataFrame({"image": codes, "reader": readers.to_numpy()}).drop_duplicates()
    return np.bincount(pairs["image"].to_numpy(), minlength=images).astype(np.int64)
