"""A small demo runs all steps, and its files are those of the corresponding commands."""

from pathlib import Path

import pytest

import cxrtool.demo as demo
from conftest import Call


def test_its_predictions_are_the_table_of_predict(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in (("PATIENTS", 20), ("IMAGE_SIZE", 64), ("EPOCHS", 1)):
        monkeypatch.setattr(demo, name, small)
    result = demo.run_demo(tmp_path / "demo")
    assert all(path.exists() for path in result.files.values())
    done = call("predict", tmp_path / "demo/phantoms/test", "-r", "--model", tmp_path / "demo/run", "--csv", "out.csv")
    assert done.code == 0, done.stderr
    assert result.files["predictions"].read_bytes() == (tmp_path / "out.csv").read_bytes()
