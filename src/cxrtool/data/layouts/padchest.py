"""PadChest (Bustos et al. 2020, Medical Image Analysis 66:101797, arXiv:1901.07441).

Published are 160,868 images of 67,625 patients; the sheet PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv has
160,861. Its column ``Labels`` is a list such as ``['pleural effusion', 'nodule']``, labelled by physicians (27 %) or
by a network that read the reports. A finding is 1 if its name or that of one of its kinds is in the list (`NAMES`),
and 0 if not; there is no uncertain (-1) and no blank label. An image whose list is missing or empty is left out. The
data set has no splits: see ``cxr split``. Images lie in ``<ImageDir>/<ImageID>``, in ``images`` or beside the sheet.
The view is ``Projection``: PA, L, AP, AP_horizontal; COSTAL, EXCLUDE and UNK count as unknown. Age is the year of the
study less that of birth.
"""

import ast
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cxrtool.data.layouts.base import Wanted, find_file, labels_of_names, locate
from cxrtool.data.sheets import Sheet, sheet_of
from cxrtool.data.text_file import read_text_file
from cxrtool.errors import SheetError

_SHEET = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
_COLUMNS = ("ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM")

NAMES: dict[str, tuple[str, ...]] = {
    "No Finding": ("normal",),
    "Atelectasis": (
        "atelectasis",
        "atelectasis basal",
        "laminar atelectasis",
        "lobar atelectasis",
        "round atelectasis",
        "segmental atelectasis",
        "total atelectasis",
        "atelectasia",
    ),
    "Cardiomegaly": ("cardiomegaly", "cardiomegalia"),
    "Consolidation": ("consolidation", "consolidacion"),
    "Edema": ("pulmonary edema", "edema pulmonar"),
    "Emphysema": ("emphysema", "enfisema"),
    "Fibrosis": ("pulmonary fibrosis", "fibrosis pulmonar"),
    "Fracture": (
        "fracture",
        "clavicle fracture",
        "humeral fracture",
        "rib fracture",
        "callus rib fracture",
        "vertebral fracture",
    ),
    "Hernia": ("hiatal hernia", "hernia de hiato"),
    "Infiltration": ("infiltrates", "infiltrados"),
    "Mass": ("mass", "pulmonary mass", "masa"),
    "Nodule": ("nodule", "multiple nodules", "nodulo"),
    "Pleural Effusion": (
        "pleural effusion",
        "loculated pleural effusion",
        "loculated fissural effusion",
        "derrame pleural",
    ),
    "Pleural Thickening": (
        "pleural thickening",
        "apical pleural thickening",
        "calcified pleural thickening",
        "engrosamiento pleural",
    ),
    "Pneumonia": ("pneumonia", "atypical pneumonia", "neumonia"),
    "Pneumothorax": ("pneumothorax", "hydropneumothorax", "neumotorax"),
}
"""PadChest's names, English or Spanish, of each finding and of its kinds in PadChest's own tree of terms."""


@dataclass(frozen=True)
class PadChest:
    """PadChest as downloaded."""

    root: Path
    title: str = "PadChest"

    @staticmethod
    def recognised(root: Path) -> bool:
        """Return whether the folder has the sheet."""
        return find_file(root, _SHEET) is not None

    def splits(self) -> None:
        """See `Layout`."""
        return

    def sheet(self, split: str, wanted: Wanted) -> Sheet:
        """See `Layout`; all rows, because they are not divided."""
        del split
        path = find_file(self.root, _SHEET)
        if path is None:
            raise SheetError(f"{self.root} has no {_SHEET}", "Copy it.")
        columns = dict.fromkeys((*_COLUMNS, "Projection", "Labels", *wanted.columns))
        sheet = sheet_of(read_text_file(path), tuple(columns))
        stated = np.array([names_in(cell) is not None for cell in sheet.frame["Labels"]], dtype=np.bool_)
        count = int((~stated).sum())
        notes = (f"{path.name}: {count:,} images without any label are left out",) if count else ()
        sheet = sheet.select(stated)
        findings = [finding for finding in wanted.findings if finding in NAMES]
        labels = labels_of_names(sheet.frame["Labels"], _findings_in, findings)
        frame = sheet.frame.assign(Path=self._paths(sheet.frame), age=_ages(sheet.frame))
        named = {"patient": ("PatientID",), "study": ("StudyID",), "sex": ("PatientSex_DICOM",), "age": ("age",)}
        named |= {"view": ("Projection",), "projection": ("Projection",)}
        return replace(sheet, frame=frame, named=named, labels=labels, notes=notes)

    def _paths(self, frame: pd.DataFrame) -> list[str]:
        folders = sorted(set(frame["ImageDir"]) - {""})
        if any((self.root / folder).is_dir() for folder in folders):
            return [f"{folder}/{name}" for folder, name in zip(frame["ImageDir"], frame["ImageID"], strict=True)]
        return locate(self.root, frame["ImageID"].tolist(), ("images", ""))


def names_in(cell: str) -> frozenset[str] | None:
    """Return the names in a cell such as ``['normal']``; None if it names none."""
    try:
        listed = ast.literal_eval(cell.strip()) if cell.strip().startswith("[") else []
    except (ValueError, SyntaxError):
        listed = []
    names = frozenset(str(name).strip() for name in listed) - {""}
    return names or None


def _findings_in(cell: str) -> frozenset[str] | None:
    names = names_in(cell)
    return None if names is None else frozenset(one for one, kinds in NAMES.items() if names & frozenset(kinds))


def _ages(frame: pd.DataFrame) -> pd.Series:
    born = pd.to_numeric(frame["PatientBirth"], errors="coerce")
    studied = pd.to_numeric(frame["StudyDate_DICOM"].str[:4], errors="coerce")
    return (studied - born).map(lambda years: f"{years:g}" if years >= 0 else "")
