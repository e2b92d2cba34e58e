"""What a report is made of: sections with text, tables, charts and pictures, as data."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from cxrtool.files import csv_row
from cxrtool.report.plots import Chart


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        title: above it.
        header: column names; the first column names the row.
        rows: cells as text.
        name: of the CSV file it downloads as.
        texts: so many columns from the left are words, the others figures.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    name: str
    texts: int = 1

    @property
    def href(self) -> str:
        """The table as a CSV file in a link."""
        text = csv_row(self.header) + "".join(csv_row(row) for row in self.rows)
        return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()


@dataclass(frozen=True)
class Picture:
    """A radiograph with its heatmap."""

    src: str
    alt: str
    caption: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A part of a report, in the order text, tables, charts, pictures."""

    id: str
    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    pictures: Sequence[Picture] = ()
