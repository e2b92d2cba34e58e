"""Predictions as lines of text that fit a terminal."""

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cxrtool.text import printable

if TYPE_CHECKING:
    from cxrtool.predict.prediction import Prediction

_NARROWEST, _WIDEST = 11, 15
"""Columns of one finding: with fewer, three decimals and a readable name do not fit."""
_SHORTEST_NAME, _LONGEST_NAME = 20, 46
_IN_A_FILE = 6
"""Findings above which only the positive ones are printed where no terminal sets the width."""


@dataclass(frozen=True)
class RowText:
    """How rows are laid out.

    Attributes:
        findings: the model's findings.
        width: columns of the terminal; None does not limit lines.
        name: columns of the image's name.
        column: columns of each finding; 0 lists the positive findings instead.
    """

    findings: tuple[str, ...]
    width: int | None
    name: int
    column: int

    @classmethod
    def fitting(cls, findings: Iterable[str], width: int | None) -> Self:
        """Give every finding a column if they fit beside a name of 20 characters."""
        names = tuple(findings)
        count = len(names)
        if width is None:
            return cls(names, None, _LONGEST_NAME, _WIDEST if count <= _IN_A_FILE else 0)
        column = min((width - _LONGEST_NAME) // count, _WIDEST)
        column = max(column, _NARROWEST)
        name = min(width - count * column, _LONGEST_NAME)
        if name < _SHORTEST_NAME:
            return cls(names, width, min(_LONGEST_NAME, max(width // 2, _SHORTEST_NAME)), 0)
        return cls(names, width, name, column)

    @property
    def header(self) -> str:
        """The names of the columns."""
        if not self.column:
            return f"{'image':<{self.name}}  findings"
        return f"{'image':<{self.name}}" + "".join(f"{self._short(one):>{self.column}}" for one in self.findings)

    def lines(self, name: str, prediction: "Prediction") -> Iterator[str]:
        """Yield the row of an image, and a line for each warning."""
        shown = name if len(name) < self.name else "…" + name[-(self.name - 2) :]
        start = f"{shown:<{self.name}}"
        if prediction.error is not None:
            yield from self.wrapped(f"{start}  error: {printable(prediction.error)}")
        elif self.column:
            cells = [f"{one.probability:.3f}{'*' if one.positive else ' '}" for one in prediction.findings]
            yield start + "".join(f"{cell:>{self.column}}" for cell in cells)
        else:
            yield from self.wrapped(f"{start}  {_positives(prediction)}")
        for warning in prediction.warnings:
            yield from self.wrapped(f"  warning, {warning.code}: {warning.message}")

    def wrapped(self, line: str) -> list[str]:
        """Break a line that is wider than the terminal between words; further lines are indented."""
        if self.width is None or len(line) <= self.width:
            return [line]
        return textwrap.wrap(line, self.width, subsequent_indent="    ", break_on_hyphens=False)

    def _short(self, finding: str) -> str:
        plain, room = finding.removeprefix("Pleural "), self.column - 1
        return plain if len(plain) <= room else f"{plain[: room - 1]}."


def _positives(prediction: "Prediction") -> str:
    """Return the positive findings, the most probable first; without any, the most probable finding."""
    ranked = sorted(prediction.findings, key=lambda result: -result.probability)
    positive = [f"{result.label} {result.probability:.3f}*" for result in ranked if result.positive]
    return ", ".join(positive) or f"none (most probable: {ranked[0].label} {ranked[0].probability:.3f})"
