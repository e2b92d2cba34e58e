"""The network with folded BatchNorms computes the same function."""

import pytest
import torch

from cxrtool.choices import Layer
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.model.densenet import ChestNet, build_network
from cxrtool.model.folding import inference_copy


@pytest.fixture(scope="module")
def trained() -> ChestNet:
    """A network whose BatchNorms have large, small, negative and zero scales, as after training."""
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


def test_the_inference_copy_computes_the_same_and_does_not_change_the_network(trained: ChestNet) -> None:
    pixels = torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8)
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    for layout in (torch.contiguous_format, torch.channels_last):
        placed = trained.to(memory_format=layout)
        with torch.inference_mode():
            expected = trained(pixels)
            torch.testing.assert_close(inference_copy(placed)(pixels), expected, rtol=1e-4, atol=1e-5)
            for layer in Layer:
                found = inference_copy(placed).activations(pixels, layer)
                torch.testing.assert_close(found, trained.activations(pixels, layer), rtol=1e-3, atol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())
    left = [m for m in inference_copy(trained).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(left) == 4  # three transitions keep theirs for heatmaps, and no convolution follows the last


def test_the_inference_copy_in_bf16_is_as_accurate_as_autocast(trained: ChestNet) -> None:
    pixels = torch.randint(0, 256, (8, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact, ours = trained(pixels), inference_copy(trained, torch.bfloat16)(pixels)
        with torch.autocast("cpu", torch.bfloat16):
            theirs = trained(pixels).float()
    assert ours.dtype == torch.float32
    assert 0 < (ours - exact).abs().mean() < 2 * (theirs - exact).abs().mean()
