"""Finding a model."""

from pathlib import Path

import pytest

from cxrtool.errors import ModelError, RequestError
from cxrtool.model.bundle import BUNDLE_NAME
from cxrtool.model.resolve import resolve_model
from tests_support import change_header


def test_a_model_is_found_by_file_folder_or_newest_run(bundle: Path, tmp_path: Path) -> None:
    assert resolve_model(bundle, tmp_path) == bundle
    assert resolve_model(tmp_path, Path("none")) == bundle
    runs = tmp_path / "runs"
    for name, created in (("b", "2026-01-02T00:00:00"), ("a", "2026-03-01T00:00:00"), ("c", "2025-01-01T00:00:00")):
        (runs / name).mkdir(parents=True)
        (runs / name / BUNDLE_NAME).write_bytes(bundle.read_bytes())
        change_header(runs / name / BUNDLE_NAME, created=created)
    assert resolve_model(None, runs) == runs / "a" / BUNDLE_NAME
    (tmp_path / "empty").mkdir()
    for given in (tmp_path / "empty", tmp_path / "gone"):
        with pytest.raises(RequestError):
            resolve_model(given, runs)
    with pytest.raises(ModelError, match="no model was given"):
        resolve_model(None, tmp_path / "empty")
