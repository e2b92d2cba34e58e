"""A server process that has imported torch and forks one child per command, which saves 3 seconds per process.

It forks before torch starts threads, which a child could not use. Run as a program it reads one JSON document per
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
    """Result of a process: its exit code, or the negative number of the signal that ended it, and its stderr."""

    code: int
    stderr: str


@dataclass(frozen=True)
class Child:
    """A running ``cxr``."""

    pid: int
    stderr: Path
    _ask: Callable[[dict[str, Any]], Any]

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        """Wait for the end of the process."""
        return Ended(self._ask({"wait": self.pid}), self.stderr.read_text())


class Warm:
    """Client of the server process."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        # Unbuffered, Python loses the rest of a partial write to a pipe.
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
            arguments: arguments of the command line.
            cwd: working directory.
            stdout: file, FIFO or device for stdout, which is discarded by default.
            limits: limits of `resource`, by name: {"RLIMIT_FSIZE": bytes}; RLIMIT_AS is added to the current usage.
            patch: Python code to run first.
        """
        self._count += 1
        stderr = self._folder / f"{self._count}.stderr"
        stderr.touch()
        wanted = {"start": list(map(str, arguments)), "cwd": str(cwd), "stdout": str(stdout or os.devnull)}
        pid = self._ask(wanted | {"stderr": str(stderr), "limits": limits or {}, "patch": patch})
        return Child(pid, stderr, self._ask)

    def run(self, *arguments: object, **more: Any) -> Ended:
        """Run ``cxr`` and wait for its end; arguments as for `start`."""
        return self.start(*arguments, **more).wait()

    def close(self) -> None:
        """Stop the server."""
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
        AssertionError: it is not met in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
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
