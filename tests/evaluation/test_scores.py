"""Scores of other programs, joined with labels."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrtool.choices import Blank, Level
from cxrtool.errors import RequestError
from cxrtool.evaluation.metrics import evaluate
from cxrtool.evaluation.score_keys import short_key
from cxrtool.evaluation.scores import JoinSettings, join_scores, parse_renames
from cxrtool.evaluation.table import PredictionTable, read_predictions, to_study_level, write_predictions
from cxrtool.findings import CHEXPERT5

CHEXPERT14 = ["No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
              "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other",
              "Fracture", "Support Devices"]  # fmt: skip


def chexpert(folder: Path, rows: int = 500) -> tuple[Path, Path, pd.DataFrame, pd.DataFrame]:
    """Write CheXpert's public layout: 500 studies with 14 labels, and scores of five findings in another order."""
    rng = np.random.default_rng(0)
    studies = [f"CheXpert-v1.0/test/patient{64741 + n // 2}/study{1 + n % 2}" for n in range(rows)]
    labels = pd.DataFrame(rng.integers(0, 2, (rows, 14)), columns=CHEXPERT14)
    labels.insert(0, "Study", studies)
    order = ["Pleural Effusion", "Edema", "Atelectasis", "Consolidation", "Cardiomegaly"]
    noisy = np.clip(0.3 * labels[order].to_numpy() + 0.7 * rng.random((rows, 5)), 0, 1)
    scores = pd.DataFrame(noisy, columns=order)
    scores.insert(0, "Study", studies)
    scores = scores.sample(frac=1, random_state=1)
    labels.to_csv(folder / "truth.csv", index=False)
    scores.to_csv(folder / "scores.csv", index=False)
    return folder / "scores.csv", folder / "truth.csv", labels, scores


def join(scores: Path, truth: Path, **settings: object) -> PredictionTable:
    (found,) = join_scores([scores], truth, JoinSettings(**settings))  # type: ignore[arg-type]
    return found.table


def test_chexperts_public_layout_gives_scikit_learns_figures(tmp_path: Path) -> None:
    scores, truth, labels, numbers = chexpert(tmp_path)
    assert len(scores.read_text().splitlines()) == 501
    table = join(scores, truth)
    assert table.findings == CHEXPERT5
    assert (len(table), table.level, table.split) == (500, Level.STUDY, "test")
    assert table.patients_given
    assert len(set(table.patients)) == 250
    both = labels.merge(numbers, on="Study", suffixes=("", " score"))
    figures = evaluate(table).labels
    for finding in CHEXPERT5:
        theirs = roc_auc_score(both[finding], both[f"{finding} score"])
        assert figures[finding].auroc == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "parquet", "bom and windows lines"])
def test_every_kind_of_file_is_read_alike(tmp_path: Path, kind: str) -> None:
    scores, truth, _, numbers = chexpert(tmp_path, 40)
    expected = join(scores, truth)
    other = tmp_path / f"other.{kind.split()[0]}"
    if kind == "tsv":
        numbers.to_csv(other, index=False, sep="\t")
    elif kind == "csv.gz":
        other.write_bytes(gzip.compress(scores.read_bytes()))
    elif kind == "parquet":
        numbers.to_parquet(other)
    elif kind == "csv":
        other.write_bytes(scores.read_bytes())
    else:
        other.write_bytes(b"\xef\xbb\xbf" + scores.read_bytes().replace(b"\n", b"\r\n"))
    found = join(other, truth)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.ids == expected.ids


def test_names_differ_in_case_order_and_by_a_map(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text(
        "Image Index,Effusion,edema,Patient Age,note\n00000001_000.png,1,0,57,x\n00000002_000.png,0,1,61,y\n"
    )
    (tmp_path / "scores.csv").write_text("key,EDEMA,pleural_effusion,other\nb,0.1,2.5,7\na,0.2,0.5,9\n")
    text = (tmp_path / "scores.csv").read_text().replace("\nb", "\n00000001_000").replace("\na", "\n00000002_000")
    (tmp_path / "scores.csv").write_text(text)
    (found,) = join_scores(
        [tmp_path / "scores.csv"],
        tmp_path / "truth.csv",
        JoinSettings(renames=parse_renames(["Effusion = Pleural Effusion"]), attributes=("age",)),
    )
    table = found.table
    assert table.findings.names == ("Pleural Effusion", "Edema")
    assert table.scores.tolist() == [[2.5, 0.1], [0.5, 0.2]]
    assert table.targets.tolist() == [[1, 0], [0, 1]]
    assert not table.are_probabilities
    assert "Pleural Effusion is 2.5 in line 2" in " ".join(found.notes)
    assert table.patients == ("00000001", "00000002")
    assert table.attributes == {"age": ("57", "61")}
    assert table.level is Level.IMAGE


def test_rows_are_matched_by_what_both_files_say(tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text(
        "Path,Edema\nCheXpert-v1.0-small/valid/patient1/study1/view1_frontal.jpg,1\n"
        "CheXpert-v1.0-small/valid/patient1/study1/view2_frontal.jpg,1\n"
        "CheXpert-v1.0-small/valid/patient2/study1/view1_frontal.jpg,0\n"
    )
    images = tmp_path / "images.csv"
    images.write_text(
        "Path,Edema\nvalid/patient1/study1/view1_frontal.jpg,0.2\nvalid/patient1/study1/view2_frontal.jpg,0.7\n"
        "valid/patient2/study1/view1_frontal.jpg,0.4\nvalid/patient3/study1/view1_frontal.jpg,0.9\n"
    )
    (found,) = join_scores([images], truth, JoinSettings())
    assert found.table.level is Level.IMAGE
    assert to_study_level(found.table).scores.tolist() == [[0.7], [0.4]]
    assert "from the patient on" in found.notes[0]
    assert "1 rows have no label" in found.notes[1]
    studies = tmp_path / "studies.csv"
    studies.write_text("Study,Edema\ntest/patient2/study1,0.3\ntest/patient1/study1,0.6\n")
    (found,) = join_scores([studies], truth, JoinSettings())
    assert found.table.level is Level.STUDY
    assert found.table.scores.tolist() == [[0.6], [0.3]]
    assert found.table.studies == ("patient1/study1", "patient2/study1")
    assert "by study" in found.notes[0]


def test_short_keys() -> None:
    assert short_key("CheXpert-v1.0/test/patient64741/study1") == "patient64741/study1"
    assert short_key("a\\patient1\\study2\\view1_frontal.jpg") == "patient1/study2/view1_frontal"
    assert short_key("images/00000001_000.png") == "00000001_000"
    assert short_key("x/y/scan.dcm") == "scan"


def test_labels_are_read_as_their_setting_says(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,Edema\na,1\nb,-1\nc,\nd,0.0\ne,True\n")
    (tmp_path / "s.csv").write_text("id,Edema\na,.1\nb,.2\nc,.3\nd,.4\ne,.5\n")
    table = join(tmp_path / "s.csv", tmp_path / "t.csv")
    assert table.mask[:, 0].tolist() == [True, False, True, True, True]
    assert table.targets[:, 0].tolist() == [1, 0, 0, 0, 1]
    assert not table.patients_given
    ignored = join(tmp_path / "s.csv", tmp_path / "t.csv", blank=Blank.IGNORE)
    assert ignored.mask[:, 0].tolist() == [True, False, False, True, True]


def test_the_problems_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
    first, truth, labels, numbers = chexpert(tmp_path, 20)
    numbers = numbers.astype(object)
    numbers.iloc[3, 2] = "high"
    numbers.to_csv(first, index=False)
    labels = labels.astype(object)
    labels.loc[4, "Edema"] = 7
    labels.to_csv(truth, index=False)
    second = tmp_path / "second.csv"
    pd.concat([numbers.iloc[:15], numbers.iloc[:1]]).to_csv(second, index=False)
    with pytest.raises(RequestError) as caught:
        join_scores([first, second], truth, JoinSettings())
    assert f"{second} has" in caught.value.message
    assert "in lines 2 and 17" in caught.value.message
    pd.DataFrame(numbers.iloc[:15]).to_csv(second, index=False)
    with pytest.raises(RequestError) as caught:
        join_scores([first, second], truth, JoinSettings())
    message = caught.value.message
    assert f"{truth} column 'Edema': line 6 '7' (a label is 1, 0, -1 or blank)" in message
    assert f"{first} column 'Edema': line 5 'high' (a score is a finite number)" in message
    assert "no score for 5 of 20 rows" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("scores", "truth", "words"),
    [
        ("a,Edema\nx,.5\n", "Study,Edema\nx,1\n", "no column that identifies rows"),
        ("Study,Edema\nx,.5\n", "Study,Fracture\nx,1\n", "share no column"),
        ("Study,Edema\nx,.5\n,.7\n", "Study,Edema\nx,1\n", "line 3 has no Study"),
        ("Study,Edema\nx,nan\n", "Study,Edema\nx,1\n", "finite number"),
        ("Study,Edema\nx,.5,9\n", "Study,Edema\nx,1\n", "line 2 has 3 cells"),
        ("", "Study,Edema\nx,1\n", "is empty"),
    ],
)
def test_files_that_cannot_be_joined_are_refused(tmp_path: Path, scores: str, truth: str, words: str) -> None:
    (tmp_path / "s.csv").write_text(scores)
    (tmp_path / "t.csv").write_text(truth)
    with pytest.raises(RequestError, match=words):
        join(tmp_path / "s.csv", tmp_path / "t.csv")


def test_a_named_key_and_a_map_that_names_nothing(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("Study,Accession,Edema\ns1,A1,.5\ns2,A2,.7\n")
    (tmp_path / "t.csv").write_text("Study,accession,Edema\nother1,A2,1\nother2,A1,0\n")
    table = join(tmp_path / "s.csv", tmp_path / "t.csv", key="accession")
    assert table.scores[:, 0].tolist() == [0.7, 0.5]
    with pytest.raises(RequestError, match="no column 'Accesion'"):
        join(tmp_path / "s.csv", tmp_path / "t.csv", key="Accesion")
    for text in ("Effusion", "=x", "x="):
        with pytest.raises(RequestError, match="--map"):
            parse_renames([text])


def test_a_table_of_ranks_survives_being_written(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("Study,Edema\ns1,-3\ns2,7\n")
    (tmp_path / "t.csv").write_text("Study,Edema\ns1,0\ns2,1\n")
    table = join(tmp_path / "s.csv", tmp_path / "t.csv")
    write_predictions(tmp_path / "p.csv", table)
    again = read_predictions(tmp_path / "p.csv")
    assert not again.are_probabilities
    assert again.scores.tolist() == [[-3], [7]]
    assert evaluate(again).labels["Edema"].auroc == 1
