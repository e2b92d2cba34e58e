import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cxrtool.choices import Criterion
from cxrtool.errors import CxrError, RequestError
from cxrtool.evaluation.table import write_predictions
from cxrtool.evaluation.thresholds import ThresholdSearch, threshold_grid, tune_thresholds
from cxrtool.model.bundle import read_header
from cxrtool.resolved_settings import load_settings
from cxrtool.tasks.tune import tune_model
from tests_support import random_table

SETTINGS = load_settings({"eval.draws": 20, "tune.criterion": "youden"}, environ={}).settings


def test_thresholds_from_a_saved_table_are_tuned_on_its_rows(tmp_path: Path) -> None:
    table = random_table(50)
    write_predictions(tmp_path / "t.csv", table)
    result = tune_model(None, SETTINGS, predictions=tmp_path / "t.csv")
    expected = dict(tune_thresholds(table, ThresholdSearch(Criterion.YOUDEN, threshold_grid())).thresholds)
    assert dict(result.tuned.thresholds) == expected
    assert json.loads((tmp_path / "tune_valid" / "thresholds.json").read_text())["thresholds"] == expected
    rows = csv.DictReader((tmp_path / "tune_valid" / "thresholds.csv").open())
    assert {row["finding"]: float(row["threshold"]) for row in rows} == expected


def test_a_table_of_another_model_is_refused_and_the_bundle_kept(tmp_path: Path, bundle: Path) -> None:
    before = bundle.read_bytes()
    write_predictions(tmp_path / "t.csv", replace(random_table(50), model_sha256="other"))
    with pytest.raises(RequestError, match="another model"):
        tune_model(bundle, SETTINGS, tmp_path / "t.csv")
    assert bundle.read_bytes() == before
    own = replace(random_table(50), model_sha256=read_header(bundle).weights_sha256)
    write_predictions(tmp_path / "t.csv", own)
    result = tune_model(bundle, SETTINGS, tmp_path / "t.csv")
    header = read_header(bundle)
    assert header.thresholds == dict(result.tuned.thresholds)
    assert header.tuning is not None
    assert (header.tuning.criterion, header.tuning.rows, header.tuning.split) == (Criterion.YOUDEN, 50, "valid")


def test_a_tuned_threshold_outlives_a_split_where_it_is_undefined(tmp_path: Path, bundle: Path) -> None:
    """The bundle keeps it, and where no finding can be tuned, nothing is written and the command fails."""
    table = replace(random_table(50), model_sha256=read_header(bundle).weights_sha256)
    write_predictions(tmp_path / "t.csv", table)
    first = tune_model(bundle, SETTINGS, tmp_path / "t.csv").tuned.thresholds
    targets = table.targets.copy()
    targets[:, 0] = 0
    write_predictions(tmp_path / "one.csv", replace(table, targets=targets))
    again = tune_model(bundle, load_settings({"eval.draws": 20}, environ={}).settings, tmp_path / "one.csv")
    header = read_header(bundle)
    assert header.thresholds == dict(again.tuned.thresholds)
    assert header.thresholds is not None
    assert header.thresholds["Atelectasis"] == first["Atelectasis"] != 0.5
    before = bundle.read_bytes()
    write_predictions(tmp_path / "none.csv", replace(table, targets=np.zeros_like(targets)))
    with pytest.raises(CxrError, match="nothing could be tuned") as caught:
        tune_model(bundle, SETTINGS, tmp_path / "none.csv", tmp_path / "out")
    assert caught.value.exit_code == 1
    assert bundle.read_bytes() == before
    assert not (tmp_path / "out").exists()
