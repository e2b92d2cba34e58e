"""What people see: tables on stdout, progress and hints on stderr."""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cxrtool.errors import CxrError
from cxrtool.files import to_json
from cxrtool.progress import ProgressCallback
from cxrtool.progress_bar import drawn_progress
from cxrtool.text import printable


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
        table.add_row(*(safe(figure(cell)) for cell in row))
    console = out()
    if not console.is_terminal:
        console.width = 160  # a log or a pipe has no width to fit
    console.print(table)


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """Names and values, a line each, on stdout."""
    print_table(title, ["", ""], [[name, value] for name, value in facts.items()])


def figure(cell: object) -> str:
    """A cell as people read it: four decimals, a dash for what is undefined."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:.4f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


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


def progress_bar() -> AbstractContextManager[ProgressCallback]:
    """A callback that draws one bar per phase on stderr; in a log, one line per phase."""
    return drawn_progress(err())
