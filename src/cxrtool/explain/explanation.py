"""What a method found in one radiograph, and its pictures."""

from base64 import b64encode
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePath

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.data.decoded import ImageWarning
from cxrtool.data.images import shown
from cxrtool.explain.pictures import Panel, draw_figure, draw_heatmap, draw_overlay, encode_png, shrunk, write_png
from cxrtool.text import shortened

_IN_A_NOTEBOOK = 512
"""Pixels of the longer side of a picture."""

USE_NOTE = "Supporting evidence for research; it does not replace clinical interpretation."
_NOT_KNOWN = "How often such maps point at the finding is not known for this model (see cxr localize)."


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Where the network looked for one finding in one radiograph.

    Attributes:
        path: the radiograph's file; None where it came as bytes, an array or in another way.
        label: the finding.
        probability: in [0, 1].
        threshold: positive at or above it.
        image: [H, W] uint8, 0 black, the radiograph as read.
        heatmap: [H, W] float32 in [0, 1], of the image's size. Its peak is the probability, so that a faint score has a
            faint map; 1 where it was stretched; 0 everywhere where the method found nothing.
        method: how the map was made, as people know it.
        stretched: the peak was raised to 1.
        known: what is known of such maps of this model and finding, a sentence; empty where nothing is.
        warnings: what to beware of in the image.
        name: what messages call the radiograph: its path, or for example ``array [512, 640] uint8``.
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
    def beware(self) -> tuple[str, ...]:
        """The warnings in a line, or nothing."""
        return (f"Beware: {'; '.join(warning.message for warning in self.warnings)}.",) if self.warnings else ()

    @property
    def peak(self) -> tuple[int, int] | None:
        """Column and row of the hottest pixel; None for a map that is zero everywhere."""
        if not self.heatmap.any():
            return None
        row, column = np.unravel_index(int(self.heatmap.argmax()), self.heatmap.shape)
        return int(column), int(row)

    def box(self, threshold: float = 0.5) -> tuple[int, int, int, int] | None:
        """The box around the region of the peak.

        Args:
            threshold: the region holds what reaches this share of the peak's heat, in (0, 1].

        Returns:
            Left, top, right and bottom in pixels, right and bottom just outside; None for a map that is zero.
        """
        peak = self.peak
        if peak is None:
            return None
        hot = (self.heatmap >= threshold * self.heatmap.max()).astype(np.uint8)
        _, parts, figures, _ = cv2.connectedComponentsWithStats(hot)
        left, top, width, height = (int(value) for value in figures[parts[peak[1], peak[0]], : cv2.CC_STAT_AREA])
        return left, top, left + width, top + height

    def overlay(self, alpha: float = 0.45, contour: bool = False) -> NDArray[np.uint8]:
        """The heatmap over the radiograph, [H, W, 3] uint8 RGB; `alpha` in [0, 1] is its strength.

        With `contour` only a line around half the peak's heat is drawn.
        """
        return draw_overlay(self.image, self.heatmap, alpha, contour)

    def overlay_png(self, max_side: int | None = None, alpha: float = 0.45, contour: bool = False) -> bytes:
        """`overlay` as a PNG file's bytes, with nothing of the radiograph's file but its pixels.

        Args:
            max_side: pixels of the longer side at most; smaller pictures stay as they are. None keeps the size.
            alpha: as in `overlay`.
            contour: likewise.

        Raises:
            RequestError: `max_side` is below 1.
        """
        picture = self.overlay(alpha, contour)
        return encode_png(picture if max_side is None else shrunk(picture, max_side))

    @property
    def caption(self) -> str:
        """Finding, probability, threshold and decision in a line."""
        return (
            f"{self.label}: probability {self.probability:.3f}, threshold {self.threshold:.2f}, "
            f"{'positive' if self.positive else 'negative'}"
        )

    @property
    def scale_note(self) -> str:
        """What the heat means."""
        if self.stretched:
            return "Stretched: 1 is this map's own peak, whatever its probability."
        return "The peak's heat is the probability: a faint score has a faint map."

    @property
    def known_note(self) -> str:
        """What is known of such maps, or that nothing is."""
        return self.known or _NOT_KNOWN

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the picture must know, a line each."""
        found = () if self.heatmap.any() else ("The method found nothing: the map is zero everywhere.",)
        return (*self.beware, *found, self.scale_note, self.known_note, USE_NOTE)

    def figure(self, alpha: float = 0.45, contour: bool = False) -> NDArray[np.uint8]:
        """Radiograph, heatmap with its scale, and overlay side by side under the caption; RGB uint8."""
        return self._figure(draw_heatmap(self.heatmap), self.overlay(alpha, contour), contour)

    def _figure(self, heatmap: NDArray[np.uint8], overlay: NDArray[np.uint8], contour: bool) -> NDArray[np.uint8]:
        panels = [
            Panel("Radiograph", np.repeat(self.image[..., None], 3, axis=2)),
            Panel("Heatmap", heatmap, scale=True),
            Panel("Contour at half the peak" if contour else "Overlay", overlay),
        ]
        return draw_figure(panels, self.caption, (f"{self.method}.", *self.notes))

    def save(
        self, folder: str | Path, name: str | None = None, alpha: float = 0.45, contour: bool = False
    ) -> dict[str, Path]:
        """Write heatmap, overlay and figure as PNG into `folder`; give back their paths by kind.

        Args:
            folder: made where it is not there.
            name: what the files' names begin with; the radiograph's name unless given. Whatever stands in it or in
                the label, no file is written outside `folder`: what a file's name cannot hold becomes ``_``.
            alpha: as in `overlay`.
            contour: likewise.

        Raises:
            CxrError: the folder cannot be written.
        """
        folder = Path(folder)
        stem = _file_name(f"{name or PurePath(self.name).stem or 'radiograph'}_{self.label}")
        heatmap, overlay = draw_heatmap(self.heatmap), self.overlay(alpha, contour)
        pictures = {"heatmap": heatmap, "overlay": overlay, "figure": self._figure(heatmap, overlay, contour)}
        paths = {kind: folder / f"{stem}_{kind}.png" for kind in pictures}
        for kind, picture in pictures.items():
            write_png(paths[kind], picture)
        return paths

    def __repr__(self) -> str:
        height, width = self.heatmap.shape
        decision = "positive" if self.positive else "negative"
        name, label = shortened(self.name, 28), shortened(self.label, 24)
        return f"Explanation({name!r}, {label} {self.probability:.3f} {decision}, heatmap {height} x {width})"

    def _repr_html_(self) -> str:
        """The caption and the overlay, as a notebook shows them."""
        picture = b64encode(self.overlay_png(_IN_A_NOTEBOOK)).decode("ascii")
        title = escape(f"{shortened(self.name, 80)}: {self.caption}")
        notes = "".join(f"<tr><td>{escape(note)}</td></tr>" for note in self.notes)
        image = f'<img alt="{title}" src="data:image/png;base64,{picture}">'
        return f"<table><caption>{title}</caption><tr><td>{image}</td></tr>{notes}</table>"


def _file_name(text: str) -> str:
    """`text` as the beginning of a file's name in any folder: no separator, no control character, no blank."""
    return "".join("_" if char in '/\\:*?"<>|' or char == " " or not char.isprintable() else char for char in text)


def panel_of_findings(
    explanations: tuple[Explanation, ...], alpha: float = 0.45, contour: bool = False
) -> NDArray[np.uint8]:
    """The overlays of one radiograph's findings side by side; RGB uint8."""
    first = explanations[0]
    panels = [
        Panel(f"{one.label} {one.probability:.3f}{' *' if one.positive else ''}", one.overlay(alpha, contour))
        for one in explanations
    ]
    known = [one.known for one in explanations if one.known] or [first.known_note]
    notes = (*first.beware, "* at or above its threshold.", first.scale_note, *known, USE_NOTE)
    return draw_figure(panels, f"{PurePath(first.name).name}: {first.method}", notes, panel=256)


def heatmap_of(
    coarse: NDArray[np.float32], height: int, width: int, probability: float, stretch: bool = False
) -> NDArray[np.float32]:
    """A coarse map at the radiograph's size, in [0, 1].

    Args:
        coarse: [h, w], at least 0.
        height: of the radiograph, pixels.
        width: likewise.
        probability: what the peak becomes.
        stretch: make it 1 instead.

    Returns:
        [height, width] float32, bilinear; zero where the map is zero everywhere.
    """
    full = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    peak = float(full.max())
    if peak <= 0:
        return np.zeros((height, width), dtype=np.float32)
    scaled: NDArray[np.float32] = np.clip(full / peak, 0, 1).astype(np.float32)
    return scaled if stretch else scaled * np.float32(probability)
