"""Augmentation on the device against OpenCV's warp."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from cxrtool.training.augment import Changes, augment, draw_changes, epoch_order

SIDE = 64


def as_tensors(changes: Changes[NDArray[np.float32]]) -> Changes[torch.Tensor]:
    return Changes(*map(torch.from_numpy, vars(changes).values()))


def by_opencv(image: np.ndarray, changes: Changes[NDArray[np.float32]], row: int) -> np.ndarray:
    """Apply the same change with `cv2.warpAffine`, whose origin is the centre of the first pixel."""
    to_unit = np.array([[2 / SIDE, 0, 1 / SIDE - 1], [0, 2 / SIDE, 1 / SIDE - 1], [0, 0, 1]])
    inverse = np.linalg.inv(to_unit) @ np.vstack([changes.places[row], [0, 0, 1]]) @ to_unit
    moved = cv2.warpAffine(
        image.astype(np.float32), inverse[:2], (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    return np.clip(moved * changes.contrast[row] + changes.brightness[row], 0, 255)


def test_augmentation_equals_opencv() -> None:
    rng = np.random.default_rng(0)
    images = np.stack([cv2.GaussianBlur(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8), (0, 0), 2) for _ in "abc"])
    changes = draw_changes(3, 1, np.array([0, 10, 20]))
    found = augment(torch.from_numpy(images)[:, None], as_tensors(changes))
    assert found.shape == (3, 1, SIDE, SIDE)
    assert found.dtype == torch.float32
    for row, image in enumerate(images):
        difference = np.abs(found[row, 0].numpy() - by_opencv(image, changes, row))
        assert difference.mean() < 0.2  # OpenCV rounds places to 1/32 of a pixel
        assert np.abs(found[row, 0].numpy() - image).mean() > 1


def test_rotation_zoom_and_shift_stay_in_their_ranges() -> None:
    """Angles are within 7 degrees, zooms within 5 %, and the centre moves by at most 4 % of the side."""
    changes = draw_changes(0, 1, np.arange(2000))
    turn = changes.places[:, :, :2].astype(np.float64)
    zoom = 1 / np.sqrt(np.linalg.det(turn))
    angle = np.rad2deg(np.arctan2(turn[:, 1, 0], turn[:, 0, 0]))
    shift = -np.linalg.solve(turn, changes.places[:, :, 2:])[:, :, 0] / 2
    for values, limit in ((zoom - 1, 0.05), (angle, 7), (shift, 0.04), (changes.contrast - 1, 0.1)):
        assert 0.97 * limit < np.abs(values).max() <= limit * (1 + 1e-5)
        assert abs(values.mean()) < 0.05 * limit
    assert 11.5 < np.abs(changes.brightness).max() <= 12


def test_images_are_never_mirrored() -> None:
    image = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8)
    image[:, :, 20:44, 40:60] = 200  # bright on the right
    for row in range(50):
        changed = augment(image, as_tensors(draw_changes(0, 0, np.array([row]))))
        assert changed[..., 32:].sum() > 2 * changed[..., :32].sum()


def test_order_and_changes_are_drawn_from_seed_epoch_and_row() -> None:
    assert sorted(epoch_order(1, 2, 50)) == list(range(50))
    assert epoch_order(1, 2, 50).tolist() == epoch_order(1, 2, 50).tolist()
    assert epoch_order(1, 2, 50).tolist() != epoch_order(1, 3, 50).tolist()
    once = draw_changes(0, 1, np.array([7, 8]))
    alone = draw_changes(0, 1, np.array([8]))
    np.testing.assert_array_equal(once.places[1], alone.places[0])
    assert once.brightness[1] == alone.brightness[0]
    assert not np.array_equal(once.places[0], once.places[1])
    assert not np.array_equal(draw_changes(0, 2, np.array([8])).places, alone.places)
    assert not np.array_equal(draw_changes(1, 1, np.array([8])).places, alone.places)
