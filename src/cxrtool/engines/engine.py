"""Engines turn pixels into logits: the interface, and the engine that uses torch."""

import math
from dataclasses import asdict, dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cxrtool.choices import Backend
from cxrtool.engines.device import Runtime
from cxrtool.engines.threads import LoadedIn
from cxrtool.errors import CxrError, first_line, is_out_of_memory
from cxrtool.model.densenet import ChestNet
from cxrtool.model.folding import inference_copy

_LARGEST_BLOCK = 32 * 2**20
"""Bytes. glibc returns larger blocks to the kernel after each use, which made prediction 1.3 times slower at 320 px."""


@dataclass(frozen=True)
class HowRun:
    """Backend and precision of an engine, as stated in results.

    Attributes:
        backend: ``torch``, ``onnx`` or ``openvino``.
        precision: ``fp32``, ``bf16`` or ``int8``.
    """

    backend: str
    precision: str

    def to_dict(self) -> dict[str, object]:
        """Return a dict ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.backend} in {self.precision}"


class Engine(Protocol):
    """A network ready to run; threads may share it."""

    @property
    def how(self) -> HowRun:
        """Backend and precision."""

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits [B, 5] float32 for pixels [B, 1, S, S] uint8."""


@dataclass(frozen=True)
class TorchEngine:
    """Engine that runs the network in torch; made by `torch_engine`.

    Attributes:
        network: network prepared for inference.
        runtime: device, precision and memory layout.
    """

    network: ChestNet
    runtime: Runtime
    _loaded_in: LoadedIn = field(default_factory=lambda: LoadedIn("CUDA"), repr=False)

    @property
    def how(self) -> HowRun:
        """torch, in fp32 or bf16."""
        return HowRun(Backend.TORCH.value, self.runtime.precision)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits [B, 5] float32 for pixels [B, 1, S, S] uint8.

        Raises:
            CxrError: memory has run out, or a model on a GPU was loaded before a fork.
        """
        if self.runtime.device.type != "cpu":
            self._loaded_in.check()
        try:
            with torch.inference_mode():
                parts = [self.network(self.runtime.tensor(part)) for part in self._parts(pixels)]
                logits: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            advice = (
                f"Use a smaller runtime.batch_size (--batch-size outside of train): try {len(pixels) // 2}."
                if len(pixels) > 1
                else "The batch size is already 1: free memory, or use a machine with more."
            )
            raise CxrError(
                f"memory has run out with {len(pixels)} images in a batch ({first_line(error)})", advice
            ) from error
        return logits

    def _parts(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """Split a batch, on a CPU, so that every block of memory stays below `_LARGEST_BLOCK`."""
        if self.runtime.device.type != "cpu":
            return [pixels]
        block = 4 * 64 * (pixels.shape[-1] // 2) ** 2  # output of the first convolution, the largest: always float32
        return np.array_split(pixels, math.ceil(len(pixels) / max(1, _LARGEST_BLOCK // block)))


def torch_engine(network: ChestNet, runtime: Runtime) -> TorchEngine:
    """Return an engine for `network`, which is not changed."""
    dtype = torch.bfloat16 if runtime.bf16 else torch.float32
    return TorchEngine(runtime.place(inference_copy(network, dtype)), runtime)
