"""Contact sheet of the network's inputs: preprocessed images with labels and masks."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxrtool.choices import Views
from cxrtool.data.dataset import Dataset
from cxrtool.data.images import read
from cxrtool.data.manifest import Manifest, with_views
from cxrtool.data.missing import missing_images
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.data.radiograph import read_pixels
from cxrtool.explain.pictures import contact_sheet, write_png
from cxrtool.settings import DEFAULT_LIMITS, Limits

_LETTERS = {1.0: "1", 0.0: "0", -1.0: "-1"}


def write_contact_sheet(
    dataset: Dataset,
    count: int,
    out: Path,
    image_size: int,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Write evenly spaced frontal images of the first split of `dataset` as the PNG file `out`.

    If the data have masks, as phantoms do, they are tinted over the image.

    Raises:
        ImageError: an image cannot be read.
    """
    manifest = dataset.manifest(dataset.available[0])
    manifest = with_views(manifest, Views.FRONTAL)
    there = manifest.select(~missing_images(manifest).rows)
    rows = np.unique(np.linspace(0, len(there) - 1, min(count, len(there))).astype(int))
    preprocessing = Preprocessing(image_size=image_size)
    pictures, captions = [], []
    for row in rows:
        pixels = read_pixels(there.file(row), preprocessing, there.fence, limits)
        pictures.append(_with_masks(pixels, manifest.root, str(there.paths[row])))
        captions.append(_caption(there, int(row)))
    write_png(out, contact_sheet(pictures, captions))


def _caption(manifest: Manifest, row: int) -> str:
    labels = [_LETTERS.get(float(value), "blank") for value in manifest.raw_labels[row]]
    named = [f"{finding}: {label}" for finding, label in zip(manifest.findings, labels, strict=True)]
    return "\n".join([str(manifest.studies[row]), *named])


def _with_masks(pixels: NDArray[np.uint8], root: Path, path: str) -> NDArray[np.uint8]:
    coloured = np.repeat(pixels[..., None], 3, axis=2).astype(np.float32)
    for mask_file in sorted((root / "masks" / Path(path).with_suffix("")).glob("*.png")):
        drawn = Image.fromarray(read(mask_file, root).pixels)
        mask = np.asarray(drawn.resize(pixels.shape[::-1])) > 127
        coloured[mask] = 0.75 * coloured[mask] + 0.25 * np.array([255, 140, 0])
    return coloured.astype(np.uint8)
