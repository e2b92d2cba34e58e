"""Output for people: tables on stdout, progress and hints on stderr."""

import logging
import os
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cxrtool.cells import cell
from cxrtool.cli.table_parts import GAP, parts_that_fit
from cxrtool.errors import CxrError
from cxrtool.files import to_json
from cxrtool.progress import ProgressCallback, ignore_progress
from cxrtool.progress_bar import draw_progress
from cxrtool.text import printable


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


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]], keys: int = 1) -> None:
    """Print a table on stdout. The first column and columns without a name are left-aligned, figures right-aligned.

    A table too wide for the terminal loses its lines; one still too wide is printed in parts, each of which begins with
    the first `keys` columns.
    """
    console = out()
    console.width = width = console.width if console.is_terminal else _WIDE
    console.print(f"[bold]{escape(_wrapped(printable(title), width))}[/bold]")
    texts = [[printable(cell(value)) for value in row] for row in rows]
    for number, part in enumerate(parts_that_fit(header, texts, width, keys)):
        table = Table(header_style="bold", show_header=any(header))
        if not part.lines:
            table.box, table.padding, table.pad_edge = None, (0, GAP, 0, 0), False
        for column, name, room in zip(part.columns, part.header, part.widths, strict=True):
            justify: Literal["left", "right"] = "right" if column and name else "left"
            table.add_column(escape(name), justify=justify, overflow="fold", width=room)
        for row in part.rows:
            table.add_row(*map(escape, row))
        if number:
            console.print()
        console.print(table)


_WIDE = 160
"""Columns of a table in a log or a pipe, which have no width to fit."""


def _wrapped(text: str, width: int) -> str:
    """Return `text` in lines of at most `width`; words are not broken, so a path can still be copied."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """Print names and values on stdout, one per line."""
    print_table(title, ["", ""], [[name, value] for name, value in facts.items()])


ARGUMENTS: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=())
"""Arguments of the command that runs, set by `main`."""


def command_line() -> str:
    """Return the command that runs, quoted for a shell."""
    return shlex.join(["cxr", *ARGUMENTS.get()])


def say(text: str) -> None:
    """Print one line of results on stdout; a terminal gets lines of whole words."""
    console = out()
    console.print(_in_terminal(console, text))


def hint(text: str) -> None:
    """Print one dimmed line on stderr."""
    err().print(f"[dim]{safe(text)}[/dim]")


def next_step(*arguments: object) -> None:
    """Print the command that usually comes next, ready to be pasted."""
    hint(f"next: {shlex.join(['cxr', *map(str, arguments)])}")


def _in_terminal(console: Console, text: str) -> str:
    """Return `text` for rich; a terminal would break it in the middle of words, so it gets lines of whole words."""
    clean = printable(text)
    return escape(_wrapped(clean, console.width) if console.is_terminal else clean)


def _print_labelled(console: Console, label: str, colour: str, text: str) -> None:
    console.print(_in_terminal(console, f"{label} {text}").replace(label, f"[{colour}]{label}[/{colour}]", 1))


def warn(text: str) -> None:
    """Print a warning on stderr."""
    _print_labelled(err(), "warning:", "yellow", text)


def print_error(error: CxrError) -> None:
    """Print ``error: ...`` and the advice on stderr, one line each."""
    console = err()
    _print_labelled(console, "error:", "red", " ".join(error.message.splitlines()))
    if error.advice:
        console.print(_in_terminal(console, " ".join(error.advice.splitlines())))


class _WarningLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        (warn if record.levelno >= logging.WARNING else hint)(record.getMessage())


def show_logs(debug: bool) -> None:
    """Send the package's log to stderr: warnings and information, and everything with `debug`."""
    logger = logging.getLogger("cxrtool")
    logger.handlers = [_WarningLines()]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False


def result_width() -> int | None:
    """Columns of the terminal that results are printed in; None if they go to a file or a pipe."""
    console = out()
    return console.width if console.is_terminal else None


def progress_bar(hidden: bool = False) -> AbstractContextManager[ProgressCallback]:
    """Return a callback that shows progress on stderr: a bar per phase in a terminal, a line per phase elsewhere."""
    return nullcontext(ignore_progress) if hidden else draw_progress(err())
