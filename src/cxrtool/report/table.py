"""A table of figures, held as values, and how it is shown: as text, CSV, Markdown and LaTeX."""

import base64
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cxrtool.cells import cell, interval_text, range_text
from cxrtool.evaluation.intervals import Interval
from cxrtool.files import csv_row


@dataclass(frozen=True)
class Number:
    """A number and how many decimals are shown; None is shown as a dash."""

    value: float | None
    digits: int = 4

    def __str__(self) -> str:
        return cell(self.value, self.digits)


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval, shown as ``0.8123 (0.7401-0.8766)``; `signed` is for differences.

    A signed one is shown as ``+0.0123 (-0.0101 to +0.0345)``.
    """

    value: float | None
    interval: Interval | None
    digits: int = 4
    signed: bool = False

    def __str__(self) -> str:
        if not self.signed:
            return interval_text(self.value, self.interval, self.digits)
        text = cell(self.value) if self.value is None else f"{self.value:+.{self.digits}f}"
        if self.interval is None or self.low is None:
            return text
        return f"{text} ({range_text(self.interval, self.digits, signed=True)})"

    @property
    def low(self) -> float | None:
        """Lower end of the interval, None if undefined."""
        return None if self.interval is None else self.interval.low

    @property
    def high(self) -> float | None:
        """Upper end of the interval, likewise."""
        return None if self.interval is None else self.interval.high

    @property
    def method(self) -> str | None:
        """Name of the method that gave the interval, None if there is none."""
        return None if self.interval is None else self.interval.method


Cell = str | int | float | Number | Estimate | None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: heading above the table, or its caption.
        header: names of the columns; the first column names the row.
        rows: cells; None is shown as a dash.
        name: name of its files, without suffix.
        texts: number of leading columns that hold text; the others hold figures.
        notes: remarks below the table in Markdown and LaTeX.
        plain: the same numbers with one in each cell, for CSV; None if `rows` are such already.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    name: str
    texts: int = 1
    notes: Sequence[str] = ()
    plain: "Table | None" = None

    @property
    def href(self) -> str:
        """Data URL of the table as a CSV file."""
        return "data:text/csv;charset=utf-8;base64," + base64.b64encode(to_csv(self).encode()).decode()

    @property
    def shown(self) -> list[list[str]]:
        """The cells as text."""
        return [[shown_cell(value) for value in row] for row in self.rows]


def shown_cell(value: Cell) -> str:
    """Return a cell as people read it."""
    return str(value) if isinstance(value, (str, Number, Estimate)) else cell(value)


def to_csv(table: Table) -> str:
    """Return a table as CSV with each number in a cell of its own and with all its digits.

    A column of estimates becomes four: the value under the column's name, then `` low``, `` high`` and `` method``.
    """
    if table.plain is not None:
        return to_csv(table.plain)
    wide = [any(isinstance(row[place], Estimate) for row in table.rows) for place in range(len(table.header))]
    header: list[str] = []
    for name, has_interval in zip(table.header, wide, strict=True):
        header += [name, f"{name} low", f"{name} high", f"{name} method"] if has_interval else [name]
    return csv_row(header) + "".join(csv_row(_spread(row, wide)) for row in table.rows)


def _spread(row: Sequence[Cell], wide: Sequence[bool]) -> list[object]:
    found: list[object] = []
    for value, has_interval in zip(row, wide, strict=True):
        if isinstance(value, Estimate):
            found += [value.value, value.low, value.high, value.method]
        elif has_interval:
            found += [value.value if isinstance(value, Number) else value, None, None, None]
        else:
            found.append(value.value if isinstance(value, Number) else value)
    return found


def to_markdown(table: Table) -> str:
    """Return a table in Markdown, with its title above and its notes below."""
    lines = [f"**{escape_markdown(table.title)}**", "", *markdown_rows(table)]
    for note in table.notes:
        lines += ["", escape_markdown(note)]
    return "\n".join(lines) + "\n"


def markdown_rows(table: Table) -> list[str]:
    """Return the lines of a table in Markdown: the header, the alignment of the columns, and the rows."""
    rule = [":---" if place < table.texts else "---:" for place in range(len(table.header))]
    cells = [[escape_markdown(text) for text in row] for row in (table.header, *table.shown)]
    return [f"| {' | '.join(line)} |" for line in (cells[0], rule, *cells[1:])]


def escape_markdown(text: str) -> str:
    """Escape text for Markdown: the name of a run or sheet may hold bars, tags or line breaks."""
    clean = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return clean.replace("<", "&lt;").replace("`", "\\`")


_WIDE = 72
"""Characters of the longest row above which a LaTeX table spans both columns of a page."""
_LONG = 40
"""Rows above which a LaTeX table may break over pages."""
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$",
    "\N{LESS-THAN OR EQUAL TO}": r"$\leq$",
    "\N{MINUS SIGN}": "$-$",
}


def escape_latex(text: str) -> str:
    """Escape text for LaTeX; line breaks and control characters become spaces."""
    clean = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return "".join(_LATEX.get(sign, sign) for sign in clean)


def to_latex(table: Table) -> str:
    """Return a table for LaTeX's package booktabs, with caption and label; a long one also needs longtable.

    A wide table is a ``table*``, which spans both columns of a page.
    """
    rows = [[_latex_cell(value) for value in row] for row in table.rows]
    header = [escape_latex(name) for name in table.header]
    columns = "l" * table.texts + "r" * (len(header) - table.texts)
    lines = [" & ".join(row) + r" \\" for row in rows]
    label, caption = f"tab:{re.sub(r'[^a-z0-9-]+', '-', table.name.lower())}", escape_latex(table.title)
    notes = [rf"\par\smallskip\raggedright {escape_latex(note)}" for note in table.notes]
    packages = r"booktabs, longtable" if len(rows) > _LONG else "booktabs"
    start = [f"% needs \\usepackage{{{packages}}}"]
    head = [r"\toprule", " & ".join(header) + r" \\", r"\midrule"]
    if len(rows) > _LONG:
        return _joined(
            *start,
            r"\begingroup\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}",
            rf"\caption{{{caption}}}\label{{{label}}}\\",
            *head,
            r"\endfirsthead",
            *head,
            r"\endhead",
            r"\bottomrule",
            r"\endlastfoot",
            *lines,
            r"\end{longtable}",
            *notes,
            r"\par\endgroup",
        )
    widest = max((sum(len(text) + 2 for text in row) for row in (table.header, *table.shown)), default=0)
    kind = "table*" if widest > _WIDE else "table"
    return _joined(
        *start,
        rf"\begin{{{kind}}}",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{caption}}}\label{{{label}}}",
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        *head,
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
        *notes,
        rf"\end{{{kind}}}",
    )


def _latex_cell(value: Cell) -> str:
    text = escape_latex(shown_cell(value))
    if (
        isinstance(value, Estimate) and value.low is not None
    ):  # LaTeX's hyphen is too short for a range, and for a minus
        return text.replace("-", "$-$") if value.signed else text.replace("-", "--")
    return text


def _joined(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def interval_notes(rows: Iterable[tuple[str, Estimate]]) -> tuple[str, ...]:
    """Return a sentence for each estimate that has a value but no interval, with the reason."""
    return tuple(
        f"{name}: no interval, because {one.interval.reason}."
        for name, one in rows
        if one.value is not None
        and not math.isnan(one.value)
        and one.interval is not None
        and one.interval.low is None
        and one.interval.reason
    )
