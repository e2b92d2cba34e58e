"""A table as Parquet files holds what the CSV holds, with types."""

import csv
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrtool.errors import RequestError
from cxrtool.files import csv_row
from cxrtool.findings import CHEXPERT5
from cxrtool.predict import parquet
from cxrtool.predict.csv_table import columns_of


def write_table(path: Path, rows: int) -> None:
    """Rows with and without an error, with names that CSV must quote."""
    lines = [csv_row(columns_of(CHEXPERT5))]
    for number in range(rows):
        name = f"a, b\n{number} '\"é.jpg"
        broken = number % 7 == 3
        numbers = [None if broken else 1 / (number + column + 3) for column in range(5)]
        lines.append(csv_row([name, *numbers, "Edema;Consolidation", "no image" if broken else None, "", "prediction"]))
    path.write_text("".join(lines), encoding="utf-8")


@pytest.mark.parametrize(("rows", "files"), [(1000, 3), (5, 1), (0, 1)])
def test_the_same_rows_with_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, files: int) -> None:
    monkeypatch.setattr(parquet, "_PIECE", 16_384)  # about 100 rows
    write_table(tmp_path / "a.csv", rows)
    (tmp_path / "out").mkdir()
    for left in ("part-00000.parquet", "part-00099.parquet"):
        (tmp_path / "out" / left).write_bytes(b"of an earlier table")
    written = parquet.write_parquet(tmp_path / "a.csv", tmp_path / "out", rows_per_file=400)
    assert sorted((tmp_path / "out").iterdir()) == written
    assert len(written) == files
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        expected = list(csv.DictReader(file))
    found = pd.concat([pd.read_parquet(path) for path in written], ignore_index=True)
    assert list(found.columns) == list(columns_of(CHEXPERT5))
    for name in found.columns:
        texts = [row[name] for row in expected]
        if name in tuple(CHEXPERT5):
            numbers = np.array([float(text or "nan") for text in texts])
            np.testing.assert_array_equal(found[name].to_numpy(), numbers, strict=True)
        else:
            assert found[name].tolist() == texts


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path / "a.csv", 1)
    monkeypatch.setitem(sys.modules, "pyarrow.csv", None)
    with pytest.raises(RequestError) as refused:
        parquet.write_parquet(tmp_path / "a.csv", tmp_path / "out")
    assert "cxrtool[parquet]" in refused.value.advice
