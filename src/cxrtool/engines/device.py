"""Where and how torch runs the network, and the sigmoid behind every backend."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cxrtool.choices import Device, Precision
from cxrtool.engines.precision import bf16_pays
from cxrtool.errors import RequestError
from cxrtool.model.densenet import ChestNet
from cxrtool.settings import RuntimeSettings


@dataclass(frozen=True)
class Runtime:
    """Where and how a network runs.

    Attributes:
        device: CPU or a GPU.
        bf16: convolutions in bfloat16 (autocast in training); the classifier and the sigmoid stay in float32.
        channels_last: memory layout of images and weights.
        pin_memory: copy batches to the GPU from page-locked memory.
    """

    device: torch.device
    bf16: bool = False
    channels_last: bool = True
    pin_memory: bool = False

    @property
    def precision(self) -> str:
        """``bf16`` or ``fp32``, as results state it."""
        return "bf16" if self.bf16 else "fp32"

    def place(self, network: ChestNet) -> ChestNet:
        """Move `network` to the device and into the memory layout."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return network.to(self.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def tensor(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """`pixels` on the device."""
        batch = torch.from_numpy(pixels)
        if self.pin_memory:
            batch = batch.pin_memory()
        return batch.to(self.device, non_blocking=self.pin_memory)


def choose_runtime(settings: RuntimeSettings, auto_bf16: bool = False) -> Runtime:
    """Turn settings into a device and a precision.

    Args:
        settings: what the user wishes.
        auto_bf16: whether ``auto`` may take bfloat16. Training may; figures that are reported stay in float32.

    Raises:
        RequestError: a GPU is asked for and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if settings.device is Device.CUDA and not has_gpu:
        raise RequestError("--device cuda: no CUDA device is here", "Use --device cpu, or auto.")
    use_gpu = has_gpu and settings.device is not Device.CPU
    device = torch.device("cuda" if use_gpu else "cpu")
    bf16 = settings.precision is Precision.BF16 or (
        settings.precision is Precision.AUTO and auto_bf16 and bf16_pays(device)
    )
    return Runtime(device, bf16, settings.channels_last, settings.pin_memory and use_gpu)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities in [0, 1], float32, of float32 logits; the one place where they are made.

    Through logaddexp, which overflows for no logit and keeps small probabilities apart. In bfloat16 a logit of 6.3
    would already be 1, and ranks would tie.
    """
    return np.exp(-np.logaddexp(np.float32(0), -logits.astype(np.float32)))
