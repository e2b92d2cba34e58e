"""Output for people: tables on stdout, progress and hints on stderr."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from cxrtool.cells import cell
from cxrtool.errors import CxrError
from cxrtool.files import to_json
from cxrtool.progress import Progress, ProgressCallback


def printable(text: str) -> str:
    """Return `text` with control characters escaped, because a file name may hold codes that a terminal would obey."""
    clean = text.encode("utf-8", errors="backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in clean)


def safe(text: object) -> str:
    """Return `text` for a rich table or line: control characters and markup are escaped."""
    return escape(printable(str(text)))


class _Results(Console):
    def on_broken_pipe(self) -> None:
        """Let `main` exit quietly; rich would exit with 1."""
        raise BrokenPipeError


class _Notes(Console):
    def on_broken_pipe(self) -> None:
        """Discard further notes, so that the work continues."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def out() -> Console:
    """Return a console for results. It is created at each call, so that it follows a redirected stdout."""
    return _Results(file=sys.stdout, highlight=False, soft_wrap=True)


def err() -> Console:
    """Return a console for progress, logs and hints on stderr."""
    return _Notes(file=sys.stderr, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(to_json(value))


def write(text: str) -> None:
    """Write `text` to stdout without changes."""
    sys.stdout.write(text)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on stdout. The first column and columns without a name are left-aligned, figures right-aligned."""
    table = Table(
        title=safe(title), title_justify="left", title_style="bold", header_style="bold", show_header=any(header)
    )
    for index, name in enumerate(header):
        table.add_column(safe(name), justify="right" if index and name else "left", overflow="fold")
    for row in rows:
        table.add_row(*(safe(cell(value)) for value in row))
    console = out()
    if not console.is_terminal:
        console.width = 160  # a log or a pipe has no width to fit
    console.print(table)


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """Print names and values on stdout, one per line."""
    print_table(title, ["", ""], [[name, value] for name, value in facts.items()])


def say(text: str) -> None:
    """Print one line of results on stdout."""
    out().print(safe(text))


def hint(text: str) -> None:
    """Print one dimmed line on stderr."""
    err().print(f"[dim]{safe(text)}[/dim]")


def warn(text: str) -> None:
    """Print a warning on stderr."""
    err().print(f"[yellow]warning:[/yellow] {safe(text)}")


def print_error(error: CxrError) -> None:
    """Print ``error: ...`` and the advice on stderr, one line each."""
    console = err()
    console.print(f"[red]error:[/red] {safe(' '.join(error.message.splitlines()))}")
    if error.advice:
        console.print(safe(" ".join(error.advice.splitlines())))


class _WarningLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        (warn if record.levelno >= logging.WARNING else hint)(record.getMessage())


def show_logs(debug: bool) -> None:
    """Send the package's log to stderr: warnings and information, and everything with `debug`."""
    logger = logging.getLogger("cxrtool")
    logger.handlers = [_WarningLines()]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="dim")


@contextmanager
def progress_bar() -> Iterator[ProgressCallback]:
    """Yield a callback that shows progress on stderr: a bar per phase in a terminal, a line per phase elsewhere."""
    console = err()
    if not console.is_terminal:
        yield _line_per_phase()
        return
    bar = RichProgress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[detail]}"),
        console=console,
    )
    tasks: dict[str, TaskID] = {}
    with bar:

        def update(step: Progress) -> None:
            if step.phase not in tasks:
                tasks[step.phase] = bar.add_task(safe(step.phase), total=step.total, detail="")
            bar.update(tasks[step.phase], completed=step.done, total=step.total, detail=safe(step.detail))

        yield update


def _line_per_phase() -> ProgressCallback:
    def update(step: Progress) -> None:
        if step.done == step.total:
            hint(f"{step.phase}: {step.done}/{step.total} {step.detail}".rstrip())

    return update
