"""What people see: tables on stdout, progress and hints on stderr."""

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
    """`text` with control characters shown: a file name may hold escape codes that a terminal must not obey."""
    clean = text.encode("utf-8", errors="backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in clean)


def safe(text: object) -> str:
    """`text` for a rich table or line: control characters shown, markup taken literally."""
    return escape(printable(str(text)))


class _Results(Console):
    def on_broken_pipe(self) -> None:
        """Let `main` end it quietly; rich would end it with 1."""
        raise BrokenPipeError


class _Notes(Console):
    def on_broken_pipe(self) -> None:
        """Work does not stop because nobody listens."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def out() -> Console:
    """The console for results. Made when asked for, so that a redirected stdout is the one used."""
    return _Results(file=sys.stdout, highlight=False, soft_wrap=True)


def err() -> Console:
    """The console for progress, logs and hints."""
    return _Notes(file=sys.stderr, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(to_json(value))


def write(text: str) -> None:
    """`text` as it is, on stdout."""
    sys.stdout.write(text)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout; the first column and any without a name are text, the others are figures."""
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
    """Names and values, a line each, on stdout."""
    print_table(title, ["", ""], [[name, value] for name, value in facts.items()])


def say(text: str) -> None:
    """A line of result for people on stdout."""
    out().print(safe(text))


def hint(text: str) -> None:
    """A line on stderr."""
    err().print(f"[dim]{safe(text)}[/dim]")


def warn(text: str) -> None:
    """A warning on stderr."""
    err().print(f"[yellow]warning:[/yellow] {safe(text)}")


def print_error(error: CxrError) -> None:
    """``error: ...`` and the advice, a line each, on stderr."""
    console = err()
    console.print(f"[red]error:[/red] {safe(' '.join(error.message.splitlines()))}")
    if error.advice:
        console.print(safe(" ".join(error.advice.splitlines())))


class _WarningLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        (warn if record.levelno >= logging.WARNING else hint)(record.getMessage())


def show_logs(debug: bool) -> None:
    """Send the package's log to stderr: warnings and notes, and everything when debugging."""
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
    """A callback that draws one bar per phase on stderr; in a log, one line per phase."""
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
