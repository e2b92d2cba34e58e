"""Parts of a report as data: sections with text, tables, charts and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

from cxrtool.report.plots import Chart
from cxrtool.report.table import Table as Table

SYNTHETIC = "Synthetic radiographs: every image is a drawing, so no figure here says anything about patients."
"""First line of a report and a card of a model that was trained on phantoms."""


@dataclass(frozen=True)
class Picture:
    """A radiograph with its heatmap: data URL, description for screen readers, and lines below it."""

    src: str
    alt: str
    caption: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A section of a report; its text, tables, charts and pictures are shown in this order.

    A collapsed section shows its title, and the rest once the reader opens it.
    """

    id: str
    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    pictures: Sequence[Picture] = ()
    collapsed: bool = False
