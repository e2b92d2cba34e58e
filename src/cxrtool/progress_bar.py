"""Progress as a bar in a terminal or a notebook, or as lines in a log. Imports rich."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import TypeAlias

from rich.console import Console
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
from rich.text import Text

from cxrtool.progress import Progress, ProgressCallback, ignore_progress
from cxrtool.text import printable

ShowProgress: TypeAlias = bool | ProgressCallback | None
"""None: a bar in a terminal or a notebook, else nothing. True: a bar, or lines without a terminal. False: nothing.
A callable is called with each `Progress`."""


def progress_for(show: ShowProgress) -> AbstractContextManager[ProgressCallback]:
    """Return a context manager that gives the callback selected by `show`, which draws on stderr."""
    if callable(show):
        return nullcontext(show)
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    if show or (show is None and _can_draw(console)):
        return draw_progress(console)
    return nullcontext(ignore_progress)


@contextmanager
def draw_progress(console: Console) -> Iterator[ProgressCallback]:
    """Give a callback that draws one bar per phase on `console`, or prints one line per finished phase in a log."""
    if not _can_draw(console):
        yield _line_per_phase(console)
        return
    bar = RichProgress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", style="dim", markup=False),
        console=console,
    )
    tasks: dict[str, TaskID] = {}
    with bar:

        def update(step: Progress) -> None:
            if step.phase not in tasks:
                tasks[step.phase] = bar.add_task(printable(step.phase), total=step.total, detail="")
            bar.update(tasks[step.phase], completed=step.done, total=step.total, detail=printable(step.detail))

        yield update


def _can_draw(console: Console) -> bool:
    """Return whether the console is a terminal, or a notebook with the ipywidgets that rich needs."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


def _line_per_phase(console: Console) -> ProgressCallback:
    def update(step: Progress) -> None:
        if step.done == step.total:
            line = f"{step.phase}: {step.done}/{step.total} {step.detail}".rstrip()
            console.print(printable(line), style="dim", markup=False)

    return update


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="dim")
