"""Small changes to training images, and the random draws of training.

Everything is drawn from (seed, epoch, row), so neither the number of threads nor an interruption changes it.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

_ROTATION = 7.0
_SHIFT = 0.04
_ZOOM = 0.05
_CONTRAST = 0.1
_BRIGHTNESS = 12.0


def sample_rng(seed: int, epoch: int, row: int) -> np.random.Generator:
    """The generator of one row in one epoch."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, row)))


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """A permutation of range(count), drawn from (seed, epoch)."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,))).permutation(count).astype(np.int64)


def augment(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn by up to 7 degrees, shift by up to 4 %, zoom by up to 5 %, and vary contrast and brightness.

    Never mirrored: the heart's side carries meaning.

    Args:
        image: [S, S] uint8.
        rng: what to draw from.

    Returns:
        [S, S] uint8.
    """
    height, width = image.shape
    angle, zoom = rng.uniform(-_ROTATION, _ROTATION), 1 + rng.uniform(-_ZOOM, _ZOOM)
    matrix = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), angle, zoom), dtype=np.float64)
    matrix[:, 2] += np.array([width, height]) * rng.uniform(-_SHIFT, _SHIFT, 2)
    moved = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    contrast, brightness = 1 + rng.uniform(-_CONTRAST, _CONTRAST), rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    levels = np.clip(np.round(np.arange(256) * contrast + brightness), 0, 255).astype(np.uint8)
    return cv2.LUT(moved, levels).astype(np.uint8, copy=False)
