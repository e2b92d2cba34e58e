"""Formulas of the DICOM standard that turn stored values into grey levels: numpy only, no tags and no files.

The order is that of PS3.3 and PS3.4 annex N: stored values, modality (rescale or table), VOI (window or table), and
last the polarity. A share is a brightness from 0 (black) to 1 (white).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
_CELL_BITS = 16
_ROUNDING = np.float32(0.01)
"""Above the rounding error of a rescaled value of 16 bits."""


@dataclass(frozen=True, eq=False)
class LookupTable:
    """A look-up table of PS3.3 C.11.1.1 or C.11.2.1.1.

    Attributes:
        entries: [N] float32, N at least 1.
        first: input value that `entries[0]` stands for.
        highest: entry that is shown white, at least 1.
    """

    entries: Values
    first: int
    highest: float


def stored_values(cells: NDArray[Any], stored: int, high_bit: int, signed: bool) -> NDArray[Any]:
    """Take the stored bits out of their cells and extend the sign (PS3.5 8.1.1, PS3.3 C.7.6.3).

    Args:
        cells: integers of any width; not changed.
        stored: number of bits stored.
        high_bit: place of the highest stored bit, counted from 0.
        signed: whether the highest stored bit is a sign (two's complement).
    """
    width = 8 * cells.dtype.itemsize
    kind = np.dtype(f"{'i' if signed else 'u'}{cells.dtype.itemsize}")
    values = cells.astype(kind)
    np.left_shift(values, width - 1 - high_bit, out=values)
    np.right_shift(values, width - stored, out=values)
    return values


def stored_range(stored: int, signed: bool) -> tuple[int, int]:
    """Return the lowest and the highest value that fit into `stored` bits."""
    return (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if signed else (0, 2**stored - 1)


def padding_mask(stored: NDArray[Any], value: int, limit: int | None) -> NDArray[np.bool_]:
    """Return where pixels are padding: compared before the rescale, both ends included (PS3.3 C.7.5.1.1.2)."""
    low, high = sorted((value, value if limit is None else limit))
    return np.asarray((stored >= low) & (stored <= high))


def rescale(stored: NDArray[Any], slope: float, intercept: float) -> Values:
    """Return slope * value + intercept (PS3.3 C.11.1.1.2)."""
    values = stored.astype(np.float32)
    if slope != 1:
        values *= np.float32(slope)
    if intercept != 0:
        values += np.float32(intercept)
    return values


def table_of(descriptor: tuple[int, int, int], words: NDArray[np.uint16], possible: tuple[float, float]) -> LookupTable:
    """Return the table that a descriptor and its data describe (PS3.3 C.11.1.1 and C.11.2.1.1).

    Args:
        descriptor: number of entries (0 means 65,536), first input value, bits of an entry. The first two may have
            been read with the wrong sign: implicit VR does not state it.
        words: data, [N] uint16; or half as many, if two entries of a byte share a word (low byte first).
        possible: lowest and highest value that the table's input can have, which decides the sign of the first value.

    Raises:
        ValueError: there are fewer data than entries.
    """
    count, first, bits = descriptor[0] % 2**16 or 2**16, descriptor[1], descriptor[2]
    entries = words
    if len(words) == (count + 1) // 2 < count:
        entries = words.astype("<u2").view(np.uint8).astype(np.uint16)
    if len(entries) < count:
        raise ValueError(f"has {len(entries):,} entries, but states {count:,}")
    entries = entries[:count]
    largest = int(entries.max())
    # The descriptor must state 8 or 16 bits; writers state the cell's 16 for entries of 10 or 12 bits, or too few.
    trusted = 1 <= bits < _CELL_BITS or largest >= 2 ** (_CELL_BITS - 1)
    highest = 2 ** min(bits, _CELL_BITS) - 1 if trusted and largest < 2**bits else largest
    return LookupTable(entries.astype(np.float32), _first_input(first, count, possible), max(highest, 1))


def _first_input(first: int, count: int, possible: tuple[float, float]) -> int:
    """Read the 16 bits of a first value as unsigned or signed, whichever covers more of the possible input."""
    unsigned = first % 2**16
    signed = unsigned - 2**16 if unsigned >= 2**15 else unsigned

    def covered(start: int) -> float:
        return min(start + count - 1, possible[1]) - max(start, possible[0])

    if first < 0:
        return unsigned if covered(unsigned) >= 0 > covered(signed) else signed
    return signed if covered(signed) > max(covered(unsigned), -1) else unsigned


def look_up(values: NDArray[Any], table: LookupTable) -> Values:
    """Return the table's entry of each value; values beyond its ends get the first or last (PS3.3 C.11.2.1.1).

    The standard does not say what a fraction left by the rescale means. It is cut off, as dcmtk and pydicom do, but an
    error of float32 is not taken for one.
    """
    last = table.first + len(table.entries) - 1
    if values.dtype.kind in "iu":
        whole = values.astype(np.int32 if values.dtype.itemsize < 4 else np.int64)
    else:
        whole = np.trunc(values + np.copysign(_ROUNDING, values))
    places = np.clip(whole, table.first, last).astype(np.int32) - table.first
    return np.asarray(table.entries[places], dtype=np.float32)


def window_share(values: Values, centre: float, width: float, function: str) -> Values:
    """Map a window to [0, 1] (PS3.3 C.11.2.1.2.1 LINEAR, C.11.2.1.3.1 SIGMOID, C.11.2.1.3.2 LINEAR_EXACT).

    Args:
        values: rescaled values.
        centre: centre of the window.
        width: its width, above 0; at least 1 for LINEAR.
        function: one of the three names; any other counts as LINEAR, the default of the standard.
    """
    if function == "SIGMOID":
        power = np.clip((values - np.float32(centre)) * np.float32(-4 / width), -80, 80)
        return np.asarray(1 / (1 + np.exp(power)), dtype=np.float32)
    if function == "LINEAR_EXACT":
        return ramp(values, centre - width / 2, centre + width / 2)
    return ramp(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)


def ramp(values: Values, low: float, high: float) -> Values:
    """Map `low` and below to 0, and above `high` to 1, with a straight line between; a step if they are equal."""
    if high <= low:
        return np.asarray(values > low, dtype=np.float32)
    share = values - np.float32(low)
    share *= np.float32(1 / (high - low))
    return np.clip(share, 0, 1, out=share)


def range_share(values: Values, padding: NDArray[np.bool_] | None) -> Values:
    """Map the range found to [0, 1], without the padding; one value only becomes 0."""
    inside = True if padding is None else ~padding
    low = float(values.min(where=inside, initial=np.inf))
    high = float(values.max(where=inside, initial=-np.inf))
    return ramp(values, low, high) if high > low else np.zeros_like(values)


def to_grey(share: Values, inverted: bool) -> NDArray[np.uint8]:
    """Return grey levels from 0 to 255; `inverted` shows the lowest value white (MONOCHROME1, PS3.3 C.7.6.3.1.2).

    `share` is overwritten, because a large radiograph has many pixels.
    """
    if inverted:
        np.subtract(1, share, out=share)
    share *= np.float32(255)
    return np.rint(share, out=share).astype(np.uint8)


def luma(red: NDArray[Any], green: NDArray[Any], blue: NDArray[Any], highest: float) -> Values:
    """Return the brightness of colours as a share (ITU-R BT.601, as in PS3.3 C.7.6.3.1.2 YBR_FULL)."""
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32) / np.float32(highest)
    grey = red * weights[0] + green * weights[1] + blue * weights[2]
    return np.clip(np.asarray(grey, dtype=np.float32), 0, 1)
