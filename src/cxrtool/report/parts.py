"""Parts of a report as data: sections with text, tables, charts and pictures."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from cxrtool.files import csv_row
from cxrtool.report.plots import Chart


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        title: heading above the table.
        header: names of the columns; the first column names the row.
        rows: cells as text.
        name: name of the CSV file for download, without suffix.
        texts: number of leading columns that hold text; the others hold figures.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    name: str
    texts: int = 1

    @property
    def href(self) -> str:
        """Data URL of the table as a CSV file."""
        text = csv_row(self.header) + "".join(csv_row(row) for row in self.rows)
        return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()


@dataclass(frozen=True)
class Picture:
    """A radiograph with its heatmap: data URL, description for screen readers, and lines below it."""

    src: str
    alt: str
    caption: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A section of a report; its text, tables, charts and pictures are shown in this order."""

    id: str
    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    pictures: Sequence[Picture] = ()
