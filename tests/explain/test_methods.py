from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, LayerCAM, ScoreCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from cxrtool import Classifier
from cxrtool.choices import Layer, Method
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.errors import ImageError, RequestError
from cxrtool.explain.explanation import heatmap_of
from cxrtool.explain.methods import MapSettings, all_columns, explain_batch, fitting_layer, integrated_gradients, only
from cxrtool.findings import FINDINGS
from cxrtool.model.densenet import ChestNet, build_network
from tests_support import EXACT, with_a_most_probable


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
    """The same network as one module with a named activation, as an outside library needs it."""

    def __init__(self, network: ChestNet, layer: Layer) -> None:
        super().__init__()
        self.network, self.layer = network, layer
        self.last = torch.nn.Identity()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network.logits_after(self.last(self.network.activations(pixels, self.layer)), self.layer)


def random_pixels(count: int = 2, size: int = 128) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 1, size, size)).astype(np.float32))


@pytest.mark.parametrize("layer", list(Layer))
@pytest.mark.parametrize(
    ("method", "theirs"),
    [(Method.GRAD_CAM, GradCAM), (Method.GRAD_CAM_PLUS_PLUS, GradCAMPlusPlus), (Method.LAYER_CAM, LayerCAM)],
)
def test_maps_agree_with_an_independent_implementation(
    network: ChestNet, layer: Layer, method: Method, theirs: type[BaseCAM]
) -> None:
    pixels = random_pixels()
    logits, maps = explain_batch(
        network, pixels, all_columns(range(5)), MapSettings(method, layer, flip=False, smooth=0)
    )
    model = _Halves(network, layer)
    compared = 0
    with theirs(model=model, target_layers=[model.last]) as oracle:
        for column in range(5):
            targets = [ClassifierOutputTarget(column)] * 2
            expected = oracle(input_tensor=pixels.clone().requires_grad_(True), targets=targets)
            for image in range(2):
                mine = heatmap_of(maps[image][column], 128, 128, 1.0)
                if expected[image].any() and np.ptp(expected[image]) > 0:
                    assert np.corrcoef(mine.ravel(), expected[image].ravel())[0, 1] > 0.999
                    compared += 1
    assert compared >= 4
    with torch.no_grad():
        np.testing.assert_allclose(logits, network(pixels).numpy(), atol=1e-5)


def test_score_cam_agrees_with_an_independent_implementation(network: ChestNet) -> None:
    pixels = random_pixels(1, 32)
    settings = MapSettings(Method.SCORE_CAM, Layer.DENSEBLOCK2, flip=False, smooth=0, channels=0)
    _, maps = explain_batch(network, pixels, all_columns([1]), settings)
    model = _Halves(network, Layer.DENSEBLOCK2)
    with ScoreCAM(model=model, target_layers=[model.last]) as oracle, torch.no_grad():
        (expected,) = oracle(input_tensor=pixels, targets=[ClassifierOutputTarget(1)])
    assert np.corrcoef(heatmap_of(maps[0][1], 32, 32, 1.0).ravel(), expected.ravel())[0, 1] > 0.999


def test_a_map_by_hand(network: ChestNet) -> None:
    # Averaging then a linear layer: the gradient is weight / cells everywhere.
    pixels = torch.rand(1, 1, 128, 128) * 255
    with torch.no_grad():
        activations = network.activations(pixels)
    expected = torch.einsum("c,bchw->bhw", network.classifier.weight[2].detach(), activations).relu() / 16
    _, maps = explain_batch(
        network, pixels, all_columns([2]), MapSettings(layer=Layer.DENSEBLOCK4, flip=False, smooth=0)
    )
    np.testing.assert_allclose(maps[0][2], expected[0], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layer", list(Layer))
def test_the_network_cut_in_two_is_the_network(network: ChestNet, layer: Layer) -> None:
    pixels = random_pixels()
    with torch.no_grad():
        whole = network(pixels)
        parts = network.logits_after(network.activations(pixels, layer), layer)
    torch.testing.assert_close(parts, whole)
    sides = {Layer.DENSEBLOCK2: 16, Layer.DENSEBLOCK3: 8, Layer.DENSEBLOCK4: 4}
    assert network.activations(pixels, layer).shape[-1] == sides[layer]


def test_integrated_gradients_add_up_to_the_logits_rise(network: ChestNet) -> None:
    """Completeness, the method's own axiom."""
    pixels = random_pixels(1, 64)
    map_ = integrated_gradients(network, pixels, 2, steps=96)
    with torch.no_grad():
        rise = (network(pixels) - network(torch.zeros_like(pixels)))[0, 2]
    assert map_.sum().item() == pytest.approx(rise.item(), rel=0.06)


def test_occlusion_finds_the_only_patch_that_matters() -> None:
    class _Corner(ChestNet):
        """Its logits are the mean of one corner."""

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels[:, :, :16, 48:].mean(dim=(1, 2, 3))[:, None].repeat(1, 5)

    corner = _Corner(Preprocessing(64)).eval()
    pixels = torch.zeros(1, 1, 64, 64)
    pixels[:, :, :16, 48:] = 200
    _, maps = explain_batch(corner, pixels, all_columns([0]), MapSettings(Method.OCCLUSION, flip=False, smooth=0))
    row, column = np.unravel_index(maps[0][0].argmax(), (64, 64))
    assert row < 20
    assert column > 44


@pytest.mark.parametrize("size", [32, 50, 64])
def test_occlusion_covers_every_pixel(size: int) -> None:
    class _Mean(ChestNet):
        """Its logits are the mean of the image."""

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.mean(dim=(1, 2, 3))[:, None].repeat(1, 5)

    pixels = torch.full((1, 1, size, size), 100.0)
    pixels[:, :, -1, :] = pixels[:, :, :, -1] = 200  # only covering the last row or column lowers the mean
    settings = MapSettings(Method.OCCLUSION, flip=False, smooth=0)
    _, maps = explain_batch(_Mean(Preprocessing(size)).eval(), pixels, all_columns([0]), settings)
    heat = maps[0][0]
    assert (heat[-1] > 0).all()
    assert (heat[:, -1] > 0).all()


@pytest.mark.parametrize("method", list(Method))
def test_every_method_gives_maps_of_the_wanted_findings_alone(network: ChestNet, method: Method) -> None:
    requested = np.array([[True, False, False, True, False], [False] * 5])
    settings = MapSettings(method, channels=4, steps=2, samples=1, patch=0.4)
    _, maps = explain_batch(network, random_pixels(2, 64), lambda _: requested, settings)
    assert [sorted(one) for one in maps] == [[0, 3], []]
    for one in maps[0].values():
        assert one.dtype == np.float32
        assert np.isfinite(one).all()
        assert one.min() >= 0


@pytest.mark.parametrize("method", [Method.GRAD_CAM, Method.LAYER_CAM])
def test_a_batch_gives_the_maps_of_its_images_alone(network: ChestNet, method: Method) -> None:
    pixels = random_pixels(3)
    _, together = explain_batch(network, pixels, all_columns([0, 4]), MapSettings(method))
    for row in range(3):
        _, (alone,) = explain_batch(network, pixels[row : row + 1], all_columns([0, 4]), MapSettings(method))
        for column in (0, 4):
            np.testing.assert_allclose(together[row][column], alone[column], atol=1e-4 * alone[column].max() + 1e-9)


def test_averaging_over_mirrors_mirrors_with_the_image(network: ChestNet) -> None:
    settings = MapSettings(flip=True, scales=(0.75, 1.0))
    pixels = random_pixels(1)
    _, (straight,) = explain_batch(network, pixels, all_columns([1]), settings)
    _, (mirrored,) = explain_batch(network, pixels.flip(-1), all_columns([1]), settings)
    np.testing.assert_allclose(mirrored[1][:, ::-1], straight[1], atol=1e-4 * straight[1].max())


def test_only_the_pairs_that_are_asked_for_are_explained(network: ChestNet) -> None:
    _, maps = explain_batch(network, random_pixels(3), only([(0, 1), (2, 4), (2, 0)]), MapSettings())
    assert [set(found) for found in maps] == [{1}, set(), {0, 4}]


def test_an_image_and_its_mirror_image_have_an_equal_say(network: ChestNet) -> None:
    pixels, column = random_pixels(1), 3
    alone = MapSettings(Method.INTEGRATED_GRADIENTS, flip=False, smooth=0, samples=1, steps=2)
    maps = [
        explain_batch(network, image, all_columns([column]), alone)[1][0][column] for image in (pixels, pixels.flip(-1))
    ]
    assert maps[0].max() != pytest.approx(maps[1].max(), rel=1e-3)
    _, (together,) = explain_batch(network, pixels, all_columns([column]), replace(alone, flip=True))
    expected = (maps[0] / maps[0].max() + maps[1][:, ::-1] / maps[1].max()) / 2
    np.testing.assert_allclose(together[column], expected, atol=1e-5)


def test_nothing_is_left_behind_even_after_an_error(network: ChestNet, monkeypatch: pytest.MonkeyPatch) -> None:
    network.zero_grad(set_to_none=True)  # the oracle of another test leaves gradients
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    explain_batch(network, random_pixels(1), all_columns([0]), MapSettings())
    monkeypatch.setattr(ChestNet, "head", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        explain_batch(network, random_pixels(1), all_columns([0]), MapSettings())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(not module._forward_hooks and not module._backward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("size", "block"), [(1024, 4), (320, 4), (192, 4), (191, 3), (96, 3), (95, 2), (32, 2)])
def test_the_layer_fits_the_input(size: int, block: int) -> None:
    assert fitting_layer(size) == f"denseblock{block}"


def test_a_network_in_train_mode_is_refused() -> None:
    with pytest.raises(RequestError, match="train mode"):
        explain_batch(ChestNet(Preprocessing(32)).train(), random_pixels(1, 32), all_columns([0]), MapSettings())


def test_explain_gives_a_map_at_the_images_own_size(run_folder: Path, phantoms: Path, tmp_path: Path) -> None:
    with Image.open(next((phantoms / "test").rglob("*frontal.jpg"))) as image:
        image.resize((90, 120)).save(tmp_path / "a.png")
    classifier = Classifier.load(run_folder, settings=EXACT)
    explanation = classifier.explain(tmp_path / "a.png", "pleural effusion")
    assert explanation.label == "Pleural Effusion"
    assert explanation.heatmap.shape == explanation.image.shape == (120, 90)
    assert explanation.heatmap.dtype == np.float32
    assert 0 <= explanation.heatmap.min() <= explanation.heatmap.max() <= 1
    assert explanation.probability == pytest.approx(
        classifier.predict(tmp_path / "a.png").probabilities["Pleural Effusion"], abs=1e-5
    )
    assert explanation.heatmap.max() == (pytest.approx(explanation.probability) if explanation.heatmap.any() else 0)
    layer_cam = classifier.explain(tmp_path / "a.png", "Pleural Effusion", method="layer-cam", stretch=True)
    assert explanation.method == "Grad-CAM (denseblock2), smoothed 0.08, with its mirror image"
    assert layer_cam.method == "LayerCAM (denseblock2), smoothed 0.08, with its mirror image"
    assert layer_cam.heatmap.max() in (0, 1)
    with pytest.raises(RequestError) as unknown:
        classifier.explain(tmp_path / "a.png", "Edema", method="gradcam")
    assert "grad-cam" in unknown.value.advice
    files = explanation.save(tmp_path / "out")
    assert sorted(files) == ["figure", "heatmap", "overlay"]
    with Image.open(files["heatmap"]) as heatmap:
        assert heatmap.size == (90, 120)
    with pytest.raises(RequestError) as caught:
        classifier.explain(tmp_path / "a.png", "Plural Efusion")
    assert "Pleural Effusion" in caught.value.advice
    with pytest.raises(ImageError):
        classifier.explain(tmp_path / "gone.png", "Edema")


def test_without_a_label_every_positive_finding_or_the_most_probable(
    run_folder: Path, phantoms: Path, tmp_path: Path
) -> None:
    image = next((phantoms / "test").rglob("*frontal.jpg"))
    model = with_a_most_probable(run_folder / "model.safetensors", "Consolidation", tmp_path / "model.safetensors")
    for level, expected in ((0.0, list(FINDINGS)), (1.0, ["Consolidation"])):
        classifier = Classifier.load(model, thresholds=dict.fromkeys(FINDINGS, level))
        ((_, explanations),) = classifier.explain_many([image])
        assert isinstance(explanations, tuple)
        assert [explanation.label for explanation in explanations] == expected
