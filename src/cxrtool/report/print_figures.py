"""Figures for print: ROC, precision-recall, reliability and decision curves of all findings as small panels.

Sizes are those of most journals: one column of 89 mm, or two of 183 mm. Files are SVG, PDF with embedded TrueType
fonts, and PNG at 600 dots per inch. Colours are those of the report, after Okabe & Ito, and lines also differ in style.
"""

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cxrtool.cells import interval_text
from cxrtool.evaluation.assessment import Assessment
from cxrtool.evaluation.calibration import Scaling
from cxrtool.evaluation.curves import curve_bands, precision_recall_curve, roc_curve
from cxrtool.evaluation.operating import decision_curve
from cxrtool.evaluation.reliability import ReliabilityBin, reliability_curve
from cxrtool.evaluation.table import PredictionTable
from cxrtool.explain.print_figure import PRINT_STYLE
from cxrtool.files import write_bytes
from cxrtool.report.plots import BLUE, GREEN, GREY, ORANGE

SINGLE, DOUBLE = 89.0, 183.0
"""Widths in mm."""
DOTS_PER_INCH = 600
FORMATS = ("svg", "pdf", "png")
_MM = 1 / 25.4
_STYLE: dict[Any, Any] = {
    **PRINT_STYLE,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
Painter = Callable[[Axes], None]


@dataclass(frozen=True)
class PrintFigure:
    """A figure of one panel per finding.

    Attributes:
        name: name of its files, without suffix.
        panels: title and painter of each panel.
        height: height of a panel as a share of its width.
    """

    name: str
    panels: Sequence[tuple[str, Painter]]
    height: float = 0.95


def figures_of(
    table: PredictionTable, assessment: Assessment, scalings: Mapping[str, Scaling] | None
) -> list[PrintFigure]:
    """Return the figures; findings with one class only have no panel, and scores that are no probabilities only two."""
    panels: dict[str, list[tuple[str, Painter]]] = {"roc": [], "pr": [], "calibration": [], "decision": []}
    for column, finding, targets, scores in _with_both_classes(table):
        row, intervals = assessment.evaluation.labels[finding], assessment.intervals[finding]
        roc_band, pr_band = curve_bands(table, column, assessment.settings.bootstrap)
        panels["roc"].append(
            (finding, _roc(targets, scores, roc_band, interval_text(row.auroc, intervals["auroc"], 3)))
        )
        panels["pr"].append((finding, _pr(targets, scores, pr_band, interval_text(row.auprc, intervals["auprc"], 3))))
        if table.are_probabilities:
            calibrated = None if scalings is None else scalings[finding].apply(scores)
            patients = [table.patients[row] for row in np.flatnonzero(table.mask[:, column])]
            panels["calibration"].append((finding, _calibration(targets, scores, calibrated, patients)))
            panels["decision"].append((finding, _decision(targets, scores if calibrated is None else calibrated)))
    return [PrintFigure(name, found) for name, found in panels.items() if found]


def _with_both_classes(
    table: PredictionTable,
) -> Iterator[tuple[int, str, NDArray[np.float32], NDArray[np.float64]]]:
    for column, finding in enumerate(table.findings):
        counts = table.mask[:, column]
        targets = table.targets[counts, column]
        if len(np.unique(targets)) == 2:
            yield column, finding, targets, table.scores[counts, column]


def _unit(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])


def _roc(targets: NDArray[np.float32], scores: NDArray[np.float64], band: Any, area: str) -> Painter:
    def paint(axes: Axes) -> None:
        axes.fill_between(band.x, band.low, band.high, color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(*roc_curve(targets, scores), color=BLUE)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
        axes.text(1.0, 0.03, f"AUROC\n{area}", ha="right", va="bottom", fontsize=6)
        _unit(axes, "1 - specificity", "sensitivity")

    return paint


def _pr(targets: NDArray[np.float32], scores: NDArray[np.float64], band: Any, area: str) -> Painter:
    def paint(axes: Axes) -> None:
        axes.fill_between(band.x, band.low, band.high, color=BLUE, alpha=0.25, linewidth=0)
        axes.step(*precision_recall_curve(targets, scores), color=BLUE, where="pre")
        axes.axhline(float(np.mean(targets)), color=GREY, linestyle=":")
        axes.text(0.02, 0.03, f"AUPRC\n{area}", ha="left", va="bottom", fontsize=6)
        _unit(axes, "sensitivity (recall)", "PPV (precision)")

    return paint


def _calibration(
    targets: NDArray[np.float32],
    raw: NDArray[np.float64],
    calibrated: NDArray[np.float64] | None,
    patients: Sequence[str],
) -> Painter:
    def dots(axes: Axes, bins: Sequence[ReliabilityBin], colour: str, style: str, name: str) -> None:
        x, y = [part.mean_probability for part in bins], [part.positive_share for part in bins]
        axes.plot(x, y, color=colour, linestyle=style, linewidth=0.7, marker="o", markersize=2, label=name)
        axes.vlines(x, [part.share_low for part in bins], [part.share_high for part in bins], colour, linewidth=0.5)

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
        dots(axes, reliability_curve(targets, raw, patients), ORANGE, "--", "raw")
        if calibrated is not None:
            dots(axes, reliability_curve(targets, calibrated, patients), GREEN, "-", "calibrated")
            axes.legend(loc="upper left", borderaxespad=0, handlelength=1.6)
        _unit(axes, "mean probability", "share of positives")

    return paint


def _decision(targets: NDArray[np.float32], probabilities: NDArray[np.float64]) -> Painter:
    curve = decision_curve(targets, probabilities)

    def paint(axes: Axes) -> None:
        axes.plot(curve.thresholds, curve.model, color=BLUE, label="model")
        axes.plot(curve.thresholds, curve.everyone, color=ORANGE, linestyle="--", label="everyone")
        axes.axhline(0, color=GREY, linestyle=":", label="no one")
        top = max(float(np.nanmax(curve.model)), float(np.nanmax(curve.everyone)), 0.01)
        axes.set(xlim=(0, 0.8), ylim=(-0.25 * top, 1.1 * top), xlabel="threshold probability", ylabel="net benefit")
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.legend(loc="upper right", borderaxespad=0, handlelength=1.6)

    return paint


def write_print_figure(folder: Path, figure: PrintFigure) -> list[Path]:
    """Write a figure at both widths in all formats: ``NAME.pdf`` is 183 mm wide, ``NAME_89mm.pdf`` 89 mm."""
    return [
        path
        for width, suffix, columns in ((DOUBLE, "", 3 if len(figure.panels) <= 9 else 5), (SINGLE, "_89mm", 2))
        for path in _write(folder / f"{figure.name}{suffix}", figure, width, columns)
    ]


def _write(stem: Path, figure: PrintFigure, width: float, columns: int) -> list[Path]:
    columns = min(columns, len(figure.panels))
    lines = math.ceil(len(figure.panels) / columns)
    panel = width / columns

    def paint(drawn: Figure) -> None:
        axes = drawn.subplots(lines, columns, squeeze=False).flat
        for place, (title, painter) in zip(axes, figure.panels, strict=False):
            place.set_title(title)
            painter(place)
        for unused in list(drawn.axes)[len(figure.panels) :]:
            unused.set_axis_off()

    return write_formats(stem, paint, (width * _MM, figure.height * panel * lines * _MM))


def write_formats(stem: Path, paint: Callable[[Figure], None], size: tuple[float, float]) -> list[Path]:
    """Draw a figure of `size` in inches and write it as SVG, PDF and PNG, each exactly of that size."""
    paths = []
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # once for all formats: the layout takes most of the time
        for suffix in FORMATS:
            content = io.BytesIO()
            # No dates: the same figures give the same files.
            metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}[suffix]
            figure.savefig(content, format=suffix, dpi=DOTS_PER_INCH, metadata=metadata)
            path = stem.with_name(f"{stem.name}.{suffix}")
            write_bytes(path, content.getvalue())
            paths.append(path)
    return paths
