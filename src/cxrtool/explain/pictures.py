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
_BAR = 16
MOST_IN_A_ROW = 7
"""Pictures of a figure beside each other; more stand in several rows."""
_SCALE_WIDTH = 92
"""Room for the colour scale with its numbers and its title."""
_CAPTION_TYPE, _PANEL_TYPE, _DETAIL_TYPE, _NOTE_TYPE, _TICK_TYPE = 26, 22, 19, 19, 17
"""Sizes of type in pixels: at half the size of a figure the smallest has 8, the size of a footnote."""
_CONTOUR, _CONTOUR_EDGE = (64, 224, 255), (0, 0, 0)
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
    """Draw a bright line with a dark edge, which is seen on bone and on air alike."""
    if not heatmap.any():
        return picture
    hot = (heatmap >= heatmap.max() / 2).astype(np.uint8)
    outlines, _ = cv2.findContours(hot, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = picture.copy()
    width = max(1, round(min(heatmap.shape) / 160))
    cv2.drawContours(drawn, outlines, -1, _CONTOUR_EDGE, 3 * width)
    cv2.drawContours(drawn, outlines, -1, _CONTOUR, width)
    return drawn


@dataclass(frozen=True)
class ColourScale:
    """The scale of heat, from 0 to 1, beside a picture.

    Attributes:
        title: what the values are.
        threshold: a value to mark; None marks none.
    """

    title: str
    threshold: float | None = None


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a figure.

    Attributes:
        title: text above the picture.
        picture: [H, W, 3] uint8 RGB.
        detail: text below the title; empty for none.
        scale: the colour scale beside the picture; None draws none.
        strong: draw the title in full brightness.
    """

    title: str
    picture: NDArray[np.uint8]
    detail: str = ""
    scale: ColourScale | None = None
    strong: bool = True


def draw_figure(panels: Sequence[Panel], caption: str, note: str, panel: int | None = None) -> NDArray[np.uint8]:
    """Draw pictures side by side, with a caption above and a line of notes below; returns [h, w, 3] uint8 RGB.

    Type is large enough to read where the figure is shown at half its size. Lines that are too wide get smaller type,
    and then several lines.

    Args:
        panels: pictures of equal height and width.
        caption: one line of text.
        note: one line of text.
        panel: height in pixels at which pictures are shown; their aspect is kept. If None: their own height if that is
            256 to 512, which avoids resizing, else 384.
    """
    height, width = panels[0].picture.shape[:2]
    panel = panel or (height if _UNSCALED_HEIGHTS[0] <= height <= _UNSCALED_HEIGHTS[1] else _PANEL)
    shown = (max(1, round(width * panel / height)), panel)
    count = -(-len(panels) // MOST_IN_A_ROW)
    rows = np.array_split(np.arange(len(panels)), count)
    steps = [shown[0] + (_SCALE_WIDTH if one.scale else 0) + _MARGIN for one in panels]
    total = max(sum(steps[place] for place in row) for row in rows) + _MARGIN
    room = total - 2 * _MARGIN
    above, below = _fitting(caption, _CAPTION_TYPE, room, _TEXT), _fitting(note, _NOTE_TYPE, room, _FAINT_TEXT)
    heading = _height(_PANEL_TYPE) + (_height(_DETAIL_TYPE) if any(one.detail for one in panels) else 0)
    top = _MARGIN + sum(line.height for line in above) + _MARGIN + heading + _MARGIN // 2
    row_height = panel + _MARGIN + heading + _MARGIN // 2
    bottom = top + (count - 1) * row_height + panel + _MARGIN
    size = (total, bottom + sum(line.height for line in below) + _MARGIN)
    canvas = Image.new("RGB", size, color=_BACKGROUND)
    _paste_lines(canvas, above, _MARGIN)
    for number, row in enumerate(rows):
        left, row_top = _MARGIN, top + number * row_height
        for place in row:
            room = steps[place] - _MARGIN
            _paste_panel(canvas, panels[place], (left, row_top), shown, room, heading)
            left += steps[place]
    _paste_lines(canvas, below, bottom)
    return np.asarray(canvas)


def _paste_panel(
    canvas: Image.Image, one: Panel, place: tuple[int, int], shown: tuple[int, int], room: int, heading: int
) -> None:
    """Draw a picture with its titles above and its scale beside it; `place` is the picture's upper left corner."""
    left, top = place
    over = top - heading - _MARGIN // 2
    canvas.paste(_fitting(one.title, _PANEL_TYPE, room, _TEXT if one.strong else _FAINT_TEXT)[0], (left, over))
    if one.detail:
        (detail, *_) = _fitting(one.detail, _DETAIL_TYPE, room, _FAINT_TEXT)
        canvas.paste(detail, (left, over + _height(_PANEL_TYPE)))
    canvas.paste(Image.fromarray(one.picture).resize(shown, Image.Resampling.BILINEAR), place)
    if one.scale is not None:
        _draw_scale(canvas, one.scale, left + shown[0] + 8, top, shown[1])


def _paste_lines(canvas: Image.Image, lines: Sequence[Image.Image], top: int) -> None:
    for line in lines:
        canvas.paste(line, (_MARGIN, top))
        top += line.height


@lru_cache(maxsize=128)
def _fitting(text: str, size: int, room: int, colour: tuple[int, int, int]) -> tuple[Image.Image, ...]:
    """Return text in lines of at most `room` pixels: one line if a type of three quarters of `size` makes it fit."""
    for smaller in range(size, round(0.75 * size) - 1, -1):
        line = _line(text, smaller, colour)
        if line.width <= room:
            return (line,)
    words = text.split(" ")
    lines = [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]} {word}"
        if _line(longer, smaller, colour).width <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    drawn = (_line(line, smaller, colour) for line in lines)
    return tuple(line.crop((0, 0, min(line.width, room), line.height)) for line in drawn)


@lru_cache(maxsize=256)
def _line(text: str, size: int, colour: tuple[int, int, int] = _FAINT_TEXT) -> Image.Image:
    """Return a picture of a line of text; cached, because the figures of a folder share most lines."""
    font = _font(size)
    width = max(1, math.ceil(font.getbbox(text)[2]))
    line = Image.new("RGB", (width, _height(size)), color=_BACKGROUND)
    ImageDraw.Draw(line).text((0, 0), text, fill=colour, font=font)
    return line


def _height(size: int) -> int:
    """Height of a line of type, with the space below it."""
    return round(1.35 * size)


def _draw_scale(canvas: Image.Image, scale: ColourScale, left: int, top: int, height: int) -> None:
    ramp = np.repeat(np.linspace(1, 0, height, dtype=np.float32)[:, None], _BAR, axis=1)
    canvas.paste(Image.fromarray(draw_heatmap(ramp)), (left, top))
    marked = scale.threshold
    ticks = [value for value in (0.0, 0.5, 1.0) if marked is None or abs(value - marked) * height > _height(_TICK_TYPE)]
    for value in ticks:
        canvas.paste(_line(f"{value:g}", _TICK_TYPE), (left + _BAR + 6, _tick(value, top, height)))
    if marked is not None:
        y = top + round((1 - marked) * (height - 1))
        pen = ImageDraw.Draw(canvas)
        pen.line([(left - 4, y), (left + _BAR + 4, y)], fill=_CONTOUR_EDGE, width=5)
        pen.line([(left - 4, y), (left + _BAR + 4, y)], fill=_CONTOUR, width=2)
        canvas.paste(_line(f"{marked:.2f}", _TICK_TYPE, _CONTOUR), (left + _BAR + 6, _tick(marked, top, height)))
    (title, *_) = _fitting(scale.title, _TICK_TYPE, _SCALE_WIDTH - 8, _FAINT_TEXT)
    canvas.paste(title, (left, top - title.height - 2))


def _tick(value: float, top: int, height: int) -> int:
    return top + round((1 - value) * (height - _height(_TICK_TYPE)))


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
