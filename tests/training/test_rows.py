"""Unreadable images: skipped up to a share and listed, and a run goes on after their rows were taken out."""

import csv
import gzip
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrtool.data.checks import check_data
from cxrtool.data.dataset import Dataset
from cxrtool.data.manifest import load_manifest
from cxrtool.errors import CxrError, ImageError, InterruptedWorkError, RequestError
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import open_bundle
from cxrtool.settings import DataSettings
from cxrtool.training.loop import train
from cxrtool.training.rows import write_rows
from cxrtool.training.run import Split
from tests_support import tiny_training

SKIP = {"data__skip_unreadable": True, "data__max_missing": 0.1}


@pytest.fixture
def data(few: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(few, tmp_path / "data"))


def cut(data: Path, split: str, row: int = 0) -> Path:
    """Damage the image of a row, and return its path."""
    path = load_manifest(data, split).file(row)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def without(data: Path, split: str, image: Path) -> None:
    """Remove an image's row from the sheet."""
    sheet = data / f"{split}.csv"
    name = str(image.relative_to(data))
    lines = sheet.read_text().splitlines()
    kept = [line for line in lines if name not in line]
    assert len(kept) == len(lines) - 1
    sheet.write_text("\n".join(kept) + "\n")


def equal(first: Path, second: Path) -> bool:
    ours, theirs = (dict(open_bundle(path / "last.safetensors").network.state_dict()) for path in (first, second))
    return all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def stop_after_an_epoch(folder: Path) -> int | None:
    return signal.SIGINT if (folder / "history.csv").exists() else None


def test_unreadable_images_are_skipped_and_listed_or_stop_the_run(data: Path, tmp_path: Path) -> None:
    images = {split: cut(data, split) for split in ("train", "valid")}
    with pytest.raises(ImageError, match="truncated") as caught:
        train(tiny_training(data), tmp_path / "strict")
    assert "--skip-unreadable" in caught.value.advice
    allowed = tiny_training(data, data__skip_unreadable=True, data__max_missing=0.2)
    result = train(allowed, tmp_path / "run")
    assert [str(image) in text for image, text in zip(images.values(), result.unreadable, strict=True)] == [True, True]
    splits = json.loads((tmp_path / "run" / "dataset.json").read_text())["splits"]
    assert [splits[split]["unreadable"] for split in images] == [[text] for text in result.unreadable]
    with pytest.raises(CxrError, match="--max-missing allows 0"):
        train(tiny_training(data, data__skip_unreadable=True), tmp_path / "few")


def test_a_run_goes_on_without_the_rows_of_unreadable_images(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends with the weights of a run that skipped the image, although order and weights depend on the rows."""
    image = cut(data, "train", 3)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny_training(data, **SKIP), whole)
    with pytest.raises(InterruptedWorkError):
        train(tiny_training(data, **SKIP), parts, stop=lambda: stop_after_an_epoch(parts))
    without(data, "train", image)
    train(tiny_training(data, **SKIP), resume=parts)
    assert f"1 rows of unreadable images are gone ({image.relative_to(data)})" in caplog.text
    assert equal(whole, parts)


def test_a_run_does_not_go_on_with_other_rows(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny_training(data, train__epochs=1), run)
    sheet = data / "train.csv"
    before = sheet.read_text()
    first = load_manifest(data, "train").file(0)
    without(data, "train", first)
    with pytest.raises(RequestError, match="1 rows were removed although their images can be read"):
        train(tiny_training(data), resume=run)
    lines = before.splitlines()
    cells = lines[-1].split(",")
    place = lines[0].split(",").index("Edema")
    cells[place] = "0.0" if cells[place] == "1.0" else "1.0"
    sheet.write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
    with pytest.raises(RequestError, match="1 rows have another label"):
        train(tiny_training(data, data__max_missing=0.1), resume=run)
    cells[0] = cells[0].replace("view1", "view7")
    sheet.write_text(before + ",".join(cells) + "\n")
    shutil.copy(load_manifest(data, "train").file(5), data / cells[0].partition("/")[2])
    with pytest.raises(RequestError, match="1 rows are new"):
        train(tiny_training(data, data__max_missing=0.1), resume=run)


def test_both_classes_are_needed_by_study_where_auroc_counts(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By image each finding has both classes; every study has a positive image."""
    sheet = data / "valid.csv"
    lines = sheet.read_text().splitlines()
    header = lines[0].split(",")
    rows = []
    for line in lines[1:]:
        cells = line.split(",")
        if "frontal" not in cells[0]:
            continue
        for number, label in ((1, "1.0"), (9, "0.0")):
            name = cells[0].replace("view1", f"view{number}")
            source, target = (data / path.partition("/")[2] for path in (cells[0], name))
            if source != target:
                shutil.copy(source, target)
            labels = [label if column in FINDINGS else cell for column, cell in zip(header, cells, strict=True)]
            rows.append(",".join([name, *labels[1:]]))
    sheet.write_text("\n".join([lines[0], *rows]) + "\n")
    result = train(tiny_training(data, train__epochs=1), tmp_path / "run")
    assert "no finding of the valid split has studies of both classes" in caplog.text
    assert result.best.epoch == 1
    assert result.best.valid_auroc is None
    assert result.bundle.is_file()
    errors = check_data(Dataset(DataSettings(root=data))).errors
    assert any("no finding has both classes at study level" in text for text in errors)


@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_rows_are_written_the_same_however_many_at_once(
    few: Path, tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxrtool.training.rows._ROWS_AT_ONCE", at_once)
    manifest = load_manifest(few, "train")
    write_rows(tmp_path, manifest)
    with gzip.open(tmp_path / "rows-train.csv.gz", "rt", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "patient", "study", *FINDINGS]
    assert [row[:3] for row in rows] == [
        list(row) for row in zip(manifest.paths, manifest.patients, manifest.studies, strict=True)
    ]
    labels = [[float(cell or "nan") for cell in row[3:]] for row in rows]
    assert np.array_equal(np.array(labels, dtype=np.float32), manifest.raw_labels, equal_nan=True)


def test_rows_are_found_by_the_number_that_they_had(few: Path) -> None:
    manifest = load_manifest(few, "train")
    count = len(manifest)
    labels = manifest.raw_labels, np.ones(manifest.raw_labels.shape, dtype=np.bool_)
    whole = Split(manifest, *labels, np.arange(count), count)
    assert whole.rows_of(np.array([3, 0, 2])).tolist() == [3, 0, 2]
    reordered = Split(manifest, *labels, np.arange(count)[::-1].copy(), count)
    assert reordered.rows_of(np.array([0, count - 1, 1])).tolist() == [count - 1, 0, count - 2]
    gone = Split(manifest, *labels, np.delete(np.arange(count + 2), [1, 4]), count + 2)
    assert gone.rows_of(np.array([5, 4, 0, 1, 2])).tolist() == [3, 0, 1]
    assert replace(gone, numbers=np.arange(count), total=count).rows_of(np.array([1])).tolist() == [1]
