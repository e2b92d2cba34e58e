"""A process that has imported everything and forks one child per command: real processes without torch's 3 seconds.

It forks before torch has run a thread, which a child could not use. Run as a program it reads one JSON document a
line, ``{"start": [...], "cwd": ..., "stdout": ..., "stderr": ..., "limits": {...}, "patch": ...}`` or
``{"wait": pid}``, and answers each with a line.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, or minus the signal that ended it."""

    code: int
    stderr: str


@dataclass(frozen=True)
class Child:
    """One ``cxr`` that runs."""

    pid: int
    stderr: Path
    _ask: Callable[[dict[str, Any]], Any]

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        """Until it has ended."""
        return Ended(self._ask({"wait": self.pid}), self.stderr.read_text())


class Warm:
    """The process, seen from the tests."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        # Unbuffered, Python forgets the rest of what a pipe takes in part.
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**buffered, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        )

    def start(
        self,
        *arguments: object,
        cwd: Path,
        stdout: Path | None = None,
        limits: dict[str, int] | None = None,
        patch: str = "",
    ) -> Child:
        """Run ``cxr`` with these arguments.

        Args:
            arguments: as a user would type them.
            cwd: where.
            stdout: a file, a FIFO or a device; nowhere unless given.
            limits: of `resource`, by name: {"RLIMIT_FSIZE": bytes}; RLIMIT_AS is on top of what is in use.
            patch: Python to run first.
        """
        self._count += 1
        stderr = self._folder / f"{self._count}.stderr"
        stderr.touch()
        wanted = {"start": list(map(str, arguments)), "cwd": str(cwd), "stdout": str(stdout or os.devnull)}
        pid = self._ask(wanted | {"stderr": str(stderr), "limits": limits or {}, "patch": patch})
        return Child(pid, stderr, self._ask)

    def run(self, *arguments: object, **more: Any) -> Ended:
        """`start`, and wait for the end."""
        return self.start(*arguments, **more).wait()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _ask(self, question: dict[str, Any]) -> Any:
        pipes: tuple[IO[str] | None, ...] = (self._process.stdin, self._process.stdout)
        to, back = pipes
        assert to is not None
        assert back is not None
        to.write(json.dumps(question) + "\n")
        to.flush()
        return json.loads(back.readline())


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: it did not come true.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.005)


def _serve() -> None:
    import torch

    import cxrtool.training.loop  # noqa: F401 - for the children
    from cxrtool.cli.app import main

    torch.set_num_threads(1)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            _, status = os.waitpid(question["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if not answer:
                _become(question)
                main(question["start"])
        print(json.dumps(answer), flush=True)  # noqa: T201 - to the test


def _become(question: dict[str, Any]) -> None:
    written = os.O_WRONLY | os.O_CREAT
    for number, name, how in (
        (0, os.devnull, os.O_RDONLY),
        (1, question["stdout"], written),
        (2, question["stderr"], written),
    ):
        os.dup2(os.open(name, how), number)
    sys.stdin.close()
    os.chdir(question["cwd"])
    os.setsid()
    for name, value in question["limits"].items():
        if name == "RLIMIT_AS":
            value += int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(getattr(resource, name), (value, value))
    if question["patch"]:
        exec(question["patch"], {})


if __name__ == "__main__":
    _serve()
