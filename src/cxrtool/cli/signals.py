"""Stopping long work cleanly on a signal."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cxrtool.cli import console
from cxrtool.progress import StopSignal


@contextmanager
def graceful_stop(quiet: bool = False) -> Iterator[StopSignal]:
    """Ask the loop to stop after its current step on the first SIGINT or SIGTERM, and stop at once on a second one.

    `quiet` says nothing of it.
    """
    received: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if received:
            previous = before[signal.Signals(number)]
            if callable(previous):
                previous(number, frame)
            raise KeyboardInterrupt
        received.append(number)
        if not quiet:
            console.hint("stopping after this step; repeat to stop at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
