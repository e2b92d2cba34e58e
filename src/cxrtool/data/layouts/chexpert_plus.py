"""CheXpert Plus (Chambon et al. 2024, arXiv:2405.19538): CheXpert's images with reports.

df_chexpert_plus_240401.csv has 223,462 images of 187,711 studies and 64,725 patients; its column ``split`` says train
or valid. Labels are JSON lines: ``chexbert_labels/impression_fixed.json`` holds those that were read from the
impression, as CheXpert's own were. 1 is positive, 0 negative, -1 uncertain and null (blank) not mentioned. An image
without a line in that file is left out.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from cxrtool.data.layouts.any_sheet import GivenSheets
from cxrtool.data.layouts.base import SUFFIXES, FilesRead, Wanted, find_file
from cxrtool.data.layouts.joined import labels_in, with_labels
from cxrtool.data.sheets import Sheet
from cxrtool.errors import SheetError
from cxrtool.sheet_options import FilesBySplit, SheetColumns

_SHEET = "df_chexpert_plus_240401.csv"
_LABELS = ("impression_fixed.json", "chexbert_labels/impression_fixed.json")
_FOLDERS = ("", "PNG/", "PNG/PNG/", "DICOM/", "DICOM/DICOM/")
_ROWS_TRIED = 20


@dataclass(frozen=True)
class CheXpertPlus:
    """CheXpert Plus as downloaded; images are found in the data folder, ``PNG`` or ``DICOM``."""

    root: Path
    title: str = "CheXpert Plus"
    _read: FilesRead = field(default_factory=FilesRead, repr=False, compare=False)

    @staticmethod
    def recognised(root: Path) -> bool:
        """Return whether the folder has the sheet."""
        return find_file(root, _SHEET) is not None

    def splits(self) -> tuple[str, ...] | None:
        """See `Layout`."""
        return self._sheets.splits()

    def sheet(self, split: str, wanted: Wanted) -> Sheet:
        """See `Layout`."""
        labels = find_file(self.root, *_LABELS)
        if labels is None:
            raise SheetError(f"{self.root} has no {_LABELS[1]}", "Copy it, or name labels with --sheet and --labels.")
        sheet = self._sheets.sheet(split, replace(wanted, findings=(), partial=True))
        joined = with_labels(sheet, labels_in(self._read.read(labels), wanted.findings), of_more=True)
        paths = self._as_on_disk(joined.frame["Path"].tolist())
        return replace(joined, frame=joined.frame.assign(Path=paths))

    @cached_property
    def _sheets(self) -> GivenSheets:
        path = find_file(self.root, _SHEET)
        if path is None:
            raise SheetError(f"{self.root} has no {_SHEET}", "Copy it.")
        columns = SheetColumns({"path": "path_to_image", "patient": "deid_patient_id", "split": "split"})
        return GivenSheets(self.root, FilesBySplit(path), columns)

    def _as_on_disk(self, paths: list[str]) -> list[str]:
        """Return the paths with the folder and the suffix under which the first images exist."""
        for path in paths[:_ROWS_TRIED]:
            for folder in _FOLDERS:
                for suffix in SUFFIXES:
                    if (self.root / f"{folder}{path.rpartition('.')[0]}{suffix}").is_file():
                        return [f"{folder}{one.rpartition('.')[0]}{suffix}" for one in paths]
        return paths
