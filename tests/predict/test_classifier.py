import itertools
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrtool import Classifier
from cxrtool.data.images import read
from cxrtool.data.preprocessing import Preprocessing, preprocess
from cxrtool.data.sources import OpenedSource, open_source
from cxrtool.errors import ImageError, ModelError
from cxrtool.findings import FINDINGS
from tests_support import EXACT


@pytest.fixture(scope="module")
def images(phantoms: Path) -> list[Path]:
    return sorted((phantoms / "test").rglob("*frontal.jpg"))


@pytest.fixture(scope="module")
def classifier(run_folder: Path) -> Classifier:
    return Classifier.load(run_folder, settings=EXACT)


def test_a_prediction_equals_the_output_of_the_network(classifier: Classifier, images: list[Path]) -> None:
    pixels = preprocess(read(images[0]).pixels, Preprocessing(32))
    with torch.no_grad():
        expected = torch.sigmoid(classifier.network(torch.tensor(pixels)[None, None]))[0].numpy()
    prediction = classifier.predict(images[0])
    assert list(prediction.probabilities) == list(FINDINGS)
    np.testing.assert_allclose(list(prediction.probabilities.values()), expected, atol=1e-6)
    for result in prediction.findings:
        assert result.threshold == classifier.header.effective_thresholds[result.label]
        assert result.positive == (result.probability >= result.threshold)


def test_predict_many_equals_predict_and_a_bad_file_gets_an_error(
    classifier: Classifier, images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.jpg").write_text("text")
    paths = [images[0], tmp_path / "bad.jpg", *images[1:20]]
    many = list(classifier.predict_many(paths))
    assert [prediction.path for prediction in many] == paths
    assert "not an image" in (many[1].error or "")
    assert many[1].findings == ()
    for prediction in [many[0], many[2], many[-1]]:
        alone = classifier.predict(prediction.path)
        np.testing.assert_allclose(
            list(prediction.probabilities.values()), list(alone.probabilities.values()), atol=1e-6
        )
    with pytest.raises(ImageError):
        classifier.predict(tmp_path / "bad.jpg")


def test_threads_can_share_a_classifier(classifier: Classifier, images: list[Path]) -> None:
    alone = [classifier.predict(path).probabilities for path in images[:8]]

    def work(index: int) -> dict[str, float]:
        path = images[index % 8]
        classifier.explain(path, "Edema")
        return classifier.predict(path).probabilities

    with ThreadPoolExecutor(4) as pool:
        for index, result in enumerate(pool.map(work, range(32))):
            np.testing.assert_allclose(list(result.values()), list(alone[index % 8].values()), atol=1e-6)


def test_endless_input_is_read_lazily_in_flat_memory(classifier: Classifier, images: list[Path]) -> None:
    endless = classifier.predict_many(itertools.cycle(images[:4]))
    for _ in range(40):
        next(endless)
    tracemalloc.start()
    for _ in range(400):
        next(endless)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    endless.close()  # type: ignore[attr-defined]
    assert peak < 20e6


def test_custom_thresholds_replace_those_of_the_bundle(run_folder: Path, images: list[Path]) -> None:
    everything = Classifier.load(run_folder, thresholds=dict.fromkeys(FINDINGS, 0.0)).predict(images[0])
    assert everything.positives == FINDINGS
    with pytest.raises(ModelError):
        Classifier.load(run_folder / "gone")


def test_a_file_that_hangs_gets_its_row_and_the_others_are_predicted(
    classifier: Classifier, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def slow(source: object, *rest: object) -> OpenedSource:
        if source == images[1]:
            release.wait(60)
        return open_source(source, *rest)

    monkeypatch.setattr("cxrtool.data.radiograph.open_source", slow)
    quick = replace(classifier, reading=replace(classifier.reading, timeout=2.0, batch_size=2))
    found = list(quick.predict_many(images[:5]))
    release.set()
    assert [prediction.path for prediction in found] == images[:5]
    assert [prediction.error is None for prediction in found] == [True, False, True, True, True]
    assert f"reading {images[1]} has hung for 2 s" in (found[1].error or "")
