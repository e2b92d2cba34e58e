import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from cxrtool.data.preprocessing import Preprocessing
from cxrtool.explain.faithfulness import RANDOMISED, deletion_and_insertion, randomised, rank_correlation, sanity_curve
from cxrtool.explain.methods import MapSettings
from cxrtool.model.densenet import ChestNet, build_network


@pytest.fixture(scope="module")
def network() -> ChestNet:
    return build_network(Preprocessing(64), "none", seed=1).eval()


def test_layers_are_randomised_from_the_top_and_the_network_stays(network: ChestNet) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    changed_before: set[str] = set()
    for upto in RANDOMISED:
        other = randomised(network, upto).state_dict()
        changed = {name for name in before if not torch.equal(before[name], other[name])}
        assert changed_before < changed
        changed_before = changed
        assert not any("running" in name for name in changed)
    other = randomised(network, RANDOMISED[0]).state_dict()
    assert {name for name in before if not torch.equal(before[name], other[name])} == {
        "classifier.weight", "classifier.bias"
    }  # fmt: skip
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_rank_correlation_is_scipys() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 9, (2, 12, 15)).astype(np.float32)
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)
    assert rank_correlation(one, one * 3 + 1) == pytest.approx(1)
    assert rank_correlation(one, np.zeros_like(one)) == 0


def test_a_map_that_does_not_ask_the_model_stays_and_grad_cam_does_not(network: ChestNet) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64)).astype(np.float32))
    curve = sanity_curve(network, pixels, [(0, 1), (1, 3)], MapSettings())
    assert list(curve) == list(RANDOMISED)
    assert all(abs(value) < 0.95 for value in curve.values())


def test_deletion_falls_and_insertion_rises_where_the_map_is_right() -> None:
    class _Corner(ChestNet):
        """Sees nothing but the brightness of one corner."""

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return (pixels[:, :, :16, :16].mean(dim=(1, 2, 3)) - 100)[:, None].repeat(1, 5) / 10

    network = _Corner(Preprocessing(64)).eval()
    pixels = torch.zeros(1, 1, 64, 64)
    pixels[:, :, :16, :16] = 200
    right, wrong = np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32)
    right[:16, :16] = 1
    wrong[48:, 48:] = 1
    good, bad = (deletion_and_insertion(network, pixels, 0, map_) for map_ in (right, wrong))
    assert good[0] < 0.1 < 0.18 < bad[0]
    assert good[1] > 0.8
    assert good[1] > bad[1]
