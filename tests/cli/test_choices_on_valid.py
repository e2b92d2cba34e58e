"""Commands that choose on valid (tune, calibrate) and those that report (eval, compare, errors)."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from conftest import Call
from cxrtool.evaluation.calibration import UNSCALED, Scaling
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import change_header, open_bundle, read_header, save_bundle
from cxrtool.model.header import Tuning
from cxrtool.predict.classifier import Classifier


def test_eval_gives_intervals_over_patients(call: Call, phantoms: Path, run: Path) -> None:
    options = ["--draws", 200, "--draw-seed", 5, "--prevalence", 0.1]
    document = call("eval", "--data", phantoms, "--model", run, *options, "--json").json
    assert document["bootstrap"] == {
        "unit": "patient", "draws": 200, "seed": 5, "confidence": 0.95, "method": "percentile"
    }  # fmt: skip
    assert document["patients"] == 6
    for row in document["labels"].values():
        ends = row["intervals"]["auroc"]
        if row["auroc"] is not None and ends["low"] is not None:
            assert ends["low"] <= row["auroc"] <= ends["high"]
        values = row["operating_points"]["predictive_values"]
        assert values is None or values["prevalence"] == 0.1
    sheet = pd.read_csv(run / "eval_test" / "metrics.csv", index_col="finding")
    assert sheet.loc["Edema", "auroc_low"] == document["labels"]["Edema"]["intervals"]["auroc"]["low"]
    assert sheet.loc["mean", "auroc_high"] == document["mean"]["intervals"]["auroc"]["high"]


def test_eval_on_the_split_that_chose_the_thresholds_warns(call: Call, phantoms: Path, run: Path) -> None:
    done = call("eval", "--data", phantoms, "--model", run, "--split", "valid", "--out", run / "v")
    assert "this same split" in done.stderr
    assert "nested resampling" in done.stdout
    document = json.loads((run / "v" / "metrics.json").read_text())
    assert document["labels"]["Atelectasis"]["honest"] is not None
    elsewhere = call("eval", "--data", phantoms, "--model", run, "--json")
    assert elsewhere.json["labels"]["Atelectasis"]["honest"] is None
    assert "this same split" not in elsewhere.stderr


def test_eval_on_the_split_that_fitted_the_calibration_warns(call: Call, phantoms: Path, run: Path) -> None:
    scaling = {finding: Scaling(0.8, -0.4) for finding in FINDINGS} | {"Edema": UNSCALED}
    assert call("calibrate", "--data", phantoms, "--model", run).code == 0
    stored = read_header(run / "model.safetensors").calibration
    assert stored is not None
    change_header(open_bundle(run / "model.safetensors"), calibration=stored.model_copy(update={"scalings": scaling}))
    done = call("eval", "--data", phantoms, "--model", run, "--split", "valid", "--json")
    assert any("calibration was fitted on this same split (valid)" in text for text in done.json["warnings"])
    in_sample = {finding: row["calibration"]["in_sample"] for finding, row in done.json["labels"].items()}
    assert in_sample == {finding: finding != "Edema" for finding in FINDINGS}
    elsewhere = call("eval", "--data", phantoms, "--model", run, "--json")
    assert not any("calibration" in text for text in elsewhere.json["warnings"])
    assert elsewhere.json["labels"]["Atelectasis"]["calibration"]["in_sample"] is False
    curve = elsewhere.json["labels"]["Atelectasis"]["decision_curve"]
    assert set(curve) == {"thresholds", "model", "everyone"}
    assert len(curve["thresholds"]) == len(curve["model"]) == len(curve["everyone"]) == 80


def test_tune_on_the_grid_alone_is_recorded(call: Call, phantoms: Path, run: Path) -> None:
    for options, grid_only in (([], False), (["--grid-only"], True)):
        document = call("tune", "--data", phantoms, "--model", run, *options, "--json").json
        assert document["grid_only"] is grid_only
        tuning = read_header(run / "model.safetensors").tuning
        assert tuning is not None
        assert tuning.grid_only is tuning.origin.search.grid_only is grid_only
    assert all(round(value, 2) == value for value in document["thresholds"].values())
    older = {name: value for name, value in tuning.model_dump().items() if name != "grid_only"}
    assert Tuning.model_validate(older).origin.search.grid_only, "bundles of older versions tried the grid alone"


def test_subgroups_by_any_column(call: Call, phantoms: Path, run: Path) -> None:
    options = ["--by", "sex,Support Devices", "--json"]
    document = call("eval", "--data", phantoms, "--model", run, *options).json
    assert {row["attribute"] for row in document["subgroups"]} == {"sex", "Support Devices"}
    women = next(row for row in document["subgroups"] if row["group"] == "Female")
    table = pd.read_csv(run / "eval_test" / "predictions.csv")
    assert women["studies"] == (table["sex"] == "Female").sum()
    refused = call("eval", "--data", phantoms, "--model", run, "--by", "Hospital")
    assert refused.code == 2
    assert "Hospital" in refused.stderr


def test_choosing_on_test_needs_i_know_and_is_recorded(call: Call, phantoms: Path, run: Path, tmp_path: Path) -> None:
    for command in ("tune", "calibrate"):
        refused = call(command, "--data", phantoms, "--model", run, "--split", "test")
        assert refused.code == 2
        assert "--i-know" in refused.stderr
    done = call("tune", "--data", phantoms, "--model", run, "--split", "test", "--i-know", "--json")
    assert done.code == 0, done.stderr
    assert done.json["split"] == "test"
    tuning = read_header(run / "model.safetensors").tuning
    assert tuning is not None
    assert tuning.split == "test"
    done = call("eval", "--data", phantoms, "--model", run, "--split", "valid", "--out", tmp_path / "v", "--json")
    assert any("test split" in text for text in done.json["warnings"])


def test_a_patient_in_two_splits_is_refused_by_every_command_that_trains_or_reports(
    call: Call, phantoms: Path, run: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(phantoms, tmp_path / "data"))
    train = pd.read_csv(data / "train.csv")
    pd.concat([pd.read_csv(data / "test.csv"), train.head(1)]).to_csv(data / "test.csv", index=False)
    begun = ["train", "--data", data, "--init", "none", "--image-size", 32, "--out", "new"]
    for arguments in (begun, ["eval", "--data", data, "--model", run], ["tune", "--data", data, "--model", run]):
        refused = call(*arguments)
        assert refused.code == 2
        assert "patient00001" in refused.stderr
    assert not (tmp_path / "new").exists()
    allowed = call("eval", "--data", data, "--model", run, "--i-know", "--out", "e")
    assert allowed.code == 0
    assert "metrics will be too high" in allowed.stderr


def test_calibration_changes_probabilities_but_not_ranks_or_decisions(call: Call, phantoms: Path, run: Path) -> None:
    before = call("eval", "--data", phantoms, "--model", run, "--json").json
    raw = call("predict", phantoms / "test", "-r", "--model", run, "--json").json
    assert raw["model"]["calibrated"] is False
    fitted = call("calibrate", "--data", phantoms, "--model", run, "--json").json
    after = call("eval", "--data", phantoms, "--model", run, "--json").json
    assert before["mean"] == after["mean"]
    assert after["labels"]["Atelectasis"]["calibration"]["calibrated"] is not None
    shown = call("predict", phantoms / "test", "-r", "--model", run, "--json").json
    assert shown["model"]["calibrated"] is True
    for one, other in zip(raw["predictions"], shown["predictions"], strict=True):
        for first, second in zip(one["findings"], other["findings"], strict=True):
            scaling = fitted["labels"][first["label"]]
            z = np.log(first["probability"] / (1 - first["probability"]))
            expected = 1 / (1 + np.exp(-(scaling["slope"] * z + scaling["intercept"])))
            assert second["probability"] == pytest.approx(expected, rel=1e-9)
            assert second["raw_probability"] == first["probability"]
            assert second["positive"] is first["positive"]
    again = call("predict", phantoms / "test", "-r", "--model", run, "--raw", "--json").json
    assert again["predictions"] == raw["predictions"]


def test_a_threshold_at_the_probability_stays_positive_when_calibrated(call: Call, phantoms: Path, run: Path) -> None:
    image = next((phantoms / "test").rglob("*frontal.jpg"))
    probabilities = Classifier.load(run).predict(image).probabilities
    change_header(open_bundle(run / "model.safetensors"), thresholds=dict(probabilities))
    assert len(Classifier.load(run).predict(image).positives) == 5
    call("calibrate", "--data", phantoms, "--model", run)
    assert len(Classifier.load(run).predict(image).positives) == 5


def test_compare_two_tables_and_two_models(call: Call, phantoms: Path, run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    bundle = open_bundle(run / "model.safetensors")
    network, header = bundle.network, bundle.header
    network.classifier.weight.data *= -1  # not last.safetensors, which is the same model if the last epoch is the best
    save_bundle(other / "model.safetensors", network.state_dict(), header)
    for folder in (run, other):
        call("eval", "--data", phantoms, "--model", folder)
    models = call("compare", run, other, "--data", phantoms, "--draws", 100, "--json")
    assert models.code == 0, models.stderr
    tables = [folder / "eval_test" / "predictions.csv" for folder in (run, other)]
    document = call("compare", *tables, "--draws", 100, "--out", "c", "--json").json
    assert [row["difference"] for row in document["differences"]] == pytest.approx(
        [row["difference"] for row in models.json["differences"]], abs=1e-6
    )
    assert "mean AUROC" in document["sentence"]
    rows = list(csv.DictReader((tmp_path / "c" / "differences_test.csv").open()))
    assert {row["finding"] for row in rows} == {*FINDINGS, "mean"}
    done = call("compare", *tables, "--draws", 100)
    assert document["sentence"] in done.stdout
    assert all(f"note: {note}." in done.stdout for note in document["notes"])
    line = ["compare", *tables, "--draws", 100, "--reference", tables[0], "--margin", 0.1]
    against = call(*line, "--json").json
    assert {row["first"] for row in against["differences"]} == {document["differences"][0]["second"]}
    for turned, row in zip(against["differences"], document["differences"], strict=True):
        assert turned["difference"] == (row["difference"] and pytest.approx(-row["difference"]))
    printed = call(*line).stdout
    assert "With a margin of 0.1 in mean AUROC" in printed
    assert "not worse than the other by 0.1" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare"], "Name two"),
        (["compare", "RUN"], "Name two"),
        (["compare", "RUN", "nowhere.csv"], "nowhere.csv"),
        (["compare", "--train", "--data", "DATA"], "--out"),
        (["compare", "--train", "--data", "DATA", "--out", "x", "--policies", "u-ones"], "fewer than two"),
        (["compare", "--train", "RUN", "--data", "DATA", "--out", "x"], "cannot be combined with models"),
        (
            ["compare", "RUN", "RUN/model.safetensors", "--reference", "none"],
            "the reference 'none' is none of the models",
        ),
        (["compare", "RUN", "RUN/model.safetensors", "--margin", "2"], "a margin of 2 is not between 0 and 1"),
        (["compare", "--train", "--data", "DATA", "--out", "x", "--margin", "-1"], "a margin of -1 is not between 0"),
        (
            [
                "compare",
                "--train",
                "--data",
                "DATA",
                "--out",
                "x",
                "--policies",
                "u-ones,u-zeros",
                "--reference",
                "u-ignore",
            ],
            "'u-ignore' is none of the models",
        ),
    ],
)
def test_wrong_comparisons_are_refused(
    call: Call, phantoms: Path, run: Path, arguments: list[str], message: str, tmp_path: Path
) -> None:
    names = {"DATA": phantoms, "RUN": run, "RUN/model.safetensors": run / "model.safetensors"}
    done = call(*(names.get(argument, argument) for argument in arguments))
    assert done.code == 2
    assert message in done.stderr
    assert not (tmp_path / "x").exists()


def test_compare_train_trains_missing_runs_and_prints_the_table(call: Call, phantoms: Path, tmp_path: Path) -> None:
    line = ["compare", "--train", "--policies", "u-ignore,u-ones,Edema=u-zeros", "--data", phantoms, "--out", "p"]
    line += ["--init", "none", "--image-size", 32, "--epochs", 1, "--batch-size", 6, "--device", "cpu", "--draws", 50]
    line += ["--reference", "u-ignore", "--margin", 0.05]
    done = call(*line)
    assert done.code == 0, done.stderr
    assert "Chosen on valid" in done.stdout
    assert "u-ones,Edema=u-zeros - u-ignore" in done.stdout
    assert "do not contain the spread between trainings" in done.stdout
    document = json.loads((tmp_path / "p" / "policies.json").read_text())
    assert list(document["runs"]) == ["u-ignore", "u-ones,Edema=u-zeros"]
    values = {
        name: rows["mean"]["auroc"]["value"] for name, rows in document["comparisons"]["valid"]["candidates"].items()
    }
    assert document["chosen_on_valid"] == max(values, key=lambda name: values[name])
    for folder in (tmp_path / "p").glob("*_seed0"):
        settings = yaml.safe_load((folder / "settings.yaml").read_text())
        assert settings["train"]["batch_size"] == settings["runtime"]["batch_size"] == 6
        assert read_header(folder / "last.safetensors").training["batch_size"] == 6
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "p").rglob("last.safetensors")}
    assert len(stamps) == 2
    again = call(*line, "--json")
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, "finished runs are not trained again"
    assert again.json["comparisons"] == document["comparisons"]
    wider = call("report", tmp_path / "p" / "u-ignore_seed0", "--draws", 20)
    assert wider.code == 0, wider.stderr
    page = (tmp_path / "p" / "u-ignore_seed0" / "report.html").read_text()
    assert "Uncertainty policies" in page
    assert "Differences of the means on valid" in page
    assert "do not contain the spread between trainings" in page


def test_errors_lists_mistakes_and_draws_them(call: Call, phantoms: Path, run: Path) -> None:
    # These thresholds give mistakes of both kinds, whatever the network has learnt.
    thresholds = {finding: float(place % 2) for place, finding in enumerate(FINDINGS)}
    change_header(open_bundle(run / "model.safetensors"), thresholds=thresholds)
    document = call("errors", "--data", phantoms, "--model", run, "--top", 2, "--json").json
    rows = list(csv.DictReader((run / "errors_test" / "mistakes.csv").open()))
    assert len(rows) == len(document["mistakes"])
    assert {row["kind"] for row in rows} == {"false-negative", "false-positive"}
    for row in rows:
        below = float(row["probability"]) < thresholds[row["finding"]]
        assert row["kind"] == ("false-negative" if below else "false-positive")
        with Image.open(run / "errors_test" / row["picture"]) as picture:
            assert picture.size == (64, 64)
    one = call("errors", "--data", phantoms, "--model", run, "--label", rows[0]["finding"], "--out", "only", "--json")
    assert {item["finding"] for item in one.json["mistakes"]} == {rows[0]["finding"]}
