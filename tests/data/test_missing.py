"""A data set without usable images says why, and what to do."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bad_inputs import HEADER, sheet
from cxrtool.data.checks import check_data
from cxrtool.data.dataset import Dataset
from cxrtool.data.manifest import load_manifest
from cxrtool.data.missing import Reason, missing_images
from cxrtool.errors import RequestError
from cxrtool.settings import DataSettings

IMAGE = "train/patient1/study1/view1_frontal.jpg"


def refusal(root: Path, *paths: str) -> str:
    """Return how training refuses the paths, after checking that `check_data` calls it an error with the same cure."""
    rows = [f"{path},,,Frontal,AP,0,0,0,0,0" for path in paths]
    dataset = Dataset(DataSettings(root=sheet(root, "\n".join([HEADER, *rows]))))
    errors = check_data(dataset).errors
    with pytest.raises(RequestError) as caught:
        dataset.usable("train")
    assert any(caught.value.advice.partition(" Or raise")[0] in error for error in errors), errors
    return f"{caught.value.message}. {caught.value.advice}"


def image(root: Path, path: str = IMAGE) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(b"x")


def test_backslashes(tmp_path: Path) -> None:
    image(tmp_path)
    text = refusal(tmp_path, "CheXpert-v1.0-small\\" + IMAGE.replace("/", "\\"))
    assert "backslashes" in text
    assert "Replace every backslash by /" in text


def test_absolute_paths(tmp_path: Path) -> None:
    image(tmp_path)
    assert f"remove '{tmp_path}/'" in refusal(tmp_path, str(tmp_path / IMAGE))
    assert "relative to the data folder" in refusal(tmp_path, f"/elsewhere/{IMAGE}")


def test_links_that_lead_out(tmp_path: Path) -> None:
    image(tmp_path / "disk")
    root = tmp_path / "data"
    root.mkdir()
    os.symlink(tmp_path / "disk" / "train", root / "train")
    assert "--allow-outside" in refusal(root, IMAGE)


def test_paths_that_lead_up(tmp_path: Path) -> None:
    assert "without '..'" in refusal(tmp_path / "data", f"../{IMAGE}")


def test_two_folders_before_the_images(tmp_path: Path) -> None:
    root = tmp_path / "archive" / "CheXpert"
    image(root)
    text = refusal(root, f"archive/CheXpert/{IMAGE}")
    assert "begin with archive/CheXpert/" in text
    assert f"give --data {tmp_path / 'archive'}," in text
    image(tmp_path / "data")
    assert "--data a folder that contains a/b" in refusal(tmp_path / "data", f"a/b/{IMAGE}")


def test_images_above_or_below_the_data_folder(tmp_path: Path) -> None:
    image(tmp_path, "patient1/study1/a.jpg")
    assert f"--data {tmp_path} " in refusal(tmp_path / "sheets", "patient1/study1/a.jpg")
    image(tmp_path / "up" / "images", "patient2/study1/a.jpg")
    assert f"--data {tmp_path / 'up' / 'images'} " in refusal(tmp_path / "up", "patient2/study1/a.jpg")


def test_images_that_are_nowhere(tmp_path: Path) -> None:
    assert "Copy the images" in refusal(tmp_path / "data", IMAGE)


def test_some_images_that_are_not_there(tmp_path: Path) -> None:
    """The folder of another patient is not offered as the data folder."""
    image(tmp_path, "patient2/study1/a.jpg")
    assert "Copy these images too" in refusal(tmp_path, "patient1/study1/a.jpg", "patient2/study1/a.jpg")


def test_links_of_every_kind(tmp_path: Path) -> None:
    """An independent rule decides: where the real path of the whole path lies, asked for each image by itself."""
    root, away = tmp_path / "data", tmp_path / "away"
    names = [f"s{number}" for number in range(3)]
    for place in (root / "few", root / "many", away / "behind"):
        for name in names if place.name == "few" else [f"s{number}" for number in range(9)]:
            image(place / name, "a.jpg")
    for folder in (root / "few", root / "many"):  # of few entries each is looked up, of many the folder is listed
        (folder / "in.jpg").symlink_to(root / "few" / "s0" / "a.jpg")
        (folder / "out.jpg").symlink_to(away / "behind" / "s0" / "a.jpg")
        (folder / "up").symlink_to(away / "behind")
        (folder / "across").symlink_to(root / "many" / "s8")
        (folder / "dangling.jpg").symlink_to(root / "nothing.jpg")
    (away / "behind" / "back").symlink_to(root / "few")
    (away / "behind" / "own").symlink_to(away / "behind" / "s1")
    (root / "datasets").symlink_to(root)
    (tmp_path / "data2").mkdir()  # its path begins like that of the data folder
    (tmp_path / "data2" / "a.jpg").write_bytes(b"x")
    (root / "beside").symlink_to(tmp_path / "data2")

    usable = ["few/s0/a.jpg", "few/in.jpg", "few/across/a.jpg", "few/up/back/s1/a.jpg", "datasets/few/s2/a.jpg"]
    usable += ["datasets/many/across/a.jpg", "few/dangling.jpg", *(f"many/s{number}/a.jpg" for number in range(9))]
    usable += ["many/in.jpg", "many/across/a.jpg", "many/up/back/in.jpg", "many/dangling.jpg"]
    led_out = ["few/out.jpg", "few/up/s0/a.jpg", "few/up/own/a.jpg", "few/up/back/out.jpg", "datasets/few/up/s1/a.jpg"]
    led_out += ["many/out.jpg", "many/up/s3/a.jpg", "many/up/gone.jpg", "beside/a.jpg", "beside/gone/a.jpg"]
    gone = ["few/s1/b.jpg", "few/s9/a.jpg", "many/s9/a.jpg", "nowhere/at/all.jpg", "few/s0/a.jpg/a.jpg", "few/s0/", "."]
    expected = dict.fromkeys(usable) | dict.fromkeys(led_out, Reason.LINK) | dict.fromkeys(gone, Reason.NO_FILE)
    real = os.path.realpath(root)
    for path, reason in expected.items():
        outside = not os.path.realpath(root / path).startswith(f"{real}{os.sep}")
        assert outside == (reason is Reason.LINK) or path == ".", path
    text = "\n".join([f"{HEADER},patient_id,study_id", *(f"{path},,,Frontal,AP,0,0,0,0,0,1,1" for path in expected)])
    manifest = load_manifest(sheet(root, text), "train")
    assert list(manifest.paths) == list(expected)
    found = missing_images(manifest)
    assert {path: found.reasons.get(row) for row, path in enumerate(expected)} == expected
    assert found.rows.tolist() == [reason is not None for reason in expected.values()]

    outside_too = missing_images(replace(manifest, allow_outside=True))
    assert {path for row, path in enumerate(expected) if outside_too.rows[row]} == {
        *gone,
        "many/up/gone.jpg",
        "beside/gone/a.jpg",
    }

    chosen = np.arange(len(manifest)) % 3 == 1
    some = found.select(chosen)
    again = missing_images(manifest.select(chosen))
    assert some.rows.tolist() == again.rows.tolist()
    assert some.reasons == again.reasons


def test_links_among_many_names_of_one_folder(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(8):
        image(root, f"flat/{number}.jpg")
    image(tmp_path, "away.jpg")
    (root / "flat" / "8.jpg").symlink_to(tmp_path / "away.jpg")
    (root / "flat" / "9.jpg").symlink_to("0.jpg")
    rows = [f"flat/{number}.jpg,,,Frontal,AP,0,0,0,0,0,{number},1" for number in range(11)]
    found = missing_images(load_manifest(sheet(root, "\n".join([f"{HEADER},patient_id,study_id", *rows])), "train"))
    assert found.reasons == {8: Reason.LINK, 10: Reason.NO_FILE}
