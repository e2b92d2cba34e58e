"""What every image goes through before the network sees it, in one place."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxrtool.errors import RequestError


@dataclass(frozen=True)
class Preprocessing:
    """What an image goes through before the network; it travels in the bundle.

    Attributes:
        image_size: pixels of both sides of the network's input, 32 to 1024.
        mean: per channel, of pixels scaled to [0, 1]; ImageNet's.
        std: likewise.
        resize: how; only one way exists.
    """

    image_size: int = 320
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    resize: str = "stretch, antialiased bilinear"

    def __post_init__(self) -> None:
        if not 32 <= self.image_size <= 1024:
            raise RequestError(f"image size {self.image_size} lies outside 32 to 1024", "320 is usual.")
        if self.resize != type(self).resize:
            raise RequestError(f"resize {self.resize!r} is unknown", f"It must be {type(self).resize!r}.")
        finite = all(math.isfinite(value) for value in (*self.mean, *self.std))
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std) or not finite:
            raise RequestError("mean and std need three finite values each, std above 0", "ImageNet's are usual.")

    def to_dict(self) -> dict[str, object]:
        """Plain values by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> Self:
        """The preprocessing that `to_dict` described.

        Raises:
            RequestError: a key or value is not one of its own.
        """
        try:
            return cls(
                image_size=int(str(content["image_size"])),
                mean=_three(content["mean"]),
                std=_three(content["std"]),
                resize=str(content["resize"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise RequestError(f"preprocessing cannot be read: {error}", "The bundle is damaged.") from None


def _three(value: object) -> tuple[float, float, float]:
    if not isinstance(value, Sequence) or len(value) != 3:
        raise ValueError(f"{value!r} is not three numbers")
    first, second, third = (float(item) for item in value)
    return first, second, third


def preprocess(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize once, antialiased (Pillow's bilinear, whose support grows with the reduction).

    Args:
        image: [H, W] uint8.
        preprocessing: gives the size.

    Returns:
        [S, S] uint8. The network itself takes mean and standard deviation off, on its device: as uint8 a batch is a
        twelfth of the bytes.
    """
    size = (preprocessing.image_size, preprocessing.image_size)
    if image.shape == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
