"""The roofline counts what the network does."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cxrtool.benchmarks.limit import LayerCost, MachineRate, layer_costs, machine_rate
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.model.densenet import build_network


def test_operations_are_those_that_torch_counts() -> None:
    network = build_network(Preprocessing(64), "none", seed=0).eval()
    costs = layer_costs(network, 2, 64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(2, 1, 64, 64, dtype=torch.uint8))
    assert sum(cost.operations for cost in costs) == counter.get_total_flops()
    assert len(costs) == sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in network.modules())


def test_an_image_of_320_px_takes_eleven_billion_operations() -> None:
    """2.834 GMAC at 224 px, as published for DenseNet121 (torchvision), times (320/224)^2 and 2."""
    network = build_network(Preprocessing(320), "none", seed=0).eval()
    operations = sum(cost.operations for cost in layer_costs(network, 1, 320))
    assert operations == pytest.approx(2 * 2.834e9 * (320 / 224) ** 2, rel=0.02)


def test_each_layer_is_bound_by_the_slower_of_the_two() -> None:
    rate = MachineRate(operations=100.0, bandwidth=40.0, width=4)
    computes, moves = LayerCost(operations=1000, elements=50), LayerCost(operations=10, elements=200)
    # 1000/100 against 50 * 4 / 40, and 10/100 against 200 * 4 / 40: 10 s and 20 s for three images
    assert rate.images_per_second([computes, moves], 3) == pytest.approx(3 / 30)


def test_a_machine_has_a_rate() -> None:
    rate = machine_rate(torch.float32, torch.device("cpu"))
    assert rate.operations > 1e8
    assert rate.bandwidth > 1e8
    assert rate.width == 4
