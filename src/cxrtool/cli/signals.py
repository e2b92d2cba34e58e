"""Ending long work cleanly when a signal asks for it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cxrtool.cli import console
from cxrtool.progress import StopSignal


@contextmanager
def graceful_stop() -> Iterator[StopSignal]:
    """The first SIGINT or SIGTERM asks the loop to end after its step; a second one ends at once."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            at_once = before[signal.Signals(number)]
            if callable(at_once):
                at_once(number, frame)
            raise KeyboardInterrupt
        asked.append(number)
        console.hint("ending after this step; once more ends at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
