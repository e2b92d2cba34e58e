"""The phantom's promises: layout, truth, labels, masks, and findings that can be measured in the drawing."""

import csv
import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cxrtool.choices import Views
from cxrtool.data.dataset import missing_images
from cxrtool.data.manifest import SPLITS, load_manifest
from cxrtool.errors import RequestError
from cxrtool.findings import FINDINGS
from cxrtool.phantoms import dataset as phantom_module
from cxrtool.phantoms.dataset import COLUMNS, PhantomSettings, PhantomSummary, write_phantom
from cxrtool.phantoms.drawing import Anatomy, Case, Phantom, affected_sides, draw_anatomy, draw_frontal, draw_lateral

SIZE = 64
Row = dict[str, str]


def rows_of(sheet: Path) -> list[Row]:
    with sheet.open(newline="") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def study_of(row: Row) -> str:
    return str(Path(row["Path"]).parent)


def mask_file(folder: Path, row: Row, finding: str) -> Path:
    inside = Path(row["Path"]).relative_to(folder.name).with_suffix("")
    return folder / "masks" / inside / f"{finding.replace(' ', '_')}.png"


def read_grey(file: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), dtype=np.uint8)


def draw(seed: int, severities: dict[str, float], projection: str = "PA", size: int = 128) -> tuple[Anatomy, Phantom]:
    rng = np.random.default_rng(seed)
    anatomy = draw_anatomy(rng)

    return anatomy, draw_frontal(anatomy, Case(severities, affected_sides(severities, rng), projection), size, rng)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PhantomSummary]:
    """200 patients, small: enough to see the rates of labels."""
    folder = tmp_path_factory.mktemp("crowd") / "Phantom-small"
    return folder, write_phantom(folder, 200, SIZE, seed=11)


# Layout


def test_the_sheets_are_chexperts_and_every_path_resolves(crowd: tuple[Path, PhantomSummary]) -> None:
    folder, _ = crowd
    for split in SPLITS:
        header = (folder / f"{split}.csv").read_text().splitlines()[0]
        assert header == ",".join(COLUMNS)
        assert len(COLUMNS) == 19
        for row in rows_of(folder / f"{split}.csv"):
            assert row["Path"].startswith(f"Phantom-small/{split}/patient")
            assert row["Sex"] in ("Male", "Female")
            assert 18 <= int(row["Age"]) <= 90
            assert {row[column] for column in COLUMNS[5:]} <= {"1.0", "0.0", "-1.0", ""}
            lateral = row["Path"].endswith("_lateral.jpg")
            assert row["Frontal/Lateral"] == ("Lateral" if lateral else "Frontal")
            assert row["AP/PA"] in (("",) if lateral else ("AP", "PA"))
        manifest = load_manifest(folder, split, Views.ALL)
        assert not missing_images(manifest).rows.any()


def test_images_are_grey_jpegs_of_the_size_asked_for(phantoms: Path) -> None:
    for file in phantoms.glob("train/*/*/*.jpg"):
        assert file.read_bytes()[:2] == b"\xff\xd8"
        image = read_grey(file)
        assert image.shape == (64, 64)
        assert image.std() > 20


def test_the_splits_share_no_patient_and_have_the_shares_asked_for(crowd: tuple[Path, PhantomSummary]) -> None:
    folder, summary = crowd
    patients = {split: {row["Path"].split("/")[2] for row in rows_of(folder / f"{split}.csv")} for split in SPLITS}
    assert [len(patients[split]) for split in SPLITS] == [140, 30, 30]
    assert len(set.union(*patients.values())) == 200
    for split in SPLITS:
        rows = rows_of(folder / f"{split}.csv")
        counts = summary.splits[split]
        assert counts.patients == len(patients[split])
        assert counts.images == len(rows) == len({row["Path"] for row in rows})
        assert counts.studies == len({study_of(row) for row in rows})
        assert counts.images == len(list((folder / split).rglob("*.jpg")))


def test_there_are_several_studies_and_views(crowd: tuple[Path, PhantomSummary]) -> None:
    folder, summary = crowd
    studies = sum(counts.studies for counts in summary.splits.values())
    assert 1.3 < studies / 200 < 1.7
    rows = [row for split in SPLITS for row in rows_of(folder / f"{split}.csv")]
    frontal = Counter(study_of(row) for row in rows if row["Frontal/Lateral"] == "Frontal")
    assert 0.08 < sum(count == 2 for count in frontal.values()) / studies < 0.22
    assert set(frontal.values()) == {1, 2}
    assert 0.01 < sum(row["Frontal/Lateral"] == "Lateral" for row in rows) / studies < 0.1


def test_the_data_set_says_how_it_was_drawn(phantoms: Path) -> None:
    written = json.loads((phantoms / "phantom.json").read_text())
    assert (written["seed"], written["patients"], written["image_size"]) == (3, 40, 64)
    assert written["settings"]["subtle_uncertain"] == PhantomSettings().subtle_uncertain


# Labels and truth


def test_valid_and_test_say_the_truth(crowd: tuple[Path, PhantomSummary]) -> None:
    folder, _ = crowd
    for split in ("valid", "test"):
        pairs = zip(rows_of(folder / f"{split}.csv"), rows_of(folder / "truth" / f"{split}.csv"), strict=True)
        for row, truth in pairs:
            assert row["Path"] == truth["Path"]
            assert [row[finding] for finding in FINDINGS] == [truth[finding] for finding in FINDINGS]


def test_severity_is_above_zero_exactly_where_the_finding_is_true(crowd: tuple[Path, PhantomSummary]) -> None:
    folder, _ = crowd
    for split in SPLITS:
        for truth in rows_of(folder / "truth" / f"{split}.csv"):
            for finding in FINDINGS:
                severity = float(truth[f"{finding} severity"])
                assert 0 <= severity <= 1
                assert (severity > 0) == (truth[finding] == "1.0")


def test_doubt_in_train_has_the_stated_rates(crowd: tuple[Path, PhantomSummary]) -> None:
    folder, _ = crowd
    settings = PhantomSettings()
    cells: dict[str, Counter[str]] = {"clear": Counter(), "subtle": Counter(), "negative": Counter()}
    studies = set()
    for row, truth in zip(rows_of(folder / "train.csv"), rows_of(folder / "truth" / "train.csv"), strict=True):
        if study_of(row) in studies:  # a study's images share its labels
            continue
        studies.add(study_of(row))
        for finding in FINDINGS:
            severity = float(truth[f"{finding} severity"])
            kind = "negative" if severity == 0 else "subtle" if severity < settings.subtle else "clear"
            cells[kind][row[finding]] += 1
    assert set(cells["clear"]) == {"1.0"}
    assert "0.0" not in cells["subtle"]
    assert "1.0" not in cells["negative"]
    stated = {
        ("subtle", "-1.0"): settings.subtle_uncertain,
        ("subtle", ""): settings.subtle_blank,
        ("negative", "-1.0"): settings.negative_uncertain,
        ("negative", ""): settings.negative_blank,
    }
    for (kind, label), rate in stated.items():
        total = cells[kind].total()
        assert total > 30
        spread = 4 * np.sqrt(rate * (1 - rate) / total)
        assert cells[kind][label] / total == pytest.approx(rate, abs=spread)


def test_settings_turn_doubt_on_and_off(tmp_path: Path) -> None:
    honest = PhantomSettings(subtle_uncertain=0, subtle_blank=0, negative_uncertain=0, negative_blank=0)
    doubtful = replace(honest, subtle=1.01, subtle_uncertain=1)
    for name, settings, positive in (("honest", honest, "1.0"), ("doubtful", doubtful, "-1.0")):
        write_phantom(tmp_path / name, 12, SIZE, 0, settings=settings)
        pairs = zip(
            rows_of(tmp_path / name / "train.csv"), rows_of(tmp_path / name / "truth" / "train.csv"), strict=True
        )
        for row, truth in pairs:
            assert [row[f] for f in FINDINGS] == [positive if truth[f] == "1.0" else "0.0" for f in FINDINGS]


def test_findings_are_common_and_nearly_independent(crowd: tuple[Path, PhantomSummary]) -> None:
    folder, _ = crowd
    truths = {
        study_of(truth): [float(truth[finding]) for finding in FINDINGS]
        for split in SPLITS
        for truth in rows_of(folder / "truth" / f"{split}.csv")
    }
    present = np.array(list(truths.values()))
    assert np.all((present.mean(axis=0) > 0.22) & (present.mean(axis=0) < 0.42))
    correlations = np.corrcoef(present.T)[~np.eye(5, dtype=bool)]
    assert np.abs(correlations).max() < 4 / np.sqrt(len(present))


def test_build_and_sex_do_not_give_the_findings_away() -> None:
    """A model could read the truth from the patient's build if both came from one random stream."""
    settings = PhantomSettings()
    builds, present = [], []
    for number in range(400):
        study = next(iter(phantom_module.studies_of(number, 0, settings)))
        anatomy = study.anatomy
        builds.append(
            [anatomy.female, anatomy.centre, anatomy.half_thorax, anatomy.apex, anatomy.base, anatomy.dome, study.age]
        )
        present.append([finding in study.case.severities for finding in FINDINGS])
    builds_array, present_array = np.array(builds, dtype=float), np.array(present, dtype=float)
    width = builds_array.shape[1]
    correlations = np.corrcoef(builds_array.T, present_array.T)[:width, width:]
    assert np.abs(correlations).max() < 4 / np.sqrt(400)


# Masks


def test_there_is_a_mask_for_each_positive_frontal_finding_and_no_other(phantoms: Path) -> None:
    expected = set()
    for split in SPLITS:
        for truth in rows_of(phantoms / "truth" / f"{split}.csv"):
            if "_lateral" in truth["Path"]:
                continue
            for finding in FINDINGS:
                if truth[finding] == "1.0":
                    file = mask_file(phantoms, truth, finding)
                    expected.add(file)
                    mask = read_grey(file)
                    assert mask.shape == (64, 64)
                    assert set(np.unique(mask)) == {0, 255}
    assert set((phantoms / "masks").rglob("*.png")) == expected


def test_the_sheets_ratio_is_the_heart_masks_width(phantoms: Path) -> None:
    """Between the narrowest and the widest thorax that the builds allow, give or take the pixels' edges."""
    for truth in rows_of(phantoms / "truth" / "train.csv"):
        if truth["Cardiomegaly"] != "1.0" or "_lateral" in truth["Path"]:
            continue
        heart = read_grey(mask_file(phantoms, truth, "Cardiomegaly")) > 0
        width = np.flatnonzero(heart.any(axis=0)).size / 64
        assert 2 * 0.34 - 0.05 < width / float(truth["ratio"]) < 2 * 0.40 + 0.05


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


def test_two_views_of_a_study_show_a_finding_on_the_same_side(tmp_path: Path) -> None:
    """They are two films of one chest on one day."""
    settings = PhantomSettings(prevalence=1.0, second_view=1.0, lateral=0.0)
    write_phantom(tmp_path / "pairs", 10, SIZE, 0, settings=settings)
    for folder in {file.parent.parent for file in (tmp_path / "pairs" / "masks").rglob("*.png")}:
        for finding in ("Atelectasis", "Consolidation", "Pleural Effusion"):
            masks = [read_grey(folder / f"view{v}_frontal" / f"{finding.replace(' ', '_')}.png") > 0 for v in (1, 2)]
            sides = [(bool(mask[:, :32].sum() > 4), bool(mask[:, 32:].sum() > 4)) for mask in masks]
            assert sides[0] == sides[1], (folder.name, finding)


# What the findings look like


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


# Repeatable


def test_the_same_seed_draws_the_same_files_and_another_seed_others(tmp_path: Path, phantoms: Path) -> None:
    write_phantom(tmp_path / "phantoms", 40, 64, seed=3)
    again, first = digests(tmp_path / "phantoms"), digests(phantoms)
    assert again == first
    write_phantom(tmp_path / "other" / "phantoms", 10, 64, seed=4)
    other = digests(tmp_path / "other" / "phantoms")
    images = [name for name in other if name.endswith(".jpg") and name in first]
    assert images
    assert all(other[name] != first[name] for name in images)


def test_an_image_depends_on_its_own_key_only(tmp_path: Path, phantoms: Path) -> None:
    """More patients do not change those before them."""
    write_phantom(tmp_path / "phantoms", 10, 64, seed=3)
    fewer, more = digests(tmp_path / "phantoms"), digests(phantoms)
    shared = [name for name in fewer if "train/" in name]
    assert len(shared) > 20
    assert all(fewer[name] == more[name] for name in shared)
    first_lines = (tmp_path / "phantoms" / "train.csv").read_text()
    assert (phantoms / "train.csv").read_text().startswith(first_lines)


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


# Refusals and interruption


@pytest.mark.parametrize(("patients", "size", "seed"), [(9, 64, 0), (10, 63, 0), (10, 1025, 0), (10, 64, -1)])
def test_numbers_out_of_range_are_refused(tmp_path: Path, patients: int, size: int, seed: int) -> None:
    with pytest.raises(RequestError) as caught:
        write_phantom(tmp_path / "out", patients, size, seed)
    assert caught.value.advice
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    for name in ("mine", "file"):
        with pytest.raises(RequestError) as caught:
            write_phantom(tmp_path / name, 10, SIZE, 0)
        assert name in caught.value.message
        assert caught.value.advice
    assert {file.name for file in tmp_path.rglob("*")} == {"mine", "notes.txt", "file"}


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_phantom(tmp_path / "empty", 10, SIZE, 0)
    assert (tmp_path / "empty" / "phantom.json").is_file()
    assert [file.name for file in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("spelling", [".", "link"])
def test_an_empty_folder_is_taken_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    """Or refused before anything is drawn."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if spelling == "link":
        (tmp_path / "real").mkdir()
        Path("link").symlink_to(tmp_path / "real")
    drawn: list[int] = []
    try:
        write_phantom(Path(spelling), 10, SIZE, 0, lambda done, _total: drawn.append(done))
    except RequestError:
        assert not drawn
    else:
        assert (Path(spelling).resolve() / "phantom.json").is_file()


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 10
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "out", 10, SIZE, 0, stop)
    assert not list(tmp_path.iterdir())


def test_progress_counts_every_patient(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_phantom(tmp_path / "out", 12, SIZE, 0, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 12) for done in range(1, 13)]


def test_the_summary_becomes_plain_values(crowd: tuple[Path, PhantomSummary]) -> None:
    folder, summary = crowd
    content = json.loads(json.dumps(summary.to_dict()))
    assert content["folder"] == str(folder)
    assert content["splits"]["train"]["patients"] == 140
