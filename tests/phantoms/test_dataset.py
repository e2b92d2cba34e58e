"""The promises of the synthetic data set: layout, truth, labels, masks, repeatability."""

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
from cxrtool.data.manifest import load_manifest
from cxrtool.data.missing import missing_images
from cxrtool.errors import RequestError
from cxrtool.findings import FINDINGS
from cxrtool.phantoms import dataset as phantom_module
from cxrtool.phantoms.dataset import COLUMNS, PhantomSettings, PhantomSummary, write_phantom
from cxrtool.sheet_options import SPLITS

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


def test_two_views_of_a_study_show_a_finding_on_the_same_side(tmp_path: Path) -> None:
    """They are two films of one chest on one day."""
    settings = PhantomSettings(prevalence=1.0, second_view=1.0, lateral=0.0)
    write_phantom(tmp_path / "pairs", 10, SIZE, 0, settings=settings)
    for folder in {file.parent.parent for file in (tmp_path / "pairs" / "masks").rglob("*.png")}:
        for finding in ("Atelectasis", "Consolidation", "Pleural Effusion"):
            masks = [read_grey(folder / f"view{v}_frontal" / f"{finding.replace(' ', '_')}.png") > 0 for v in (1, 2)]
            sides = [(bool(mask[:, :32].sum() > 4), bool(mask[:, 32:].sum() > 4)) for mask in masks]
            assert sides[0] == sides[1], (folder.name, finding)


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


def test_an_empty_folder_behind_a_link_is_taken(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_phantom(tmp_path / "link", 10, SIZE, 0)
    assert (tmp_path / "real" / "phantom.json").is_file()
    assert (tmp_path / "link").is_symlink()


def test_the_working_folder_is_refused_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not be replaced by the finished one."""
    monkeypatch.chdir(tmp_path)
    drawn: list[int] = []
    with pytest.raises(RequestError, match="the current folder"):
        write_phantom(Path(), 10, SIZE, 0, lambda done, _total: drawn.append(done))
    assert not drawn
    assert not list(tmp_path.iterdir())


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
