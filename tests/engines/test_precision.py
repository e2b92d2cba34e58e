import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrtool.choices import Device, Precision
from cxrtool.engines import open as engines
from cxrtool.engines import precision
from cxrtool.engines.device import sigmoid
from cxrtool.engines.open import open_engine
from cxrtool.model.bundle import open_bundle
from cxrtool.phantoms.check_images import check_images
from cxrtool.settings import RuntimeSettings

CPU = RuntimeSettings(device=Device.CPU)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cxrtool" / "precision.json"


def test_speed_is_measured_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [precision.bf16_is_faster(torch.device("cpu"))]
    (ratio,) = json.loads(cache.read_text()).values()
    monkeypatch.setattr(precision, "speed_ratio", lambda: pytest.fail("measured again"))
    answers.append(precision.bf16_is_faster(torch.device("cpu")))
    assert answers == [ratio >= precision.WORTHWHILE] * 2


@pytest.mark.parametrize("content", ["", "[]", "{", '{"bf16 pays": "yes"}'])
def test_speed_is_measured_again_if_the_cache_is_damaged(
    cache: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    monkeypatch.setattr(precision, "speed_ratio", lambda: 3.0)
    assert precision.bf16_is_faster(torch.device("cpu"))


def test_speed_is_measured_if_the_cache_is_not_writable(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file where a folder should be")
    monkeypatch.setattr(precision, "speed_ratio", lambda: 0.1)
    assert not precision.bf16_is_faster(torch.device("cpu"))


def fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "bf16_is_faster", lambda _device: True)


def test_auto_uses_bf16_for_predict_if_probabilities_hardly_change(
    run_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast_bf16(monkeypatch)
    path = run_folder / "model.safetensors"
    bundle = open_bundle(path)
    network, header = bundle.network, bundle.header
    network.classifier.weight.data /= 10  # so that rounding of the features hardly matters on any processor
    pixels = check_images(header.image_preprocessing)
    with torch.inference_mode():
        exact = torch.sigmoid(network(torch.from_numpy(pixels))).numpy()
        with torch.autocast("cpu", torch.bfloat16):
            moved = torch.sigmoid(network(torch.from_numpy(pixels)).float()).numpy()
    truly = float(np.abs(exact - moved).max())
    assert 0 < truly < precision.CLOSE_ENOUGH
    engine = open_engine(bundle, CPU, reported=False)
    assert engine.how.precision == "bf16"
    (kept,) = json.loads(cache.read_text()).values()
    # The network for inference has folded BatchNorms, so it rounds differently.
    assert kept == pytest.approx(truly, abs=0.01)
    assert np.abs(sigmoid(engine.logits(pixels)) - exact).max() <= precision.CLOSE_ENOUGH


def test_a_model_that_bf16_changes_stays_in_fp32_with_a_warning(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fast_bf16(monkeypatch)
    bundle = open_bundle(run_folder / "model.safetensors")
    # Logits near 0 and weights times 1000: rounding of the features then changes the probability a lot.
    network = bundle.network
    network.classifier.weight.data *= 1000
    pixels = torch.from_numpy(check_images(bundle.header.image_preprocessing))
    network.classifier.bias.data -= network(pixels)[0]
    with caplog.at_level(logging.WARNING):
        engine = open_engine(bundle, CPU, reported=False)
    assert engine.how.precision == "fp32"
    assert "bf16 changes this model's probabilities by up to" in caplog.text


def test_reported_metrics_stay_in_fp32_unless_bf16_is_requested(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast_bf16(monkeypatch)
    bundle = open_bundle(run_folder / "model.safetensors")
    requested = CPU.model_copy(update={"precision": Precision.BF16})
    for settings, expected in ((CPU, "fp32"), (requested, "bf16")):
        assert open_engine(bundle, settings, reported=True).how.precision == expected


def test_a_stored_difference_holds_for_one_model_backend_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.0", "openvino": "2.0"}
    monkeypatch.setattr(precision, "version", versions.__getitem__)
    device = torch.device("cpu")
    precision.store_difference("weights", device, "torch", 0.001)
    precision.store_difference("weights", device, "openvino", 0.1)
    assert precision.load_difference("weights", device, "torch") == 0.001
    assert precision.load_difference("weights", device, "openvino") == 0.1
    assert precision.load_difference("other", device, "torch") is None
    versions["torch"] = "2.1"
    assert precision.load_difference("weights", device, "torch") is None


def test_a_user_without_a_home_has_no_cache_and_measures_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    cpu = torch.device("cpu")
    assert precision.cache_folder() is None
    precision.store_difference("digest", cpu, "torch", 0.5)
    assert precision.load_difference("digest", cpu, "torch") is None
    assert isinstance(precision.bf16_is_faster(cpu), bool)
