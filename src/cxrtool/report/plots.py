"""Charts as SVG text in the text colour of the page, so that they suit dark mode, light mode and print.

`Figure` is used without pyplot, which would open windows and keep state.
"""

import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cxrtool.evaluation.curves import Band
from cxrtool.evaluation.operating import DecisionCurve
from cxrtool.evaluation.reliability import ReliabilityBin
from cxrtool.evaluation.thresholds import ThresholdCurve
from cxrtool.training.state import EpochRecord

# After Okabe & Ito: distinct for colour-blind readers, and legible on black and on white.
BLUE, ORANGE, GREEN, GREY = "#3d8fd1", "#d97706", "#1a9a74", "#8a8f98"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # keeps text as text, which can be searched, scaled and recoloured
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
}
_SIZE = (2.6, 2.35)
"""Inches. Five in a row of a page 1280 px wide are shown at 1.1 times this size, so that type has 10 px."""


@dataclass(frozen=True)
class Chart:
    """A chart for a page.

    Attributes:
        title: heading above the chart.
        svg: SVG text, with a description for screen readers.
    """

    title: str
    svg: str


def _draw(title: str, description: str, paint: Callable[[Axes], None], size: tuple[float, float] = _SIZE) -> Chart:
    # Ids are hashes of content and salt; a salt per chart makes them unique on a page.
    with mpl.rc_context(_STYLE | {"svg.hashsalt": f"{title} {description}"}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        paint(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = svg.replace("#000000", "currentColor")
    # A fixed size would not shrink with a narrow window. Ids like figure_1 are in every chart; nothing refers to them.
    svg = re.sub(r' width="[^"]*pt" height="[^"]*pt"', "", svg, count=1)
    svg = re.sub(r' id="(?![A-Za-z]*[0-9a-f]{10}")[^"]*"', "", svg)
    label = html.escape(f"{title}. {description}", quote=True)
    return Chart(title, svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def chart_of(title: str, description: str, paint: Callable[[Axes], None], size: tuple[float, float]) -> Chart:
    """Draw a chart of `size` in inches for a page; `description` is for screen readers."""
    return _draw(title, description, paint, size)


def _unit_axes(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y)
    axes.set_xticks([0, 0.5, 1])
    axes.set_yticks([0, 0.5, 1])


@dataclass(frozen=True)
class Mark:
    """A reader's point on a chart.

    Attributes:
        name: shown in the legend.
        x: in [0, 1].
        y: in [0, 1].
        x_range: ends of the interval of `x`; None draws none.
        y_range: ends of the interval of `y`; None draws none.
        vote: whether it is the majority vote of the readers.
    """

    name: str
    x: float
    y: float
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    vote: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.x:.3f}, {self.y:.3f}"


_BARS = 0.2
"""Height of the highest bar of counts under a reliability curve."""
_SHAPES = "os^vDPX<>"


def _paint_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    for number, mark in enumerate(marks):
        colour, shape, size = (GREEN, "*", 60) if mark.vote else (ORANGE, _SHAPES[number % len(_SHAPES)], 22)
        if mark.x_range is not None:
            axes.hlines(mark.y, *mark.x_range, color=colour, linewidth=0.8, zorder=3)
        if mark.y_range is not None:
            axes.vlines(mark.x, *mark.y_range, color=colour, linewidth=0.8, zorder=3)
        axes.scatter([mark.x], [mark.y], s=size, color=colour, marker=shape, label=mark.name, zorder=4)
    if marks:
        axes.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(4, len(marks)), handletextpad=0.1, columnspacing=1
        )


def _described(caption: str, marks: Sequence[Mark]) -> str:
    return caption + "".join(f"; {mark}" for mark in marks)


def roc_chart(
    finding: str,
    fpr: NDArray[np.float64],
    tpr: NDArray[np.float64],
    band: Band,
    caption: str,
    readers: Sequence[Mark] = (),
) -> Chart:
    """Draw the ROC curve with its pointwise band, and readers as points with their intervals."""

    def paint(axes: Axes) -> None:
        axes.fill_between(band.x, band.low, band.high, color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(fpr, tpr, color=BLUE)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
        _unit_axes(axes, "1 - specificity", "sensitivity")
        _paint_marks(axes, readers)

    return _draw(finding, _described(f"ROC curve, {caption}", readers), paint)


def pr_chart(
    finding: str,
    recall: NDArray[np.float64],
    precision: NDArray[np.float64],
    band: Band,
    prevalence: float,
    caption: str,
    readers: Sequence[Mark] = (),
) -> Chart:
    """Draw the precision-recall curve with its pointwise band, and readers; the dotted line is a random guess."""

    def paint(axes: Axes) -> None:
        axes.fill_between(band.x, band.low, band.high, color=BLUE, alpha=0.25, linewidth=0)
        axes.step(recall, precision, color=BLUE, where="pre")
        axes.axhline(prevalence, color=GREY, linestyle=":")
        _unit_axes(axes, "recall", "precision")
        _paint_marks(axes, readers)

    return _draw(finding, _described(f"Precision-recall curve, {caption}", readers), paint)


def reliability_chart(
    finding: str, raw: Sequence[ReliabilityBin], calibrated: Sequence[ReliabilityBin] | None
) -> Chart:
    """Draw the share of positives over the mean probability, with its interval and the number of rows of each bin.

    The interval and the numbers are those of the calibrated probabilities, or of the raw ones if there are no others.
    """
    main = raw if calibrated is None else calibrated

    def line(axes: Axes, bins: Sequence[ReliabilityBin], colour: str, name: str) -> None:
        x, y = [part.mean_probability for part in bins], [part.positive_share for part in bins]
        axes.plot(x, y, color=colour, linewidth=1, marker="o", markersize=3.5, label=name)

    def paint(axes: Axes) -> None:
        most = max((part.rows for part in main), default=1)
        for part in main:  # how many rows each point stands on, as a bar over its range
            width = max(part.high - part.low, 0.01)
            axes.bar(part.low, _BARS * part.rows / most, width=width, align="edge", color=GREY, alpha=0.35, linewidth=0)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
        x = [part.mean_probability for part in main]
        low, high = [part.share_low for part in main], [part.share_high for part in main]
        colour = ORANGE if calibrated is None else GREEN
        if len(main) > 1:
            axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.vlines(x, low, high, color=colour, linewidth=0.8)
        line(axes, raw, ORANGE, "raw")
        if calibrated is not None:
            line(axes, calibrated, GREEN, "calibrated")
            axes.legend(loc="lower center", ncols=2, bbox_to_anchor=(0.5, 1.0), handlelength=1.2)
        _unit_axes(axes, "mean probability", "share of positives")

    def described(bins: Sequence[ReliabilityBin]) -> str:
        return "; ".join(
            f"{part.low:.2f} to {part.high:.2f}: {part.positives} of {part.rows} rows positive" for part in bins
        )

    text = f"Reliability of raw probabilities: {described(raw) or 'no rows'}"
    if calibrated is not None:
        text += f". Of calibrated probabilities: {described(calibrated) or 'no rows'}"
    return _draw(finding, text, paint)


def threshold_chart(finding: str, curve: ThresholdCurve, threshold: float | None) -> Chart:
    """Draw F1, recall and specificity over thresholds, and the chosen threshold."""

    def paint(axes: Axes) -> None:
        axes.plot(curve.thresholds, curve.f1, color=BLUE, label="F1")
        axes.plot(curve.thresholds, curve.recall, color=ORANGE, linewidth=1, label="recall")
        axes.plot(curve.thresholds, curve.specificity, color=GREEN, linewidth=1, label="specificity")
        if threshold is not None:
            axes.axvline(threshold, color=GREY, linestyle="--", linewidth=1)
        axes.legend(loc="lower center", ncols=3, bbox_to_anchor=(0.5, 1.0), handlelength=1, columnspacing=0.8)
        _unit_axes(axes, "threshold", "")

    return _draw(finding, f"F1, recall and specificity over thresholds; chosen {threshold or 'none'}", paint)


def histogram_chart(
    finding: str, positives: NDArray[np.float64], negatives: NDArray[np.float64], threshold: float | None
) -> Chart:
    """Draw a histogram of probabilities: positives above the line, negatives below it, as shares of their class."""
    edges = np.linspace(0, 1, 21)

    def paint(axes: Axes) -> None:
        for values, colour, sign, name in ((positives, ORANGE, 1, "positive"), (negatives, BLUE, -1, "negative")):
            shares = np.histogram(values, edges)[0] / max(len(values), 1)
            axes.bar(edges[:-1], sign * shares, width=0.05, align="edge", color=colour, label=name)
        axes.axhline(0, color="#000000", linewidth=0.8)
        if threshold is not None:
            axes.axvline(threshold, color=GREY, linestyle="--", linewidth=1)
        axes.set(xlim=(0, 1), xlabel="probability", ylabel="share of the class")
        most = max(abs(bound) for bound in axes.get_ylim())
        axes.set_ylim(-most, most)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axes.legend(loc="lower center", ncols=2, bbox_to_anchor=(0.5, 1.0), handlelength=1.2)

    description = f"Histogram of the probabilities of {len(positives)} positives and {len(negatives)} negatives"
    return _draw(finding, description, paint)


def decision_chart(finding: str, curve: DecisionCurve) -> Chart:
    """Draw the net benefit of acting on the model, in every case and in none."""

    def paint(axes: Axes) -> None:
        axes.plot(curve.thresholds, curve.model, color=BLUE, label="model")
        axes.plot(curve.thresholds, curve.everyone, color=ORANGE, linewidth=1, label="everyone")
        axes.axhline(0, color=GREY, linestyle=":", label="no one")
        top = max(float(np.nanmax(curve.model)), float(np.nanmax(curve.everyone)), 0.01)
        axes.set(xlim=(0, 0.8), ylim=(-0.25 * top, 1.1 * top), xlabel="threshold probability", ylabel="net benefit")
        axes.legend(loc="lower center", ncols=3, bbox_to_anchor=(0.5, 1.0), handlelength=1, columnspacing=0.8)

    return _draw(finding, "Decision curve: net benefit over threshold probabilities", paint)


def history_chart(history: Sequence[EpochRecord], best: int) -> Chart:
    """Draw losses and AUROC on valid over epochs; a dashed line marks the best epoch."""
    epochs = [record.epoch for record in history]

    def paint(axes: Axes) -> None:
        axes.plot(
            epochs, [record.train_loss for record in history], color=BLUE, marker="o", label="train loss (weighted)"
        )
        axes.plot(epochs, [record.valid_loss for record in history], color=ORANGE, marker="o", label="valid loss")
        axes.set(xlabel="epoch", ylabel="loss")
        axes.axvline(best, color=GREY, linestyle="--", linewidth=1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        right = axes.twinx()
        right.spines["right"].set_visible(True)
        auroc = [np.nan if record.valid_auroc is None else record.valid_auroc for record in history]
        right.plot(epochs, auroc, color=GREEN, marker="s", label="valid AUROC")
        right.set_ylabel("mean AUROC")
        lines = axes.get_lines()[:2] + right.get_lines()
        axes.legend(
            lines, [str(line.get_label()) for line in lines], loc="lower center", ncols=3, bbox_to_anchor=(0.5, 1.0)
        )

    return _draw("Training", f"Losses and valid AUROC over {len(epochs)} epochs; best {best}", paint, (6.6, 2.9))
