from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from cxrtool import Classifier
from cxrtool.data.images import Preprocessing
from cxrtool.errors import ImageError, RequestError
from cxrtool.explain.cam import grad_cam, scale_map
from cxrtool.explain.overlay import draw_overlay
from cxrtool.findings import FINDINGS
from cxrtool.model.densenet import ChestNet, build_network


@pytest.fixture(scope="module")
def network() -> ChestNet:
    network = build_network(Preprocessing(128), "none", seed=3)
    torch.manual_seed(0)
    for module in network.modules():  # so that no map is all but flat, as an untrained one is
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.weight.data.uniform_(0.5, 1.5)
    return network.eval()


class _Halves(torch.nn.Module):
    """The same network as one module with a named last activation, as an outside library needs it."""

    def __init__(self, network: ChestNet) -> None:
        super().__init__()
        self.network = network
        self.last = torch.nn.Identity()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network.head(self.last(self.network.activations(pixels)))


def test_maps_agree_with_an_independent_implementation(network: ChestNet) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 1, 128, 128)).astype(np.float32))
    logits, maps = grad_cam(network, pixels, range(5))
    model = _Halves(network)
    with GradCAM(model=model, target_layers=[model.last]) as theirs:
        for column in range(5):
            targets = [ClassifierOutputTarget(column)] * 2
            expected = theirs(input_tensor=pixels.clone().requires_grad_(True), targets=targets)
            for image in range(2):
                mine = scale_map(maps[image, column], 128, 128)
                if expected[image].any():
                    assert np.corrcoef(mine.ravel(), expected[image].ravel())[0, 1] > 0.999
                else:
                    assert not mine.any()
    with torch.no_grad():
        np.testing.assert_allclose(logits, network(pixels).numpy(), atol=1e-5)


def test_a_map_by_hand(network: ChestNet) -> None:
    # Averaging then a linear layer: the gradient is weight / cells everywhere.
    pixels = torch.rand(1, 1, 128, 128) * 255
    with torch.no_grad():
        activations = network.activations(pixels)
    expected = torch.einsum("c,bchw->bhw", network.classifier.weight[2].detach(), activations).relu() / 16
    _, maps = grad_cam(network, pixels, [2])
    np.testing.assert_allclose(maps[:, 0], expected, rtol=1e-4, atol=1e-7)


def test_nothing_is_left_behind(network: ChestNet) -> None:
    network.zero_grad(set_to_none=True)  # the oracle of another test leaves gradients
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    grad_cam(network, torch.rand(1, 1, 128, 128), [0])
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(not module._forward_hooks and not module._backward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_scaling_keeps_the_peak_in_place_and_a_zero_map_zero() -> None:
    coarse = np.zeros((10, 10), dtype=np.float32)
    assert not scale_map(coarse, 50, 70).any()
    coarse[2, 7] = 3
    full = scale_map(coarse, 200, 100)
    assert full.shape == (200, 100)
    assert full.max() == 1
    row, column = np.unravel_index(full.argmax(), full.shape)
    assert (row // 20, column // 10) == (2, 7)


def test_an_overlay_leaves_cold_pixels_as_they_are() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    heat = np.zeros((20, 30), dtype=np.float32)
    heat[:10] = 1
    drawn = draw_overlay(image, heat, 0.5)
    np.testing.assert_array_equal(drawn[10:], np.repeat(image[10:, :, None], 3, axis=2))
    assert not np.array_equal(drawn[:10], np.repeat(image[:10, :, None], 3, axis=2))
    np.testing.assert_array_equal(draw_overlay(image, heat, 0), np.repeat(image[..., None], 3, axis=2))


def test_explain_gives_a_map_at_the_images_own_size(run_folder: Path, phantoms: Path, tmp_path: Path) -> None:
    with Image.open(next((phantoms / "test").rglob("*frontal.jpg"))) as image:
        image.resize((90, 120)).save(tmp_path / "a.png")
    classifier = Classifier.load(run_folder)
    explanation = classifier.explain(tmp_path / "a.png", "pleural effusion")
    assert explanation.label == "Pleural Effusion"
    assert explanation.heatmap.shape == explanation.image.shape == (120, 90)
    assert explanation.heatmap.dtype == np.float32
    assert 0 <= explanation.heatmap.min() <= explanation.heatmap.max() <= 1
    assert explanation.probability == pytest.approx(
        classifier.predict(tmp_path / "a.png").probabilities["Pleural Effusion"], abs=1e-5
    )
    files = explanation.save(tmp_path / "out")
    assert sorted(files) == ["figure", "heatmap", "overlay"]
    with Image.open(files["heatmap"]) as heatmap:
        assert heatmap.size == (90, 120)
    with pytest.raises(RequestError) as caught:
        classifier.explain(tmp_path / "a.png", "Plural Efusion")
    assert "Pleural Effusion" in caught.value.advice
    with pytest.raises(ImageError):
        classifier.explain(tmp_path / "gone.png", "Edema")


def test_without_a_label_every_positive_finding_or_the_most_probable(run_folder: Path, phantoms: Path) -> None:
    image = next((phantoms / "test").rglob("*frontal.jpg"))
    for level, expected in ((0.0, list(FINDINGS)), (1.0, None)):
        classifier = Classifier.load(run_folder, dict.fromkeys(FINDINGS, level))
        ((_, explanations),) = classifier.explain_many([image])
        assert isinstance(explanations, tuple)
        probabilities = classifier.predict(image).probabilities
        best = [max(probabilities, key=probabilities.__getitem__)]
        assert [explanation.label for explanation in explanations] == (expected or best)
