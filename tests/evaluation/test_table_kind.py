import csv
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from cxrtool.errors import RequestError
from cxrtool.evaluation.table import read_predictions, write_predictions
from cxrtool.evaluation.table_kind import MARK, TableKind, describe_table
from cxrtool.files import write_csv
from cxrtool.findings import FINDINGS
from tests_support import random_table


def evaluation(path: Path) -> Path:
    write_predictions(path, random_table(6))
    return path


def prediction(path: Path) -> Path:
    """Write a table like those of the first version of ``cxr predict --csv``."""
    rows = [[f"{number}.jpg", 0.1, 0.2, 0.3, 0.4, 0.5, "Edema", None] for number in range(3)]
    write_csv(path, ["path", *FINDINGS, "positive", "error"], rows)
    return path


def marked(path: Path, mark: str) -> Path:
    table = pd.read_csv(path)
    table[MARK] = mark
    table.to_csv(path, index=False)
    return path


def unmarked(path: Path) -> Path:
    pd.read_csv(path).drop(columns=MARK).to_csv(path, index=False)
    return path


def test_the_mark_is_the_last_column_and_not_an_attribute(tmp_path: Path) -> None:
    path = evaluation(tmp_path / "t.csv")
    rows = list(csv.reader(path.open(newline="")))
    assert rows[0][-1] == MARK
    assert {row[-1] for row in rows[1:]} == {"evaluation"}
    assert rows[0][:3] == ["study", "Atelectasis", "Atelectasis probability"]
    assert read_predictions(path).attributes == {}


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (evaluation, TableKind.EVALUATION),
        (lambda path: unmarked(evaluation(path)), TableKind.EVALUATION),
        (prediction, TableKind.PREDICTION),
        (lambda path: marked(prediction(path), "prediction"), TableKind.PREDICTION),
    ],
)
def test_the_kind_of_a_table_is_recognised(tmp_path: Path, make: Callable[[Path], Path], kind: TableKind) -> None:
    path = make(tmp_path / "t.csv")
    found = describe_table(path)
    assert (found.kind, found.rows) == (kind, len(pd.read_csv(path)))
    assert list(found.columns) == list(pd.read_csv(path).columns)


def test_a_table_of_predict_is_refused_if_labels_are_needed(tmp_path: Path) -> None:
    for path in (prediction(tmp_path / "before.csv"), marked(prediction(tmp_path / "now.csv"), "prediction")):
        with pytest.raises(RequestError, match="is a table of cxr predict") as caught:
            read_predictions(path)
        assert "cxr eval" in caught.value.advice


def test_the_mark_overrides_the_columns(tmp_path: Path) -> None:
    path = marked(evaluation(tmp_path / "t.csv"), "prediction")
    with pytest.raises(RequestError, match="is a table of cxr predict"):
        read_predictions(path)


def test_a_table_without_the_mark_reads_as_before(tmp_path: Path) -> None:
    with_mark, without = evaluation(tmp_path / "a.csv"), unmarked(evaluation(tmp_path / "b.csv"))
    assert read_predictions(with_mark).ids == read_predictions(without).ids
    assert (read_predictions(with_mark).scores == read_predictions(without).scores).all()


def test_mixed_and_unknown_tables_are_refused(tmp_path: Path) -> None:
    one, other = evaluation(tmp_path / "a.csv"), marked(evaluation(tmp_path / "b.csv"), "prediction")
    both = tmp_path / "both.csv"
    pd.concat([pd.read_csv(one), pd.read_csv(other)]).to_csv(both, index=False)
    with pytest.raises(RequestError, match="mixes rows"):
        read_predictions(both)
    with pytest.raises(RequestError, match="mixes rows"):
        describe_table(both)
    with pytest.raises(RequestError, match="'weather' in column 'table'"):
        read_predictions(marked(evaluation(tmp_path / "c.csv"), "weather"))
    write_csv(tmp_path / "d.csv", ["a", "b"], [[1, 2]])
    with pytest.raises(RequestError, match="is not a table of cxr eval or cxr predict"):
        describe_table(tmp_path / "d.csv")
