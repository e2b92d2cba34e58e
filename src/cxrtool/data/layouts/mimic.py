"""MIMIC-CXR-JPG 2.x (Johnson et al. 2019, arXiv:1901.07042): 377,110 images of 227,827 studies and 65,379 patients.

Three files say what is known: ``mimic-cxr-2.0.0-split.csv.gz`` (train, validate, test), ``-metadata.csv.gz`` (the
view) and ``-chexpert.csv.gz`` or ``-negbio.csv.gz``, labels of each study by CheXpert's labeller or by NegBio. 1 is
positive, 0 negative, -1 uncertain, and a blank label was not mentioned. A study without a row of labels is left out.
An image is ``files/p10/p10000032/s50414267/<dicom_id>.jpg``.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cxrtool.data.layouts.base import FilesRead, Wanted, find_file, splits_of
from cxrtool.data.layouts.joined import labels_in, with_labels
from cxrtool.data.sheets import Sheet, joint_digest, sheet_of
from cxrtool.data.text_file import TextFile
from cxrtool.errors import SheetError
from cxrtool.sheet_options import SPLITS

_VERSIONS = ("2.1.0", "2.0.0")
_IDENTITY = ("dicom_id", "study_id", "subject_id", "split")


def _names(part: str) -> tuple[str, ...]:
    return tuple(f"mimic-cxr-{version}-{part}.csv" for version in _VERSIONS)


@dataclass(frozen=True)
class Mimic:
    """MIMIC-CXR-JPG as downloaded.

    Attributes:
        root: folder with these files and ``files/``.
        labeller: ``chexpert`` or ``negbio``.
    """

    root: Path
    labeller: str = "chexpert"
    title: str = "MIMIC-CXR-JPG"
    _read: FilesRead = field(default_factory=FilesRead, repr=False, compare=False)

    @staticmethod
    def recognised(root: Path) -> bool:
        """Return whether the folder has the file of splits."""
        return find_file(root, *_names("split")) is not None

    def splits(self) -> tuple[str, ...]:
        """See `Layout`."""
        there = set(splits_of(self._rows(("split",)), "split"))
        return tuple(split for split in SPLITS if split in there)

    def sheet(self, split: str, wanted: Wanted) -> Sheet:
        """See `Layout`."""
        every = self._rows(_IDENTITY)
        views, digest = self._views(every, wanted)
        labels = labels_in(self._file(self.labeller), wanted.findings)
        frame = every.frame.assign(Path=_paths(every.frame), **views)
        named = {"patient": ("subject_id",), "study": ("study_id",), "view": ("ViewPosition",)}
        every = replace(every, frame=frame, named=named | {"projection": ("ViewPosition",)})
        rows = np.asarray(splits_of(every, "split") == split, dtype=np.bool_)
        joined = with_labels(every.select(rows), labels, of_more=True)
        return replace(joined, sha256=joint_digest(joined.sha256, digest))

    def _file(self, part: str) -> TextFile:
        found = find_file(self.root, *_names(part))
        if found is None:
            raise SheetError(f"{self.root} has no {_names(part)[1]}.gz", "Copy it from MIMIC-CXR-JPG.")
        return self._read.read(found)

    def _rows(self, columns: tuple[str, ...]) -> Sheet:
        return sheet_of(self._file("split"), columns)

    def _views(self, every: Sheet, wanted: Wanted) -> tuple[dict[str, pd.Series], str]:
        """Return ViewPosition and further columns of the metadata by image, and the digest of that file."""
        columns = tuple(dict.fromkeys(("ViewPosition", *(name for name in wanted.columns if name not in _IDENTITY))))
        metadata = sheet_of(self._file("metadata"), ("dicom_id", *columns))
        table = metadata.frame.drop_duplicates("dicom_id").set_index("dicom_id")
        found = table.reindex(every.frame["dicom_id"]).fillna("").reset_index(drop=True)
        return {name: found[name] for name in columns}, metadata.sha256


def _paths(frame: pd.DataFrame) -> list[str]:
    columns = (frame[name].tolist() for name in ("subject_id", "study_id", "dicom_id"))
    return [
        f"files/p{subject[:2]}/p{subject}/s{study}/{image}.jpg" for subject, study, image in zip(*columns, strict=True)
    ]
