"""Progress of long work, reported through a callback because the library never prints."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One step of progress.

    Attributes:
        phase: readable name of the phase, for example ``epoch 2/10``.
        done: number of items finished in this phase.
        total: number of items in this phase; None if unknown.
        detail: current figures as text, for example ``loss 0.412``.
    """

    phase: str
    done: int
    total: int | None
    detail: str = ""


ProgressCallback = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """Do nothing: the callback for callers that do not show progress."""


StopSignal = Callable[[], int | None]
"""Called between steps of long work. A returned signal number stops the work cleanly; None lets it continue."""


def never_stop() -> None:
    """Return None: the stop signal for callers that never stop the work."""
