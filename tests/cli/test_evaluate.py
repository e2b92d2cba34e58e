"""``cxr check-data``, ``eval`` and ``tune``, compared with scikit-learn and with the sheets."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from conftest import Call
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import read_header


def check_against_scikit_learn(folder: Path) -> None:
    """Check that metrics.json holds the figures that scikit-learn computes from predictions.csv."""
    table = pd.read_csv(folder / "predictions.csv")
    metrics = json.loads((folder / "metrics.json").read_text())
    means: dict[str, list[float]] = {"auroc": [], "auprc": []}
    for finding in FINDINGS:
        rows = table[table[finding].notna()]
        truth, score = rows[finding], rows[f"{finding} probability"]
        reported = metrics["labels"][finding]
        assert (reported["positives"], reported["negatives"]) == (int(truth.sum()), int((1 - truth).sum()))
        if truth.nunique() < 2:
            assert reported["auroc"] is None
            assert reported["auprc"] is None
            continue
        assert reported["auroc"] == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
        assert reported["auprc"] == pytest.approx(average_precision_score(truth, score), abs=1e-12)
        if reported.get("threshold") is not None:
            assert reported["f1"] == pytest.approx(f1_score(truth, score >= reported["threshold"]), abs=1e-12)
        for name, values in means.items():
            values.append(reported[name])
    for name, values in means.items():
        assert metrics["mean"][name] == pytest.approx(np.mean(values), abs=1e-12)


def test_eval_on_phantoms(call: Call, phantoms: Path, run_folder: Path, tmp_path: Path) -> None:
    done = call("eval", "--data", phantoms, "--model", run_folder, "--out", "figures", "--json")
    assert done.code == 0, done.stderr
    check_against_scikit_learn(tmp_path / "figures")
    document = done.json
    assert document["level"] == "study"
    truth = pd.read_csv(phantoms / "truth/test.csv")
    frontal = truth[truth["Path"].str.contains("frontal")]
    studies = frontal["Path"].str.rsplit("/", n=1).str[0]
    assert (document["images"], document["studies"]) == (len(frontal), studies.nunique())
    edema = frontal.groupby(studies)["Edema"].max()
    assert document["labels"]["Edema"]["positives"] == edema.sum()


def test_eval_takes_the_largest_probability_of_a_study(
    call: Call, phantoms: Path, run_folder: Path, tmp_path: Path
) -> None:
    call("eval", "--data", phantoms, "--model", run_folder, "--out", "study")
    call("eval", "--data", phantoms, "--model", run_folder, "--out", "image", "--level", "image")
    check_against_scikit_learn(tmp_path / "image")
    image, study = (pd.read_csv(tmp_path / name / "predictions.csv") for name in ("image", "study"))
    assert len(image) > len(study)
    for finding in FINDINGS:
        largest = image.groupby("study")[f"{finding} probability"].max()
        pd.testing.assert_series_equal(
            largest.sort_index(), study.set_index("study")[f"{finding} probability"].sort_index(), check_exact=True
        )


def test_a_finding_of_one_class_is_null_with_a_warning(
    call: Call, phantoms: Path, run_folder: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(phantoms, tmp_path / "data"))
    sheet = pd.read_csv(data / "test.csv")
    sheet.assign(Edema=0.0).to_csv(data / "test.csv", index=False)
    done = call("eval", "--data", data, "--model", run_folder, "--out", "figures", "--json")
    assert done.code == 0
    assert done.json["labels"]["Edema"]["auroc"] is None
    assert done.json["mean"]["auroc"] is not None
    assert "Edema" in done.stderr
    check_against_scikit_learn(tmp_path / "figures")


def test_tune_writes_thresholds_into_the_bundle_and_eval_uses_them(
    call: Call, phantoms: Path, run: Path, tmp_path: Path
) -> None:
    done = call("tune", "--data", phantoms, "--model", run, "--criterion", "specificity", "--target", 0.8, "--json")
    assert done.code == 0, done.stderr
    assert read_header(run / "model.safetensors").thresholds == done.json["thresholds"]
    rows = call("eval", "--data", phantoms, "--model", run, "--split", "valid", "--out", "v", "--json").json["labels"]
    for finding, row in rows.items():
        assert row["threshold"] == done.json["thresholds"][finding]
        if row["auroc"] is not None and row["threshold"] < 0.95:
            assert row["specificity"] >= 0.8
    curves = pd.read_csv(run / "tune_valid" / "curves.csv")
    assert len(curves) == 5 * 91
    check_against_scikit_learn(tmp_path / "v")


def test_tune_refuses_a_saved_table_of_the_test_split(
    call: Call, phantoms: Path, run_folder: Path, tmp_path: Path
) -> None:
    """Renaming the file of test predictions makes no difference."""
    for split in ("valid", "test"):
        call("eval", "--data", phantoms, "--model", run_folder, "--split", split, "--out", split)
    tuned = call("tune", "--predictions", "valid/predictions.csv", "--out", "t", "--min", 0.1, "--step", 0.2, "--json")
    assert tuned.code == 0, tuned.stderr
    assert {row["threshold"] for row in csv.DictReader((tmp_path / "t/curves.csv").open())} == {
        "0.1", "0.3", "0.5", "0.7", "0.9"
    }  # fmt: skip
    (tmp_path / "renamed.csv").write_text((tmp_path / "test/predictions.csv").read_text())
    refused = call("tune", "--predictions", "renamed.csv", "--out", "never")
    assert refused.code == 2
    assert "test" in refused.stderr
    assert not (tmp_path / "never").exists()


class TestCheckData:
    def test_counts_are_those_of_the_sheets(self, call: Call, phantoms: Path) -> None:
        document = call("check-data", phantoms, "--full", "--json").json
        for split in ("train", "valid", "test"):
            sheet = pd.read_csv(phantoms / f"{split}.csv")
            reported = document["splits"][split]
            assert reported["rows"] == len(sheet)
            assert reported["frontal"] == (sheet["Frontal/Lateral"] == "Frontal").sum()
            for finding in FINDINGS:
                values = sheet[finding]
                counts = [(values == 1).sum(), (values == 0).sum(), (values == -1).sum(), values.isna().sum()]
                assert list(reported["labels"][finding].values()) == counts
            assert reported["images_read"] == len(sheet)
        assert document["errors"] == []

    def test_a_patient_in_two_splits_is_an_error(self, call: Call, phantoms: Path, tmp_path: Path) -> None:
        data = Path(shutil.copytree(phantoms, tmp_path / "data"))
        train = pd.read_csv(data / "train.csv")
        pd.concat([pd.read_csv(data / "valid.csv"), train.head(1)]).to_csv(data / "valid.csv", index=False)
        done = call("check-data", data)
        assert done.code == 1
        assert "patient00001" in done.stdout

    def test_samples_are_drawn(self, call: Call, phantoms: Path, tmp_path: Path) -> None:
        from PIL import Image

        assert call("check-data", phantoms, "--samples", 6, "--image-size", 64).code == 0
        with Image.open(tmp_path / "samples.png") as sheet:
            assert sheet.width > 4 * 200


class TestRealRadiographs:
    def test_figures_equal_scikit_learn(self, call: Call, nih: Path, run_folder: Path, tmp_path: Path) -> None:
        document = call("check-data", nih, "--full", "--json").json
        assert sum(split["rows"] for split in document["splits"].values()) == 427
        assert document["errors"] == []
        done = call("eval", "--data", nih, "--model", run_folder, "--out", "figures", "--json")
        assert done.code == 0, done.stderr
        check_against_scikit_learn(tmp_path / "figures")
        assert done.json["images"] == 83
