"""Checks and warnings before a run starts."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cxrtool.choices import Fit
from cxrtool.errors import RequestError
from cxrtool.model.bundle import read_header
from cxrtool.predict.classifier import Classifier
from cxrtool.training.loop import train
from tests_support import tiny_training


def test_a_finding_without_positives_trains_with_a_warning(
    phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Path(shutil.copytree(phantoms, tmp_path / "data"))
    lines = [line.split(",") for line in (data / "train.csv").read_text().splitlines()]
    column = lines[0].index("Edema")
    for line in lines[1:]:
        line[column] = "0.0"
    (data / "train.csv").write_text("\n".join(map(",".join, lines)) + "\n")
    result = train(tiny_training(data, train__epochs=1), tmp_path / "run")
    assert "Edema has only one class in the train split; its weight is 8" in caplog.text
    assert result.best.train_loss > 0


def test_a_run_that_cannot_be_started_or_resumed_is_refused(phantoms: Path, run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="already contains a run"):
        train(tiny_training(phantoms), run_folder)
    with pytest.raises(RequestError, match="nothing to resume"):
        train(tiny_training(phantoms), resume=tmp_path)
    with pytest.raises(RequestError, match="seed was 0 and is now 7"):
        train(tiny_training(phantoms, train__batch_size=8, train__seed=7), resume=run_folder)
    for name, before, after in (("blank", "negative", "ignore"), ("views", "frontal", "all")):
        other = tiny_training(phantoms, train__batch_size=8, **{f"data__{name}": after})
        with pytest.raises(RequestError, match=f"{name} was {before} and is now {after}"):
            train(other, resume=run_folder)


def test_too_many_missing_images_are_refused_and_few_are_named(
    phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Path(shutil.copytree(phantoms, tmp_path / "data"))
    gone = sorted((data / "train").rglob("*frontal.jpg"))[0]
    gone.unlink()
    with pytest.raises(RequestError, match="have no usable image"):
        train(tiny_training(data), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(tiny_training(data, data__max_missing=0.2, train__epochs=1), tmp_path / "run")
    assert str(gone.relative_to(data)) in caplog.text


@pytest.mark.parametrize("fit", [Fit.CROP, Fit.PAD])
def test_a_bundle_says_how_images_filled_the_square_and_reads_them_so(phantoms: Path, tmp_path: Path, fit: Fit) -> None:
    train(tiny_training(phantoms, train__epochs=1, train__fit=fit), tmp_path / "run")
    assert read_header(tmp_path / "run" / "model.safetensors").image_preprocessing.fit is fit
    assert yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())["train"]["fit"] == fit.value
    source = Image.open(min((phantoms / "test").rglob("*frontal.jpg"))).convert("L").resize((64, 64))
    wide = Image.new("L", (96, 64))
    wide.paste(source, (16, 0))
    classifier = Classifier.load(tmp_path / "run")
    whole, centre = (classifier.predict(np.asarray(image)) for image in (wide, source))
    same = all(abs(a.probability - b.probability) < 1e-5 for a, b in zip(whole.findings, centre.findings, strict=True))
    assert same is (fit is Fit.CROP)
    explained = classifier.explain(np.asarray(wide), "Edema")
    assert explained.heatmap.shape == (64, 96)
    if fit is Fit.CROP:
        assert not explained.heatmap[:, :16].any()
        assert not explained.heatmap[:, 80:].any()
