"""Heatmaps at the size of the image: peak, box and notes."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cxrtool.explain.explanation import Explanation, heatmap_of, panel_of_findings, save_panel
from cxrtool.explain.pictures import ColourScale


def test_scaling_keeps_the_place_of_the_peak_and_sets_it_to_the_probability() -> None:
    coarse = np.zeros((10, 10), dtype=np.float32)
    assert not heatmap_of(coarse, 50, 70, 0.9).any()
    coarse[2, 7] = 3
    full = heatmap_of(coarse, 200, 100, 0.25)
    assert full.shape == (200, 100)
    assert full.max() == np.float32(0.25)
    assert heatmap_of(coarse, 200, 100, 0.25, stretch=True).max() == 1
    row, column = np.unravel_index(full.argmax(), full.shape)
    assert (row // 20, column // 10) == (2, 7)


def test_the_caption_names_the_image() -> None:
    shape = np.zeros((40, 60), np.uint8)
    path = Path("/data/train/patient00001/study2/view1_frontal.jpg")
    one = Explanation(path, "Edema", 0.25, 0.5, shape, shape.astype(np.float32))
    assert one.caption == "patient00001 study2 view1_frontal: Edema 0.250, negative (threshold 0.50)"
    elsewhere = replace(one, path=Path("/data/film.png"), name="")
    digest = hashlib.sha256(b"/data/film.png").hexdigest()[:8]
    assert elsewhere.caption.startswith(f"film.png ({digest}): Edema")
    other = replace(one, path=path.with_name("view2_frontal.jpg"), name="")
    assert not np.array_equal(one.figure(), other.figure())
    assert not np.array_equal(panel_of_findings((one,)), panel_of_findings((other,)))
    array = replace(one, path=None, name="array [40, 60] uint8")
    assert array.caption.startswith("array [40, 60] uint8: Edema")


def test_the_box_contains_only_the_region_of_the_peak() -> None:
    heat = np.zeros((40, 60), dtype=np.float32)
    heat[10:20, 30:50] = 0.2
    heat[30:35, 5:9] = 0.15
    one = Explanation(Path("a.png"), "Edema", 0.2, 0.5, np.zeros((40, 60), np.uint8), heat)
    assert one.box(0.5) == (30, 10, 50, 20)
    assert one.box(1.0) == (30, 10, 50, 20), "pixels at the threshold belong to the region"
    assert one.peak == (30, 10)
    assert not one.positive
    empty = Explanation(Path("a.png"), "Edema", 0.2, 0.5, np.zeros((40, 60), np.uint8), np.zeros_like(heat))
    assert empty.box() is None
    assert "zero everywhere" in empty.notes[0]
    assert "low probability gives a faint map" in one.notes[0]


def explained(probability: float, threshold: float = 0.5, stretched: bool = False) -> Explanation:
    image = np.full((320, 320), 120, np.uint8)
    heat = np.zeros((320, 320), np.float32)
    heat[100:200, 100:200] = 1 if stretched else probability
    return Explanation(Path("a.png"), "Edema", probability, threshold, image, heat, stretched=stretched)


def test_a_contour_is_drawn_only_where_the_score_carries_it() -> None:
    grey = np.full((320, 320, 3), 120, np.uint8)
    assert (explained(0.7).overlay(contour=True) != grey).any()
    assert (explained(0.3).overlay(contour=True) == grey).all()
    assert (explained(0.3, threshold=0.2).overlay(contour=True) != grey).any()
    assert (explained(0.3, stretched=True).overlay(contour=True) != grey).any()


def test_a_score_whose_map_cannot_be_seen_says_so() -> None:
    assert not explained(0.01).visible
    assert explained(0.01).panel_detail == "negative at 0.50, no map: 0.01"
    assert explained(0.3).panel_detail == "negative at 0.50"
    assert explained(0.01, stretched=True).visible
    known = replace(explained(0.7), hit_rate=0.831)
    assert known.panel_detail == "positive at 0.50, hits 83 %"
    assert "its peak hits Edema in 83 % of test images" in known.footer
    assert "\n" not in known.footer
    assert not np.array_equal(explained(0.01).figure(), explained(0.06).figure())


def test_the_colour_scale_marks_the_threshold_where_values_are_probabilities() -> None:
    assert explained(0.7).colour_scale == ColourScale("probability", 0.5)
    assert explained(0.7, stretched=True).colour_scale == ColourScale("of peak")


@pytest.mark.parametrize(("suffix", "start"), [("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_a_figure_for_print_holds_type_as_outlines_or_fonts_and_is_the_same_each_time(
    tmp_path: Path, suffix: str, start: bytes
) -> None:
    one = replace(explained(0.7), hit_rate=0.8)
    first = one.save(tmp_path / "a", figure_format=suffix)["figure"]
    again = one.save(tmp_path / "b", figure_format=suffix)["figure"]
    assert first.suffix == f".{suffix}"
    assert first.read_bytes().startswith(start)
    assert first.read_bytes() == again.read_bytes()
    assert {path.suffix for path in (tmp_path / "a").iterdir()} == {".png", f".{suffix}"}
    if suffix == "pdf":
        assert b"/Type3" not in first.read_bytes()
        assert b"/FontFile2" in first.read_bytes()  # an embedded TrueType font
    else:
        assert first.read_bytes().count(b"<image") >= 3
    panel = save_panel((one, explained(0.01)), tmp_path / "panel", figure_format=suffix)
    assert panel.read_bytes().startswith(start)
