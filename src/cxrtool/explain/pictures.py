"""Pictures of heatmaps: alone, over the radiograph, and side by side with a caption."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cxrtool.errors import RequestError
from cxrtool.files import write_bytes

_PANEL = 384
_UNSCALED_HEIGHTS = (256, 512)
"""Range of heights at which pictures are shown without resizing."""
_MARGIN = 12
_SCALE_WIDTH = 40
_BACKGROUND = (24, 24, 27)
_TEXT = (244, 244, 245)
_FAINT_TEXT = (161, 161, 170)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # cached: loading it takes two thirds of a figure's time


def draw_heatmap(heatmap: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour a heatmap [H, W] in [0, 1] with inferno, whose brightness rises evenly; returns [H, W, 3] uint8 RGB."""
    grey = np.round(np.clip(heatmap, 0, 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB).astype(np.uint8)


def draw_overlay(
    image: NDArray[np.uint8], heatmap: NDArray[np.float32], alpha: float, contour: bool = False
) -> NDArray[np.uint8]:
    """Draw a heatmap over a radiograph.

    Args:
        image: [H, W] uint8.
        heatmap: [H, W] float32 in [0, 1].
        alpha: opacity in [0, 1] where the heat is 1. Cooler pixels are more transparent, so that places without heat
            do not change.
        contour: draw only a contour at half the peak, and change no other pixel.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    grey = np.repeat(image[..., None], 3, axis=2)
    if contour:
        return _draw_contour(grey, heatmap)
    strength = (alpha * np.clip(heatmap, 0, 1)).astype(np.float32)
    return cv2.blendLinear(grey, draw_heatmap(heatmap), 1 - strength, strength).astype(np.uint8, copy=False)


def _draw_contour(picture: NDArray[np.uint8], heatmap: NDArray[np.float32]) -> NDArray[np.uint8]:
    if not heatmap.any():
        return picture
    hot = (heatmap >= heatmap.max() / 2).astype(np.uint8)
    outlines, _ = cv2.findContours(hot, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = picture.copy()
    colour = tuple(int(value) for value in draw_heatmap(np.array([[heatmap.max()]], dtype=np.float32))[0, 0])
    cv2.drawContours(drawn, outlines, -1, colour, max(1, round(min(heatmap.shape) / 160)))
    return drawn


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a figure.

    Attributes:
        title: text above the picture.
        picture: [H, W, 3] uint8 RGB.
        scale: draw a colour scale beside the picture.
    """

    title: str
    picture: NDArray[np.uint8]
    scale: bool = False


def draw_figure(
    panels: Sequence[Panel], caption: str, notes: Sequence[str], panel: int | None = None
) -> NDArray[np.uint8]:
    """Draw pictures side by side, with a caption above and notes below; returns [h, w, 3] uint8 RGB.

    Args:
        panels: pictures of equal height and width.
        caption: one line of text.
        notes: lines of text.
        panel: height in pixels at which pictures are shown; their aspect is kept. If None: their own height if that is
            256 to 512, which avoids resizing, else 384.
    """
    height, width = panels[0].picture.shape[:2]
    panel = panel or (height if _UNSCALED_HEIGHTS[0] <= height <= _UNSCALED_HEIGHTS[1] else _PANEL)
    shown = (max(1, round(width * panel / height)), panel)
    bars = [_SCALE_WIDTH if one.scale else 0 for one in panels]
    top, text = 68, 18
    above, below = _line(caption, 18, _TEXT), [_line(note, 13) for note in notes]
    written = max(line.width for line in (above, *below))
    size = (
        max(sum(bars) + len(panels) * (shown[0] + _MARGIN), written + _MARGIN) + _MARGIN,
        top + panel + _MARGIN + text * len(notes) + _MARGIN,
    )
    canvas = Image.new("RGB", size, color=_BACKGROUND)
    canvas.paste(above, (_MARGIN, 10))
    left = _MARGIN
    for one, bar in zip(panels, bars, strict=True):
        canvas.paste(_line(one.title, 14), (left, 44))
        canvas.paste(Image.fromarray(one.picture).resize(shown, Image.Resampling.BILINEAR), (left, top))
        if bar:
            _draw_scale(canvas, left + shown[0] + 6, top, panel)
        left += shown[0] + bar + _MARGIN
    for number, line in enumerate(below):
        canvas.paste(line, (_MARGIN, top + panel + _MARGIN + text * number))
    return np.asarray(canvas)


@lru_cache(maxsize=128)
def _line(text: str, size: int, colour: tuple[int, int, int] = _FAINT_TEXT) -> Image.Image:
    """Return a picture of a line of text; cached, because the figures of a folder share most lines."""
    font = _font(size)
    width, height = (math.ceil(side) for side in font.getbbox(text)[2:])
    line = Image.new("RGB", (width, height), color=_BACKGROUND)
    ImageDraw.Draw(line).text((0, 0), text, fill=colour, font=font)
    return line


def _draw_scale(canvas: Image.Image, left: int, top: int, height: int) -> None:
    ramp = np.repeat(np.linspace(1, 0, height, dtype=np.float32)[:, None], 12, axis=1)
    canvas.paste(Image.fromarray(draw_heatmap(ramp)), (left, top))
    for value in (0.0, 0.5, 1.0):
        y = top + round((1 - value) * (height - 14))
        canvas.paste(_line(f"{value:g}", 12), (left + 16, y))


def contact_sheet(
    pictures: list[NDArray[np.uint8]], captions: list[str], columns: int = 4, tile: int = 224
) -> NDArray[np.uint8]:
    """Draw radiographs in rows, each above its caption; returns [h, w, 3] uint8 RGB.

    Args:
        pictures: each [S, S] uint8 or [S, S, 3] uint8.
        captions: text of each picture, with newlines between lines.
        columns: pictures per row.
        tile: width and height in pixels at which a picture is shown.
    """
    lines = max((caption.count("\n") + 1 for caption in captions), default=1)
    cell = (tile + _MARGIN, tile + 15 * lines + 2 * _MARGIN)
    rows = -(-len(pictures) // columns)
    size = (cell[0] * min(columns, len(pictures)) + _MARGIN, cell[1] * rows + _MARGIN)
    canvas = Image.new("RGB", size, color=_BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = _MARGIN + (index % columns) * cell[0]
        top = _MARGIN + (index // columns) * cell[1]
        shown = Image.fromarray(picture).convert("RGB").resize((tile, tile), Image.Resampling.BILINEAR)
        canvas.paste(shown, (left, top))
        pen.multiline_text((left, top + tile + 4), caption, fill=_TEXT, font=_font(11), spacing=2)
    return np.asarray(canvas)


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """Return [H, W] or [H, W, 3] uint8 RGB as the bytes of a PNG file, without metadata of the radiograph's file."""
    # OpenCV takes half of Pillow's time for the same file size.
    fast = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    packed = cv2.imencode(".png", picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), fast)[1]
    return packed.tobytes()


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write [H, W] or [H, W, 3] uint8 RGB as PNG to `path` in one step, see `encode_png`."""
    write_bytes(path, encode_png(picture))


def shrunk(picture: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    """[h, w, 3] uint8 of `picture` [H, W, 3], its longer side at most `max_side`; never larger than it was.

    Raises:
        RequestError: `max_side` is below 1.
    """
    if max_side < 1:
        raise RequestError(f"a longest side of {max_side} pixels shows nothing", "Give 1 or more.")
    height, width = picture.shape[:2]
    if max(height, width) <= max_side:
        return picture
    share = max_side / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
