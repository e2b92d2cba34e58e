"""Models of other findings than the usual five, from training to pictures."""

import csv
from pathlib import Path

from conftest import Call
from cxrtool.model.bundle import read_header

NAMES = ["Support Devices", "Edema", "Lung Opacity"]


def test_a_model_of_other_findings_is_trained_tuned_evaluated_applied_and_explained(
    call: Call, phantoms: Path, run_folder: Path, tmp_path: Path
) -> None:
    small = ["--init", "none", "--image-size", 32, "--epochs", 1, "--batch-size", 16]
    done = call(
        "train", "--data", phantoms, "--out", "run", *small, "--findings", "support devices,Edema,Airspace Opacity"
    )
    assert done.code == 0, done.stderr
    header = read_header(tmp_path / "run" / "model.safetensors")
    assert list(header.findings) == NAMES
    tuned = call("tune", "--data", phantoms, "--model", "run", "--draws", 20, "--json")
    assert list(tuned.json["thresholds"]) == NAMES
    evaluated = call("eval", "--data", phantoms, "--model", "run", "--draws", 20, "--json")
    assert list(evaluated.json["labels"]) == NAMES
    assert list(evaluated.json["thresholds"]) == NAMES
    image = min((phantoms / "test").rglob("*frontal.jpg"))
    call("predict", image, "--model", "run", "--csv", "p.csv")
    with (tmp_path / "p.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert list(row)[:5] == ["path", *NAMES, "positive"]
    explained = call("explain", image, "--model", "run", "--label", "airspace opacity", "--out", "maps", "--json")
    assert explained.json["explanations"][0]["explanations"][0]["label"] == "Lung Opacity"
    refused = call("explain", image, "--model", "run", "--label", "Cardiomegaly")
    assert refused.code == 2
    assert "Support Devices, Edema, Lung Opacity" in refused.stderr
    compared = call("compare", "run", run_folder, "--data", phantoms, "--draws", 20, "--json")
    assert compared.code == 0, compared.stderr
    assert {one["finding"] for one in compared.json["differences"]} == {"Edema", "mean"}
    assert call("report", "run", "--data", phantoms, "--draws", 20).code == 0


def test_an_exception_of_the_policy_must_be_among_the_findings(call: Call, phantoms: Path) -> None:
    done = call("train", "--data", phantoms, "--findings", "Edema,Fracture", "--policy", "u-ones,Cardiomegaly=u-zeros")
    assert done.code == 2
    assert "Cardiomegaly" in done.stderr
