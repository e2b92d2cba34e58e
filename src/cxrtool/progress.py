"""How far work has come, handed down as a callback so that the library never prints."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One step of progress.

    Attributes:
        phase: what is being done, as a person would say it: ``epoch 2/10``.
        done: items done so far in this phase.
        total: items in this phase; None where nobody knows.
        detail: figures of the moment, ready to show: ``loss 0.412``.
    """

    phase: str
    done: int
    total: int | None
    detail: str = ""


ProgressCallback = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """For callers that do not want to know."""


StopSignal = Callable[[], int | None]
"""Asked between steps of long work; a signal's number ends the work cleanly, None lets it go on."""


def never_stop() -> None:
    """For callers that stop work in no other way than ending the process."""
