"""The tables of eval and of predict are told apart by every command that reads one."""

import csv
from pathlib import Path

import pandas as pd
import pytest

from conftest import Call


@pytest.fixture
def tables(call: Call, phantoms: Path, run_folder: Path, tmp_path: Path) -> Path:
    """A folder with eval.csv and predict.csv of the same model."""
    call("eval", "--data", phantoms, "--model", run_folder, "--split", "valid", "--out", "valid", "--draws", 10)
    (tmp_path / "valid" / "predictions.csv").rename(tmp_path / "eval.csv")
    done = call("predict", phantoms / "valid", "-r", "--model", run_folder, "--csv", "predict.csv")
    assert done.code == 0, done.stderr
    return tmp_path


def test_each_says_which_it_is(call: Call, tables: Path) -> None:
    for name, kind in (("eval", "evaluation"), ("predict", "prediction")):
        table = pd.read_csv(tables / f"{name}.csv")
        assert table.columns[-1] == "table"
        assert set(table["table"]) == {kind}
        document = call("info", f"{name}.csv", "--json").json
        assert (document["table"], document["rows"]) == (kind, len(table))
        assert f"a table of cxr {name}" in call("info", f"{name}.csv").stdout
    (tables / "neither.csv").write_text("a,b\n1,2\n")
    done = call("info", "neither.csv")
    assert done.code == 2
    assert "is not a table of cxr eval or cxr predict" in done.stderr


def test_predicts_table_is_refused_where_labels_are_needed(call: Call, tables: Path, run: Path) -> None:
    for command in (
        ["tune", "--predictions", "predict.csv", "--out", "never"],
        ["calibrate", "--model", run, "--predictions", "predict.csv", "--out", "never"],
        ["compare", "eval.csv", "predict.csv", "--out", "never"],
    ):
        done = call(*command)
        assert done.code == 2, command
        assert "predict.csv is a table of cxr predict" in done.stderr
        assert "cxr eval" in done.stderr
    assert not (tables / "never").exists()


def test_evals_table_is_not_gone_on_with(call: Call, tables: Path, run_folder: Path, phantoms: Path) -> None:
    before = (tables / "eval.csv").read_bytes()
    done = call("predict", phantoms / "valid", "-r", "--model", run_folder, "--csv", "eval.csv", "--resume-csv")
    assert done.code == 2
    assert "eval.csv is a table of cxr eval" in done.stderr
    assert (tables / "eval.csv").read_bytes() == before


def test_a_stopped_table_with_other_columns_is_refused(
    call: Call, tables: Path, run_folder: Path, phantoms: Path
) -> None:
    rows = list(csv.reader((tables / "predict.csv").open(newline="")))
    with (tables / ".out.csv.partial").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(row[:-1] for row in rows)
    done = call("predict", phantoms / "valid", "-r", "--model", run_folder, "--csv", "out.csv", "--resume-csv")
    assert done.code == 2
    assert "another version" in done.stderr
    assert call("predict", phantoms / "valid", "-r", "--model", run_folder, "--csv", "out.csv").code == 0
    assert (tables / "out.csv").read_bytes() == (tables / "predict.csv").read_bytes()
