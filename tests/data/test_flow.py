"""From the rows of a sheet to those that are analysed."""

import csv
import shutil
from pathlib import Path

from cxrtool.data.dataset import Dataset
from cxrtool.data.flow import RowFlow
from cxrtool.settings import DataSettings


def test_every_row_of_a_sheet_is_counted_once(few: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(few, tmp_path / few.name))
    sheet = folder / "train.csv"
    header, *rows = csv.reader(sheet.read_text().splitlines())
    view = header.index("Frontal/Lateral")
    rows[0][view] = rows[1][view] = "Lateral"
    rows[2][view] = rows[2][header.index("AP/PA")] = ""
    rows[2][0] = rows[2][0].replace("frontal", "oblique")
    gone = [rows[3][0].replace("view1", "view9"), *rows[3][1:]]
    changed = [header, *rows, rows[4], rows[4], gone]
    sheet.write_text("\n".join(",".join(row) for row in changed) + "\n")
    dataset = Dataset(DataSettings(root=folder, max_missing=0.5))
    flow, usable = dataset.flow("train"), dataset.usable("train")
    assert flow == RowFlow(
        rows=len(rows) + 3,
        repeated=2,
        lateral=2,
        unknown_view=1,
        missing=1,
        unreadable=0,
        images=len(rows) - 3,
        studies=len(set(usable.studies)),
        patients=len(set(usable.patients)),
    )


def test_rows_that_were_not_read_are_unreadable() -> None:
    flow = RowFlow(10, 1, 2, 0, 1, 0, 6, 5, 4).analysed(4, 3, 2)
    assert flow == RowFlow(10, 1, 2, 0, 1, 2, 4, 3, 2)
    assert flow.rows == flow.repeated + flow.lateral + flow.unknown_view + flow.missing + flow.unreadable + flow.images


def test_a_flow_is_read_back_and_an_incomplete_one_is_none() -> None:
    flow = RowFlow(10, 1, 2, 0, 1, 2, 4, 3, 2)
    assert RowFlow.from_dict(flow.to_dict()) == flow
    assert RowFlow.from_dict({"rows": 10}) is None
