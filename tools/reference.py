"""Write docs/commands.md and docs/api.md from the code: ``python tools/reference.py``, or ``make reference``.

tests/test_reference.py fails where a page is not what this would write. Everything comes from the commands' signatures
and docstrings, not from rendered help, so that neither the terminal nor typer's version changes a page.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from typer.models import ArgumentInfo, OptionInfo

import cxrtool
from cxrtool.cli.app import app
from cxrtool.errors import CxrError

DOCS = Path(__file__).parents[1] / "docs"

_COMMANDS_HEAD = """\
# Commands

*Written by `make reference` from the code of the commands. Edit the docstrings there, not this page.*

Every command takes `--help`, which shows what stands here, and `--debug`, which shows tracebacks. Results go to stdout,
progress and hints to stderr; `--json` prints exactly one JSON document. Exit codes: 0 done, 1 failed wholly or for some
inputs, 2 wrong request, 130 and 143 after SIGINT and SIGTERM. Options that are [settings](settings.md) can also be
given in the environment or in a file.
"""

_API_HEAD = """\
# Python API

*The list of names is written by `make reference` from `cxrtool.__all__`, the text by mkdocstrings from the docstrings.*

What is imported from `cxrtool` itself is public. Everything else may change between versions.
"""

_ERRORS_HEAD = """\
## The tree of errors

The library raises these and prints nothing. Each has a `message` that names the file, option or value, an `advice` that
may be empty, and the `exit_code` with which `cxr` ends.

```text
"""


def command_reference() -> str:
    """docs/commands.md: each command's description, examples and options."""
    commands = dict(_commands())
    rows = [f"| [`cxr {name}`](#cxr-{name}) | {_summary(callback)} |" for name, callback in commands.items()]
    index = "\n".join(["| command | what it does |", "|---|---|", *rows])
    sections = [_section(name, callback) for name, callback in commands.items()]
    return "\n".join([_COMMANDS_HEAD, index, "", *sections])


def api_reference() -> str:
    """docs/api.md: an entry for each public name, and the tree of errors."""
    entries = [f"::: cxrtool.{name}\n" for name in sorted(cxrtool.__all__, key=str.lower) if not name.startswith("_")]
    return "\n".join([_API_HEAD, *entries, _ERRORS_HEAD + "\n".join(_tree(CxrError)) + "\n```\n"])


PAGES: dict[str, Callable[[], str]] = {"commands.md": command_reference, "api.md": api_reference}
"""What is written, by name in docs/."""


def _commands() -> Iterator[tuple[str, Callable[..., object]]]:
    for info in app.registered_commands:
        assert info.callback is not None
        yield info.name or info.callback.__name__, info.callback


def _section(name: str, callback: Callable[..., object]) -> str:
    parameters = [_Parameter(parameter) for parameter in inspect.signature(callback, eval_str=True).parameters.values()]
    arguments = [parameter for parameter in parameters if parameter.is_argument]
    options = [parameter for parameter in parameters if not parameter.is_argument]
    text, examples = _description(callback)
    usage = " ".join(["cxr", name, "[OPTIONS]", *(argument.usage for argument in arguments)])
    parts = [f"## cxr {name}", f"```text\n{usage}\n```", text]
    if examples:
        parts.append(f"<!-- not run: examples of the help, with the user's own files -->\n```bash\n{examples}\n```")
    for title, chosen in (("argument", arguments), ("option", options)):
        if chosen:
            parts.append("\n".join([f"| {title} | meaning |", "|---|---|", *(one.row for one in chosen)]))
    return "\n\n".join(parts) + "\n"


def _description(callback: Callable[..., object]) -> tuple[str, str]:
    """The docstring's text, and its examples: the paragraphs that typer is asked not to wrap."""
    paragraphs = [part.strip("\n") for part in re.split(r"\n\s*\n", inspect.getdoc(callback) or "")]
    examples = [part.removeprefix("\b\n") for part in paragraphs if part.startswith("\b")]
    text = [part.replace("\n", " ") for part in paragraphs if not part.startswith("\b")]
    return "\n\n".join(text).replace("\\[", "["), "\n".join(examples)


def _summary(callback: Callable[..., object]) -> str:
    return _cell(_description(callback)[0].split("\n\n")[0])


class _Parameter:
    """One argument or option of a command, as its signature declares it."""

    def __init__(self, parameter: inspect.Parameter) -> None:
        self._name = parameter.name
        self._type, self._info, self._default, self._declarations = _declared(parameter)
        self.is_argument = isinstance(self._info, ArgumentInfo)

    @property
    def usage(self) -> str:
        several = any(get_origin(kind) is list for kind in (self._type, *get_args(self._type)))
        name = (self._info.metavar or self._name).upper() + ("..." if several else "")
        return name if self._is_required else f"[{name}]"

    @property
    def row(self) -> str:
        return f"| {self._names} | {_cell(' '.join(filter(None, [self._help, self._choices, self._bounds])))} |"

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
    def _names(self) -> str:
        if isinstance(self._info, ArgumentInfo):
            return f"`{self.usage}`"
        declared = self._declarations or ["--" + self._name.replace("_", "-")]
        names = [part for names in declared for part in names.split("/")]
        value = "" if self._kind is bool else " " + (self._info.metavar or _VALUES.get(self._kind, "NAME"))
        return ", ".join(f"`{name}{value if name.startswith('--') else ''}`" for name in names)

    @property
    def _help(self) -> str:
        return (self._info.help or "").replace("\\[", "[")

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
        elif self._default is not None and self._default is not False and "[default:" not in self._help:
            default = self._default.value if isinstance(self._default, Enum) else self._default
            notes.append(f"default: {default}")
        if self._info.min is not None:
            notes.append(f"at least {self._info.min}")
        if self._info.max is not None:
            notes.append(f"at most {self._info.max}")
        return f"[{'; '.join(notes)}]" if notes else ""


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


_VALUES = {Path: "PATH", int: "INTEGER", float: "NUMBER", str: "TEXT"}


def _cell(text: str) -> str:
    """`text` in a table: no line break, no bar, and no brackets that Markdown takes for tags or links."""
    outside = [
        part if index % 2 else part.replace("<", "&lt;").replace("[", "\\[").replace("]", "\\]")
        for index, part in enumerate(text.split("`"))
    ]
    return "`".join(outside).replace("\n", " ").replace("|", "\\|")


def _tree(error: type[CxrError], depth: int = 0) -> Iterator[str]:
    meaning = (inspect.getdoc(error) or "").split("\n")[0]
    yield f"{'  ' * depth + error.__name__:<26} {meaning}"
    for child in error.__subclasses__():
        if child.__module__ == CxrError.__module__:
            yield from _tree(child, depth + 1)


def main() -> None:
    """Write both pages."""
    for name, write in PAGES.items():
        (DOCS / name).write_text(write(), encoding="utf-8")


if __name__ == "__main__":
    main()
