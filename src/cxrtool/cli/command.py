"""How ``cxr`` and its commands read their arguments and show their help; the same for all of them."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from cxrtool.cli.help_text import command_help, group_help, terminal_width

MANY = ("--readers",)
"""Options that take several values."""
OPTIONAL = {"--ray": ("auto", re.compile(r"auto|local|ray://.+|[\w.-]+:\d+|\[[0-9A-Fa-f:]+\]:\d+|\d+(\.\d+){3}"))}
"""Options whose value may be left out: what it is then, and what a value looks like."""
_HEADING = re.compile(r"^[A-Z][A-Za-z ]*:", re.MULTILINE)


class Command(TyperCommand):
    """A command whose options in `MANY` take several values in a row: ``--readers a.csv b.csv``.

    Options in `OPTIONAL` need no value.

    The parser under typer knows options with a fixed number of values only, so the arguments are rewritten before it
    sees them. A command without positional arguments is unambiguous: what follows such an option up to the next option
    is its values.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line with each value after an option of its own."""
        return super().parse_args(ctx, with_left_out(one_value_each(args)))

    def get_help(self, ctx: Any) -> str:  # noqa: ARG002 - the text needs no more than the function
        """Return the help as text."""
        return _bold_headings(command_help(self.name or "", _function(self), terminal_width()))


class Group(TyperGroup):
    """``cxr`` itself; its commands are shown under their headings."""

    def get_help(self, ctx: Any) -> str:  # noqa: ARG002
        """Return the help as text."""
        headings: dict[str, dict[str, Callable[..., object]]] = {}
        for name, one in self.commands.items():
            headings.setdefault(getattr(one, "rich_help_panel", None) or "Commands", {})[name] = _function(one)
        return _bold_headings(group_help(self.help or "", headings, terminal_width()))


def _bold_headings(text: str) -> str:
    """Mark headings for a terminal; typer removes the marks where there is none."""
    return re.sub(
        r"^[A-Z][A-Za-z ]*:", lambda heading: typer.style(heading.group(), bold=True), text, flags=re.MULTILINE
    )


def _function(command: Any) -> Callable[..., object]:
    function: Callable[..., object] = command.callback
    return function


def with_left_out(arguments: Sequence[str]) -> list[str]:
    """Add the value of an option of `OPTIONAL` where it is left out: ``--ray FOLDER`` becomes ``--ray auto FOLDER``."""
    found: list[str] = []
    for number, argument in enumerate(arguments):
        found.append(argument)
        if argument == "--":
            return [*found, *arguments[number + 1 :]]
        if argument in OPTIONAL:
            value, form = OPTIONAL[argument]
            if not form.fullmatch(next(iter(arguments[number + 1 :]), "")):
                found.append(value)
    return found


def one_value_each(arguments: Sequence[str]) -> list[str]:
    """Repeat an option of `MANY` before each of its values: ``--readers a b`` becomes ``--readers a --readers b``."""
    found: list[str] = []
    option, values = None, 0
    for argument in arguments:
        if argument.startswith("-") and argument != "-":
            name, equals, _ = argument.partition("=")
            option = name if name in MANY else None
            values = 1 if equals else 0
        elif option is not None:
            if values:
                found.append(option)
            values += 1
        found.append(argument)
    return found
