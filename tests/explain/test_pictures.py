"""Drawn pictures of a map."""

import numpy as np

from cxrtool.explain.pictures import draw_overlay


def test_an_overlay_leaves_cold_pixels_as_they_are() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    heat = np.zeros((20, 30), dtype=np.float32)
    heat[:10] = 1
    drawn = draw_overlay(image, heat, 0.5)
    np.testing.assert_array_equal(drawn[10:], np.repeat(image[10:, :, None], 3, axis=2))
    assert not np.array_equal(drawn[:10], np.repeat(image[:10, :, None], 3, axis=2))
    np.testing.assert_array_equal(draw_overlay(image, heat, 0), np.repeat(image[..., None], 3, axis=2))
    outline = draw_overlay(image, heat, 0.5, contour=True)
    changed = (outline != np.repeat(image[..., None], 3, axis=2)).any(axis=2)
    assert changed[9].all()
    assert not changed[3:8, 3:27].any()
