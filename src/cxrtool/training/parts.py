"""Which parts of the network learn, and how fast: few images suffice for the last blocks, not for all of them."""

from typing import Any

import torch
from torch import nn

from cxrtool.choices import OptimizerName
from cxrtool.model.densenet import LAYERS, ChestNet
from cxrtool.settings import TrainSettings


def frozen_modules(network: ChestNet, blocks: int) -> list[nn.Module]:
    """Return the first convolution, its normalisation, and the first dense blocks, each with what follows it.

    Args:
        network: the network.
        blocks: number of dense blocks, 0 to 4; 0 returns nothing, 4 all but the classifier.
    """
    if not blocks:
        return []
    last = f"transition{blocks}" if blocks < len(LAYERS) else "norm5"
    modules = dict(network.features.named_children())
    names = list(modules)
    return [modules[name] for name in names[: names.index(last) + 1]]


def freeze(network: ChestNet, blocks: int) -> None:
    """Take the weights of `frozen_modules` out of training."""
    for module in frozen_modules(network, blocks):
        module.requires_grad_(False)


def set_training(network: ChestNet, blocks: int) -> None:
    """Switch to training mode; the normalisation of frozen blocks keeps the mean and variance that it came with."""
    network.train()
    for module in frozen_modules(network, blocks):
        module.eval()


def build_optimizer(network: ChestNet, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return the optimizer of the weights that learn; the classifier may have a learning rate of its own."""
    kind = torch.optim.Adam if settings.optimizer is OptimizerName.ADAM else torch.optim.AdamW
    backbone = [parameter for parameter in network.features.parameters() if parameter.requires_grad]
    head = list(network.classifier.parameters())
    groups: list[dict[str, Any]] = [{"params": backbone + head}]
    if settings.lr_head is not None:
        groups = [{"params": backbone}, {"params": head, "lr": settings.lr_head}]
    groups = [group for group in groups if group["params"]]
    on_gpu = network.classifier.weight.is_cuda
    # A step that is recorded must find the optimizer's count of steps on the GPU.
    return kind(groups, lr=settings.lr, weight_decay=settings.weight_decay, fused=True, capturable=on_gpu)
