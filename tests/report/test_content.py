"""The content of a report."""

import shutil
from pathlib import Path

from conftest import Call


def test_a_bundle_without_predictions_or_data_is_refused(call: Call, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    shutil.copy(run_folder / "model.safetensors", tmp_path / "alone")
    done = call("report", tmp_path / "alone")
    assert done.code == 2
    assert "cxr eval" in done.stderr
    assert not (tmp_path / "alone" / "report.html").exists()
