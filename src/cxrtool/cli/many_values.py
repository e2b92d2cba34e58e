"""An option that takes several values in a row: ``--readers a.csv b.csv``, or one each time it is given.

The parser under typer knows options with a fixed number of values only, so the arguments are rewritten before it sees
them. A command without positional arguments is unambiguous: what follows such an option up to the next option is its
values.
"""

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

MANY = ("--readers",)
"""Options that take several values."""


class ManyValues(TyperCommand):
    """A command whose options in `MANY` take several values in a row."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line with each value after an option of its own."""
        return super().parse_args(ctx, one_value_each(args))


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
