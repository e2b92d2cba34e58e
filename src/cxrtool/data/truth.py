"""True regions of findings: phantom masks, CheXlocalize's segmentations, or NIH's boxes."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cxrtool.data.images import read
from cxrtool.data.manifest import is_phantom
from cxrtool.data.rle import Mask, decode_rle
from cxrtool.errors import RequestError
from cxrtool.findings import canonical

CHEXLOCALIZE_TASKS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Airspace Opacity",
    "Edema",
    "Consolidation",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Support Devices",
)
"""The findings of CheXlocalize; its evaluator requires all of them in a file."""
CHEXLOCALIZE_NAMES = {canonical(task): task for task in CHEXLOCALIZE_TASKS}
"""Its names by those used here."""


class Truth(Protocol):
    """True regions of findings, by image."""

    @property
    def name(self) -> str:
        """Name of this truth for tables and pictures."""

    def mask(self, path: str, finding: str, height: int, width: int) -> Mask | None:
        """Return the region as [height, width] bool, or None if the image has none for this finding."""


@dataclass(frozen=True)
class MaskTruth:
    """Masks as one PNG per image and finding, as `cxr phantom` writes them.

    Attributes:
        folder: ``masks/``; it contains the path of each image without suffix as a folder.
        name: name for pictures and tables, which says if only synthetic radiographs were measured.
    """

    folder: Path
    name: str = "masks"

    def mask(self, path: str, finding: str, height: int, width: int) -> Mask | None:
        """See `Truth`."""
        file = self.folder / Path(path).with_suffix("") / f"{finding.replace(' ', '_')}.png"
        if not file.is_file():
            return None
        found: Mask = read(file, self.folder).pixels > 127
        return _non_empty(_checked_size(found, height, width, file))


@dataclass(frozen=True, eq=False)
class SegmentationTruth:
    """Segmentations of CheXlocalize: run lengths as in COCO.

    Attributes:
        file: the JSON file.
        content: its content by image (``patient1_study1_view1_frontal``) and finding.
        name: name for pictures and tables.
    """

    file: Path
    content: Mapping[str, Mapping[str, Mapping[str, Any]]]
    name: str = "CheXlocalize segmentations"

    def mask(self, path: str, finding: str, height: int, width: int) -> Mask | None:
        """See `Truth`."""
        item = self.content.get(chexlocalize_id(path), {}).get(CHEXLOCALIZE_NAMES.get(finding, finding))
        if item is None:
            return None
        return _non_empty(_checked_size(decode_rle(item["counts"], tuple(item["size"])), height, width, self.file))


@dataclass(frozen=True, eq=False)
class BoxTruth:
    """Boxes in pixels of the original image, by file name, as in NIH's ``BBox_List_2017.csv``.

    Attributes:
        file: the CSV file.
        boxes: left, top, width and height, by file name and finding.
        name: name for pictures and tables.
    """

    file: Path
    boxes: Mapping[tuple[str, str], tuple[tuple[float, float, float, float], ...]]
    name: str = "boxes"

    def mask(self, path: str, finding: str, height: int, width: int) -> Mask | None:
        """See `Truth`."""
        found = self.boxes.get((Path(path).name, finding))
        if not found:
            return None
        mask = np.zeros((height, width), dtype=np.bool_)
        for left, top, wide, high in found:
            if left + wide > width + 1 or top + high > height + 1:
                raise RequestError(
                    f"{self.file}: a box of {Path(path).name} reaches ({left + wide:g}, {top + high:g}), but the image "
                    f"is {width} x {height}",
                    "Boxes are in pixels of the original image: use the images on which they were drawn.",
                )
            mask[round(top) : round(top + high), round(left) : round(left + wide)] = True
        return _non_empty(mask)


def load_truth(root: Path, masks: Path | None = None, boxes: Path | None = None) -> Truth:
    """Load the truth that the user names, or else ``masks/`` in the data folder.

    Args:
        root: the data folder.
        masks: a folder of masks, or a JSON file of CheXlocalize.
        boxes: a CSV file of boxes.

    Raises:
        RequestError: no truth is found, both are given, or a file cannot be read.
    """
    if masks is not None and boxes is not None:
        raise RequestError("--masks and --boxes cannot be combined", "Leave out one of them.")
    if boxes is not None:
        return _read_boxes(boxes)
    folder = masks or root / "masks"
    if folder.suffix.lower() == ".json":
        return _read_segmentations(folder)
    if not folder.is_dir():
        raise RequestError(f"there is no folder {folder}", "Use --masks DIR, --masks FILE.json or --boxes FILE.csv.")
    return MaskTruth(folder, "masks of synthetic radiographs" if is_phantom(folder.parent) else "masks")


def _read_segmentations(path: Path) -> SegmentationTruth:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for tasks in content.values():
            for item in tasks.values():
                _ = item["counts"], item["size"]
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}", "Check --masks.") from None
    except (ValueError, AttributeError, KeyError, TypeError):
        raise RequestError(
            f"{path} does not have the format of CheXlocalize's gt_segmentations.json", "Check --masks."
        ) from None
    return SegmentationTruth(path, content)


def _read_boxes(path: Path) -> BoxTruth:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"cannot read {path}: {error}", "Check --boxes.") from None
    found: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        try:
            left, top, wide, high = (float(cell) for cell in row[2:6])
        except ValueError:
            raise RequestError(
                f"{path} line {line} is not a box", "The columns must be image, label, x, y, w, h."
            ) from None
        found.setdefault((row[0], canonical(row[1])), []).append((left, top, wide, high))
    if not found:
        raise RequestError(f"{path} contains no box", "The columns must be image, label, x, y, w, h.")
    return BoxTruth(path, {key: tuple(boxes) for key, boxes in found.items()})


def _checked_size(mask: Mask, height: int, width: int, file: Path) -> Mask:
    if mask.shape != (height, width):
        raise RequestError(
            f"{file}: a mask is {mask.shape[1]} x {mask.shape[0]}, but its image is {width} x {height}",
            "Use the images on which the masks were drawn.",
        )
    return mask


def _non_empty(mask: Mask) -> Mask | None:
    return mask if mask.any() else None


def chexlocalize_id(path: str) -> str:
    """Return CheXlocalize's name of an image, such as ``patient64541_study1_view1_frontal``, from its CheXpert path."""
    return "_".join(Path(path).with_suffix("").parts[-3:])
