"""What another process does with a block."""

from pathlib import Path

import pytest

from cxrtool.choices import Backend, Precision
from cxrtool.errors import RequestError
from cxrtool.model.bundle import open_bundle
from cxrtool.predict.blocks import BlockPredictor, PredictionTask
from cxrtool.predict.classifier import Classifier
from cxrtool.predict.csv_table import row_of
from cxrtool.settings import RuntimeSettings
from tests_support import link_radiographs


def test_rows_are_those_of_a_classifier(
    run_folder: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative names are looked up from the folder of the task, not of the process."""
    broken = link_radiographs(phantoms, tmp_path / "a", 3)[1]
    broken.unlink()  # it is a link
    broken.write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    task = PredictionTask.of(open_bundle(run_folder / "model.safetensors"), RuntimeSettings(), {"Edema": 0.0})
    monkeypatch.chdir(run_folder)
    names = [f"a/000{number}.jpg" for number in range(3)]
    block = BlockPredictor(task).predict(range(16, 19), names)
    monkeypatch.chdir(tmp_path)
    classifier = Classifier.load(run_folder, thresholds={"Edema": 0.0})
    expected = [row_of(one, one.given, classifier.thresholds) for one in classifier.predict_many(map(Path, names))]
    assert block.text.decode() == "".join(expected)
    assert (block.rows, block.failed, block.warned) == (range(16, 19), 1, 0)
    assert block.table.thresholds["Edema"] == 0


def test_an_error_names_the_model_that_was_given(run_folder: Path, tmp_path: Path) -> None:
    settings = RuntimeSettings(backend=Backend.OPENVINO, precision=Precision.INT8)
    task = PredictionTask.of(open_bundle(run_folder / "model.safetensors"), settings)
    with pytest.raises(RequestError) as refused:
        BlockPredictor(task).predict(range(1), ["a.jpg"])
    assert str(run_folder / "export" / "openvino-int8.xml") in refused.value.message
    assert str(run_folder / "model.safetensors") in refused.value.advice


def test_a_folder_that_another_machine_lacks_is_named(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    task = PredictionTask.of(open_bundle(run_folder / "model.safetensors"), RuntimeSettings())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").rmdir()
    with pytest.raises(RequestError, match=r"here cannot be opened on every machine .No such file or directory"):
        BlockPredictor(task).predict(range(1), ["a.jpg"])
