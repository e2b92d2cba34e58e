"""Drawn pictures of a map."""

import numpy as np
import pytest

from cxrtool.explain.pictures import ColourScale, Panel, draw_figure, draw_overlay


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
    assert not changed[4:7, 4:26].any()


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_contour_is_seen_on_dark_and_on_bright(grey: int) -> None:
    image = np.full((320, 320), grey, np.uint8)
    heat = np.zeros((320, 320), np.float32)
    heat[100:200, 100:200] = 0.9
    drawn = draw_overlay(image, heat, 0.5, contour=True).astype(int)
    # Rec. 709's weights; somewhere along each row across the line, brightness differs by a third of the range.
    brightness = drawn @ np.array([0.2126, 0.7152, 0.0722])
    assert np.abs(brightness[150] - grey).max() > 85


def test_a_figure_is_as_wide_as_its_pictures_whatever_its_text_says() -> None:
    picture = np.zeros((320, 320, 3), np.uint8)
    panels = [Panel("Radiograph", picture), Panel("Heatmap", picture, scale=ColourScale("probability", 0.4))]
    short = draw_figure(panels, "a: Edema 0.5", "a note")
    long = draw_figure(panels, "a very long caption " * 12, "warnings and notes " * 20)
    assert short.shape[1] == long.shape[1]
    assert long.shape[0] > short.shape[0]
    assert (long[:, -12:] == long[0, 0]).all()  # the margin stays free


def test_fourteen_pictures_stand_in_two_rows() -> None:
    picture = np.zeros((256, 256, 3), np.uint8)
    seven = draw_figure([Panel("Edema", picture)] * 7, "a", "b")
    fourteen = draw_figure([Panel("Edema", picture)] * 14, "a", "b")
    assert fourteen.shape[1] == seven.shape[1]
    assert fourteen.shape[0] - seven.shape[0] > 256
