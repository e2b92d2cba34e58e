import signal
from pathlib import Path

import pytest
import torch

from cxrtool.data.preprocessing import Preprocessing
from cxrtool.errors import InterruptedWorkError
from cxrtool.model.bundle import open_bundle
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
