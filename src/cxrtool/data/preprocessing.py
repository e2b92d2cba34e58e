"""The preprocessing of every image before it enters the network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxrtool.choices import Fit
from cxrtool.errors import RequestError


@dataclass(frozen=True)
class Preprocessing:
    """Parameters of the preprocessing; stored in the bundle.

    Attributes:
        image_size: width and height of the network's input in pixels, 32 to 1024.
        mean: mean per channel of pixels scaled to [0, 1]; the default is ImageNet's. It has one value for each of the
            network's input channels, three or one; all get the same grey pixels.
        std: standard deviation per channel of pixels scaled to [0, 1]; the default is ImageNet's.
        resize: resize method; only one is supported.
        fit: how an image that is not square fills the input, see `Fit`.
    """

    image_size: int = 320
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    resize: str = "stretch, antialiased bilinear"
    fit: Fit = Fit.STRETCH

    def __post_init__(self) -> None:
        if not 32 <= self.image_size <= 1024:
            raise RequestError(f"image size {self.image_size} is outside 32 to 1024", "The default is 320.")
        if self.resize != type(self).resize:
            raise RequestError(f"resize method {self.resize!r} is unknown", f"It must be {type(self).resize!r}.")
        finite = all(math.isfinite(value) for value in (*self.mean, *self.std))
        counts = {len(self.mean), len(self.std)}
        if counts not in ({1}, {3}) or not all(value > 0 for value in self.std) or not finite:
            raise RequestError(
                "mean and std need one or three finite values each, std above 0", "The defaults are ImageNet's."
            )

    @property
    def channels(self) -> int:
        """Number of the network's input channels, 1 or 3."""
        return len(self.mean)

    @property
    def resizing(self) -> str:
        """How an image becomes the network's input, without normalisation: what kept pixels depend on."""
        return self.resize if self.fit is Fit.STRETCH else f"{self.resize}, {self.fit}"

    def to_dict(self) -> dict[str, object]:
        """Return the parameters as a dict of plain values, without `fit` if it is the default, as older bundles."""
        content = asdict(self)
        if self.fit is Fit.STRETCH:
            del content["fit"]
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> Self:
        """Build from the result of `to_dict`.

        Raises:
            RequestError: a key is missing, or a value is invalid.
        """
        try:
            return cls(
                image_size=int(str(content["image_size"])),
                mean=_floats(content["mean"]),
                std=_floats(content["std"]),
                resize=str(content["resize"]),
                fit=Fit(str(content.get("fit", Fit.STRETCH))),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise RequestError(f"preprocessing cannot be read: {error}", "The bundle is damaged.") from None


def _floats(value: object) -> tuple[float, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{value!r} is not a list of numbers")
    return tuple(float(item) for item in value)


@dataclass(frozen=True)
class Region:
    """The part of an image that fills the network's input, in pixels; it may reach beyond the image.

    Attributes:
        left: first column.
        top: first row.
        width: number of columns.
        height: number of rows.
    """

    left: int
    top: int
    width: int
    height: int


def region_of(height: int, width: int, fit: Fit) -> Region:
    """Return the part of an image that fills the network's input; the one place where `fit` is interpreted.

    Args:
        height: height of the image in pixels.
        width: width of the image in pixels.
        fit: how the image fills the square.
    """
    if fit is Fit.STRETCH:
        return Region(0, 0, width, height)
    side = min(height, width) if fit is Fit.CROP else max(height, width)
    # As torchxrayvision's XRayCenterCrop rounds where it crops.
    left, top = (length // 2 - side // 2 for length in (width, height))
    return Region(left, top, side, side)


def preprocess(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize an image once with antialiasing (Pillow's bilinear filter, whose support grows with the reduction).

    Args:
        image: [H, W] uint8.
        preprocessing: its `image_size` is S.

    Returns:
        [S, S] uint8; what lies outside the image is 0. The network subtracts the mean and divides by the standard
        deviation on its device, because a batch of uint8 has a twelfth of the bytes.
    """
    region = region_of(image.shape[0], image.shape[1], preprocessing.fit)
    size = preprocessing.image_size
    cut = image[max(0, region.top) : region.top + region.height, max(0, region.left) : region.left + region.width]
    rows, columns = _covered(image.shape[0], image.shape[1], preprocessing)
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    resized = cut
    if cut.shape != shape:
        resized = np.asarray(Image.fromarray(cut).resize(shape[::-1], Image.Resampling.BILINEAR))
    if shape == (size, size):
        return resized
    square = np.zeros((size, size), dtype=np.uint8)
    square[rows, columns] = resized
    return square


def without_border(
    square: NDArray[np.uint8], height: int, width: int, preprocessing: Preprocessing
) -> NDArray[np.uint8]:
    """Return the part of the network's input that shows the image, [h, w] uint8, of an image of this size."""
    return square[_covered(height, width, preprocessing)]


def _covered(height: int, width: int, preprocessing: Preprocessing) -> tuple[slice, slice]:
    """Return the rows and the columns of the square that show the image."""
    region, size = region_of(height, width, preprocessing.fit), preprocessing.image_size
    spans = []
    for start, side, length in ((region.top, region.height, height), (region.left, region.width, width)):
        count = max(1, round(size * min(side, length) / side))
        first = min(max(0, round(-start * size / side)), size - count)
        spans.append(slice(first, first + count))
    return spans[0], spans[1]


def to_image(heatmap: NDArray[np.float32], height: int, width: int, fit: Fit) -> NDArray[np.float32]:
    """Return a map of the network's input as a map of the image, by the region that `preprocess` takes.

    Args:
        heatmap: [h, w] float32, a map of the square input in any resolution.
        height: height of the image in pixels, H.
        width: width of the image in pixels, W.
        fit: how the image filled the square.

    Returns:
        [H, W] float32, interpolated linearly; 0 where the network saw nothing of the image.
    """
    region = region_of(height, width, fit)
    full = cv2.resize(heatmap, (region.width, region.height), interpolation=cv2.INTER_LINEAR)
    if fit is Fit.STRETCH:
        return np.asarray(full)
    shown = np.zeros((height, width), dtype=np.float32)
    top, left = max(0, region.top), max(0, region.left)
    bottom, right = min(height, region.top + region.height), min(width, region.left + region.width)
    shown[top:bottom, left:right] = full[
        top - region.top : bottom - region.top, left - region.left : right - region.left
    ]
    return shown
