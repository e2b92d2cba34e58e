"""Small changes to training images, made on the device that trains."""

import torch
from torch import Tensor
from torch.nn import functional

from cxrtool.data.augment import Changes


def augment(pixels: Tensor, changes: Changes) -> Tensor:
    """A batch, moved by bilinear interpolation with black outside, and in other grey levels.

    Args:
        pixels: [B, 1, S, S] uint8.
        changes: of these images.

    Returns:
        [B, 1, S, S] float32 in [0, 255], on the device of `pixels`.
    """
    places, contrast, brightness = (
        torch.from_numpy(values).to(pixels.device, non_blocking=True)
        for values in (changes.places, changes.contrast, changes.brightness)
    )
    grid = functional.affine_grid(places, list(pixels.shape), align_corners=False)
    moved = functional.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (moved * contrast[:, None, None, None] + brightness[:, None, None, None]).clamp(0, 255)
