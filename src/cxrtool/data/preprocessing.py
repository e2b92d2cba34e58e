"""The preprocessing of every image before it enters the network."""

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
    """Parameters of the preprocessing; stored in the bundle.

    Attributes:
        image_size: width and height of the network's input in pixels, 32 to 1024.
        mean: mean per channel of pixels scaled to [0, 1]; the default is ImageNet's.
        std: standard deviation per channel of pixels scaled to [0, 1]; the default is ImageNet's.
        resize: resize method; only one is supported.
    """

    image_size: int = 320
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    resize: str = "stretch, antialiased bilinear"

    def __post_init__(self) -> None:
        if not 32 <= self.image_size <= 1024:
            raise RequestError(f"image size {self.image_size} is outside 32 to 1024", "The default is 320.")
        if self.resize != type(self).resize:
            raise RequestError(f"resize method {self.resize!r} is unknown", f"It must be {type(self).resize!r}.")
        finite = all(math.isfinite(value) for value in (*self.mean, *self.std))
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std) or not finite:
            raise RequestError(
                "mean and std need three finite values each, std above 0", "The defaults are ImageNet's."
            )

    def to_dict(self) -> dict[str, object]:
        """Return the parameters as a dict of plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> Self:
        """Build from the result of `to_dict`.

        Raises:
            RequestError: a key is missing, or a value is invalid.
        """
        try:
            return cls(
                image_size=int(str(content["image_size"])),
                mean=_three_floats(content["mean"]),
                std=_three_floats(content["std"]),
                resize=str(content["resize"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise RequestError(f"preprocessing cannot be read: {error}", "The bundle is damaged.") from None


def _three_floats(value: object) -> tuple[float, float, float]:
    if not isinstance(value, Sequence) or len(value) != 3:
        raise ValueError(f"{value!r} is not three numbers")
    first, second, third = (float(item) for item in value)
    return first, second, third


def preprocess(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize an image once with antialiasing (Pillow's bilinear filter, whose support grows with the reduction).

    Args:
        image: [H, W] uint8.
        preprocessing: its `image_size` is S.

    Returns:
        [S, S] uint8. The network subtracts the mean and divides by the standard deviation on its device, because a
        batch of uint8 has a twelfth of the bytes.
    """
    size = (preprocessing.image_size, preprocessing.image_size)
    if image.shape == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
