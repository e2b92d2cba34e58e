"""Write docs/commands.md, docs/commands/ and docs/api.md from the code: ``python tools/reference.py``.

tests/test_reference.py fails where a page is not what this would write. Everything comes from the commands' signatures
and docstrings, not from rendered help, so that neither the terminal nor typer's version changes a page. What a command
prints is what tools/outputs.py has recorded.
"""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cxrtool
from cxrtool.cli.app import app
from cxrtool.cli.help_text import ARGUMENTS, HEADINGS, OPTIONS
from cxrtool.cli.parameters import Parameter, describe, parameters_of
from cxrtool.errors import CxrError

DOCS = Path(__file__).parents[1] / "docs"
OUTPUTS = DOCS / "outputs"
NOT_RECORDED = {"push": "It publishes on the Hugging Face hub, so nothing was recorded."}
"""Why a page has no output, by command."""

_COMMANDS_HEAD = """\
# Commands

*Written by `make reference` from the code of the commands. Edit the docstrings there, not this page.*

Every command takes `--help`, which shows what stands here, and `--debug`, which shows tracebacks. Results go to stdout,
progress and hints to stderr; `--json` prints exactly one JSON document. Exit codes: 0 done, 1 failed wholly or for some
inputs, 2 wrong request, 130 and 143 after SIGINT and SIGTERM. Options that are [settings](settings.md) can also be
given in the environment or in a file.
"""

_WRITTEN = "*Written by `make reference` from the code of the command. Edit the docstring there, not this page.*"
_RECORDED = "On phantoms, in a terminal of 80 columns, without progress; recorded by `tools/outputs.py`."

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


def command_index() -> str:
    """docs/commands.md: a line for each command."""
    rows = [f"| [`cxr {name}`](commands/{name}.md) | {_summary(callback)} |" for name, callback in _commands()]
    return "\n".join([_COMMANDS_HEAD, "| command | what it does |", "|---|---|", *rows]) + "\n"


def command_page(name: str) -> str:
    """docs/commands/NAME.md: description, examples, what the command prints, and options as the help groups them."""
    return _page(name, dict(_commands())[name])


def api_reference() -> str:
    """docs/api.md: an entry for each public name, and the tree of errors."""
    entries = [f"::: cxrtool.{name}\n" for name in sorted(cxrtool.__all__, key=str.lower) if not name.startswith("_")]
    return "\n".join([_API_HEAD, *entries, _ERRORS_HEAD + "\n".join(_tree(CxrError)) + "\n```\n"])


def _commands() -> Iterator[tuple[str, Callable[..., object]]]:
    for info in app.registered_commands:
        assert info.callback is not None
        yield info.name or info.callback.__name__, info.callback


def _page(name: str, callback: Callable[..., object]) -> str:
    parameters = list(parameters_of(callback))
    arguments = [parameter for parameter in parameters if parameter.is_argument]
    description = describe(callback)
    usage = " ".join(["cxr", name, "[OPTIONS]", *(argument.usage for argument in arguments)])
    parts = [f"# cxr {name}", _WRITTEN, f"```text\n{usage}\n```", *description.paragraphs]
    if description.examples:
        examples = "\n".join(description.examples)
        parts.append(f"<!-- not run: examples of the help, with the user's own files -->\n```bash\n{examples}\n```")
    parts += ["## What it prints", _output(name)]
    groups = {ARGUMENTS: arguments}
    for parameter in parameters:
        if not parameter.is_argument:
            groups.setdefault(parameter.panel or OPTIONS, []).append(parameter)
    for heading in HEADINGS:
        if groups.get(heading):
            column = "argument" if heading == ARGUMENTS else "option"
            rows = [f"| {column} | meaning |", "|---|---|", *map(_row, groups[heading])]
            parts += [f"## {heading}", "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def _output(name: str) -> str:
    if name in NOT_RECORDED:
        return NOT_RECORDED[name]
    recorded = (OUTPUTS / f"{name}.txt").read_text(encoding="utf-8")
    return f"{_RECORDED}\n\n```text\n{recorded}```"


def _summary(callback: Callable[..., object]) -> str:
    return _cell(describe(callback).paragraphs[0])


def _row(parameter: Parameter) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.names)
    return f"| {names} | {_cell(parameter.meaning)} |"


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


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": command_index,
    "api.md": api_reference,
    **{f"commands/{name}.md": partial(command_page, name) for name, _ in _commands()},
}
"""What is written, by name in docs/."""


def main() -> None:
    """Write all pages."""
    (DOCS / "commands").mkdir(exist_ok=True)
    for name, write in PAGES.items():
        (DOCS / name).write_text(write(), encoding="utf-8")


if __name__ == "__main__":
    main()
