"""The text of ``cxr --help`` and ``cxr COMMAND --help``, for any width of a terminal.

Typer's own tables break words and names of options in 80 columns. Here an option's names are never broken, options
stand under headings, and examples can be pasted.
"""

import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from cxrtool.cli.parameters import describe, parameters_of
from cxrtool.text import shell_lines

ARGUMENTS, OPTIONS, DATA, TRAINING = "Arguments", "Options", "Data", "Training"
SCORES = "Scores of another program"
STATISTICS, MAPS, OUTPUT, MACHINE, RARE = "Statistics", "Heatmaps", "Output", "Machine", "Rarely needed"
HEADINGS = (ARGUMENTS, OPTIONS, DATA, SCORES, TRAINING, STATISTICS, MAPS, OUTPUT, MACHINE, RARE)
"""Headings of a command's help, in order; an option without one stands under `OPTIONS`."""
_INDENT = 24
_WIDEST = 100
_EVERYWHERE = (("-h, --help", "Show this message and exit."),)
_ON_TOP = (
    ("-V, --version", "Print the version and exit."),
    ("--debug", "Show tracebacks. Also accepted after a command."),
    ("--install-completion", "Complete commands and options in the current shell with the Tab key."),
    ("--show-completion", "Print the script that does so, to copy or change it."),
)

Row = tuple[str, str]
"""Names, and what they mean."""


def terminal_width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return min(shutil.get_terminal_size((80, 24)).columns, _WIDEST)


def command_help(name: str, callback: Callable[..., object], width: int) -> str:
    """Return the help of one command in lines of at most `width` columns, but for names that are longer."""
    description = describe(callback)
    groups: dict[str, list[Row]] = {heading: [] for heading in HEADINGS}
    usage = ["cxr", name, "[OPTIONS]"]
    for one in parameters_of(callback):
        if one.is_argument:
            usage.append(one.usage)
        heading = ARGUMENTS if one.is_argument else one.panel or OPTIONS
        groups[heading].append((_shown(one.names), one.meaning.replace("`", "")))
    groups[OPTIONS] += _EVERYWHERE
    parts = [f"Usage: {' '.join(usage)}", *(_wrapped(text, width) for text in description.paragraphs)]
    if description.examples:
        parts.append("\n".join(["Examples:", *(_example(line, width) for line in description.examples)]))
    parts += [_section(heading, rows, width) for heading, rows in groups.items() if rows]
    return "\n\n".join(parts)


def group_help(text: str, commands: Mapping[str, Mapping[str, Callable[..., object]]], width: int) -> str:
    """Return the help of ``cxr`` itself.

    Args:
        text: what the program does.
        commands: the functions of the commands by heading and name.
        width: columns of the terminal.
    """
    parts = ["Usage: cxr [OPTIONS] COMMAND [ARGUMENTS]", *(_wrapped(one, width) for one in text.split("\n\n"))]
    for heading, members in commands.items():
        rows = [(name, describe(callback).paragraphs[0]) for name, callback in members.items()]
        parts.append(_section(heading, rows, width, indent=14))
    parts.append(_section(OPTIONS, [*_ON_TOP, *_EVERYWHERE], width))
    parts.append("More about one: cxr help COMMAND")
    return "\n\n".join(parts)


def _shown(names: Sequence[str]) -> str:
    """Short names first, as in ``-r, --recursive``; the two of a switch as ``--flip / --no-flip``."""
    short = [name for name in names if not name.startswith("--")]
    long = [name for name in names if name.startswith("--")]
    return ", ".join([*short, " / ".join(long)]) if long else ", ".join(names)


def _section(heading: str, rows: Iterable[Row], width: int, indent: int = _INDENT) -> str:
    return "\n".join([f"{heading}:", *(line for row in rows for line in _row(*row, width, indent))])


def _row(names: str, meaning: str, width: int, indent: int) -> Iterator[str]:
    lines = textwrap.wrap(meaning, max(width - indent, 20), break_on_hyphens=False, break_long_words=False) or [""]
    if len(names) > indent - 4:
        yield f"  {names}"
    else:
        yield f"  {names:<{indent - 2}}{lines.pop(0)}".rstrip()
    for line in lines:
        yield " " * indent + line


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_on_hyphens=False, break_long_words=False)


def _example(line: str, width: int) -> str:
    """Return a command line, broken between words so that the shell still reads it as one.

    An option stays with its value, and a quoted text is one word.
    """
    parts = re.findall(r"""(?:--?[a-z][\w-]*\s+(?!-))?(?:"[^"]*"|'[^']*'|\S)+""", line)
    return "\n".join(f"  {one}" for one in shell_lines(parts, width - 4, "    "))
