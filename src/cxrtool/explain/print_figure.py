"""Figures of heatmaps for print: vector type and lines, and radiographs at their own resolution, as PDF or SVG."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cxrtool.explain.pictures import MOST_IN_A_ROW, Panel

PRINT_STYLE: dict[Any, Any] = {
    "pdf.fonttype": 42,  # TrueType; journals refuse matplotlib's default, Type 3
    "svg.fonttype": "path",  # looks the same without the font
    "svg.hashsalt": "cxrtool",
    "font.size": 7,
}
"""What every figure for print has, whatever it shows."""
_WIDTH = 183 / 25.4
"""Two columns of most journals, in inches."""


def draw_print_figure(panels: Sequence[Panel], caption: str, note: str, suffix: str) -> bytes:
    """Draw pictures side by side as the content of a file.

    Args:
        panels: pictures of equal height and width, [H, W, 3] uint8 RGB; they are embedded as they are.
        caption: text above.
        note: text below.
        suffix: ``pdf`` or ``svg``.

    Returns:
        The file's bytes, the same for the same input.
    """
    height, width = panels[0].picture.shape[:2]
    scales = sum(one.scale is not None for one in panels)
    rows = -(-len(panels) // MOST_IN_A_ROW)
    columns = -(-len(panels) // rows)
    side = _WIDTH / (columns + 0.3 * scales)
    with mpl.rc_context(PRINT_STYLE):
        figure = Figure(figsize=(_WIDTH, rows * (side * height / width + 0.3) + 0.35), layout="constrained")
        for place, one in enumerate(panels, start=1):
            axes = figure.add_subplot(rows, columns, place)
            axes.imshow(one.picture, interpolation="none")
            axes.set_axis_off()
            axes.set_title(f"{one.title}\n{one.detail}".rstrip(), fontsize=7)
            if one.scale is not None:
                colours = ScalarMappable(Normalize(0, 1), "inferno")
                bar = figure.colorbar(colours, ax=axes, fraction=0.05, label=one.scale.title)
                if one.scale.threshold is not None:
                    bar.ax.axhline(one.scale.threshold, color="#40e0ff", linewidth=1.2)
                    bar.set_label(f"{one.scale.title} (line: threshold {one.scale.threshold:.2f})")
        figure.suptitle(caption, fontsize=8)
        figure.supxlabel(note, fontsize=6)
        content = io.BytesIO()
        dates = {"CreationDate": None} if suffix == "pdf" else {"Date": None}
        figure.savefig(content, format=suffix, metadata=dates)
    return content.getvalue()
