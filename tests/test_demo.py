"""A small demo runs all steps, and its files are those of the corresponding commands."""

from pathlib import Path

import pytest
from PIL import Image

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
    titles = {title.partition(",")[0] for title in result.localization.methods}
    assert titles == {"LayerCAM (denseblock2)", "Grad-CAM (denseblock3)"}
    assert len(list(result.files["explanations"].glob("*_panel.png"))) >= 1
    assert "Synthetic radiographs" in result.files["report"].read_text(encoding="utf-8")


def test_a_model_of_the_demo_warns_of_what_is_no_drawing(
    call: Call, run_folder: Path, phantoms: Path, tmp_path: Path
) -> None:
    drawn = min((phantoms / "test").rglob("*frontal.jpg"))
    Image.open(drawn).save(tmp_path / "real.png")
    quiet = call("predict", drawn, "--model", run_folder)
    assert "synthetic" not in quiet.stderr
    warned = call("predict", tmp_path / "real.png", drawn, tmp_path / "real.png", "--model", run_folder)
    assert warned.stderr.count("is no synthetic radiograph, and this model was trained on nothing else") == 1
    assert call("info", run_folder, "--json").json["synthetic"] is True
