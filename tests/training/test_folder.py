"""The folder of a run."""

import csv
import json
from pathlib import Path

import pytest
import yaml


def test_a_run_folder_contains_history_settings_counts_and_models(run_folder: Path) -> None:
    history = list(csv.DictReader((run_folder / "history.csv").open()))
    assert [row["epoch"] for row in history] == ["1", "2"]
    assert json.loads((run_folder / "history.json").read_text())[1]["train_loss"] == float(history[1]["train_loss"])
    assert yaml.safe_load((run_folder / "settings.yaml").read_text())["train"]["image_size"] == 32
    counts = json.loads((run_folder / "dataset.json").read_text())
    for finding, weight in counts["pos_weight"].items():
        labels = counts["splits"]["train"]["labels"][finding]
        assert weight == pytest.approx(min(labels["negatives"] / labels["positives"], 8))
    assert json.loads((run_folder / "model.json").read_text())["parameters"] == 6_958_981
    assert (run_folder / "last.safetensors").is_file()
