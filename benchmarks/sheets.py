"""Count the rows, patients, views and labels of real sheets: ``python benchmarks/sheets.py FOLDER``.

FOLDER is ``torchxrayvision/data`` of the wheel of torchxrayvision 1.5.7 (Apache 2.0), which holds the sheets of
CheXpert, NIH ChestX-ray14, PadChest and VinBigData's train split: ``pip download torchxrayvision==1.5.7 --no-deps``,
then unzip it. The folder is not changed, and no image is needed. Prints a table as Markdown, with the published counts.
"""

import sys
import tempfile
import time
from pathlib import Path

from cxrtool.choices import Views
from cxrtool.data.layouts.base import Wanted
from cxrtool.data.layouts.registry import open_layout
from cxrtool.data.manifest import manifest_of
from cxrtool.findings import CHEXPERT5
from cxrtool.settings import DataSettings

SHEETS = (
    ("CheXpert train", "chexpert_train.csv.gz", "", (223_414, 64_540)),
    ("NIH ChestX-ray14", "Data_Entry_2017_v2020.csv.gz", "nih", (112_120, 30_805)),
    ("PadChest", "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz", "padchest", (160_868, 67_625)),
    ("VinDr-CXR train", "vinbigdata-train.csv.gz", "vindr", (15_000, None)),
)


def main() -> None:
    """Print a row for each sheet."""
    folder = Path(sys.argv[1])
    print("| sheet | images | published | patients | published | frontal | lateral | unknown | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    labels, notes = [], []
    for title, name, layout, (images, patients) in SHEETS:
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / name).symlink_to((folder / name).resolve())
            data = DataSettings(root=Path(place), sheet=None if layout else str(folder / name))
            began = time.perf_counter()
            found = manifest_of(open_layout(data), "train", Wanted(CHEXPERT5.names, partial=True), Views.ALL)
            seconds = time.perf_counter() - began
        views = [int((found.views == view).sum()) for view in ("frontal", "lateral", "unknown")]
        cells = [len(found), images, len(set(found.patients)), patients, *views]
        shown = ["" if cell is None else f"{cell:,}" for cell in cells]
        print(f"| {title} | {' | '.join(shown)} | {seconds:.1f} |")
        for finding, column in zip(found.findings, found.raw_labels.T, strict=True):
            counts = [int((column == value).sum()) for value in (1, 0, -1)]
            labels.append((title, finding, *counts, len(column) - sum(counts)))
        notes += found.notes
    print("\n| sheet | finding | 1 | 0 | -1 | blank |\n|---|---|---|---|---|---|")
    for title, finding, *counts in labels:
        print(f"| {title} | {finding} | {' | '.join(f'{count:,}' for count in counts)} |")
    print()
    for note in notes:
        print(f"- {note}")


if __name__ == "__main__":
    main()
