"""A data set's missing images and shared patients."""

import os
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bad_inputs import HEADER, sheet
from cxrtool.data import text_file
from cxrtool.data.dataset import Dataset
from cxrtool.data.manifest import load_manifest
from cxrtool.data.missing import Reason, missing_images
from cxrtool.errors import RequestError, SheetError
from cxrtool.settings import DataSettings
from cxrtool.text import counted


def test_missing_and_outside_images_are_named_with_the_reason(tmp_path: Path) -> None:
    outside = tmp_path / "secret.jpg"
    outside.write_bytes(b"x")
    root = tmp_path / "data"
    (root / "train").mkdir(parents=True)
    (root / "train" / "good.jpg").write_bytes(b"x")
    os.symlink(outside, root / "train" / "link.jpg")
    os.symlink(root / "train" / "good.jpg", root / "train" / "inner.jpg")
    paths = ["train/good.jpg", "train/gone.jpg", "train/link.jpg", "train/inner.jpg", "../secret.jpg", str(outside)]
    paths.append("train\\good.jpg")
    rows = [f"{path},,,Frontal,,0,0,0,0,0,1,1" for path in paths]
    header = f"{HEADER},patient_id,study_id"
    missing = missing_images(load_manifest(sheet(root, "\n".join([header, *rows])), "train"))
    assert missing.rows.tolist() == [False, True, True, False, True, True, True]
    assert missing.reasons == {
        1: Reason.NO_FILE,
        2: Reason.LINK,
        4: Reason.PARENT,
        5: Reason.ABSOLUTE,
        6: Reason.BACKSLASHES,
    }


def test_rows_without_an_image_are_skipped_up_to_the_allowed_share(
    phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Path(shutil.copytree(phantoms, tmp_path / "data"))
    whole = load_manifest(data, "valid")
    whole.file(1).unlink()
    allowed = 1 / len(whole)
    usable = Dataset(DataSettings(root=data, max_missing=allowed)).usable("valid")
    assert usable.paths.tolist() == [path for row, path in enumerate(whole.paths) if row != 1]
    assert str(whole.paths[1]) in caplog.text
    with pytest.raises(RequestError, match=f"1 of {len(whole)} rows of valid.csv"):
        Dataset(DataSettings(root=data, max_missing=0.9 * allowed)).usable("valid")


def test_a_split_without_the_requested_view_is_refused(tmp_path: Path) -> None:
    sheet(tmp_path, f"{HEADER}\npatient1/study1/b.jpg,,,Lateral,,0,0,0,0,0\n")
    with pytest.raises(RequestError, match="no frontal image"):
        Dataset(DataSettings(root=tmp_path)).usable("train")


@given(st.lists(st.sets(st.integers(1, 9), min_size=1), min_size=3, max_size=3))
def test_shared_patients_are_those_in_two_sheets(
    tmp_path_factory: pytest.TempPathFactory, patients: list[set[int]]
) -> None:
    root = tmp_path_factory.mktemp("d")
    names = ("train", "valid", "test")
    for name, numbers in zip(names, patients, strict=True):
        rows = [f"{name}/patient{n}/study1/a.jpg,,,Frontal,,0,0,0,0,0" for n in sorted(numbers)]
        sheet(root, "\n".join([HEADER, *rows]), f"{name}.csv")
    shared = {
        (first, second): patients[i] & patients[j]
        for (i, first), (j, second) in combinations(enumerate(names), 2)
        if patients[i] & patients[j]
    }
    data = DataSettings(root=root)
    found = Dataset(data).shared_patients()
    assert len(found) == len(shared)
    for sentence, ((first, second), both) in zip(found, shared.items(), strict=True):
        assert sentence.startswith(
            f"{counted(len(both), 'patient is', 'patients are')} in {first} and in {second} (patient{min(both)}"
        )
    if shared:
        with pytest.raises(RequestError, match=r"patients? (is|are) in"):
            Dataset(data).refuse_shared_patients()
    else:
        Dataset(data).refuse_shared_patients()
    Dataset(DataSettings(root=root, i_know=True)).refuse_shared_patients()


def test_a_further_column_follows_the_rows(tmp_path: Path) -> None:
    rows = [f"patient{n}/study1/a.jpg,{'MF'[n % 2]},{n},Frontal,,0,0,0,0,0" for n in range(6)]
    data = DataSettings(root=sheet(tmp_path, "\n".join([HEADER, *rows])))
    manifest = Dataset(data, columns={"train": ("Age",)}).manifest("train")
    assert manifest.select(np.array([4, 1])).columns["Age"].tolist() == ["4", "1"]
    with pytest.raises(SheetError, match="Hospital"):
        Dataset(data, columns={"train": ("Hospital",)}).manifest("train")


def test_each_sheet_is_read_once_whatever_is_asked_for_and_in_whatever_order(
    phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    plain = text_file._read_bytes

    def note(path: Path) -> bytes:
        read.append(path.name)
        return plain(path)

    monkeypatch.setattr(text_file, "_read_bytes", note)
    dataset = Dataset(DataSettings(root=phantoms), ("test",))
    dataset.refuse_shared_patients()
    assert dataset.usable("test") is dataset.usable("test")
    assert len(dataset.manifest("test")) > len(dataset.usable("test")), "all views, and the frontal ones"
    dataset.refuse_shared_patients()
    assert sorted(read) == ["test.csv", "train.csv", "valid.csv"]
    with pytest.raises(ValueError, match="train"):
        dataset.manifest("train")
    assert len(read) == 3


def test_a_column_that_only_one_sheet_has_can_be_asked_for(phantoms: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(phantoms, tmp_path / "data"))
    lines = (data / "test.csv").read_text().splitlines()
    hospitals = ["Hospital", *("AB"[row % 2] for row in range(len(lines) - 1))]
    text = [f"{line},{hospital}" for line, hospital in zip(lines, hospitals, strict=True)]
    (data / "test.csv").write_text("\n".join(text) + "\n")
    dataset = Dataset(DataSettings(root=data), ("test",), {"test": ("Hospital",)})
    dataset.refuse_shared_patients()
    manifest = dataset.usable("test")
    assert manifest.columns["Hospital"].tolist() == ["AB"[line % 2] for line in manifest.lines]
