"""Sheets with other names of columns, one column of findings, or several splits in one file."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from cxrtool.data.dataset import Dataset
from cxrtool.data.manifest import Manifest
from cxrtool.errors import RequestError, SheetError
from cxrtool.resolved_settings import load_settings
from cxrtool.settings import DataSettings
from cxrtool.sheet_options import FilesBySplit, SheetColumns

NAN = np.nan


def rows(root: Path, sheet: Path | str, split: str = "test", findings: str = "Edema", **settings: str) -> Manifest:
    data = DataSettings(root=root, sheet=str(sheet), findings=findings, **settings)  # type: ignore[arg-type]
    return Dataset(data, (split,)).manifest(split)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_columns_by_meaning_and_finding(tmp_path: Path) -> None:
    sheet = write(
        tmp_path / "mine.tsv",
        "bild\tpid\tuntersuchung\tansicht\tgeschlecht\tjahre\tstauung\tEffusion",
        "a/1.png\t7\t1\tPA\tF\t61\t1\t0",
        "a/2.png\t7\t2\tLL\tF\t62\t-1\t",
    )
    columns = "path=bild,patient=pid,study=untersuchung,view=ansicht,sex=geschlecht,age=jahre,label:oedema=stauung"
    found = rows(tmp_path, sheet, findings="Edema,Pleural Effusion", columns=columns)
    assert found.paths.tolist() == ["a/1.png", "a/2.png"]
    assert found.patients.tolist() == ["7", "7"]
    assert found.studies.tolist() == ["7/1", "7/2"]
    assert found.views.tolist() == ["frontal", "lateral"]
    assert found.sexes.tolist() == ["F", "F"]
    assert found.ages.tolist() == [61, 62]
    np.testing.assert_array_equal(found.raw_labels, [[1, 0], [-1, NAN]])


def test_one_column_may_have_two_meanings(tmp_path: Path) -> None:
    sheet = write(tmp_path / "s.csv", "image,who,Edema", "1.png,p,1", "2.png,q,0")
    found = rows(tmp_path, sheet, columns="path=image,study=image,patient=who")
    assert found.paths.tolist() == ["1.png", "2.png"]
    assert found.studies.tolist() == ["p/1.png", "q/2.png"]


@pytest.mark.parametrize(("separator", "columns"), [("|", ""), (";", ",separator=;"), (", ", ',"separator=,"')])
def test_a_column_of_names(tmp_path: Path, separator: str, columns: str) -> None:
    names = [["Edema", "Effusion"], ["No Finding"], ["Edma"], []]
    lines = [f'{n}.png,{n},{n},"{separator.join(one)}"' for n, one in enumerate(names)]
    sheet = write(tmp_path / "s.csv", "Path,patient_id,study_id,what", *lines)
    found = rows(tmp_path, sheet, findings="Edema,Pleural Effusion,Fracture", columns="labels=what" + columns)
    np.testing.assert_array_equal(found.raw_labels, [[1, 1, 0], [0, 0, 0], [0, 0, 0], [NAN, NAN, NAN]])
    assert any("no row names Fracture" in note for note in found.notes)
    assert any("'Edma' (1 rows)" in note for note in found.notes)


def test_a_column_of_names_that_names_no_requested_finding_is_refused(tmp_path: Path) -> None:
    sheet = write(tmp_path / "s.csv", "Path,patient_id,study_id,Finding Labels", "1.png,1,1,Edema;Effusion")
    with pytest.raises(SheetError, match="names any of Edema") as caught:
        rows(tmp_path, sheet)
    assert "'Edema;Effusion'" in caught.value.advice
    assert "separator" in caught.value.advice


def test_splits_in_one_file(tmp_path: Path) -> None:
    lines = [f"{n}.png,{n},1,{split},{n % 2}" for n, split in enumerate(("train", "Training", "val", "", "TEST"))]
    sheet = tmp_path / "s.csv.gz"
    sheet.write_bytes(gzip.compress("\n".join(["Path,patient_id,study_id,split,Edema", *lines]).encode()))
    dataset = Dataset(DataSettings(root=tmp_path, sheet=str(sheet), findings="Edema"))
    assert dataset.available == ("train", "valid", "test")
    assert dataset.manifest("train").paths.tolist() == ["0.png", "1.png"]
    assert dataset.manifest("valid").paths.tolist() == ["2.png"]
    assert dataset.manifest("test").lines.tolist() == [6]
    assert any("1 rows belong to no split" in note for note in dataset.manifest("test").notes)


def test_an_unknown_split_is_refused_by_line(tmp_path: Path) -> None:
    sheet = write(tmp_path / "s.csv", "Path,patient_id,study_id,split,Edema", "1.png,1,1,train,0", "2.png,2,2,fold3,0")
    with pytest.raises(SheetError, match=r"line 3: split is 'fold3'"):
        rows(tmp_path, sheet, "train")


def test_files_by_split(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", "Path,patient_id,study_id,Edema", "1.png,1,1,1")
    test = write(tmp_path / "b.csv", "Path,patient_id,study_id,Edema", "2.png,2,2,0")
    sheets = f"train={train},test={test}"
    assert rows(tmp_path, sheets, "train").raw_labels.tolist() == [[1]]
    assert rows(tmp_path, sheets, "test").raw_labels.tolist() == [[0]]
    with pytest.raises(SheetError, match="no sheet of valid"):
        rows(tmp_path, sheets, "valid")


def test_an_undivided_sheet_serves_one_split_but_not_training(tmp_path: Path) -> None:
    sheet = write(tmp_path / "s.csv", "Path,patient_id,study_id,Edema", "1.png,1,1,1")
    assert Dataset(DataSettings(root=tmp_path, sheet=str(sheet)), ("test",)).available == ("test",)
    with pytest.raises(RequestError, match="needs train and valid") as caught:
        _ = Dataset(DataSettings(root=tmp_path, sheet=str(sheet)), ("train", "valid")).available
    assert "cxr split" in caught.value.advice


def test_parquet(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"image": ["1.png"], "patient": [3], "study": [4], "Edema": [1.0]})
    frame.to_parquet(tmp_path / "s.parquet")
    found = rows(tmp_path, tmp_path / "s.parquet")
    assert found.paths.tolist() == ["1.png"]
    assert found.raw_labels.tolist() == [[1]]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("patient=PID", "has no column 'PID'"),
        ("label:Edema=stauung", "has no column 'stauung'"),
        ("split=fold", "has no column 'fold'"),
        ("labels=names", "has no column 'names'"),
    ],
)
def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path, columns: str, words: str) -> None:
    sheet = write(tmp_path / "s.csv", "Path,patient_id,study_id,Edema", "1.png,1,1,1")
    with pytest.raises(SheetError, match=words) as caught:
        rows(tmp_path, sheet, columns=columns)
    assert "Path, patient_id, study_id, Edema" in caught.value.advice


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pateint=PID", "'pateint' is no meaning of a column; Did you mean 'patient'?"),
        ("path", "has no name"),
        ("path=a,path=b", "path is given twice"),
        ("label:Edema=a,label:oedema=b", "two columns are given for Edema"),
    ],
)
def test_wrong_columns_are_refused_by_setting(text: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_settings({"data.columns": text}, environ={})
    assert "data.columns" in caught.value.message
    assert words in caught.value.message + caught.value.advice


def test_columns_are_parsed() -> None:
    found = SheetColumns.parse('"path=Image, file",label:Effusion=e,separator=tab')
    assert found.by_meaning == {"path": "Image, file"}
    assert found.findings == {"Pleural Effusion": "e"}
    assert found.separator == "\t"
    assert not SheetColumns.parse("")


def test_files_are_parsed() -> None:
    assert FilesBySplit.parse("a,b.csv").single == Path("a,b.csv")
    assert FilesBySplit.parse("train=a.csv, test=b.csv").by_split == {"train": Path("a.csv"), "test": Path("b.csv")}
    for wrong in ("train=a.csv,train=b.csv", "train=a.csv,b.csv", "train=", ""):
        with pytest.raises(RequestError):
            FilesBySplit.parse(wrong)


def test_a_sheet_and_a_layout_are_refused(tmp_path: Path) -> None:
    sheet = write(tmp_path / "s.csv", "Path,patient_id,study_id,Edema", "1.png,1,1,1")
    with pytest.raises(RequestError, match="cannot be combined"):
        rows(tmp_path, sheet, layout="nih")
