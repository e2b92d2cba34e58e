import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_fill_holes

from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.evaluation.localization import (
    MAP_THRESHOLDS,
    LocalizedImages,
    border_share,
    choose_map_threshold,
    cut_map,
    intersection_over_union,
    is_hit,
    localization_figures,
    otsu_threshold,
    overlaps,
    stretched,
)


def box(top: int, bottom: int, left: int, right: int, size: int = 40) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_hits_and_overlaps_by_hand() -> None:
    heat = np.zeros((40, 40), dtype=np.float32)
    heat[10:20, 10:20] = 0.5
    heat[12, 12] = 0.9
    assert is_hit(heat, box(10, 20, 10, 20))
    assert not is_hit(heat, box(13, 20, 10, 20))
    assert not is_hit(np.zeros_like(heat), box(0, 40, 0, 40)), "a map of nothing points nowhere"
    assert intersection_over_union(box(0, 10, 0, 10), box(0, 10, 5, 15)) == pytest.approx(50 / 150)
    found = overlaps(heat, box(10, 20, 10, 20))
    assert len(found) == len(MAP_THRESHOLDS) + 1
    assert found[np.flatnonzero(MAP_THRESHOLDS == 0.5)[0]] == 1
    assert found[np.flatnonzero(MAP_THRESHOLDS == 0.7)[0]] == pytest.approx(1 / 100)


@pytest.mark.parametrize("level", [0.25, 0.5, 0.75])
def test_a_pixel_at_the_threshold_is_outside_the_region(level: float) -> None:
    heat = np.zeros((40, 40), dtype=np.float32)
    heat[10:20, 10:20] = level
    heat[12, 12] = 1
    found = overlaps(heat, box(10, 20, 10, 20))[:-1]
    np.testing.assert_allclose(found, np.where(level > MAP_THRESHOLDS, 1, 1 / 100))


@given(st.integers(0, 2**31))
def test_a_map_is_cut_as_chexlocalizes_code_cuts_it(seed: int) -> None:
    """Its levels are truncated, and a pixel belongs to the region if its level is above Otsu's."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((5, 5)).astype(np.float32)
    scaled = stretched(cv2.resize(coarse, (40, 40), interpolation=cv2.INTER_LINEAR))
    levels = np.uint8(255 * scaled)
    _, theirs = cv2.threshold(levels, 0, levels.max(), cv2.THRESH_OTSU)
    np.testing.assert_array_equal(cut_map(scaled, None), theirs > 0)
    np.testing.assert_array_equal(cut_map(scaled, None, fill_holes=True), binary_fill_holes(theirs > 0))


def test_a_map_of_zeros_overlaps_nothing_and_counts_unless_only_positives_do() -> None:
    zeros, truth = np.zeros((40, 40), dtype=np.float32), box(0, 10, 0, 10)
    assert (overlaps(zeros, truth) == 0).all()
    assert np.isnan(overlaps(zeros, truth, positives_only=True)).all()
    ious = np.stack([overlaps(zeros, truth, positives_only=True), np.full(len(MAP_THRESHOLDS) + 1, 0.4)])
    measured = LocalizedImages(("p0", "p1"), np.array([False, True]), ious, np.zeros(2))
    assert localization_figures(measured, None, BootstrapSettings(50)).iou == pytest.approx(0.4)


def test_a_hit_in_every_image_is_no_certainty() -> None:
    measured = LocalizedImages(
        tuple(f"p{n}" for n in range(12)), np.ones(12, bool), np.full((12, len(MAP_THRESHOLDS) + 1), 0.5), np.zeros(12)
    )
    found = localization_figures(measured, None, BootstrapSettings(50)).hit_interval
    assert found.high == 1
    assert found.low == pytest.approx(0.7575, abs=1e-4)  # 12 / (12 + 1.96^2)


def test_otsus_threshold_separates_two_peaks() -> None:
    rng = np.random.default_rng(0)
    heat = np.clip(np.concatenate((rng.normal(0.2, 0.03, 3000), rng.normal(0.8, 0.03, 1000))), 0, 1)
    cut = otsu_threshold(heat.reshape(40, 100).astype(np.float32))
    assert (heat > cut).sum() == 1000


@given(st.integers(0, 2**31), st.floats(0.01, 100), st.floats(0, 5))
def test_overlaps_do_not_depend_on_the_maps_scale(seed: int, factor: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    heat = np.round(rng.random((12, 12)) * 64).astype(np.float32) / 64
    truth = rng.random((12, 12)) < 0.3
    moved = stretched(heat * np.float32(factor) + np.float32(shift))
    np.testing.assert_allclose(moved, stretched(heat), atol=1e-3)
    assert intersection_over_union(truth, truth) == 1 or not truth.any()


def test_the_border_share_of_an_even_map_is_the_borders_area() -> None:
    assert border_share(np.ones((40, 40), np.float32)) == pytest.approx(1 - (36 / 40) ** 2)
    assert np.isnan(border_share(np.zeros((40, 40), np.float32)))
    assert border_share(box(10, 20, 10, 20).astype(np.float32)) == 0


def test_figures_are_means_with_intervals_over_patients() -> None:
    columns = len(MAP_THRESHOLDS) + 1
    ious = np.tile(np.linspace(0, 0.5, 60)[:, None], (1, columns))
    ious[:, 4] += 0.2
    measured = LocalizedImages(tuple(f"p{n // 3}" for n in range(60)), np.arange(60) % 4 != 0, ious, np.full(60, 0.1))
    cut = choose_map_threshold(measured)
    assert cut == MAP_THRESHOLDS[4]
    figures = localization_figures(measured, cut, BootstrapSettings(400))
    assert figures.hit_rate == pytest.approx(0.75)
    assert figures.iou == pytest.approx(0.45)
    assert figures.hit_interval.low is not None
    assert figures.hit_interval.high is not None
    assert figures.hit_interval.low < 0.75 < figures.hit_interval.high
    by_image = localization_figures(
        LocalizedImages(tuple(map(str, range(60))), measured.hits, ious, measured.border), cut, BootstrapSettings(400)
    )
    assert figures.iou_interval.low is not None
    assert by_image.iou_interval.low is not None
    assert figures.iou_interval.low < by_image.iou_interval.low, "images of a patient are alike"
    nothing = LocalizedImages((), np.zeros(0, bool), np.zeros((0, 0)), np.zeros(0))
    assert localization_figures(nothing, None, BootstrapSettings(10)).hit_rate is None
    assert choose_map_threshold(nothing) is None
