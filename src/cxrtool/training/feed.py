"""What a training step needs, packed into one block of memory, and copied to a GPU while the step before still runs.

On a GPU each copy from ordinary memory makes the processor wait for the GPU. One block of page-locked memory per step,
copied on a stream of its own, needs no wait.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrtool.engines.device import Runtime
from cxrtool.training.augment import Changes

_ALIGNMENT = 16
"""Bytes that each array begins at a multiple of, so that it can be viewed as any type."""


@dataclass(frozen=True)
class StepInput:
    """Tensors of a step, on one device.

    Attributes:
        pixels: [B, 1, S, S] uint8.
        targets: [B, F] float32.
        mask: [B, F] bool.
        changes: augmentation of the images; None leaves them as they are.
    """

    pixels: Tensor
    targets: Tensor
    mask: Tensor
    changes: Changes[Tensor] | None


@dataclass(frozen=True)
class StepArrays:
    """The same as arrays in the processor's memory."""

    pixels: NDArray[np.uint8]
    targets: NDArray[np.float32]
    mask: NDArray[np.bool_]
    changes: Changes[NDArray[np.float32]] | None

    def with_at_least(self, images: int) -> Self:
        """Return the arrays with black images added, whose labels do not count, if there are fewer than `images`.

        One of several processes may have to leave out its images, and must still take part in the step.
        """
        missing = images - len(self.pixels)
        if missing <= 0:
            return self
        changes = self.changes
        return replace(
            self,
            pixels=_longer(self.pixels, missing),
            targets=_longer(self.targets, missing),
            mask=_longer(self.mask, missing),
            changes=changes and Changes(*(_longer(values, missing) for values in vars(changes).values())),
        )


def _longer(values: NDArray[Any], rows: int) -> NDArray[Any]:
    return np.concatenate([values, np.zeros((rows, *values.shape[1:]), dtype=values.dtype)])


@dataclass(frozen=True)
class Layout:
    """Where the arrays of a step lie in its block.

    Attributes:
        images: number of images, B.
        side: their width and height, S.
        findings: number of findings, F.
        augmented: whether there are changes.
    """

    images: int
    side: int
    findings: int
    augmented: bool

    @classmethod
    def of(cls, arrays: StepArrays) -> Self:
        """Return the layout of these arrays."""
        count, _, side, _ = arrays.pixels.shape
        return cls(count, side, arrays.targets.shape[1], arrays.changes is not None)

    @cached_property
    def _parts(self) -> dict[str, tuple[slice, torch.dtype, tuple[int, ...]]]:
        cells = (self.images, self.findings)
        shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "pixels": (torch.uint8, (self.images, 1, self.side, self.side)),
            "targets": (torch.float32, cells),
            "mask": (torch.bool, cells),
        }
        if self.augmented:
            shapes["places"] = (torch.float32, (self.images, 2, 3))
            shapes["contrast"] = shapes["brightness"] = (torch.float32, (self.images,))
        parts, start = {}, 0
        for name, (dtype, shape) in shapes.items():
            end = start + prod(shape) * dtype.itemsize
            parts[name] = slice(start, end), dtype, shape
            start = -(-end // _ALIGNMENT) * _ALIGNMENT
        return parts

    @property
    def size(self) -> int:
        """Bytes of the block."""
        return max(int(place.stop) for place, _, _ in self._parts.values())

    def pack(self, arrays: StepArrays, block: Tensor) -> None:
        """Copy the arrays into a block of `size` bytes, uint8, in the processor's memory."""
        found = self._views(block)
        values = {"pixels": arrays.pixels, "targets": arrays.targets, "mask": arrays.mask}
        if arrays.changes is not None:
            values |= vars(arrays.changes)
        for name, value in values.items():
            found[name].numpy()[...] = value

    def unpack(self, block: Tensor) -> StepInput:
        """Return the tensors of a block; they share its memory."""
        found = self._views(block)
        changes = Changes(found["places"], found["contrast"], found["brightness"]) if self.augmented else None
        return StepInput(found["pixels"], found["targets"], found["mask"], changes)

    def _views(self, block: Tensor) -> dict[str, Tensor]:
        return {name: block[place].view(dtype).view(shape) for name, (place, dtype, shape) in self._parts.items()}


@dataclass(frozen=True)
class Block:
    """A step's input on the device that trains.

    Attributes:
        layout: where its arrays lie.
        bytes: [layout.size] uint8.
    """

    layout: Layout
    bytes: Tensor

    def unpack(self) -> StepInput:
        """Return the tensors."""
        return self.layout.unpack(self.bytes)


def on_device(steps: Iterator[StepArrays | None], runtime: Runtime) -> Generator[Block | None, None, None]:
    """Copy each step's input to the device, to a GPU while the caller's step before runs; None stays None.

    The copy of the next step begins when the caller asks for it: it should start its step before, and wait for results
    of that step only afterwards.
    """
    on_gpu = runtime.device.type == "cuda"
    pinned = on_gpu and runtime.pin_memory
    side = torch.cuda.Stream(runtime.device) if on_gpu else None  # type: ignore[no-untyped-call]
    for arrays in steps:
        if arrays is None:
            yield None
            continue
        layout = Layout.of(arrays)
        # torch keeps page-locked memory for reuse, and waits for a copy from it to end before it gives it away again.
        block = torch.empty(layout.size, dtype=torch.uint8, pin_memory=pinned)
        layout.pack(arrays, block)
        if side is not None:
            with torch.cuda.stream(side):
                block = block.to(runtime.device, non_blocking=pinned)
            current = torch.cuda.current_stream(runtime.device)
            current.wait_stream(side)
            block.record_stream(current)
        yield Block(layout, block)
