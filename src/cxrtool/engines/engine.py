"""What turns pixels into logits: torch, or an export that another runtime reads."""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cxrtool.choices import Backend
from cxrtool.engines.device import Runtime
from cxrtool.errors import CxrError, first_line, is_out_of_memory
from cxrtool.model.densenet import ChestNet
from cxrtool.model.folding import inference_copy

if TYPE_CHECKING:
    pass


_LARGEST_BLOCK = 32 * 2**20
"""Bytes. glibc gives larger blocks back to the kernel and faults them in again: 1.3 times as slow at 320 px."""


@dataclass(frozen=True)
class HowRun:
    """What results say of the engine behind them.

    Attributes:
        backend: ``torch``, ``onnx`` or ``openvino``.
        precision: ``fp32``, ``bf16`` or ``int8``.
    """

    backend: str
    precision: str

    def to_dict(self) -> dict[str, object]:
        """Plain values by name."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.backend} in {self.precision}"


class Engine(Protocol):
    """One network, ready to run; threads may share it."""

    @property
    def how(self) -> HowRun:
        """Backend and precision."""

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits [B, 5] float32 of pixels [B, 1, S, S] uint8."""


@dataclass(frozen=True)
class TorchEngine:
    """The network itself.

    Attributes:
        network: as `torch_engine` makes it.
        runtime: where and how.
    """

    network: ChestNet
    runtime: Runtime

    @property
    def how(self) -> HowRun:
        """torch, in fp32 or bf16."""
        return HowRun(Backend.TORCH.value, self.runtime.precision)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits [B, 5] float32 of pixels [B, 1, S, S] uint8."""
        try:
            with torch.inference_mode():
                parts = [self.network(self.runtime.tensor(part)) for part in self._parts(pixels)]
                logits: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            less = f"try half of it, {len(pixels) // 2}" if len(pixels) > 1 else "there is no smaller one"
            raise CxrError(
                f"memory has run out at {len(pixels)} images at once ({first_line(error)})",
                f"Take a smaller runtime.batch_size (--batch-size outside of train): {less}.",
            ) from error
        return logits

    def _parts(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """On a CPU, as few images at once as keep every block of memory below `_LARGEST_BLOCK`."""
        if self.runtime.device.type != "cpu":
            return [pixels]
        block = 4 * 64 * (pixels.shape[-1] // 2) ** 2  # what the first convolution gives, the largest: float32 always
        return np.array_split(pixels, math.ceil(len(pixels) / max(1, _LARGEST_BLOCK // block)))


# What needs an export is imported where it is needed: most runs do without, and these modules build on this one.


def torch_engine(network: ChestNet, runtime: Runtime) -> TorchEngine:
    """`network` made ready to predict; it stays as it is."""
    dtype = torch.bfloat16 if runtime.bf16 else torch.float32
    return TorchEngine(runtime.place(inference_copy(network, dtype)), runtime)
