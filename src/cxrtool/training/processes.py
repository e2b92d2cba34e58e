"""The processes that train one model together: one, or several that torchrun has started.

What only one process may do (name and lock the run, write its files) the first does, by `Processes.from_first`, and the
others wait for what it returns, or fail with it. What all must do in the same step (stop, find a loss that is not
finite) is decided from a number that all of them know, by `Processes.largest` and `Processes.total`. A process that
fails alone leaves: torchrun ends the others, which meanwhile wait for it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from cxrtool.errors import CxrError, OtherProcessError
from cxrtool.model.densenet import ChestNet

Value = TypeVar("Value")

LAUNCHED = "CXRTOOL_LAUNCHED"
"""Environment variable that tells the processes that ``cxr train --gpus`` waits for them, and says which was killed."""

_LONGEST_WAIT = timedelta(hours=2)
"""For another process, for example while the first builds a cache. torchrun notices at once if one has died."""
_BROKEN = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket Timeout")
"""Texts in torch's errors where another process has gone; they are plain RuntimeErrors."""


@dataclass(frozen=True)
class Processes:
    """The processes of a training, from the view of one of them.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes, on all machines.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def from_first(self, make: Callable[[], Value]) -> Value:
        """Call `make` in the first process and return its result in all.

        Raises:
            CxrError: what `make` raised, in all processes.
        """
        if self.count == 1:
            return make()
        result: list[Any] = [None, None]
        if self.first:
            try:
                result[0] = make()
            except CxrError as error:
                result[1] = error
        dist.broadcast_object_list(result, src=0)
        if result[1] is not None:
            raise result[1]
        value: Value = result[0]
        return value

    def first_alone(self, make: Callable[[], Value]) -> Value:
        """Call `make` in all processes, first in the first one, so that the others find what it left on the disk."""
        if self.count == 1:
            return make()
        made = make() if self.first else None
        dist.barrier()
        return made if made is not None else make()

    def share(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows that this process takes of those that all take together."""
        return rows[self.rank :: self.count]

    def sum(self, number: int) -> int:
        """Return the sum of `number` over all processes."""
        return int(self.total(torch.tensor([number])).item())

    def put_together(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return an array whose rows are NaN but for the share of each process, with the rows of all.

        A row of NaN in the process that it belongs to, such as that of an unreadable image, stays NaN.
        """
        if self.count == 1:
            return values
        known = torch.from_numpy(~np.isnan(values))
        filled = self.total(torch.from_numpy(np.nan_to_num(values)))
        seen = self.total(known.int()) > 0
        return torch.where(seen, filled, torch.nan).numpy()

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes; of a single one, `values` itself."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def largest(self, number: int) -> int:
        """Return the largest `number` of all processes."""
        if self.count == 1:
            return number
        values = torch.tensor([number])
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return int(values.item())

    def joined(self, reasons: dict[int, str]) -> dict[int, str]:
        """Return the entries of all processes, in the order of their keys."""
        if self.count == 1:
            return reasons
        parts: list[dict[int, str]] = [{} for _ in range(self.count)]
        dist.all_gather_object(parts, reasons)
        return dict(sorted((row, text) for part in parts for row, text in part.items()))

    def parallel(self, network: ChestNet) -> torch.nn.Module:
        """Return what runs a forward pass of `network` whose gradients are averaged over the processes.

        All start with the weights of the first. On GPUs `network` must have been through `with_shared_statistics`. On
        CPUs torch cannot share BatchNorm's statistics: each process normalises with those of its own images, and the
        running ones are the first's, which the others take over before each step.
        """
        return network if self.count == 1 else DistributedDataParallel(network, gradient_as_bucket_view=True)

    def with_shared_statistics(self, network: ChestNet) -> ChestNet:
        """Return `network` so that BatchNorm takes its statistics over the images of all processes, where torch can."""
        if self.count == 1 or next(network.parameters()).device.type != "cuda":
            return network
        converted: ChestNet = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return converted

    def copy_buffers(self, network: ChestNet) -> None:
        """Give all processes BatchNorm's running statistics of the first."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)


ALONE = Processes()
"""One process, as without torchrun."""


def started_by_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank_of_process() -> int:
    """Return the number of this process among those that torchrun has started, before they are joined; 0 if alone."""
    return int(os.environ.get("RANK", "0")) if started_by_torchrun() else 0


def was_restarted() -> bool:
    """Whether torchrun has started this process after an earlier one had failed or was killed."""
    return started_by_torchrun() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def may_be_restarted() -> bool:
    """Whether torchrun would start the processes again if one fails."""
    return started_by_torchrun() and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


@contextmanager
def join_processes(use_gpus: bool) -> Iterator[Processes]:
    """Join the processes that torchrun has started, inside the block; alone, nothing is joined.

    Args:
        use_gpus: whether the network runs on GPUs: this process takes that of its number on its machine.

    Raises:
        OtherProcessError: another process has gone.
        CxrError: this machine has fewer GPUs than processes. The first process to raise any such error is to say it; in
            the others it is `CxrError.said`.
    """
    if not started_by_torchrun() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if use_gpus:
        _take_gpu()
    with _other_gone():
        store, rank, count = next(rendezvous("env://", timeout=_LONGEST_WAIT))
    backend = "cpu:gloo,cuda:nccl" if use_gpus else "gloo"
    try:
        with _other_gone():
            dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_LONGEST_WAIT)
            yield Processes(rank, count)
            dist.barrier()
    except CxrError as error:
        killed = isinstance(error, OtherProcessError) and LAUNCHED in os.environ
        error.said = killed or not _is_first_to_fail(store, rank)
        raise
    dist.destroy_process_group()  # not after an error: it would wait for processes that do not come


def _is_first_to_fail(store: Any, rank: int) -> bool:
    try:
        return int(store.add("failed", 1)) == 1
    except RuntimeError:  # the launcher has gone, and the store with it
        return rank == 0


def _take_gpu() -> None:
    number, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= gpus:
        raise CxrError(
            f"process {number} of this machine has no GPU: there are {gpus}",
            "Start one process for each GPU (--gpus, --nproc-per-node), or use --device cpu.",
        )
    torch.cuda.set_device(number)


@contextmanager
def _other_gone() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(text in str(error) for text in _BROKEN):
            raise
        raise OtherProcessError(
            "another process of this training has ended", "What it wrote before says why."
        ) from error
