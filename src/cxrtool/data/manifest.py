"""Reading of CheXpert's sheets into a `Manifest`: paths, patients, studies, views and raw labels of one split.

CheXpert-small (Irvin et al. 2019): train.csv has 223,414 rows, 191,027 of them frontal; a label is 1, 0, -1
(uncertain) or blank (not mentioned). valid.csv and the test sheet were labelled by radiologists.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrtool.choices import Views
from cxrtool.data.sheets import Sheet, read_sheet
from cxrtool.errors import RequestError, SheetError
from cxrtool.findings import FINDINGS

SPLITS = ("train", "valid", "test")
SHEET_NAMES = {
    "train": ("train.csv",),
    "valid": ("valid.csv",),
    "test": ("test.csv", "test_labels.csv"),
}
_VIEW, _PROJECTION = "Frontal/Lateral", "AP/PA"
_OPTIONAL = ("Sex", "Age", _VIEW, _PROJECTION)

_STUDY_OF_PATH = re.compile(r"^(?:[^\n]*/)?(patient[^/\n]*/study[^/\n]*)/[^/\n]*$", re.MULTILINE)
"""Matches the study in each line that is a path in CheXpert's form."""
_ROWS_AT_ONCE = 50_000

Texts = NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class Manifest:
    """The rows of one split.

    Attributes:
        root: data folder.
        split: ``train``, ``valid`` or ``test``.
        sheet: CSV file of the split.
        sheet_sha256: digest of that file.
        paths: [N] text, relative to `root`, without the name of the data set's own folder.
        lines: [N] int64, line of each row in the sheet (the header is line 1).
        patients: [N] text, ``patient00001``; the folder or file name if a path has no such part.
        studies: [N] text, ``patient00001/study1``; the image's folder if a path has no such part.
        views: [N] text, ``frontal`` or ``lateral``.
        projections: [N] text, ``AP``, ``PA``, other text, or empty.
        sexes: [N] text, may be empty.
        ages: [N] float32, years; NaN if not given.
        raw_labels: [N, 5] float32 of 1, 0, -1 and NaN (blank), in the order of `FINDINGS`.
        allow_outside: whether links may lead out of `root`.
        columns: [N] text of each requested further column of the sheet, by name.
    """

    root: Path
    split: str
    sheet: Path
    sheet_sha256: str
    paths: Texts
    lines: NDArray[np.int64]
    patients: Texts
    studies: Texts
    views: Texts
    projections: Texts
    sexes: Texts
    ages: NDArray[np.float32]
    raw_labels: NDArray[np.float32]
    allow_outside: bool = False
    columns: Mapping[str, Texts] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, row: int) -> Path:
        """Return the path of a row's image."""
        return self.root / str(self.paths[row])

    @property
    def fence(self) -> Path | None:
        """Folder that images must not lead out of; None if links may."""
        return None if self.allow_outside else self.root

    def select(self, rows: NDArray[Any]) -> Self:
        """Return the rows given by a boolean mask, or by row numbers in that order."""
        selected = {
            name: getattr(self, name)[rows]
            for name in (
                "paths",
                "lines",
                "patients",
                "studies",
                "views",
                "projections",
                "sexes",
                "ages",
                "raw_labels",
            )
        }
        return replace(self, columns={name: texts[rows] for name, texts in self.columns.items()}, **selected)


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
        raise SheetError(f"{root} contains no label sheet", f"Its name must be one of {', '.join(names)}.")
    return found


def load_manifest(
    root: Path,
    split: str,
    views: Views = Views.FRONTAL,
    allow_outside: bool = False,
    columns: Sequence[str] = (),
) -> Manifest:
    """Read the sheet of a split; CheXpert's 223,414 rows take about a second.

    Args:
        root: folder in CheXpert's layout.
        split: ``train``, ``valid`` or ``test`` (test.csv or test_labels.csv).
        views: views to keep, frontal or all.
        allow_outside: whether links may lead out of the folder.
        columns: further columns of the sheet to keep.

    Raises:
        RequestError: the folder does not exist.
        SheetError: the sheet is missing or cannot be used; the message names the sheet and the line.
    """
    splits = available_splits(root)
    path = find_sheet(root, split)
    if path is None:
        names = " or ".join(SHEET_NAMES[split])
        raise SheetError(f"{root} has no {names}", f"It has sheets for: {', '.join(splits)}.")
    sheet = read_sheet(path, ("Path", *FINDINGS, *columns), _OPTIONAL)
    kept = {name: texts_of(sheet, name) for name in columns}
    manifest = replace(_build(root, split, sheet), allow_outside=allow_outside, columns=kept)
    return manifest if views is Views.ALL else manifest.select(manifest.views == "frontal")


def _build(root: Path, split: str, sheet: Sheet) -> Manifest:
    paths = _strip_prefix(root, sheet)
    patients, studies = _patients_and_studies(paths)
    return Manifest(
        root=root,
        split=split,
        sheet=sheet.path,
        sheet_sha256=sheet.sha256,
        paths=np.array(paths, dtype=object),
        lines=sheet.lines,
        patients=patients,
        studies=studies,
        views=_views(sheet, paths),
        projections=texts_of(sheet, _PROJECTION),
        sexes=texts_of(sheet, "Sex"),
        ages=_ages(sheet),
        raw_labels=np.column_stack([_labels(sheet, finding) for finding in FINDINGS]),
    )


def _column(sheet: Sheet, name: str) -> "pd.Series[str]":
    if name in sheet.frame:
        return sheet.frame[name]
    return pd.Series([""] * len(sheet.frame), dtype=str)


def texts_of(sheet: Sheet, name: str) -> Texts:
    return _column(sheet, name).to_numpy(dtype=object)


def _ages(sheet: Sheet) -> NDArray[np.float32]:
    codes, spellings = pd.factorize(_column(sheet, "Age"))
    ages = pd.to_numeric(pd.Series(spellings), errors="coerce").to_numpy(dtype=np.float32)
    return ages[codes]


def _strip_prefix(root: Path, sheet: Sheet) -> list[str]:
    """Return paths relative to `root`, without a first part that does not exist there (the data set's own name)."""
    # Lists are four times as fast here as pandas' text columns (223,414 rows).
    paths: list[str] = sheet.frame["Path"].tolist()
    firsts = {path.partition("/")[0] for path in paths}
    if "" in paths:
        raise SheetError(
            f"{sheet.path} line {sheet.lines[paths.index('')]} has no path", "Fill in the path, or remove the line."
        )
    own = {"", ".", "..", *SPLITS}
    foreign = {first for first in firsts - own if not os.path.exists(root / first)}
    if not foreign:
        return paths
    if firsts == foreign and len(firsts) == 1:  # as in CheXpert's own sheets: twice as fast
        start = len(firsts.pop()) + 1
        return [path[start:] or path for path in paths]
    return [_without_first(path) if path.partition("/")[0] in foreign else path for path in paths]


def _without_first(path: str) -> str:
    first, _, rest = path.partition("/")
    return rest or first


def _patients_and_studies(paths: list[str]) -> tuple[Texts, Texts]:
    patients, studies = np.empty(len(paths), dtype=object), np.empty(len(paths), dtype=object)
    for start in range(0, len(paths), _ROWS_AT_ONCE):
        part = paths[start : start + _ROWS_AT_ONCE]
        rows = slice(start, start + len(part))
        found = _STUDY_OF_PATH.findall("\n".join(part))
        if len(found) == len(part):  # all paths have CheXpert's form: three times as fast as one by one
            studies[rows] = found
            patients[rows] = [study[: study.index("/")] for study in found]
        else:
            places = [_patient_and_study(path) for path in part]
            patients[rows] = [patient for patient, _ in places]
            studies[rows] = [study for _, study in places]
    return patients, studies


def _patient_and_study(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    parent, _, study = folder.rpartition("/")
    patient = parent.rpartition("/")[2]
    if patient.startswith("patient") and study.startswith("study"):
        return patient, f"{patient}/{study}"
    return folder or name, folder or name


def _views(sheet: Sheet, paths: list[str]) -> Texts:
    codes, spellings = pd.factorize(_column(sheet, _VIEW))
    known = np.array([spelling.strip().lower() for spelling in spellings], dtype=object)
    wrong = [code for code, view in enumerate(known) if view not in ("frontal", "lateral", "")]
    if wrong:
        row = int(np.isin(codes, wrong).argmax())
        raise SheetError(
            f"{sheet.path} line {sheet.lines[row]}: view {spellings[codes[row]]!r} is unknown",
            "Use Frontal or Lateral.",
        )
    views = known[codes]
    for row in np.flatnonzero(views == "").tolist():
        views[row] = "lateral" if "lateral" in paths[row].rpartition("/")[2].lower() else "frontal"
    return views


def _labels(sheet: Sheet, finding: str) -> NDArray[np.float32]:
    codes, spellings = pd.factorize(sheet.frame[finding])
    values = np.array([_label(spelling) for spelling in spellings], dtype=np.float32)
    wrong = np.flatnonzero(np.isinf(values))
    if len(wrong):
        row = int(np.isin(codes, wrong).argmax())
        raise SheetError(
            f"{sheet.path} line {sheet.lines[row]}: {finding} is {spellings[codes[row]]!r}",
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


PHANTOM_NAME = "phantom.json"
"""File in the folder of a synthetic data set."""
