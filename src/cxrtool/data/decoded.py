"""A decoded image, and what to beware of in it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageWarning:
    """Something to beware of in one image.

    Attributes:
        code: a word that does not change, as ``inverted``; for programs.
        message: the same for people; never a word of the file's own.
    """

    code: str
    message: str


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image and what was met on the way.

    Attributes:
        pixels: [H, W] uint8, 0 black.
        size: (height, width) in the file; `pixels` may be smaller, see `cxrtool.data.images.read`.
        warnings: of the file: colour, transparency, depth, DICOM tags.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    warnings: tuple[ImageWarning, ...] = ()
