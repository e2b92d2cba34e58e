"""The golden images that a bundle keeps."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrtool.data.preprocessing import Preprocessing
from cxrtool.errors import ModelError
from cxrtool.model.bundle import open_bundle, read_header
from cxrtool.model.golden import digest_of_pixels, golden_of
from cxrtool.phantoms.check_images import check_images
from tests_support import change_header


def test_training_stores_what_its_network_gives(run_folder: Path) -> None:
    for name in ("model.safetensors", "last.safetensors"):
        opened = open_bundle(run_folder / name)
        golden = opened.header.golden
        assert golden is not None
        pixels = check_images(opened.header.image_preprocessing)
        with torch.inference_mode():
            expected = opened.network(torch.from_numpy(pixels)).numpy()
        np.testing.assert_allclose(golden.logits, expected, rtol=1e-5, atol=1e-6)
        assert (golden.engine, golden.precision) == ("torch", "fp32")
        assert golden.pixels_sha256 == digest_of_pixels(pixels)


def test_stored_logits_come_back_to_the_bit(run_folder: Path) -> None:
    opened = open_bundle(run_folder / "model.safetensors")
    golden = golden_of(opened.network.state_dict(), opened.header.image_preprocessing)
    texts = json.dumps(golden.model_dump(mode="json"))
    assert max(len(f"{abs(value):.17g}".strip("0").replace(".", "")) for row in golden.logits for value in row) > 6
    again = np.array(json.loads(texts)["logits"], dtype=np.float32)
    pixels = check_images(opened.header.image_preprocessing)
    with torch.inference_mode():
        alone = np.concatenate([opened.network(torch.from_numpy(image[None])).numpy() for image in pixels])
    np.testing.assert_array_equal(again, alone)


def test_the_network_is_not_changed(run_folder: Path) -> None:
    network = open_bundle(run_folder / "model.safetensors").network
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    golden_of(network.state_dict(), Preprocessing(32))
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_digest_covers_pixels_and_shape() -> None:
    pixels = np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4)
    assert digest_of_pixels(pixels) == hashlib.sha256(b"(2, 1, 4, 4)" + bytes(range(32))).hexdigest()
    assert digest_of_pixels(pixels) != digest_of_pixels(pixels.reshape(1, 1, 4, 8))


@pytest.mark.parametrize(
    "logits", [[], [[0.0] * 4], [[0.0] * 5] * 65, [[float("inf")] * 5], [[float("nan")] * 5]], ids=str
)
def test_a_header_with_other_logits_is_refused(bundle: Path, logits: list[list[float]]) -> None:
    change_header(bundle, golden={"pixels_sha256": "", "logits": logits})
    with pytest.raises(ModelError, match="is not a bundle"):
        read_header(bundle)
