"""Device and precision of the network in torch, and the sigmoid that every backend uses."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cxrtool.choices import Device, MatmulPrecision, Precision
from cxrtool.engines.precision import bf16_is_faster
from cxrtool.engines.threads import use_threads
from cxrtool.errors import RequestError
from cxrtool.model.densenet import ChestNet
from cxrtool.settings import RuntimeSettings


@dataclass(frozen=True)
class Runtime:
    """Device, precision and memory layout of a network.

    Attributes:
        device: CPU or GPU.
        bf16: run convolutions in bfloat16 (autocast in training); the classifier and the sigmoid stay in float32.
        channels_last: store images and weights in channels-last order.
        pin_memory: copy batches to the GPU from page-locked memory.
        tf32: whether a GPU rounds the factors of what is called float32 to ten bits.
    """

    device: torch.device
    bf16: bool = False
    channels_last: bool = True
    pin_memory: bool = False
    tf32: bool = False

    @property
    def precision(self) -> str:
        """``bf16`` or ``fp32``, as written in results."""
        return "bf16" if self.bf16 else "fp32"

    def place(self, network: ChestNet) -> ChestNet:
        """Move `network` to the device and to the memory layout, and return it."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return network.to(self.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def tensor(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """Copy `pixels` to the device."""
        batch = torch.from_numpy(pixels)
        if self.pin_memory:
            batch = batch.pin_memory()
        return batch.to(self.device, non_blocking=self.pin_memory)


def choose_runtime(settings: RuntimeSettings, auto_bf16: bool = False) -> Runtime:
    """Choose the device and the precision; set the number of threads, and how exact float32 is on a GPU.

    Args:
        settings: requested device, precision, memory layout and threads.
        auto_bf16: whether precision ``auto`` may choose bfloat16. Training allows it; reported metrics use float32.

    Raises:
        RequestError: a GPU is requested and there is none.
    """
    use_threads(settings)
    has_gpu = torch.cuda.is_available()
    if settings.device is Device.CUDA and not has_gpu:
        raise RequestError("--device cuda: no CUDA device was found", "Use --device cpu or --device auto.")
    use_gpu = has_gpu and settings.device is not Device.CPU
    device = torch.device("cuda" if use_gpu else "cpu")
    torch.set_float32_matmul_precision(settings.matmul_precision.value)
    # cuDNN uses TF32 in what is called float32 unless it is switched off: 6e-5 in a probability on an H100.
    tf32 = settings.matmul_precision is not MatmulPrecision.HIGHEST
    torch.backends.cudnn.allow_tf32 = tf32
    bf16 = settings.precision is Precision.BF16 or (
        settings.precision is Precision.AUTO and auto_bf16 and bf16_is_faster(device)
    )
    return Runtime(device, bf16, settings.channels_last, settings.pin_memory and use_gpu, tf32 and use_gpu)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities in [0, 1], float32, for logits; all probabilities are computed here.

    logaddexp does not overflow for any logit and keeps small probabilities distinct. In bfloat16 a logit of 6.3 would
    already become 1, and ranks would tie.
    """
    return np.exp(-np.logaddexp(np.float32(0), -logits.astype(np.float32)))
