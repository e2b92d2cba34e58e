"""What a command takes, read from its signature and docstring: for ``--help`` and for docs/commands.md.

Nothing comes from the parser under typer, so that its version changes neither.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from typer.models import ArgumentInfo, OptionInfo

_VALUES = {Path: "PATH", int: "INTEGER", float: "NUMBER", str: "TEXT"}


@dataclass(frozen=True)
class Description:
    """A command's docstring.

    Attributes:
        paragraphs: its text, a line each.
        examples: command lines.
    """

    paragraphs: tuple[str, ...]
    examples: tuple[str, ...]


def describe(callback: Callable[..., object]) -> Description:
    """Read a docstring; paragraphs that begin with a backspace, which typer does not wrap, are examples."""
    parts = [part.strip("\n") for part in re.split(r"\n\s*\n", inspect.getdoc(callback) or "")]
    text = [part.replace("\n", " ").replace("\\[", "[") for part in parts if not part.startswith("\b")]
    examples = [line for part in parts if part.startswith("\b") for line in part.removeprefix("\b\n").splitlines()]
    return Description(tuple(text), tuple(examples))


class Parameter:
    """One argument or option of a command, as its signature declares it."""

    def __init__(self, parameter: inspect.Parameter) -> None:
        self._name = parameter.name
        self._type, self._info, self._default, self._declarations = _declared(parameter)
        self.is_argument = isinstance(self._info, ArgumentInfo)

    @property
    def panel(self) -> str:
        """Heading under which an option stands in the help; empty if it has none of its own."""
        return self._info.rich_help_panel or ""

    @property
    def usage(self) -> str:
        """An argument in a usage line, such as ``INPUTS...`` or ``[OUT]``."""
        several = any(get_origin(kind) is list for kind in (self._type, *get_args(self._type)))
        name = (self._info.metavar or self._name).upper() + ("..." if several else "")
        return name if self._is_required else f"[{name}]"

    @property
    def names(self) -> list[str]:
        """The names of an option, the long ones with what they take: ``--epochs INTEGER``."""
        if self.is_argument:
            return [self.usage]
        declared = self._declarations or ["--" + self._name.replace("_", "-")]
        value = "" if self._kind is bool else " " + (self._info.metavar or _VALUES.get(self._kind, "NAME"))
        return [
            f"{name}{value if name.startswith('--') else ''}" for several in declared for name in several.split("/")
        ]

    @property
    def meaning(self) -> str:
        """Its help, the values that it takes, its default and its bounds."""
        text, marked, default = (self._info.help or "").replace("\\[", "[").partition("[default:")
        return " ".join(filter(None, [text.rstrip(), self._choices, marked + default, self._bounds]))

    @property
    def _is_required(self) -> bool:
        return self._default is inspect.Parameter.empty or self._default is ...

    @property
    def _kind(self) -> type:
        """The plain type: of ``Path | None`` and ``list[Path]``, Path."""
        kind = self._type
        while get_args(kind):
            kind = next(part for part in get_args(kind) if part is not type(None))
        assert isinstance(kind, type)
        return kind

    @property
    def _choices(self) -> str:
        if not issubclass(self._kind, Enum):
            return ""
        return "One of " + ", ".join(f"`{member.value}`" for member in self._kind) + "."

    @property
    def _bounds(self) -> str:
        notes = []
        if self._is_required:
            notes.append("required")
        elif self._default is not None and self._default is not False and "[default:" not in (self._info.help or ""):
            default = self._default.value if isinstance(self._default, Enum) else self._default
            notes.append(f"default: {default}")
        if self._info.min is not None:
            notes.append(f"at least {self._info.min}")
        if self._info.max is not None:
            notes.append(f"at most {self._info.max}")
        return f"[{'; '.join(notes)}]" if notes else ""


def parameters_of(callback: Callable[..., object]) -> Iterator[Parameter]:
    """The arguments and options of a command in the order of its signature."""
    return (Parameter(one) for one in inspect.signature(callback, eval_str=True).parameters.values())


def _declared(parameter: inspect.Parameter) -> tuple[Any, ArgumentInfo | OptionInfo, Any, list[str]]:
    """Type, description, default and option names, in either of the two ways in which typer takes them."""
    if get_origin(parameter.annotation) is Annotated:
        kind, *extras = get_args(parameter.annotation)
        (info,) = (extra for extra in extras if isinstance(extra, (ArgumentInfo, OptionInfo)))
        # Beside an annotation, the first name stands where the default would otherwise be.
        first = [info.default] if isinstance(info.default, str) else []
        return kind, info, parameter.default, [*first, *(info.param_decls or ())]
    assert isinstance(parameter.default, (ArgumentInfo, OptionInfo)), parameter
    info = parameter.default
    return parameter.annotation, info, info.default, list(info.param_decls or ())
