"""Pictures of a heatmap: alone, over the radiograph, and side by side with a caption."""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_PANEL = 384
_MARGIN = 12
_BACKGROUND = (24, 24, 27)
_TEXT = (244, 244, 245)
_FAINT_TEXT = (161, 161, 170)


def draw_heatmap(heatmap: NDArray[np.float32]) -> NDArray[np.uint8]:
    """`heatmap` [H, W] in [0, 1] in the colours of inferno, whose brightness rises evenly; [H, W, 3] uint8 RGB."""
    grey = np.round(np.clip(heatmap, 0, 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB).astype(np.uint8)


def draw_overlay(image: NDArray[np.uint8], heatmap: NDArray[np.float32], alpha: float) -> NDArray[np.uint8]:
    """The heatmap over the radiograph.

    Args:
        image: [H, W] uint8.
        heatmap: [H, W] float32 in [0, 1].
        alpha: in [0, 1], how much the hottest pixel covers; cooler ones cover less, so that what the network did
            not look at stays as it is.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    strength = (alpha * np.clip(heatmap, 0, 1))[..., None]
    grey = np.repeat(image[..., None], 3, axis=2).astype(np.float32)
    colours = draw_heatmap(heatmap).astype(np.float32)
    return np.round(grey * (1 - strength) + colours * strength).astype(np.uint8)


def draw_figure(
    image: NDArray[np.uint8], heatmap: NDArray[np.float32], alpha: float, caption: str
) -> NDArray[np.uint8]:
    """Radiograph, heatmap and overlay side by side under a caption; [h, w, 3] uint8 RGB."""
    panels = [
        ("Radiograph", np.repeat(image[..., None], 3, axis=2)),
        ("Grad-CAM", draw_heatmap(heatmap)),
        ("Overlay", draw_overlay(image, heatmap, alpha)),
    ]
    height, width = image.shape
    shown = (max(1, round(width * _PANEL / height)), _PANEL)
    top = 68
    canvas = Image.new("RGB", (3 * shown[0] + 4 * _MARGIN, top + _PANEL + 22 + 2 * _MARGIN), color=_BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    pen.text((_MARGIN, 10), caption, fill=_TEXT, font=ImageFont.load_default(18))
    for index, (title, panel) in enumerate(panels):
        left = _MARGIN + index * (shown[0] + _MARGIN)
        pen.text((left, 44), title, fill=_FAINT_TEXT, font=ImageFont.load_default(14))
        canvas.paste(Image.fromarray(panel).resize(shown, Image.Resampling.BILINEAR), (left, top))
    note = "Supporting evidence for research; it does not replace clinical interpretation."
    pen.text((_MARGIN, top + _PANEL + _MARGIN), note, fill=_FAINT_TEXT, font=ImageFont.load_default(13))
    return np.asarray(canvas)


def contact_sheet(
    pictures: list[NDArray[np.uint8]], captions: list[str], columns: int = 4, tile: int = 224
) -> NDArray[np.uint8]:
    """Radiographs in rows, each above its caption; [h, w, 3] uint8 RGB.

    Args:
        pictures: each [S, S] uint8 or [S, S, 3] uint8.
        captions: a text each; lines are split at newlines.
        columns: pictures in a row.
        tile: pixels, both sides of a shown picture.
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
        pen.multiline_text((left, top + tile + 4), caption, fill=_TEXT, font=ImageFont.load_default(11), spacing=2)
    return np.asarray(canvas)
