"""The number of threads that the network uses, also after a fork.

A forked child has only the thread that forked, but OpenMP in it would wait for the parent's other threads without
end. So a child of a process that has run a network runs it with one thread; servers start one process for each
processor anyway. Engines whose library has threads of its own cannot be used in a child and are refused there.
"""

import os
from dataclasses import dataclass, field

import torch

from cxrtool.errors import CxrError
from cxrtool.processors import processes_here, usable_processors
from cxrtool.settings import RuntimeSettings

_FORK_ADVICE = "Load the model in the child process, after the fork; with gunicorn, leave out --preload."


@dataclass
class _State:
    """What this process has done: used the network's threads, or been forked from a process that had."""

    used: bool = False
    forked: bool = False


_state = _State()


def use_threads(settings: RuntimeSettings) -> None:
    """Set the number of threads of torch for this process.

    ``auto`` keeps torch's own number (one for each core, or ``OMP_NUM_THREADS``), but at most as many as this process
    may use processors; torchrun, which sets ``OMP_NUM_THREADS`` to 1 if it is not set, leaves cores idle. In a child
    forked from a process that has run a network, the number stays 1.
    """
    _state.used = True
    if _state.forked:
        return
    if settings.threads != "auto":
        torch.set_num_threads(settings.threads)
    elif (processes_here() > 1 and os.environ.get("OMP_NUM_THREADS") == "1") or (
        "OMP_NUM_THREADS" not in os.environ and usable_processors() < torch.get_num_threads()
    ):
        torch.set_num_threads(usable_processors())


def _after_fork_in_child() -> None:
    if _state.used:
        _state.forked = True
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


@dataclass(frozen=True)
class LoadedIn:
    """The process in which an engine was loaded that does not survive a fork.

    Attributes:
        library: name of the library, for the message.
        process: number of the process.
    """

    library: str
    process: int = field(default_factory=os.getpid)

    def check(self) -> None:
        """Refuse to run in another process.

        Raises:
            CxrError: this process is a fork of the one that loaded the engine.
        """
        if os.getpid() != self.process:
            raise CxrError(f"a model loaded before a fork cannot run in the child with {self.library}", _FORK_ADVICE)
