"""``cxr eval --readers`` and ``cxr report --readers`` on phantoms, and files of readers that cannot be used."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import Call
from cxrtool.cli.command import one_value_each
from cxrtool.errors import RequestError
from cxrtool.evaluation.reader_files import match_readers, read_readers
from cxrtool.findings import CHEXPERT5, FINDINGS
from tests_support import random_table


def write_reader(path: Path, studies: list[str], calls: np.ndarray, prefix: str = "CheXpert-v1.0/test/") -> Path:
    frame = pd.DataFrame(calls, columns=list(FINDINGS))
    frame.insert(0, "Study", [prefix + study for study in studies])
    frame.insert(1, "No Finding", "n/a")  # a column that is none of the findings does not matter
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def three_readers(phantoms: Path, tmp_path: Path) -> list[Path]:
    """Readers of phantoms who are right in 90, 80 and 70 % of the cells."""
    truth = pd.read_csv(phantoms / "truth/test.csv")
    truth = truth[truth["Path"].str.contains("frontal")]
    studies = truth["Path"].str.extract(r"(patient\d+/study\d+)/")[0]
    labels = truth.groupby(studies)[list(FINDINGS)].max()
    rng = np.random.default_rng(0)
    return [
        write_reader(
            tmp_path / f"{name}.csv",
            list(labels.index),
            np.where(rng.random(labels.shape) < right, labels, 1 - labels).astype(int),
        )
        for name, right in (("good", 0.9), ("fair", 0.8), ("poor", 0.7))
    ]


def test_eval_puts_readers_beside_the_model(
    call: Call, phantoms: Path, run_folder: Path, three_readers: list[Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    done = call("eval", "--data", phantoms, "--model", run, "--draws", 50, "--readers", *three_readers, "--json")
    assert done.code == 0, done.stderr
    found = done.json["readers"]
    assert found["names"] == ["good", "fair", "poor"]
    row = found["labels"]["Edema"]["readers"][0]

    predictions = pd.read_csv(run / "eval_test/predictions.csv")
    calls = pd.read_csv(three_readers[0]).set_index("Study")
    read = calls.loc["CheXpert-v1.0/test/" + predictions["study"], "Edema"].to_numpy()
    positive = predictions["Edema"].to_numpy() == 1
    assert row["sensitivity"] == pytest.approx(read[positive].mean())
    assert row["specificity"] == pytest.approx(1 - read[~positive].mean())
    assert row["above_by_point"] == (row["model_sensitivity"] > row["sensitivity"])

    with (run / "eval_test/readers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * len(FINDINGS)
    assert [row["reader"] for row in rows[:4]] == ["good", "fair", "poor", "majority vote"]
    assert json.loads((run / "eval_test/metrics.json").read_text())["readers"] == found

    assert call("report", run, "--draws", 50, "--readers", *three_readers).code == 0
    page = (run / "report.html").read_text()
    assert "Each reader, and the model at the reader" in page
    assert "Edema: above" in page
    assert page.count(">majority vote<") >= 10


def test_the_table_and_the_sentences_are_printed(
    call: Call, phantoms: Path, run_folder: Path, three_readers: list[Path]
) -> None:
    options = ["--data", phantoms, "--model", run_folder, "--draws", 50, "--out", "figures"]
    done = call("eval", *options, "--readers", three_readers[0], "--readers", three_readers[1])
    assert done.code == 0, done.stderr
    assert "Edema: above" in done.stdout
    assert " of 2 readers by points, " in done.stdout
    assert "area (favours the model)" in done.stdout


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--readers a b c --split test", "--readers a --readers b --readers c --split test"),
        ("--readers=a b --json", "--readers=a --readers b --json"),
        ("--readers a --readers b c", "--readers a --readers b --readers c"),
        ("--split test a", "--split test a"),
        ("--readers", "--readers"),
    ],
)
def test_values_in_a_row(given: str, expected: str) -> None:
    assert one_value_each(given.split()) == expected.split()


def test_a_value_that_belongs_to_no_option_is_refused(call: Call) -> None:
    done = call("eval", "reader.csv", "--readers", "a.csv")
    assert done.code == 2
    assert "reader.csv" in done.stderr


def test_unusable_files_are_refused_before_anything_is_read(call: Call, phantoms: Path, run_folder: Path) -> None:
    done = call("eval", "--data", phantoms, "--model", run_folder, "--readers", "x.csv", "--out", "nothing")
    assert done.code == 2
    assert "x.csv" in done.stderr
    done = call("eval", "--data", phantoms, "--model", run_folder, "--level", "image", "--readers", "x.csv")
    assert done.code == 2
    assert "readers read studies" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Path,Edema\na,1\n", "has no column 'Study'"),
        ("Study,Fracture\na,1\n", "no column for any of"),
        ("Study,Edema\np/s,2\n", "'2' in column 'Edema'"),
        ("Study,Edema\np/s,-1\n", "'-1' in column 'Edema'"),
        ("Study,Edema\np/s,1\np/s,0\n", "twice"),
        ("Study,Edema\n,1\n", "a row without a study"),
    ],
)
def test_what_a_file_of_a_reader_must_hold(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "reader.csv"
    path.write_text(text)
    with pytest.raises(RequestError, match=message):
        read_readers([path], CHEXPERT5)


def test_a_reader_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Study,Edema\np/s,1\n")
    with pytest.raises(RequestError, match="two readers are called 'a'"):
        read_readers([path, path], CHEXPERT5)


def test_studies_are_matched_by_their_last_parts_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    table = random_table(10)
    studies = [*table.studies[:8], "patient99/study9"]
    calls = np.ones((9, 5), dtype=object)
    calls[0, 0] = ""
    path = write_reader(tmp_path / "a.csv", studies, calls)
    (readings,), notes = match_readers(read_readers([path], CHEXPERT5), table)
    assert readings.mask.sum(axis=0).tolist() == [7, 8, 8, 8, 8]
    assert not readings.mask[8:].any()
    assert any("8 of 10 studies" in note for note in notes)
    assert any("not in the valid split (1)" in note for note in notes)
    assert any("blank cells (1)" in note for note in notes) == bool(table.mask[0, 0])


def test_a_file_of_other_studies_is_refused(tmp_path: Path) -> None:
    path = write_reader(tmp_path / "a.csv", ["patient99/study9"], np.ones((1, 5)))
    with pytest.raises(RequestError, match="none of the 10 studies"):
        match_readers(read_readers([path], CHEXPERT5), random_table(10))


def test_two_rows_of_one_study_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Study,Edema\npatient0/study1,1\nx/patient0/study1,1\n")
    with pytest.raises(RequestError, match="are the same study"):
        match_readers(read_readers([path], CHEXPERT5), random_table(10))
