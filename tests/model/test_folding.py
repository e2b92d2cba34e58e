"""The network with its BatchNorms folded computes the same function."""

import pytest
import torch

from cxrtool.choices import Layer
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.model.densenet import ChestNet, build_network
from cxrtool.model.folding import inference_copy


@pytest.fixture(scope="module")
def worn() -> ChestNet:
    """A network whose BatchNorms scale up, down, the other way and not at all, as trained ones do."""
    network = build_network(Preprocessing(64), "none", seed=3)
    with torch.no_grad():
        for _ in range(3):
            network(torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8))  # in train mode: statistics
        for number, module in enumerate(network.modules()):
            if isinstance(module, torch.nn.BatchNorm2d):
                generator = torch.Generator().manual_seed(number)
                module.weight.uniform_(-0.3, 1.2, generator=generator)
                module.weight[::17] = 0
                module.bias.normal_(0, 0.3, generator=generator)
    return network.eval()


def test_the_inference_copy_is_the_same_function_and_leaves_the_network_alone(worn: ChestNet) -> None:
    pixels = torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8)
    before = {name: tensor.clone() for name, tensor in worn.state_dict().items()}
    for layout in (torch.contiguous_format, torch.channels_last):
        placed = worn.to(memory_format=layout)
        with torch.inference_mode():
            expected = worn(pixels)
            torch.testing.assert_close(inference_copy(placed)(pixels), expected, rtol=1e-4, atol=1e-5)
            for layer in Layer:
                found = inference_copy(placed).activations(pixels, layer)
                torch.testing.assert_close(found, worn.activations(pixels, layer), rtol=1e-3, atol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in worn.state_dict().items())
    left = [m for m in inference_copy(worn).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(left) == 4  # three transitions keep theirs for maps, and the last has no convolution behind it


def test_the_inference_copy_in_bf16_is_as_near_as_autocast_is(worn: ChestNet) -> None:
    pixels = torch.randint(0, 256, (8, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact, ours = worn(pixels), inference_copy(worn, torch.bfloat16)(pixels)
        with torch.autocast("cpu", torch.bfloat16):
            theirs = worn(pixels).float()
    assert ours.dtype == torch.float32
    assert 0 < (ours - exact).abs().mean() < 2 * (theirs - exact).abs().mean()
