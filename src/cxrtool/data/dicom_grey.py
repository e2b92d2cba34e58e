"""From the stored values of a DICOM to grey levels: modality, VOI and polarity, as its tags ask."""

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from cxrtool.data import dicom_rendering as rendering
from cxrtool.data.decoded import ImageWarning
from cxrtool.data.dicom_rendering import Values
from cxrtool.data.dicom_tags import (
    COLOUR,
    PALETTE,
    DicomError,
    integer,
    is_signed,
    lookup_table,
    number,
    numbers,
    tables,
    text,
    value_of,
)
from cxrtool.data.dicom_warnings import contradicts_polarity
from cxrtool.errors import RequestError

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True)
class Window:
    """The range of values that is shown as black to white.

    Attributes:
        number: number of the window or look-up table in the file, from 1; ignored if centre and width are given.
        centre: centre in rescaled values.
        width: width in rescaled values, at least 1.
    """

    number: int = 1
    centre: float | None = None
    width: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``2`` (the file's second window) or ``600/1200`` (centre and width).

        Raises:
            RequestError: `text` is neither.
        """
        if re.fullmatch(r"[1-9]\d{0,2}", text):
            return cls(int(text))
        centre_width = re.fullmatch(r"(-?\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)", text)
        if centre_width is None or float(centre_width[2]) < 1:
            raise RequestError(
                f"window {text!r} is invalid", "Write 2 for the file's second window, or 600/1200 for centre and width."
            )
        return cls(1, float(centre_width[1]), float(centre_width[2]))


def render_grey(
    values: NDArray[Any], dataset: "Dataset", window: Window
) -> tuple[NDArray[np.uint8], tuple[ImageWarning, ...]]:
    """Return [H, W] grey pixels. Colours have neither modality nor VOI (PS3.3 C.11.1 and C.11.2 are for grey)."""
    kind = text(dataset, "PhotometricInterpretation")
    if kind == PALETTE:
        warning = ImageWarning("converted", "is a palette DICOM, converted to grey (luma)")
        return rendering.to_grey(_palette_share(values, dataset), inverted=False), (warning,)
    if kind in COLOUR:
        warning = ImageWarning("colour", "a colour DICOM, converted to grey (luma)")
        highest = float(2 ** (integer(dataset, "BitsStored") or 8) - 1)
        share = rendering.luma(values[..., 0], values[..., 1], values[..., 2], highest)
        return rendering.to_grey(share, inverted=False), (warning,)
    padding = _padding(values, dataset)
    return rendering.to_grey(_grey_share(values, dataset, window, padding), _is_inverted(dataset)), ()


def _is_inverted(dataset: "Dataset") -> bool:
    """Return whether the lowest value is white; the presentation shape decides where the two tags disagree."""
    return (text(dataset, "PhotometricInterpretation") == "MONOCHROME1") != contradicts_polarity(dataset)


def _palette_share(values: NDArray[Any], dataset: "Dataset") -> Values:
    """Look up red, green and blue (PS3.3 C.7.6.3.1.5 and C.7.6.3.1.6)."""
    if value_of(dataset, "SegmentedRedPaletteColorLookupTableData") is not None:
        raise DicomError("has a segmented palette, which is not supported", "Save it as MONOCHROME2.")
    possible = _possible(dataset)
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    palettes = [lookup_table(dataset, f"{name}Descriptor", f"{name}Data", possible) for name in names]
    # Entries have 8 or 16 bits; some writers state 16 for entries of 8.
    highest = 255.0 if max(float(table.entries.max()) for table in palettes) <= 255 else 65535.0
    red, green, blue = (rendering.look_up(values, table) for table in palettes)
    return rendering.luma(red, green, blue, highest)


def _possible(dataset: "Dataset") -> tuple[float, float]:
    """Return the lowest and the highest value that can be stored."""
    return rendering.stored_range(integer(dataset, "BitsStored") or 16, is_signed(dataset))


def _padding(values: NDArray[Any], dataset: "Dataset") -> NDArray[np.bool_] | None:
    value, limit = integer(dataset, "PixelPaddingValue"), integer(dataset, "PixelPaddingRangeLimit")
    if value is None:
        return None
    allocated, signed = integer(dataset, "BitsAllocated") or 16, is_signed(dataset)

    def read(number: int) -> int:
        """Read a number whose VR had the wrong sign as the pixels are read."""
        cells = 1 << allocated
        bits = number % cells
        return bits - cells if signed and bits >= cells // 2 else bits

    return rendering.padding_mask(values, read(value), None if limit is None else read(limit))


def _grey_share(stored: NDArray[Any], dataset: "Dataset", window: Window, padding: NDArray[np.bool_] | None) -> Values:
    """Return the share of white of each pixel: modality, then table, window, whole range (8 bits) or range found."""
    low, high = _possible(dataset)
    modality = tables(dataset, "ModalityLUTSequence", (low, high))
    slope, intercept = number(dataset, "RescaleSlope", 1), number(dataset, "RescaleIntercept", 0)
    if modality:
        values = rendering.look_up(stored, modality[0])
        ends = float(modality[0].entries.min()), float(modality[0].entries.max())
    else:
        if slope == 0:
            raise DicomError("has a rescale slope of 0")
        values = rendering.rescale(stored, slope, intercept)
        first, last = sorted((slope * low + intercept, slope * high + intercept))
        ends = first, last
    share = _voi_share(values, dataset, window, ends)
    if share is not None:
        return share
    if not modality and (low, high) == (0, 255):
        return rendering.ramp(values, *ends)
    return rendering.range_share(values, padding)


def _voi_share(values: Values, dataset: "Dataset", window: Window, ends: tuple[float, float]) -> Values | None:
    """Apply the chosen window or table; None if the file has none and none is given."""
    if window.centre is not None and window.width is not None:
        return rendering.window_share(values, window.centre, window.width, "LINEAR")
    found = tables(dataset, "VOILUTSequence", ends)
    if found:
        table = found[_place(window.number, len(found), "look-up table")]
        return rendering.look_up(values, table) / np.float32(table.highest)
    pairs = zip(numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth"), strict=False)
    windows = [(centre, width) for centre, width in pairs if centre is not None and width is not None]
    if not windows:
        return None
    centre, width = windows[_place(window.number, len(windows), "window")]
    function = text(dataset, "VOILUTFunction") or "LINEAR"
    if not math.isfinite(centre):
        raise DicomError("has a window whose centre is not a number", "Choose another with --window.")
    if not math.isfinite(width) or width <= 0 or (width < 1 and function not in ("SIGMOID", "LINEAR_EXACT")):
        raise DicomError(f"has a window of width {width:g}", "Choose another with --window.")
    return rendering.window_share(values, centre, width, function)


def _place(number: int, count: int, kind: str) -> int:
    if number > count:
        raise DicomError(f"has no {kind} {number}, only {count}", "Choose another with --window.")
    return number - 1
