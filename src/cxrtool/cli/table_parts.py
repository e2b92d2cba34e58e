"""Which columns of a table fit beside each other in a terminal, and where their texts are broken."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

GAP = 2
"""Spaces after a column of a table without lines."""
_BESIDE_LINES = 3
_PIECE = re.compile(r"\([^()]*\)\S*|\S+")
"""What is not broken: a word, or an interval in brackets."""


@dataclass(frozen=True)
class TablePart:
    """Columns of a table that are printed beside each other.

    Attributes:
        columns: their positions.
        header: names of these columns.
        rows: texts of these columns.
        widths: of these columns, without what is between them.
        lines: whether lines are drawn around the cells.
    """

    columns: tuple[int, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    widths: tuple[int, ...]
    lines: bool


def parts_that_fit(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int, keys: int = 1
) -> tuple[TablePart, ...]:
    """Divide the columns of a table so that no part is wider than `width`.

    Neither a word nor an interval in brackets is broken unless it is wider than half of `width`.

    Args:
        header: names of the columns.
        rows: texts, as many per row as there are columns.
        width: columns of the terminal.
        keys: number of leading columns that every part repeats.
    """
    texts = [header, *rows]
    least = [min(max(map(_longest_piece, column)), width // 2) for column in zip(*texts, strict=True)]
    whole = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
    everything = tuple(range(len(header)))
    groups, lines = [everything], True
    if sum(least) + _BESIDE_LINES * len(least) + 1 > width:
        groups, lines = _grouped(least, width, min(keys, len(least) - 1)), False
    parts = []
    for columns in groups:
        room = width - len(columns) * (_BESIDE_LINES if lines else GAP) - lines
        widths = _widened([least[column] for column in columns], [whole[column] for column in columns], room)
        first, *others = [
            tuple(_broken(text[column], most) for column, most in zip(columns, widths, strict=True)) for text in texts
        ]
        parts.append(TablePart(columns, first, tuple(others), widths, lines))
    return tuple(parts)


def _grouped(least: Sequence[int], width: int, keys: int) -> list[tuple[int, ...]]:
    repeated = tuple(range(keys))
    groups, columns = [], repeated
    for column in range(keys, len(least)):
        if len(columns) > keys and sum(least[one] + GAP for one in (*columns, column)) > width:
            groups.append(columns)
            columns = repeated
        columns = (*columns, column)
    return [*groups, columns]


def _widened(least: Sequence[int], whole: Sequence[int], room: int) -> tuple[int, ...]:
    """Give columns, from the left, the width that their texts need on one line, or what is left of the room."""
    spare = room - sum(least)
    widths = []
    for narrow, wide in zip(least, whole, strict=True):
        more = min(wide - narrow, spare)
        spare -= more
        widths.append(narrow + more)
    return tuple(widths)


def _longest_piece(text: str) -> int:
    return max(map(cell_len, _PIECE.findall(text)), default=0)


def _broken(text: str, width: int) -> str:
    """Put an interval in brackets on its own line where a column is too narrow for both."""
    return text.replace(" (", "\n(") if cell_len(text) > width else text
