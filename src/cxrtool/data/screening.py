"""Does an image look like a frontal chest radiograph? Cheap rules, each stated, that warn and decide nothing.

What they miss and where they cry wolf was measured: docs/inputs.md.
"""

from pathlib import PurePath

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.data.decoded import Decoded, ImageWarning

BLANK_RANGE = 25
"""Grey levels from the 1st to the 99th percentile below which nothing is to be seen; real ones had 96 or more."""
COLOUR_SPREAD = 12
"""Mean difference of the largest and the smallest channel above which an image is a colour picture."""
WIDEST_ASPECT = 1.8
_SIDE = 64


def screen(name: str, decoded: Decoded, pixels: NDArray[np.uint8]) -> tuple[ImageWarning, ...]:
    """All warnings about one image, those of its file first.

    Args:
        name: a path or what else it is called; its last part may say ``lateral``, as CheXpert's do.
        decoded: the image.
        pixels: [S, S] uint8, what the network sees.
    """
    found = list(decoded.warnings)
    codes = {warning.code for warning in found}
    if "lateral" in PurePath(name).name.lower() and "lateral" not in codes:
        found.append(ImageWarning("lateral", "the name says lateral; the model was made for frontal views"))
    height, width = decoded.size
    if min(height, width) < pixels.shape[0] / 2:
        found.append(ImageWarning("small", f"{width} x {height} pixels are far fewer than the model's {len(pixels)}"))
    if max(height, width) > WIDEST_ASPECT * min(height, width):
        found.append(ImageWarning("aspect", f"{width} x {height} pixels are no chest radiograph's shape"))
    low, high = np.percentile(pixels, (1, 99))
    if high - low < BLANK_RANGE:
        found.append(ImageWarning("blank", "nearly one grey: nothing is to be seen"))
    elif radiograph_likeness(pixels) < 0:
        found.append(ImageWarning("inverted", "looks inverted: lungs bright, or no frontal chest radiograph"))
    return tuple(found)


def radiograph_likeness(pixels: NDArray[np.uint8]) -> float:
    """How much darker lungs, upper corners and sides are than mediastinum and abdomen, in standard deviations.

    A frontal chest radiograph is bright in the middle and below, dark in the lungs and outside the body; its negative
    has the sign turned. Of 426 real radiographs the smallest was 1.04, and the only one below 0 was a negative.

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
