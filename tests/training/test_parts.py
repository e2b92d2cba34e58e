import signal
from pathlib import Path

import pytest
import torch

from cxrtool.choices import Fit
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.errors import InterruptedWorkError, RequestError
from cxrtool.model.bundle import open_bundle, read_header, save_bundle
from cxrtool.model.densenet import build_network
from cxrtool.training.loop import train
from tests_support import tiny_training

STEM = {"conv0", "norm0"}
BLOCKS = {
    0: set(),
    1: STEM | {"denseblock1", "transition1"},
    3: STEM | {f"{kind}{number}" for kind in ("denseblock", "transition") for number in (1, 2, 3)},
    4: STEM
    | {f"transition{number}" for number in (1, 2, 3)}
    | {f"denseblock{number}" for number in (1, 2, 3, 4)}
    | {"norm5"},
}


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(open_bundle(path).network.state_dict())


@pytest.mark.parametrize("blocks", sorted(BLOCKS))
def test_frozen_blocks_keep_weights_and_statistics_and_all_others_learn(
    phantoms: Path, tmp_path: Path, blocks: int
) -> None:
    train(tiny_training(phantoms, train__epochs=1, train__freeze=blocks), tmp_path / "run")
    before = build_network(Preprocessing(32), "none", 0).state_dict()
    after = weights(tmp_path / "run" / "last.safetensors")
    kept, changed = set(), set()
    for name, tensor in after.items():
        part = name.split(".")[1] if name.startswith("features.") else "classifier"
        (kept if torch.equal(tensor, before[name]) else changed).add(part)
    assert kept == BLOCKS[blocks]
    assert not kept & changed


def test_the_last_layer_has_a_learning_rate_of_its_own(phantoms: Path, tmp_path: Path) -> None:
    rates = {"train__lr": 1e-4, "train__lr_head": 1e-2, "train__batch_size": 64, "train__epochs": 1}
    train(tiny_training(phantoms, **rates), tmp_path / "run")
    before = build_network(Preprocessing(32), "none", 0).state_dict()
    after = weights(tmp_path / "run" / "last.safetensors")
    # Adam's first step moves a weight by its learning rate, up to a gradient near 0.
    moved = {name: (after[name] - before[name]).abs().max().item() for name in before if name.endswith("weight")}
    assert moved["classifier.weight"] == pytest.approx(1e-2, rel=0.01)
    assert moved["features.denseblock4.denselayer1.conv2.weight"] == pytest.approx(1e-4, rel=0.01)


def test_a_run_with_frozen_blocks_is_resumed_to_the_bit(phantoms: Path, tmp_path: Path) -> None:
    settings = tiny_training(phantoms, train__freeze=2, train__lr_head=1e-3)
    train(settings, tmp_path / "whole")

    def stop_in_second_epoch() -> int | None:
        return signal.SIGINT if (tmp_path / "parts" / "history.csv").exists() else None

    with pytest.raises(InterruptedWorkError):
        train(settings, tmp_path / "parts", stop=stop_in_second_epoch)
    train(settings, resume=tmp_path / "parts")
    whole, parts = weights(tmp_path / "whole/last.safetensors"), weights(tmp_path / "parts/last.safetensors")
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


def test_a_network_of_one_channel_is_trained_further_with_its_own_normalisation(
    phantoms: Path, run_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grey = Preprocessing(64, (0.5,), (1 / 2048,), fit=Fit.CROP)
    first = tmp_path / "grey.safetensors"
    header = read_header(run_folder / "model.safetensors").model_copy(update={"preprocessing": grey.to_dict()})
    save_bundle(first, build_network(grey, "none", 1).state_dict(), header)
    settings = tiny_training(phantoms, train__init=str(first), train__freeze=4, train__epochs=1)
    train(settings, tmp_path / "run")
    assert "was trained with --fit crop, and this run uses stretch" in caplog.text
    own = read_header(tmp_path / "run" / "model.safetensors").image_preprocessing
    assert own == Preprocessing(settings.settings.train.image_size, (0.5,), (1 / 2048,))
    name = "features.conv0.weight"
    assert torch.equal(weights(tmp_path / "run" / "last.safetensors")[name], weights(first)[name])

    longer = tiny_training(phantoms, train__init=str(first), train__freeze=4, train__epochs=2)
    train(longer, tmp_path / "whole")
    first.unlink()  # a run that goes on needs it no more
    train(longer, resume=tmp_path / "run")
    whole, parts = weights(tmp_path / "whole/last.safetensors"), weights(tmp_path / "run/last.safetensors")
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())

    (tmp_path / "run" / "model.json").write_text("{}")
    with pytest.raises(RequestError, match="how this run's images are normalised"):
        train(longer, resume=tmp_path / "run")
