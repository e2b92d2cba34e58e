"""Share the blocks of a list of inputs between the machines of a Ray cluster.

Each actor is a process that holds one model and reads, decodes and predicts as ``cxr predict`` does on one machine. Ray
starts actors where processors (or GPUs) are free, and says when one has died; its blocks then go to the others, and a
new actor takes its place as soon as there is room.
"""

import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from typing import Any

from cxrtool.choices import Device
from cxrtool.errors import CxrError, InterruptedWorkError, RequestError
from cxrtool.predict.blocks import Block, BlockPredictor, PredictionTask
from cxrtool.progress import StopSignal, never_stop
from cxrtool.settings import RuntimeSettings
from cxrtool.text import counted

log = logging.getLogger(__name__)

_AHEAD = 2
"""Blocks that each actor has at a time, so that it need not wait for the next."""
_ATTEMPTS = 10
"""How often a block is given to an actor that dies with it."""
_SECONDS_TO_ANSWER = 10.0
_PATIENCE = 60
"""Seconds without an actor after which the wait is explained."""

Work = tuple[range, Sequence[str]]
"""Rows of a block, and the path of each."""


@dataclass(frozen=True)
class Share:
    """What each actor has of its machine.

    Attributes:
        actors: number of actors.
        cpus: processors for each.
        gpus: 1 if each has a GPU, else 0.
    """

    actors: int
    cpus: int
    gpus: int

    def __str__(self) -> str:
        """Return it for people: ``2 processes with 1 processor each``."""
        processors = counted(self.cpus, "processor")
        gpu = " and a GPU" if self.gpus else ""
        return f"{counted(self.actors, 'process', 'processes')} with {processors}{gpu} each"

    def settings(self, settings: RuntimeSettings) -> RuntimeSettings:
        """Return settings for one actor: as many threads as it has processors, so that rows do not depend on where."""
        threads = self.cpus if settings.threads == "auto" else settings.threads
        workers = max(2, self.cpus) if settings.workers == "auto" else settings.workers
        return settings.model_copy(update={"threads": threads, "workers": workers})


def share_of(nodes: Sequence[Mapping[str, float]], settings: RuntimeSettings, actors: int | None) -> Share:
    """Choose the number of actors and what each gets.

    Each has one GPU if there are some and the settings allow them; otherwise as many processors as the settings have
    threads, or as the smallest machine has, since the last digit of a number can depend on the threads.

    Args:
        nodes: resources of each machine, such as ``{"CPU": 16.0, "GPU": 1.0}``.
        settings: device and threads.
        actors: number of actors; None fills the cluster.

    Raises:
        RequestError: no machine has room for one.
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    if settings.device in (Device.AUTO, Device.CUDA) and any(gpus):
        each = min(cpu // gpu for cpu, gpu in zip(cpus, gpus, strict=True) if gpu)
        return Share(sum(gpus) if actors is None else actors, max(1, each), 1)
    if settings.device is Device.CUDA:
        raise RequestError("no machine of the cluster has a GPU that Ray knows of", "Leave out --device cuda.")
    each = min((cpu for cpu in cpus if cpu), default=0) if settings.threads == "auto" else settings.threads
    room = sum(cpu // each for cpu in cpus) if each else 0
    if not room:
        raise RequestError(
            f"no machine of the cluster has {each or 'any'} free processors", "Give fewer --threads, or add a machine."
        )
    return Share(room if actors is None else actors, each, 0)


@contextmanager
def connected(address: str) -> Iterator["Cluster"]:
    """Connect to a cluster inside the block.

    Args:
        address: ``HOST:PORT`` or ``ray://HOST:PORT`` of a cluster; ``local`` starts one on this machine; ``auto`` takes
            that of RAY_ADDRESS, or one that runs here, or starts one.

    Raises:
        RequestError: Ray is not installed, or there is no cluster at `address`.
    """
    # Otherwise Ray sends statistics of its use to its makers, and answers SIGTERM with its own stack.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    try:
        ray: Any = import_module("ray")
    except ImportError:
        raise RequestError("--ray needs ray, which is not installed", "Run pip install 'cxrtool[ray]'.") from None
    where = None if address == "auto" else address
    try:
        if address not in ("auto", "local"):
            _reach(address)  # Ray itself tries for minutes
        with _signals_kept():
            ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(
            f"no Ray cluster at {address} ({reason})", "Start one with ray start --head, or give --ray local."
        ) from None
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Undo what the block does to the handling of SIGTERM, which Ray turns into the end of Python."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _reach(address: str) -> None:
    """Open and close a connection to ``HOST:PORT`` or ``ray://HOST:PORT``.

    Raises:
        OSError: nobody answers there.
        ValueError: the port is missing.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("give its port too, as in HOST:6379")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()


class Cluster:
    """A Ray cluster that this process is connected to."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def nodes(self) -> list[dict[str, float]]:
        """The resources of each machine that is alive."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def predict(
        self, task: PredictionTask, share: Share, work: Iterable[Work], stop: StopSignal = never_stop
    ) -> Iterator[Block]:
        """Predict blocks, in the order in which they are finished.

        Memory does not grow with their number: each actor has two at a time, and `work` is read as they are needed.

        Args:
            task: model and settings.
            share: number of actors, and what each gets.
            work: the blocks.
            stop: called every second; see `StopSignal`. (An exception of a signal's own would break Ray's waiting.)

        Raises:
            InterruptedWorkError: `stop` returned a signal.
            CxrError: the model cannot be used, or a block's process has died ten times.
        """
        actors = _Actors(self._ray, task, share, stop)
        try:
            yield from actors.blocks(iter(work))
        finally:
            actors.end()


@dataclass(frozen=True)
class _Given:
    """A block, the actor that has it, and how many have died with it."""

    actor: Any
    work: Work
    deaths: int


class _Actors:
    def __init__(self, ray: Any, task: PredictionTask, share: Share, stop: StopSignal) -> None:
        self._ray = ray
        self._stop = stop
        self._task = ray.put(task)
        self._class = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0)(BlockPredictor)
        self._starting: dict[Any, Any] = {}  # actor by the reference to its being ready
        self._given: dict[Any, _Given] = {}  # by the reference to the block
        self._again: deque[tuple[Work, int]] = deque()
        self._idle: list[Any] = []  # an actor once for each block that it can take
        self._failed_starts = 0  # in a row
        for _ in range(share.actors):
            self._start()

    def _start(self) -> None:
        actor = self._class.remote(self._task)
        self._starting[actor.ready.remote()] = actor

    def blocks(self, work: Iterator[Work]) -> Iterator[Block]:
        """Yield the blocks."""
        while True:
            self._hand_out(work)
            if not self._given and not self._again and (self._idle or not self._starting):
                return  # nothing is left
            for reference in self._finished():
                if reference in self._starting:
                    self._started(reference)
                else:
                    block = self._result(reference)
                    if block is not None:
                        yield block

    def _hand_out(self, work: Iterator[Work]) -> None:
        while self._idle:
            block, deaths = self._again.popleft() if self._again else (next(work, None), 0)
            if block is None:
                return
            actor = self._idle.pop(0)
            self._given[actor.predict.remote(*block)] = _Given(actor, block, deaths)

    def _finished(self) -> list[Any]:
        """Wait until an actor is ready or a block is finished, and return the references."""
        waiting = [*self._given, *self._starting]
        for seconds in count(1):
            done: list[Any] = self._ray.wait(waiting, num_returns=1, timeout=1.0)[0]
            number = self._stop()
            if number is not None:
                raise InterruptedWorkError("stopped; finished blocks are kept", "Go on with --resume-csv.", number)
            if done:
                return done
            if seconds % _PATIENCE == 0 and not self._given:
                log.warning("waiting for a machine of the cluster with free processors")
        raise AssertionError("a count has no end")

    def _started(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= _ATTEMPTS:
                reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
                raise CxrError(
                    f"no process starts on the cluster ({reason.strip()})",
                    "Install the same cxrtool and Python on every machine.",
                ) from error
            self._start()
        else:
            self._failed_starts = 0
            self._idle += [actor] * _AHEAD

    def _result(self, reference: Any) -> Block | None:
        """Return a finished block; None if its actor has died, in which case another gets the block."""
        given = self._given.pop(reference)
        try:
            block: Block = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, CxrError) else error from None
        except self._ray.exceptions.RayError as error:
            self._died(given, error)
            return None
        self._idle.append(given.actor)
        return block

    def _died(self, given: _Given, error: Exception) -> None:
        rows, paths = given.work
        if given.deaths + 1 >= _ATTEMPTS:
            raise CxrError(
                f"the process that reads rows {rows.start + 1:,} to {rows.stop:,} ({paths[0]} ...) has died"
                f" {_ATTEMPTS} times",
                "Look for too little memory on the machines, or for a file that breaks a decoder.",
            ) from error
        self._again.append((given.work, given.deaths + 1))
        # The first of its blocks that comes back replaces the actor.
        others = [one for one in self._given.values() if one.actor is given.actor]
        if given.actor in self._idle or not others:
            self._idle = [actor for actor in self._idle if actor is not given.actor]
            self._ray.kill(given.actor)  # in case that its block was lost, but not itself
            self._start()

    def end(self) -> None:
        """End all actors."""
        for actor in {*self._starting.values(), *self._idle, *(one.actor for one in self._given.values())}:
            self._ray.kill(actor)
