import socket
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import DenseNet121_Weights, densenet121

from cxrtool.data.preprocessing import Preprocessing
from cxrtool.errors import ModelError, RequestError
from cxrtool.model.densenet import ChestNet, build_network


@pytest.fixture(scope="module")
def network() -> ChestNet:
    return build_network(Preprocessing(64), "none", seed=1).eval()


def test_logits_equal_torchvision_on_normalised_rgb(network: ChestNet) -> None:
    plain = densenet121(weights=None, num_classes=5).eval()
    plain.load_state_dict(network.state_dict())
    pixels = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    rgb = (pixels.repeat(1, 3, 1, 1) / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    with torch.no_grad():
        np.testing.assert_allclose(network(pixels), plain(rgb), atol=1e-5)
        assert (network.activations(pixels) >= 0).all()


def test_initial_weights_depend_on_the_seed_only_and_the_global_generator_is_unchanged() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second, other = (build_network(Preprocessing(64), "none", seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    assert not torch.equal(first.features.conv0.weight, other.features.conv0.weight)


def test_initial_weights_equal_torchvision() -> None:
    own = build_network(Preprocessing(64), "none", seed=3).state_dict()
    torch.manual_seed(3)
    theirs = densenet121(weights=None, num_classes=5).state_dict()
    assert list(own) == list(theirs)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in own.items())


def test_gradients_equal_torchvision() -> None:
    own = build_network(Preprocessing(64), "none", seed=3).double().train()
    theirs = densenet121(weights=None, num_classes=5).double().train()
    theirs.load_state_dict(own.state_dict())
    pixels = torch.randint(0, 256, (3, 1, 64, 64)).double()
    rgb = ((pixels / 255).repeat(1, 3, 1, 1) - own.mean) / own.std
    weights = torch.randn(3, 5, dtype=torch.float64)
    (own.classifier(own.activations(pixels).mean((2, 3))) * weights).sum().backward()
    (theirs(rgb) * weights).sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in own.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-7, atol=1e-9)


def imagenet_file(folder: Path) -> dict[str, torch.Tensor]:
    """Write weights as torchvision publishes them: its file name, its old layer names (norm.1), 1,000 classes."""
    state = densenet121(weights=None).state_dict()
    old = {}
    for name, tensor in state.items():
        if "denselayer" in name:
            for kind in ("norm", "conv"):
                for number in ("1", "2"):
                    name = name.replace(f".{kind}{number}.", f".{kind}.{number}.")
        if "num_batches_tracked" not in name:
            old[name] = tensor
    place = folder / "hub" / "checkpoints"
    place.mkdir(parents=True)
    torch.save(old, place / Path(DenseNet121_Weights.IMAGENET1K_V1.url).name)
    return state


def test_imagenet_weights_come_from_torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state = imagenet_file(tmp_path)
    network = build_network(Preprocessing(64), "imagenet", seed=0)
    for name, tensor in network.state_dict().items():
        if not name.startswith("classifier.") and "num_batches" not in name:
            assert torch.equal(tensor, state[name]), name
    assert network.classifier.weight.shape == (5, 1024)


def test_a_failed_download_names_the_alternatives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_route(*_: object, **__: object) -> None:
        raise URLError(socket.gaierror(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr("torch.hub.download_url_to_file", no_route)
    with pytest.raises(RequestError) as caught:
        build_network(Preprocessing(64), "imagenet", seed=0)
    text = f"{caught.value.message} {caught.value.advice}"
    assert "\n" not in text
    assert "--init none" in text
    assert "--init FILE" in text


def test_a_pickle_in_place_of_the_weights_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    place = tmp_path / "hub" / "checkpoints"
    place.mkdir(parents=True)
    torch.save({"x": Bomb()}, place / Path(DenseNet121_Weights.IMAGENET1K_V1.url).name)
    with pytest.raises(RequestError, match="cannot be read"):
        build_network(Preprocessing(64), "imagenet", seed=0)
    assert not (tmp_path / "ran").exists()


def test_init_from_a_file_loads_the_backbone_and_refuses_other_weights(tmp_path: Path) -> None:
    state = densenet121(weights=None).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    network = build_network(Preprocessing(64), str(tmp_path / "w.safetensors"), seed=0)
    assert torch.equal(network.features.conv0.weight, state["features.conv0.weight"])
    save_file({f"module.{n}": t.clone() for n, t in state.items()}, tmp_path / "prefixed.safetensors")
    with pytest.raises(ModelError, match="module"):
        build_network(Preprocessing(64), str(tmp_path / "prefixed.safetensors"), seed=0)
    save_file({n: t.clone() for n, t in state.items() if "denseblock4" not in n}, tmp_path / "part.safetensors")
    with pytest.raises(ModelError, match="missing"):
        build_network(Preprocessing(64), str(tmp_path / "part.safetensors"), seed=0)
    torch.save(state, tmp_path / "w.pt")
    for wrong in ("w.pt", "gone.safetensors"):
        with pytest.raises(RequestError):
            build_network(Preprocessing(64), str(tmp_path / wrong), seed=0)
