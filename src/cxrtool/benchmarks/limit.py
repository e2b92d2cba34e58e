"""How many images a second this machine could read at most, by a roofline of DenseNet121.

Each convolution takes at least as long as its multiplications take at the rate of a large matrix product, and at least
as long as its input, weights and output take to pass through memory once (Williams, Waterman and Patterson,
"Roofline", Communications of the ACM 52(4), 2009). Everything else, BatchNorm, ReLU, pooling, counts as free: a program
can join it to the convolutions. A cache that holds a layer's output for the next can beat the second bound.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cxrtool.model.densenet import ChestNet

_SIDE = 2048
_BYTES = 256 * 2**20
_TURNS = 5


@dataclass(frozen=True)
class LayerCost:
    """What one layer does for a batch.

    Attributes:
        operations: multiplications and additions.
        elements: numbers in its input, weights and output.
    """

    operations: int
    elements: int


@dataclass(frozen=True)
class MachineRate:
    """What a machine can do in one number format.

    Attributes:
        operations: multiplications and additions a second, in a product of two matrices of 2048 x 2048.
        bandwidth: bytes a second, read and written, while a tensor of 256 MiB is copied.
        width: bytes of a number.
    """

    operations: float
    bandwidth: float
    width: int

    def images_per_second(self, layers: list[LayerCost], images: int) -> float:
        """Return the most images a second for layers whose costs are those of a batch of `images`."""
        seconds = sum(
            max(layer.operations / self.operations, layer.elements * self.width / self.bandwidth) for layer in layers
        )
        return images / seconds


def layer_costs(network: ChestNet, images: int, image_size: int) -> list[LayerCost]:
    """Return the cost of each convolution and of the classifier, in order.

    Args:
        network: not folded.
        images: size of the batch.
        image_size: width and height in pixels.
    """
    costs: list[LayerCost] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        # Each number of the output is the sum of one product per weight of its channel.
        operations = 2 * output.numel() * (weight.numel() // weight.shape[0])
        costs.append(LayerCost(operations, inputs[0].numel() + weight.numel() + output.numel()))

    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.inference_mode():
            network(torch.zeros(images, 1, image_size, image_size, dtype=torch.uint8))
    finally:
        for hook in hooks:
            hook.remove()
    return costs


def machine_rate(dtype: torch.dtype, device: torch.device) -> MachineRate:
    """Measure a machine, taking the best of five turns; about two seconds on a laptop."""
    left, right = (torch.rand(_SIDE, _SIDE, device=device).to(dtype) for _ in range(2))
    product = torch.empty(_SIDE, _SIDE, dtype=dtype, device=device)
    source = torch.ones(_BYTES, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return MachineRate(
        operations=2 * _SIDE**3 / _best(lambda: torch.mm(left, right, out=product), device),
        bandwidth=2 * _BYTES / _best(lambda: target.copy_(source), device),
        width=dtype.itemsize,
    )


def _best(work: Callable[[], object], device: torch.device) -> float:
    """Return the fewest seconds of several turns, after one that is not counted."""
    turns = []
    for _ in range(1 + _TURNS):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        turns.append(time.perf_counter() - began)
    return min(turns[1:])
