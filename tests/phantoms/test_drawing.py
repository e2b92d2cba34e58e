"""Findings that can be measured in the drawing."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cxrtool.findings import FINDINGS
from cxrtool.phantoms.drawing import Anatomy, Case, Phantom, affected_sides, draw_anatomy, draw_frontal, draw_lateral


def draw(seed: int, severities: dict[str, float], projection: str = "PA", size: int = 128) -> tuple[Anatomy, Phantom]:
    rng = np.random.default_rng(seed)
    anatomy = draw_anatomy(rng)

    return anatomy, draw_frontal(anatomy, Case(severities, affected_sides(severities, rng), projection), size, rng)


@pytest.mark.parametrize("finding", FINDINGS)
@pytest.mark.parametrize("severity", [0.08, 0.5, 1.0])
def test_masks_are_not_empty_and_lie_within_the_body(finding: str, severity: float) -> None:
    for seed in range(6):
        anatomy, drawn = draw(seed, {finding: severity}, "AP" if seed % 2 else "PA")
        assert list(drawn.masks) == [finding]
        mask = drawn.masks[finding]
        assert mask.shape == (128, 128)
        assert 0.002 < mask.mean() < 0.3
        columns = np.flatnonzero(mask.any(axis=0)) / 128
        assert columns.min() > anatomy.centre - anatomy.half_thorax - 0.02
        assert columns.max() < anatomy.centre + anatomy.half_thorax + 0.02
        assert not mask[[0, -1]].any()


def test_all_five_at_once_each_keep_their_mask() -> None:
    for seed in range(6):
        _, drawn = draw(seed, dict.fromkeys(FINDINGS, 0.9))
        assert tuple(drawn.masks) == FINDINGS
        assert all(mask.any() for mask in drawn.masks.values())


def thorax_edges(image: NDArray[np.uint8]) -> tuple[float, float]:
    """The lungs' outer borders, measured in the film: where brightness falls, then rises, most steeply."""
    size = image.shape[0]
    rows = image[round(0.56 * size) : round(0.66 * size)].astype(np.float64)
    profile = np.convolve(np.median(rows, axis=0), np.ones(5) / 5, mode="same")
    slope = np.gradient(profile)
    left = slice(round(0.06 * size), round(0.25 * size))
    right = slice(round(0.75 * size), round(0.94 * size))
    return left.start + float(slope[left].argmin()), right.start + float(slope[right].argmax())


@pytest.mark.parametrize("projection", ["AP", "PA"])
@pytest.mark.parametrize("severity", [None, 0.08, 0.5, 1.0])
def test_cardiomegaly_is_a_measured_ratio_above_one_half(projection: str, severity: float | None) -> None:
    severities = {} if severity is None else {"Cardiomegaly": severity}
    for seed in range(8):
        _, drawn = draw(seed, severities, projection, size=256)
        left, right = thorax_edges(drawn.image)
        measured = np.flatnonzero(drawn.heart.any(axis=0)).size / (right - left)
        assert measured == pytest.approx(drawn.cardiothoracic_ratio, abs=0.015)
        assert 0.35 < measured < 0.7
        assert (measured > 0.5) == (severity is not None)
        assert abs(drawn.cardiothoracic_ratio - 0.5) > 0.01


def test_the_heart_lies_to_the_patients_left_and_the_right_diaphragm_stands_higher() -> None:
    for seed in range(6):
        anatomy, drawn = draw(seed, {}, size=256)
        columns = np.flatnonzero(drawn.heart.any(axis=0)) / 256
        assert columns.mean() > anatomy.centre
        # Down each lung at its middle, the diaphragm is the steepest rise in brightness.
        tops = []
        for side in (-1, 1):
            x = round(256 * (anatomy.centre + side * 0.8 * anatomy.half_thorax))
            column = cv2.GaussianBlur(drawn.image, (0, 0), 4)[150:240, x - 2 : x + 3].astype(float).mean(axis=1)
            tops.append(np.gradient(column).argmax())
        assert tops[0] < tops[1]


def test_hearts_are_larger_on_films_of_the_lying() -> None:
    ratios = {
        projection: np.mean([draw(seed, {}, projection, 64)[1].cardiothoracic_ratio for seed in range(20)])
        for projection in ("AP", "PA")
    }
    assert ratios["AP"] > ratios["PA"] + 0.01


def mirrored(mask: NDArray[np.bool_], centre: float) -> NDArray[np.bool_]:
    """The region across the spine."""
    rows, columns = np.nonzero(mask)
    across = np.clip(np.round(2 * centre * mask.shape[1] - 1 - columns).astype(int), 0, mask.shape[1] - 1)
    region = np.zeros_like(mask)
    region[rows, across] = True
    return region


@pytest.mark.parametrize("finding", ["Atelectasis", "Consolidation", "Pleural Effusion"])
def test_a_one_sided_finding_is_brighter_than_the_other_side(finding: str) -> None:
    compared = 0
    for seed in range(14):
        anatomy, drawn = draw(seed, {finding: 0.7})
        mask = drawn.masks[finding] & ~drawn.heart
        other = mirrored(mask, anatomy.centre) & ~drawn.heart
        sides = {bool(x > anatomy.centre * 128) for x in np.nonzero(mask)[1]}
        if len(sides) == 2:  # effusions may be on both sides
            continue
        compared += 1
        assert drawn.image[mask].mean() > drawn.image[other].mean() + 5
    assert compared >= 5


@pytest.mark.parametrize("finding", ["Atelectasis", "Consolidation", "Edema", "Pleural Effusion"])
def test_a_finding_is_brighter_than_the_same_place_without_it(finding: str) -> None:
    gains = []
    for seed in range(10):
        (_, shown), (_, clear) = draw(seed, {finding: 0.7}), draw(seed, {})
        mask = shown.masks[finding] & ~clear.heart
        gains.append(float(shown.image[mask].mean()) - float(clear.image[mask].mean()))
    assert np.mean(gains) > 15


@pytest.mark.parametrize("finding", ["Atelectasis", "Consolidation", "Edema", "Pleural Effusion"])
def test_a_severe_finding_shows_more_than_a_subtle_one(finding: str) -> None:
    """By its contrast, its area, or both: the sum of brightness that it adds."""
    added = []
    for severity in (0.1, 1.0):
        sums = []
        for seed in range(10):
            (_, shown), (_, clear) = draw(seed, {finding: severity}), draw(seed, {})
            mask = shown.masks[finding] & ~clear.heart
            sums.append((shown.image[mask].astype(float) - clear.image[mask]).sum())
        added.append(np.mean(sums))
    assert added[1] > 1.3 * added[0]


def test_an_effusion_is_outlined_down_to_the_angle_over_the_hidden_dome() -> None:
    for seed in range(6):
        _, drawn = draw(seed, {"Pleural Effusion": 0.5}, size=128)
        mask = drawn.masks["Pleural Effusion"]
        lowest = np.flatnonzero(mask.any(axis=1)).max()
        for column in np.flatnonzero(mask.any(axis=0)):
            rows = np.flatnonzero(mask[:, column])
            assert len(rows) == rows[-1] - rows[0] + 1  # no hole
            assert rows[-1] >= lowest - 4  # one level; the patient's right side ends a little higher
        assert cv2.connectedComponents(mask.astype(np.uint8))[0] - 1 in (1, 2)


def test_an_effusions_upper_border_is_a_meniscus() -> None:
    """Highest at the chest wall, falling towards the heart, and concave: steeper the nearer to the wall."""
    for seed in range(8):
        anatomy, drawn = draw(seed, {"Pleural Effusion": 0.8}, size=256)
        mask = drawn.masks["Pleural Effusion"]
        for side in (-1, 1):
            inside = [anatomy.centre + side * share * anatomy.half_thorax for share in (0.94, 0.75, 0.55)]
            strips = [mask[:, round(256 * x) - 2 : round(256 * x) + 3] for x in inside]
            if not strips[0].any():
                continue
            wall, middle, inner = (np.flatnonzero(s.any(axis=1)).min() if s.any() else 256 for s in strips)
            assert wall < middle <= inner
            if strips[2].any():
                assert (middle - wall) / 0.19 > (inner - middle) / 0.20


def test_edema_is_a_haze_on_both_sides_that_brightens_the_hila() -> None:
    for seed in range(6):
        anatomy, hazy = draw(seed, {"Edema": 0.9})
        _, clear = draw(seed, {})
        mask = hazy.masks["Edema"]
        middle = round(anatomy.centre * 128)
        areas = mask[:, :middle].sum(), mask[:, middle:].sum()
        assert 0.6 < areas[0] / areas[1] < 1.7
        region = mask & ~hazy.heart
        lateral = np.zeros_like(mask)
        edge = round(0.82 * anatomy.half_thorax * 128)
        lateral[45:75, middle + edge - 4 : middle + edge] = True
        lateral[45:75, middle - edge : middle - edge + 4] = True
        contrast = [float(film[region].mean()) - float(film[lateral].mean()) for film in (hazy.image, clear.image)]
        assert contrast[0] > contrast[1] + 5


def test_atelectasis_is_a_flat_band() -> None:
    for seed in range(6):
        _, drawn = draw(seed, {"Atelectasis": 0.7}, size=256)
        rows, columns = np.nonzero(drawn.masks["Atelectasis"])
        spread = np.sqrt(np.linalg.eigvalsh(np.cov(np.stack((rows, columns)))))
        assert spread[1] > 3 * spread[0]


def test_atelectasis_lifts_the_diaphragm_of_its_side() -> None:
    """Volume loss: beside the same patient's clear film, that lung ends higher and the other does not."""
    for seed in range(8):
        anatomy, collapsed = draw(seed, {"Atelectasis": 1.0}, size=256)
        _, clear = draw(seed, {}, size=256)
        side = 1 if np.nonzero(collapsed.masks["Atelectasis"])[1].mean() > anatomy.centre * 256 else -1
        lifted = []
        for which in (side, -side):
            x = round(256 * (anatomy.centre + which * 0.72 * anatomy.half_thorax))
            floors = []
            for film in (collapsed.image, clear.image):
                smooth = cv2.GaussianBlur(film, (0, 0), 3).astype(float)
                below = smooth[222:238, x - 3 : x + 4].mean()
                lung = smooth[80:100, x - 3 : x + 4].mean()
                column = smooth[100:240, x - 3 : x + 4].mean(axis=1)
                floors.append(int(np.flatnonzero(column < (below + lung) / 2).max()))
            lifted.append(floors[1] - floors[0])
        assert lifted[0] > 256 * 0.02
        assert abs(lifted[1]) < 256 * 0.015


def test_lungs_are_dark_and_the_corners_darker_than_the_mediastinum() -> None:
    for seed in range(6):
        anatomy, drawn = draw(seed, {}, "AP" if seed % 2 else "PA")
        x = [round(128 * (anatomy.centre + side * 0.65 * anatomy.half_thorax)) for side in (-1, 1)]
        lungs = np.mean([drawn.image[50:75, at - 4 : at + 5].mean() for at in x])
        mediastinum = drawn.image[50:75, 62:67].mean()
        assert lungs + 60 < mediastinum
        assert drawn.image[:4, 24:36].mean() < lungs


def test_size_changes_the_grain_and_not_the_truth() -> None:
    for seed in range(4):
        small, large = (draw(seed, {"Cardiomegaly": 0.5, "Edema": 0.6}, size=size)[1] for size in (64, 256))
        assert small.cardiothoracic_ratio == large.cardiothoracic_ratio
        for finding in small.masks:
            shrunk = cv2.resize(large.masks[finding].astype(np.uint8), (64, 64), interpolation=cv2.INTER_AREA) > 0
            overlap = (shrunk & small.masks[finding]).sum() / (shrunk | small.masks[finding]).sum()
            assert overlap > 0.85


def test_a_lateral_view_is_drawn() -> None:
    image = draw_lateral(draw_anatomy(np.random.default_rng(0)), 96, np.random.default_rng(1))
    assert image.shape == (96, 96)
    assert image.dtype == np.uint8
    assert image.std() > 20
