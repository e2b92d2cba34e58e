"""A data set without usable images says why, and what to do."""

import os
from pathlib import Path

import pytest

from bad_inputs import HEADER, sheet
from cxrtool.data.checks import check_data
from cxrtool.data.dataset import Dataset
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
