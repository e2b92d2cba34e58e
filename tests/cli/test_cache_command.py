import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import Call


@pytest.fixture
def data(phantoms: Path, tmp_path: Path) -> Path:
    """A copy of the phantoms that a test may change."""
    return Path(shutil.copytree(phantoms, tmp_path / "data"))


def test_a_cache_is_made_once_and_removed(call: Call, data: Path) -> None:
    first = call("cache", data, "--image-size", 32)
    assert first.code == 0
    assert first.stdout.count("built") == 2
    assert f"next: cxr train --cache --data {data}" in first.stderr
    assert "cache train: " in first.stderr
    document = call("cache", data, "--image-size", 32, "--json").json
    assert {one["split"]: one["state"] for one in document["caches"]} == {"train": "valid", "valid": "valid"}
    for one in document["caches"]:
        (pixels,) = Path(one["folder"]).glob("pixels-*.npy")
        assert np.load(pixels, mmap_mode="r").shape == (one["images"], 32, 32)
        assert one["bytes"] > one["images"] * 32 * 32
        assert one["images_per_second"] is None
    removed = call("cache", data, "--remove", "--json").json
    assert removed["removed_bytes"] > 0
    assert not (data / ".cxr-cache").exists()


def test_the_reason_for_rebuilding_is_one_line(call: Call, data: Path) -> None:
    call("cache", data, "--image-size", 32, "--split", "valid")
    sheet = data / "valid.csv"
    sheet.write_text(sheet.read_text() + "\n")
    done = call("cache", data, "--image-size", 32, "--split", "valid")
    assert done.code == 0
    assert [line for line in done.stderr.splitlines() if line.startswith("warning")] == [
        f"warning: {data}/.cxr-cache/valid-frontal-32px is rebuilt: valid.csv has changed"
    ]
    assert "rebuilt" in done.stdout


def test_unreadable_images_are_named_and_the_end_is_1(call: Call, data: Path) -> None:
    bad = sorted((data / "train").rglob("*frontal.jpg"))[:7]
    for path in bad:
        path.write_bytes(b"no image")
    done = call("cache", data, "--image-size", 32)
    assert done.code == 1
    assert done.stdout.count("unreadable: ") == 5
    assert "and 2 more" in done.stdout
    assert "next:" not in done.stderr
    document = call("cache", data, "--image-size", 32, "--json")
    assert document.code == 1
    assert len(document.json["caches"][0]["unreadable"]) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["DATA", "--split", "vaild"], "train, valid, test"),
        (["DATA", "--workers", "many"], "auto"),
        (["DATA", "--cache-dir", "DATA/train.csv"], "--cache-dir"),
        (["DATA", "--image-size", "7"], "train.image_size"),
    ],
)
def test_a_wrong_request_ends_with_2_and_two_lines(call: Call, data: Path, arguments: list[str], message: str) -> None:
    before = sorted(data.rglob("*"))
    done = call("cache", *(argument.replace("DATA", str(data)) for argument in arguments))
    assert (done.code, len(done.stderr.splitlines())) == (2, 2), done
    assert message in done.stderr
    assert sorted(data.rglob("*")) == before


def test_eval_and_tune_read_from_it_and_come_to_the_same(
    call: Call, data: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = ["eval", "--data", data, "--model", run, "--split", "valid", "--draws", 10, "--json"]
    tune = ["tune", "--data", data, "--model", run, "--draws", 10, "--json"]
    without = call(*evaluate), call(*tune)
    call("cache", data, "--image-size", 32)

    def refuse(*_arguments: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr("cxrtool.data.radiograph.read_pixels", refuse)
    for before, command in zip(without, (evaluate, tune), strict=True):
        done = call(*command, "--cache")
        assert done.code == 0, done.stderr
        assert done.stdout == before.stdout


def test_train_builds_it_and_a_run_is_resumed_with_it(call: Call, data: Path) -> None:
    train = ["train", "--data", data, "--out", "run", "--init", "none", "--image-size", 32, "--epochs", 1]
    done = call(*train, "--batch-size", 16, "--device", "cpu")
    assert done.code == 0, done.stderr
    assert not (data / ".cxr-cache").exists()
    done = call("train", "--resume", "run", "--epochs", 2, "--cache")
    assert done.code == 0, done.stderr
    assert done.stderr.index("cache valid: ") < done.stderr.index("epoch 2/2: ")
    assert len(list((data / ".cxr-cache").glob("*/pixels-*.npy"))) == 2
