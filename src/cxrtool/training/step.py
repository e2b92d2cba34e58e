"""One training step: forward, backward and update of the weights; on a GPU recorded once and replayed."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from cxrtool.engines.device import Runtime
from cxrtool.training.augment import augment
from cxrtool.training.feed import Block, Layout, StepInput
from cxrtool.training.loss import masked_bce
from cxrtool.training.processes import Processes

_EAGER_STEPS = 3
"""Steps before one is recorded: they allocate the optimizer's memory, and cuDNN chooses its algorithms."""


class TrainingStep:
    """Trains on one batch per call.

    DenseNet121 has thousands of short kernels, and starting them takes longer than running them until a batch is large.
    So a GPU records the kernels of a step once, as a CUDA graph, and replays them. Only whole batches of one process
    are replayed: a last, smaller batch runs as it is, and so do several processes, which exchange gradients in a step.

    Args:
        network: what is trained; see `Processes.parallel`.
        optimizer: of its weights.
        runtime: device and precision.
        processes: the processes that train together.
        pos_weight: [F] float32 on the device, factor on the loss of positives.
        clip: largest norm of the gradients; None does not limit it.
        record: whether a GPU may record and replay.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        runtime: Runtime,
        processes: Processes,
        pos_weight: Tensor | None = None,
        clip: float | None = None,
        record: bool = True,
    ) -> None:
        self._network, self._optimizer, self._runtime, self._processes = network, optimizer, runtime, processes
        self._pos_weight, self._clip = pos_weight, clip
        self._records = record and runtime.device.type == "cuda" and processes.count == 1
        self._seen: dict[Layout, int] = {}
        self._recorded: tuple[Layout, Callable[[Block], Tensor]] | None = None

    def __call__(self, block: Block) -> Tensor:
        """Train on a batch; return this process's part of its loss, a scalar on the device."""
        if not self._records:
            return self._run(block.unpack())
        if self._recorded is not None and self._recorded[0] == block.layout:
            return self._recorded[1](block)
        self._seen[block.layout] = self._seen.get(block.layout, 0) + 1
        if self._recorded is None and self._seen[block.layout] > _EAGER_STEPS:
            self._recorded = block.layout, self._record(block)
            return self._recorded[1](block)
        return self._run(block.unpack())

    def _run(self, step: StepInput) -> Tensor:
        pixels = step.pixels if step.changes is None else augment(step.pixels, step.changes)
        # Casts of weights are not kept between uses, because a recorded step must contain them.
        with torch.autocast(
            self._runtime.device.type, torch.bfloat16, enabled=self._runtime.bf16, cache_enabled=not self._records
        ):
            logits = self._network(pixels)
        cells = self._processes.total(step.mask.sum())
        loss = masked_bce(logits, step.targets, step.mask, self._pos_weight, cells)
        self._optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over the processes, but the parts of the loss add up.
        (loss * self._processes.count).backward()  # type: ignore[no-untyped-call]
        if self._clip:
            clip_grad_norm_(self._network.parameters(), self._clip)
        self._optimizer.step()
        return loss.detach()

    def _record(self, block: Block) -> Callable[[Block], Tensor]:
        """Record a step on a batch of this layout, without running it; return a function that runs it."""
        kept = block.bytes.clone()
        self._optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._run(block.layout.unpack(kept))

        def replay(other: Block) -> Tensor:
            kept.copy_(other.bytes)
            graph.replay()
            return loss.clone()  # the next replay overwrites it

        return replay
