"""A decoded image and the warnings about it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PHANTOM_COMMENT = b"drawn by cxr phantom"
"""Comment in every JPEG of a synthetic data set."""


@dataclass(frozen=True)
class ImageWarning:
    """A warning about one image.

    Attributes:
        code: stable code for programs, for example ``inverted``.
        message: readable text; never quotes the content of the file.
    """

    code: str
    message: str


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded image.

    Attributes:
        pixels: [H, W] uint8, 0 is black.
        size: (height, width) in the file; `pixels` may be smaller, see `cxrtool.data.images.read`.
        warnings: warnings about colour, transparency, bit depth and DICOM tags.
        drawn: whether the file says that `cxr phantom` has drawn it.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    warnings: tuple[ImageWarning, ...] = ()
    drawn: bool = False
