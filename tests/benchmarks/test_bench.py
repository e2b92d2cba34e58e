"""The benchmark measures the same work on both sides, and its ratios are what they say."""

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import Call
from cxrtool.benchmarks.measure import write_sheet
from cxrtool.benchmarks.plain import plain_manifest, plain_network, plain_predict
from cxrtool.benchmarks.rows import Row
from cxrtool.data.labels import encode_labels
from cxrtool.data.manifest import load_manifest
from cxrtool.findings import EVALUATION_POLICY, FINDINGS
from cxrtool.model.bundle import open_bundle
from cxrtool.predict.classifier import Classifier
from tests_support import EXACT


def test_ratios_are_of_the_same_turn() -> None:
    row = Row("predict", "images/s", ours=(30.0, 10.0, 24.0), plain=(10.0, 10.0, 8.0))
    assert row.ratios == (3.0, 1.0, 3.0)
    assert row.to_dict()["ratio"] == {"median": 3.0, "min": 1.0, "max": 3.0}


def test_the_plain_way_comes_to_the_same_probabilities(run_folder: Path, phantoms: Path) -> None:
    """Another resize and another network class: within what an antialiased resize of RGB differs by."""
    images = sorted((phantoms / "test").rglob("*frontal.jpg"))[:6]
    bundle = open_bundle(run_folder / "model.safetensors")
    plain = plain_predict(plain_network(bundle.network), images, bundle.header.image_preprocessing.image_size)
    ours = Classifier.load(run_folder, settings=EXACT).predict_many(images)
    found = np.array([[one.probability for one in result.findings] for result in ours])
    assert np.abs(found - plain).max() < 0.02


def test_the_plain_manifest_holds_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    write_sheet(tmp_path / "train.csv", 400)
    manifest = load_manifest(tmp_path, "train")
    targets, mask = encode_labels(manifest.raw_labels, EVALUATION_POLICY.of(manifest.findings))
    rows = plain_manifest(tmp_path / "train.csv")
    assert [path.removeprefix("CheXpert-v1.0-small/") for path, _ in rows] == list(manifest.paths)
    labels = np.array([values for _, values in rows])
    assert labels.shape == (len(manifest), len(FINDINGS))
    np.testing.assert_array_equal(np.isnan(labels), ~mask)
    np.testing.assert_array_equal(labels[mask], targets[mask])


@pytest.mark.takes_minutes
def test_the_command_prints_and_writes_the_table(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    done = call("bench", "--parts", "predict,train", "--repeats", 1, "--image-size", 64, "--out", out)
    assert done.code == 0, done.stderr
    assert "predict a folder" in done.stdout
    assert "images/s" in done.stdout
    written = json.loads(out.read_text())
    assert {row["name"].split()[0] for row in written["rows"]} == {"predict", "train"}
    assert all(min(row["ours"] + row["plain"]) > 0 for row in written["rows"])
    assert written["machine"]["versions"]["torch"]


@pytest.mark.parametrize("parts", ["speed", "predict,speed"])
def test_an_unknown_part_is_refused(call: Call, parts: str) -> None:
    done = call("bench", "--parts", parts)
    assert done.code == 2
    assert "predict, train" in done.stderr
