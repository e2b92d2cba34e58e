"""Checks of whether an image looks like a frontal chest radiograph: cheap rules that only give warnings.

Misses and false alarms were measured; see docs/measurements/warnings.md.
"""

from pathlib import PurePath

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.data.decoded import Decoded, ImageWarning

BLANK_RANGE = 25
"""Range of grey levels, 1st to 99th percentile, below which an image counts as blank; real images had 96 or more."""
COLOUR_SPREAD = 12
"""Mean difference between the largest and the smallest channel above which an image counts as a colour picture."""
WIDEST_ASPECT = 1.8
_SIDE = 64
_SAMPLED = 128


def screen(name: str, decoded: Decoded, pixels: NDArray[np.uint8]) -> tuple[ImageWarning, ...]:
    """Return all warnings about one image, those of its decoder first.

    Args:
        name: path or other name of the image; its last part may contain ``lateral`` as in CheXpert.
        decoded: the decoded image.
        pixels: [h, w] uint8, input of the network without black borders; the longer side is S.
    """
    found = list(decoded.warnings)
    codes = {warning.code for warning in found}
    if "lateral" in PurePath(name).name.lower() and "lateral" not in codes:
        found.append(ImageWarning("lateral", "the name says lateral, but the model is for frontal views"))
    height, width = decoded.size
    size = max(pixels.shape)
    if min(height, width) < size / 2:
        found.append(ImageWarning("small", f"{width} x {height} pixels is far below the model's {size}"))
    if max(height, width) > WIDEST_ASPECT * min(height, width):
        found.append(ImageWarning("aspect", f"{width} x {height} pixels is not the shape of a chest radiograph"))
    low, high = grey_percentiles(pixels, (0.01, 0.99))
    if high - low < BLANK_RANGE:
        found.append(ImageWarning("blank", "nearly one grey level: nothing can be seen"))
    elif has_two_levels(decoded.pixels):
        found.append(ImageWarning("two-levels", "two grey levels only: a mask, or a page scanned in black and white"))
    elif radiograph_likeness(pixels) < 0:
        found.append(ImageWarning("inverted", "looks inverted (bright lungs), or is not a frontal chest radiograph"))
    return tuple(found)


def grey_percentiles(pixels: NDArray[np.uint8], shares: tuple[float, ...]) -> tuple[float, ...]:
    """Return the grey levels below which these shares of the pixels lie.

    They equal those of `np.quantile`, which sorts; counting is several times as fast.
    """
    reached = np.cumsum(_counts(pixels))
    last = int(reached[-1]) - 1
    found = []
    for share in shares:
        place = share * last
        below, above = np.searchsorted(reached, (int(place), min(int(place) + 1, last)), side="right")
        found.append(float(below + (above - below) * (place - int(place))))
    return tuple(found)


def _counts(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the number of pixels of each grey level, [256]."""
    # OpenCV counts without Python's global lock, which reading threads would otherwise wait for.
    counted = cv2.calcHist([np.ascontiguousarray(pixels)], [0], None, [256], [0, 256])
    return counted.ravel().astype(np.int64)


def has_two_levels(pixels: NDArray[np.uint8]) -> bool:
    """Return whether [H, W] pixels have at most two grey levels; all are counted only if a sample has no more."""
    steps = tuple(max(1, side // _SAMPLED) for side in pixels.shape)
    sample = pixels[:: steps[0], :: steps[1]]
    return all(np.count_nonzero(_counts(part)) <= 2 for part in (sample, pixels))


def radiograph_likeness(pixels: NDArray[np.uint8]) -> float:
    """Return how much darker lungs, upper corners and sides are than mediastinum and abdomen, in standard deviations.

    A frontal chest radiograph is bright in the middle and at the bottom, and dark in the lungs and outside the body.
    Its negative has the opposite sign. Real radiographs had 1.04 or more (docs/measurements/warnings.md).

    Args:
        pixels: [S, S] uint8.
    """
    small = cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
    spread = small.std()
    if spread == 0:
        return 0.0
    grey = (small - small.mean()) / spread
    lungs = (grey[16:40, 12:24].mean() + grey[16:40, 40:52].mean()) / 2
    middle, below = grey[16:48, 28:36].mean(), grey[54:, 16:48].mean()
    corners = (grey[:8, :8].mean() + grey[:8, -8:].mean()) / 2
    sides = (grey[:, :3].mean() + grey[:, -3:].mean()) / 2
    return float((middle - lungs) + 0.5 * (below - lungs) - 0.5 * corners - 0.5 * sides)
