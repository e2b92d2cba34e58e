"""The content of a report."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from conftest import Call
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import change_header, open_bundle


def test_a_bundle_without_predictions_or_data_is_refused(call: Call, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    shutil.copy(run_folder / "model.safetensors", tmp_path / "alone")
    done = call("report", tmp_path / "alone")
    assert done.code == 2
    assert "cxr eval" in done.stderr
    assert not (tmp_path / "alone" / "report.html").exists()


def test_mistakes_beside_saved_predictions_are_those_of_the_whole_split(
    call: Call, phantoms: Path, run_folder: Path, tmp_path: Path
) -> None:
    """`report` runs the model on the studies that it got wrong, `errors` on all; both show the same."""
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    # These thresholds give mistakes of both kinds, whatever the network has learnt.
    change_header(open_bundle(run / "model.safetensors"), thresholds={name: i % 2.0 for i, name in enumerate(FINDINGS)})
    whole = call("errors", "--data", phantoms, "--model", run, "--top", 1)
    images, all_images = _mistakes(run), _images_read(whole.stderr)
    call("eval", "--data", phantoms, "--model", run, "--split", "test", "--out", run / "eval_test")
    shutil.rmtree(run / "errors_test")
    done = call("report", run, "--data", phantoms, "--top", 1, "--draws", 20)
    assert done.code == 0, done.stderr
    assert [row[:-1] for row in _mistakes(run)] == [row[:-1] for row in images]
    assert [row[-1] for row in _mistakes(run)] == pytest.approx([row[-1] for row in images], abs=1e-5)
    assert 0 < _images_read(done.stderr) < all_images
    last = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    assert last["command"] == "report"
    assert last["images"] == all_images, "a look at its mistakes is a look at the split"


def test_a_pixel_cache_of_the_split_stays_whole(
    call: Call, phantoms: Path, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cache = tmp_path / "run", tmp_path / "cache"
    shutil.copytree(run_folder, run)
    change_header(open_bundle(run / "model.safetensors"), thresholds={name: i % 2.0 for i, name in enumerate(FINDINGS)})
    monkeypatch.setenv("CXR_DATA__CACHE_DIR", str(cache))
    call("eval", "--data", phantoms, "--model", run, "--split", "test", "--out", run / "eval_test")
    before = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    assert before
    done = call("report", run, "--data", phantoms, "--top", 1, "--draws", 20)
    assert done.code == 0, done.stderr
    assert {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()} == before


def _mistakes(run: Path) -> list[tuple[str, str, str, float]]:
    with (run / "errors_test" / "mistakes.csv").open() as file:
        return [(row["finding"], row["kind"], row["path"], float(row["probability"])) for row in csv.DictReader(file)]


def _images_read(stderr: str) -> int:
    return int(stderr.split("reading test: ")[1].split("/")[0])
