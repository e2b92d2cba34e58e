"""Write a figure of heatmaps in the format that the user wants."""

from collections.abc import Sequence
from pathlib import Path

from cxrtool.choices import FigureFormat
from cxrtool.explain.pictures import Panel, draw_figure, write_png
from cxrtool.files import write_bytes


def write_figure(
    stem: Path,
    panels: Sequence[Panel],
    caption: str,
    note: str,
    figure_format: FigureFormat | str,
    side: int | None = None,
) -> Path:
    """Write pictures side by side, as `draw_figure` or, for print, `draw_print_figure` draws them.

    Args:
        stem: path of the file without the format's suffix.
        panels: pictures of equal height and width.
        caption: text above.
        note: text below.
        figure_format: png, pdf or svg.
        side: height of each picture in pixels in a PNG, see `draw_figure`.

    Returns:
        Path of the file.

    Raises:
        CxrError: it cannot be written.
    """
    path = stem.with_name(f"{stem.name}.{FigureFormat(figure_format)}")
    if path.suffix == ".png":
        write_png(path, draw_figure(panels, caption, note, side))
    else:
        from cxrtool.explain.print_figure import draw_print_figure  # matplotlib takes half a second to import

        write_bytes(path, draw_print_figure(panels, caption, note, path.suffix[1:]))
    return path
