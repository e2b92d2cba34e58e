"""Random order of images and random augmentation in training.

Everything is drawn from (seed, epoch, row), so that neither the number of threads nor an interruption changes it.
Images are changed on the device that trains.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_ROTATION = 7.0
_SHIFT = 0.04
_ZOOM = 0.05
_CONTRAST = 0.1
_BRIGHTNESS = 12.0


Values = TypeVar("Values", NDArray[np.float32], Tensor)


@dataclass(frozen=True)
class Changes(Generic[Values]):
    """Augmentation of each image of a batch, as arrays or as tensors.

    Attributes:
        places: [B, 2, 3] float32, affine maps from a place in the changed image to its place in the original, as in
            `torch.nn.functional.affine_grid`; both are (x, y) in [-1, 1] from edge to edge.
        contrast: [B] float32, factor on grey levels.
        brightness: [B] float32, grey levels added afterwards.
    """

    places: Values
    contrast: Values
    brightness: Values


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return a permutation of range(count), drawn from (seed, epoch)."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,))).permutation(count).astype(np.int64)


def draw_changes(seed: int, epoch: int, rows: NDArray[np.int64]) -> Changes[NDArray[np.float32]]:
    """Draw a rotation of up to 7 degrees, a shift of up to 4 %, a zoom of up to 5 %, contrast and brightness.

    Images are never mirrored, because the side of the heart carries meaning.

    Args:
        seed: random seed of the run.
        epoch: number of the epoch, from 1.
        rows: [B] row of each image; the draws of a row do not depend on other rows.
    """
    draws = np.array([_draw(seed, epoch, int(row)) for row in rows]).reshape(-1, 6)
    angle, zoom, shift = np.deg2rad(_ROTATION * draws[:, 0]), 1 + _ZOOM * draws[:, 1], _SHIFT * draws[:, 2:4]
    # The inverse of: rotate and zoom about the centre, then shift. A shift of one side is 2 in [-1, 1].
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    turn = np.stack([np.stack([cosine, -sine], axis=1), np.stack([sine, cosine], axis=1)], axis=1)
    places = np.concatenate([turn, -turn @ (2 * shift)[:, :, None]], axis=2)
    contrast, brightness = 1 + _CONTRAST * draws[:, 4], _BRIGHTNESS * draws[:, 5]
    return Changes(places.astype(np.float32), contrast.astype(np.float32), brightness.astype(np.float32))


def _draw(seed: int, epoch: int, row: int) -> NDArray[np.float64]:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, row))).uniform(-1, 1, 6)


def augment(pixels: Tensor, changes: Changes[Tensor]) -> Tensor:
    """Apply `changes` to a batch, with bilinear interpolation and black outside.

    Args:
        pixels: [B, 1, S, S] uint8.
        changes: augmentation of these images, on the same device.

    Returns:
        [B, 1, S, S] float32 in [0, 255].
    """
    grid = functional.affine_grid(changes.places, list(pixels.shape), align_corners=False)
    moved = functional.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    contrast, brightness = changes.contrast[:, None, None, None], changes.brightness[:, None, None, None]
    return (moved * contrast + brightness).clamp(0, 255)
