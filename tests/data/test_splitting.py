import csv
import gzip
import json
from pathlib import Path

import pytest

from conftest import Call
from cxrtool.data.checks import check_data
from cxrtool.data.dataset import Dataset
from cxrtool.data.splitting import SplitPlan, read_record, split_sheet
from cxrtool.errors import CxrError, RequestError
from cxrtool.files import sha256_of_file
from cxrtool.findings import CHEXPERT5, Findings
from cxrtool.settings import DataSettings

EDEMA = Findings(("Edema",))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_sheet(path: Path, patients: int = 60) -> list[dict[str, str]]:
    """Write a sheet of two studies per patient, one patient in six with edema; return its rows."""
    rows = [
        {
            "Path": f"patient{patient:05}/study{study}/view1_frontal.jpg",
            "Edema": "1.0" if patient % 6 == 0 and study == 1 else "-1.0" if patient % 10 == 1 else "",
            "Site": "north" if patient % 3 else "süd, old",
            "Note": f"a “note”, {patient}",
        }
        for patient in range(patients)
        for study in (1, 2)
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_rows_are_kept_as_written_and_no_patient_is_in_two_splits(tmp_path: Path) -> None:
    rows = write_sheet(tmp_path / "all.csv")
    record = split_sheet(tmp_path / "all.csv", tmp_path / "out", SplitPlan(valid=0.2, test=0.3, seed=4), EDEMA)
    found = {split: rows_of(tmp_path / "out" / f"{split}.csv") for split in ("train", "valid", "test")}
    assert sorted((row for part in found.values() for row in part), key=str) == sorted(rows, key=str)
    patients = {split: {row["Path"].split("/")[0] for row in part} for split, part in found.items()}
    assert {split: len(names) for split, names in patients.items()} == {"train": 30, "valid": 12, "test": 18}
    assert not patients["train"] & patients["valid"]
    assert not patients["train"] & patients["test"]
    assert not patients["valid"] & patients["test"]
    positives = {split: sum(row["Edema"] == "1.0" for row in part) for split, part in found.items()}
    assert positives == {"train": 5, "valid": 2, "test": 3}  # 10 patients by 0.5, 0.2 and 0.3
    part = record.parts["test"]
    assert (part.rows, part.patients, part.studies) == (36, 18, 36)
    assert part.positive == {"Edema": 3}
    assert part.uncertain == {"Edema": sum(row["Edema"] == "-1.0" for row in found["test"])}
    assert part.sha256 == sha256_of_file(tmp_path / "out" / "test.csv")
    assert read_record(tmp_path / "out") == record
    again = split_sheet(tmp_path / "all.csv", tmp_path / "again", SplitPlan(valid=0.2, test=0.3, seed=4), EDEMA)
    assert again == record


def test_a_column_stays_whole(tmp_path: Path) -> None:
    write_sheet(tmp_path / "all.csv")
    split_sheet(tmp_path / "all.csv", tmp_path / "out", SplitPlan(valid=0.5, test=0, by="Site"), EDEMA)
    sites = [{row["Site"] for row in rows_of(tmp_path / "out" / f"{split}.csv")} for split in ("train", "valid")]
    assert sorted(map(tuple, sites)) == [("north",), ("süd, old",)]
    assert not (tmp_path / "out" / "test.csv").exists()


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (SplitPlan(by="Note2"), "no column 'Note2'"),
        (SplitPlan(by="Site"), "has 2 values of Site"),
        (SplitPlan(by="Edema"), "has no Edema"),
        (SplitPlan(by="Path"), "may not be in two splits"),
        (SplitPlan(valid=0.001), "a share of 0.001 of them is less than one"),
    ],
)
def test_what_cannot_be_split_is_refused(tmp_path: Path, plan: SplitPlan, words: str) -> None:
    write_sheet(tmp_path / "all.csv")
    with pytest.raises(CxrError, match=words.replace("(", r"\(")):
        split_sheet(tmp_path / "all.csv", tmp_path / "out", plan, EDEMA)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("valid", "test"), [(0.5, 0.5), (-0.1, 0.2), (1.0, 0.0)])
def test_shares_must_leave_something_for_train(valid: float, test: float) -> None:
    with pytest.raises(RequestError, match="leave nothing for train"):
        SplitPlan(valid=valid, test=test)


def test_sheets_that_are_there_are_kept(tmp_path: Path) -> None:
    write_sheet(tmp_path / "train.csv")
    before = (tmp_path / "train.csv").read_bytes()
    with pytest.raises(RequestError, match="already there"):
        split_sheet(tmp_path / "train.csv", tmp_path, SplitPlan(), EDEMA)
    assert (tmp_path / "train.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["train.csv"]


def test_the_command_splits_a_compressed_table_and_check_data_verifies_it(
    call: Call, phantoms: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "valid", "test"):
        (data / split).symlink_to(phantoms / split)
    sheets = [rows_of(phantoms / f"{split}.csv") for split in ("train", "valid", "test")]
    rows = [row for part in sheets for row in part]
    text = "\n".join("\t".join(cells) for cells in ([*rows[0]], *(row.values() for row in rows)))
    (data / "all.tsv.gz").write_bytes(gzip.compress(text.encode()))
    done = call("split", "data/all.tsv.gz", "data", "--valid", 0.2, "--test", 0.2, "--json")
    assert done.code == 0, done.stderr
    assert sum(part["rows"] for part in done.json["parts"].values()) == len(rows)
    assert set(done.json["parts"]["train"]["positive"]) == set(CHEXPERT5)
    settings = DataSettings(root=data, allow_outside=True)
    report = check_data(Dataset(settings))
    assert report.errors == ()
    assert not [text for text in report.warnings if "cxr split" in text]
    with (data / "valid.csv").open("a") as file:
        file.write(",".join(rows[0].values()) + "\n")
    report = check_data(Dataset(settings))
    assert [text for text in report.warnings if "valid.csv was changed after cxr split wrote it" in text]
    (data / "split.json").write_text(json.dumps({"parts": 3}))
    with pytest.raises(RequestError, match=r"split.json is not a record"):
        check_data(Dataset(settings))
    shown = call("split", "data/all.tsv.gz", "other", "--findings", "Nodule", "--test", 0)
    assert shown.code == 0
    assert "has none of the findings, so patients were split at random" in shown.stderr
