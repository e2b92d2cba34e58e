"""The heatmap of one finding in one radiograph, and pictures of it."""

import hashlib
import os
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePath

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import FigureFormat, Fit
from cxrtool.data.decoded import ImageWarning
from cxrtool.data.images import shown
from cxrtool.data.preprocessing import to_image
from cxrtool.explain.figure_files import write_figure
from cxrtool.explain.pictures import (
    ColourScale,
    Panel,
    draw_figure,
    draw_heatmap,
    draw_overlay,
    encode_png,
    shrunk,
    write_png,
)
from cxrtool.text import shortened

_NOTEBOOK_SIDE = 512
"""Longer side of a picture in a notebook, in pixels."""

USE_NOTE = "Supporting evidence for research; it does not replace clinical interpretation."
_STUDY_PATH = re.compile(r"/(patient\d+/study\d+|p\d{8}/s\d{8})$")
"""Folders of a patient and a study in CheXpert's and in MIMIC's layout."""
_FINDING_SIDE = 320
"""Height of each picture in a panel of all findings, in pixels."""
FAINT = 0.05
"""Probability below which a map that is not stretched cannot be seen."""
_SHORT_USE_NOTE = "for research, not a medical device"
_NOT_KNOWN = "How often such maps point at the finding is not known for this model (see cxr localize)."


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """A heatmap of where the network looked for one finding in one radiograph.

    Attributes:
        path: path of the radiograph; None if the input was not a path.
        label: name of the finding.
        probability: probability of the finding in [0, 1].
        threshold: the finding is positive at or above it.
        image: [H, W] uint8, 0 is black; the radiograph at its original size.
        heatmap: [H, W] float32 in [0, 1], at the size of the image. Its peak equals the probability, so that a low
            probability gives a faint map, or 1 if `stretched`. It is 0 everywhere if the method found nothing.
        method: display name of the method, for example ``Grad-CAM``.
        stretched: whether the peak was scaled to 1.
        known: a sentence on how well such maps of this model locate the finding; empty if unknown.
        hit_rate: how often the peak of such maps lies in the finding, in [0, 1]; None if unknown.
        warnings: warnings about the image.
        name: name used in messages: the path, or for example ``array [512, 640] uint8``.
    """

    path: Path | None
    label: str
    probability: float
    threshold: float
    image: NDArray[np.uint8]
    heatmap: NDArray[np.float32]
    method: str = "Grad-CAM"
    stretched: bool = False
    known: str = ""
    hit_rate: float | None = None
    warnings: tuple[ImageWarning, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name and self.path is not None:
            object.__setattr__(self, "name", shown(self.path))

    @property
    def positive(self) -> bool:
        """Whether the probability reaches the threshold."""
        return self.probability >= self.threshold

    @property
    def warning_notes(self) -> tuple[str, ...]:
        """All warnings in one line; empty if there are none."""
        return (f"Warning: {'; '.join(warning.message for warning in self.warnings)}.",) if self.warnings else ()

    @property
    def peak(self) -> tuple[int, int] | None:
        """Column and row of the peak; None if the map is zero everywhere."""
        if not self.heatmap.any():
            return None
        row, column = np.unravel_index(int(self.heatmap.argmax()), self.heatmap.shape)
        return int(column), int(row)

    def box(self, threshold: float = 0.5) -> tuple[int, int, int, int] | None:
        """Return the bounding box of the connected region around the peak.

        Args:
            threshold: share of the peak value, in (0, 1], that every pixel of the region reaches.

        Returns:
            Left, top, right and bottom in pixels, with right and bottom exclusive; None if the map is zero everywhere.
        """
        peak = self.peak
        if peak is None:
            return None
        hot = (self.heatmap >= threshold * self.heatmap.max()).astype(np.uint8)
        _, regions, stats, _ = cv2.connectedComponentsWithStats(hot)
        left, top, width, height = (int(value) for value in stats[regions[peak[1], peak[0]], : cv2.CC_STAT_AREA])
        return left, top, left + width, top + height

    def overlay(self, alpha: float = 0.45, contour: bool = False) -> NDArray[np.uint8]:
        """Draw the heatmap over the radiograph.

        Args:
            alpha: opacity of the heatmap, in [0, 1].
            contour: draw only a contour line at half the peak, and none around a finding that is not `marked`.

        Returns:
            [H, W, 3] uint8 RGB.
        """
        if contour and not self.marked:
            return np.repeat(self.image[..., None], 3, axis=2)
        return draw_overlay(self.image, self.heatmap, alpha, contour)

    @property
    def marked(self) -> bool:
        """Whether a contour is drawn: around positives only, since a line around a low score looks as strong."""
        return bool(self.heatmap.any()) and (self.positive or self.stretched)

    @property
    def visible(self) -> bool:
        """Whether the map can be seen: it has a peak, of at least `FAINT`."""
        return bool(self.heatmap.any()) and (self.stretched or self.probability >= FAINT)

    def overlay_png(self, max_side: int | None = None, alpha: float = 0.45, contour: bool = False) -> bytes:
        """Return the result of `overlay` as the bytes of a PNG file, without metadata of the radiograph.

        Args:
            max_side: largest width and height in pixels; smaller pictures are not enlarged. None keeps the size.
            alpha: opacity, see `overlay`.
            contour: draw only a contour, see `overlay`.

        Raises:
            RequestError: `max_side` is below 1.
        """
        picture = self.overlay(alpha, contour)
        return encode_png(picture if max_side is None else shrunk(picture, max_side))

    @property
    def image_name(self) -> str:
        """Name of the radiograph in captions: patient, study and view, or the file's name and a digest of its path."""
        if self.path is None:
            return shortened(self.name, 60)
        whole = Path(os.path.abspath(self.path))
        if _STUDY_PATH.search(whole.parent.as_posix()):
            return shortened(" ".join((*whole.parent.parts[-2:], whole.stem)), 60)
        return f"{shortened(shown(Path(whole.name)), 48)} ({path_digest(whole)})"

    @property
    def decision(self) -> str:
        """``positive`` or ``negative``."""
        return "positive" if self.positive else "negative"

    @property
    def caption(self) -> str:
        """Radiograph, finding, probability, decision and threshold in one line."""
        score = f"{self.probability:.3f}, {self.decision} (threshold {self.threshold:.2f})"
        return f"{self.image_name}: {self.label} {score}"

    @property
    def panel_detail(self) -> str:
        """Decision, threshold and what is known of the map, or that none can be seen, for a narrow picture."""
        hits = "" if self.hit_rate is None else f", hits {100 * self.hit_rate:.0f} %"
        absent = f", no map: {self.probability:.2f}" if self.heatmap.any() else ", its map is zero"
        shown_map = hits if self.visible else absent
        return f"{self.decision} at {self.threshold:.2f}{shown_map}"

    @property
    def scale_note(self) -> str:
        """The meaning of the values of the heatmap."""
        if self.stretched:
            return "Stretched: 1 is the peak of this map, whatever the probability."
        return "The peak equals the probability: a low probability gives a faint map."

    @property
    def known_note(self) -> str:
        """`known`, or a sentence saying that it is not known."""
        return self.known or _NOT_KNOWN

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the reader of the picture, one line each."""
        found = () if self.heatmap.any() else ("The method found nothing: the map is zero everywhere.",)
        return (*self.warning_notes, *found, self.scale_note, self.known_note, USE_NOTE)

    def figure(self, alpha: float = 0.45, contour: bool = False) -> NDArray[np.uint8]:
        """Draw radiograph, heatmap with its scale, and overlay side by side under the caption; uint8 RGB."""
        panels = self._panels(draw_heatmap(self.heatmap), self.overlay(alpha, contour), contour)
        return draw_figure(panels, self.caption, self.footer)

    def _panels(self, heatmap: NDArray[np.uint8], overlay: NDArray[np.uint8], contour: bool) -> list[Panel]:
        return [
            Panel("Radiograph", np.repeat(self.image[..., None], 3, axis=2)),
            Panel(self._map_title("Heatmap"), heatmap, scale=self.colour_scale),
            Panel(self._overlay_title(contour), overlay),
        ]

    def _map_title(self, shown_as: str) -> str:
        """What a map is called, or why it cannot be seen."""
        if self.visible:
            return shown_as
        return f"No map: {self.probability:.2f}" if self.heatmap.any() else "No map: zero everywhere"

    def _overlay_title(self, contour: bool) -> str:
        if not contour:
            return self._map_title("Overlay")
        return "Contour at half the peak" if self.marked else f"No contour: {self.decision}"

    @property
    def colour_scale(self) -> ColourScale:
        """The scale beside the map, with the threshold marked where values are probabilities."""
        return ColourScale("of peak") if self.stretched else ColourScale("probability", self.threshold)

    @property
    def footer(self) -> str:
        """Warning, method, how often such maps hit, and what the picture is for, in one line."""
        return _footer((self,), self._hits)

    @property
    def _hits(self) -> str:
        if self.hit_rate is None:
            return "how often it hits is not known"
        return f"its peak hits {self.label} in {100 * self.hit_rate:.0f} % of test images"

    def save(
        self,
        folder: str | Path,
        name: str | None = None,
        alpha: float = 0.45,
        contour: bool = False,
        figure_format: FigureFormat | str = FigureFormat.PNG,
    ) -> dict[str, Path]:
        """Write heatmap, overlay and figure as PNG files into `folder`, the figure also as PDF or SVG for print.

        Args:
            folder: folder for the files; created if missing.
            name: start of the file names. Default: `picture_name` of the radiograph. Characters that a file name cannot
                contain become ``_``, so no file is written outside `folder`.
            alpha: opacity, see `overlay`.
            contour: draw only a contour, see `overlay`.
            figure_format: format of the figure.

        Returns:
            Paths of the files, by ``heatmap``, ``overlay`` and ``figure``.

        Raises:
            CxrError: the folder cannot be written.
        """
        folder = Path(folder)
        default = picture_name(self.path) if self.path is not None else PurePath(self.name).stem
        stem = _file_name(f"{name or default or 'radiograph'}_{self.label}")
        heatmap, overlay = draw_heatmap(self.heatmap), self.overlay(alpha, contour)
        paths = {"heatmap": folder / f"{stem}_heatmap.png", "overlay": folder / f"{stem}_overlay.png"}
        write_png(paths["heatmap"], heatmap)
        write_png(paths["overlay"], overlay)
        panels = self._panels(heatmap, overlay, contour)
        figure = write_figure(folder / f"{stem}_figure", panels, self.caption, self.footer, figure_format)
        return paths | {"figure": figure}

    def __repr__(self) -> str:
        height, width = self.heatmap.shape
        name, label = shortened(self.name, 28), shortened(self.label, 24)
        return f"Explanation({name!r}, {label} {self.probability:.3f} {self.decision}, heatmap {height} x {width})"

    def _repr_html_(self) -> str:
        """Return caption, overlay and notes for a notebook."""
        picture = b64encode(self.overlay_png(_NOTEBOOK_SIDE)).decode("ascii")
        title = escape(self.caption)
        notes = "".join(f"<tr><td>{escape(note)}</td></tr>" for note in self.notes)
        image = f'<img alt="{title}" src="data:image/png;base64,{picture}">'
        return f"<table><caption>{title}</caption><tr><td>{image}</td></tr>{notes}</table>"


def _file_name(text: str) -> str:
    """Return `text` as a valid file name: separators, blanks, reserved and control characters become ``_``."""
    return "".join("_" if char in '/\\:*?"<>|' or char == " " or not char.isprintable() else char for char in text)


def picture_name(path: Path) -> str:
    """Return how the files of a radiograph's pictures begin, whatever else is explained into the same folder.

    That is patient, study and view where the path names them, as in CheXpert and MIMIC
    (``patient00001_study1_view1_frontal``); else the name of the file with a digest of the whole path
    (``image-1a2b3c4d``), as other folders may have a file of the same name.
    """
    whole = Path(os.path.abspath(path))
    if _STUDY_PATH.search(whole.parent.as_posix()):
        return "_".join((*whole.parent.parts[-2:], whole.stem))
    return f"{whole.stem or 'root'}-{path_digest(whole)}"


def path_digest(path: Path) -> str:
    """Return 8 hex digits of the SHA-256 of an absolute path."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]


def panel_of_findings(
    explanations: tuple[Explanation, ...], alpha: float = 0.45, contour: bool = False
) -> NDArray[np.uint8]:
    """Draw the overlays of several findings of one radiograph side by side; uint8 RGB."""
    return draw_figure(*_panel_parts(explanations, alpha, contour), panel=_FINDING_SIDE)


def save_panel(
    explanations: tuple[Explanation, ...],
    stem: Path,
    alpha: float = 0.45,
    contour: bool = False,
    figure_format: FigureFormat | str = FigureFormat.PNG,
) -> Path:
    """Write `panel_of_findings` to a file whose name is `stem` and the format's suffix; return its path."""
    panels, caption, note = _panel_parts(explanations, alpha, contour)
    return write_figure(stem, panels, caption, note, figure_format, _FINDING_SIDE)


def _panel_parts(explanations: tuple[Explanation, ...], alpha: float, contour: bool) -> tuple[list[Panel], str, str]:
    first = explanations[0]
    panels = [
        Panel(
            f"{one.label} {one.probability:.3f}",
            one.overlay(alpha, contour),
            detail=one.panel_detail,
            scale=ColourScale(first.colour_scale.title) if one is explanations[-1] else None,
            strong=one.positive,
        )
        for one in explanations
    ]
    known = any(one.hit_rate is not None for one in explanations)
    hits = "hits: share of test images in which the peak lies in the finding" if known else first._hits
    return panels, first.image_name, _footer(explanations, hits)


def _footer(explanations: Sequence[Explanation], hits: str) -> str:
    first = explanations[0]
    warning = [f"Warning: {first.warnings[0].message}"] if first.warnings else []
    return " · ".join([*warning, first.method.partition(",")[0], hits, _SHORT_USE_NOTE])


def heatmap_of(
    coarse: NDArray[np.float32],
    height: int,
    width: int,
    probability: float,
    stretch: bool = False,
    fit: Fit = Fit.STRETCH,
) -> NDArray[np.float32]:
    """Scale a coarse map to the size of the radiograph and to [0, 1].

    Args:
        coarse: [h, w] float32, not negative.
        height: height of the radiograph in pixels.
        width: width of the radiograph in pixels.
        probability: value of the peak after scaling.
        stretch: scale the peak to 1 instead.
        fit: how the radiograph filled the network's input.

    Returns:
        [height, width] float32, interpolated bilinearly; zero if the map is zero everywhere.
    """
    full = to_image(coarse, height, width, fit)
    peak = float(full.max())
    if peak <= 0:
        return np.zeros((height, width), dtype=np.float32)
    scaled: NDArray[np.float32] = np.clip(full / peak, 0, 1).astype(np.float32)
    return scaled if stretch else scaled * np.float32(probability)
