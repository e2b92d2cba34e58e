"""Every combination of bits, sign, photometric, VOI, modality and padding (2,016) within 1 grey level of one by hand.

The rendering by hand follows PS3.3 for one value at a time, in plain Python, and shares nothing with the product.
"""

import io
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cxrtool.data.dicom import decode_dicom
from tests_support import dicom_of

# Bits allocated, bits stored, high bit.
BITS = ((8, 8, 7), (16, 10, 9), (16, 12, 11), (16, 12, 15), (16, 14, 13), (16, 16, 15))
SIGNS = (False, True)
PHOTOMETRICS = ("MONOCHROME1", "MONOCHROME2")
VOIS = ("none", "LINEAR", "LINEAR_EXACT", "SIGMOID", "table of 16 bits", "table of 8 bits", "table of 8 bits, packed")
MODALITIES = ("none", "steep", "flat", "table")
PADDINGS = ("none", "value", "range")
SIZE = math.prod(map(len, (BITS, SIGNS, PHOTOMETRICS, VOIS, MODALITIES, PADDINGS)))

LINES = {"none": (1.0, 0.0), "steep": (2.0, -1024.0), "flat": (0.25, 30.0)}
Scalar = Callable[[float], float]


def stored_values(bits: int, signed: bool) -> np.ndarray[Any, Any]:
    """Return [32, 32] values from a fifth of the possible range up; the first row is padding, the lowest values."""
    low = -(2 ** (bits - 1)) if signed else 0
    levels = np.linspace(low + 2**bits // 5, low + 2**bits - 1, 200).astype(np.int64)
    values = np.resize(levels, (32, 32))
    values[0] = low + np.arange(32) % 4
    return values


def cells_of(values: np.ndarray[Any, Any], allocated: int, stored: int, high_bit: int) -> np.ndarray[Any, Any]:
    """Place the values at their bits; the other bits hold remains of an overlay."""
    shift = high_bit + 1 - stored
    used = (2**stored - 1) << shift
    noise = np.random.default_rng(0).integers(0, 2**allocated, values.shape) & ~used
    return (((values << shift) & used) | noise).astype(f"u{allocated // 8}")


def lut(entries: list[int], first: int, bits: int, packed: bool = False) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new(0x00283006, "OW", np.asarray(entries).astype("u1" if packed else "<u2").tobytes())
    return item


def looked_up(entries: list[int], first: int) -> Scalar:
    return lambda value: entries[min(max(math.trunc(value) - first, 0), len(entries) - 1)]


def modality_by_hand(name: str, dataset: FileDataset, low: int, high: int) -> tuple[Scalar, float, float]:
    """Add the modality's tags; return it as a function, and the ends of its output."""
    if name == "table":
        count, first = min(high - low + 1, 20_000), low + (high - low) // 8
        entries = [round(4095 * math.sqrt(place / (count - 1))) for place in range(count)]
        dataset.ModalityLUTSequence = Sequence([lut(entries, first, 12)])
        return looked_up(entries, first), 0, 4095
    slope, intercept = LINES[name]
    if name != "none":
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    return lambda value: slope * value + intercept, slope * low + intercept, slope * high + intercept


def voi_by_hand(name: str, dataset: FileDataset, low: float, high: float) -> Scalar | None:
    """Add the tags of a window or table; return it as a function to [0, 1]."""
    if name.startswith("table"):
        first, count = max(round(low + (high - low) / 6), -(2**15)), max(2, min(round((high - low) * 0.7), 30_000))
        top = 65535 if "16" in name else 255
        entries = [round(top * (place / (count - 1)) ** 2) for place in range(count)]
        bits = 16 if top == 65535 else 8
        dataset.VOILUTSequence = Sequence([lut(entries, first, bits, packed="packed" in name)])
        function = looked_up(entries, first)
        return lambda value: function(value) / top
    if name == "none":
        return None
    centre, width = round((low + high) / 2), max(2, round((high - low) * 0.6))
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = centre, width, name

    def linear(value: float) -> float:  # C.11.2.1.2.1
        if value <= centre - 0.5 - (width - 1) / 2:
            return 0.0
        return 1.0 if value > centre - 0.5 + (width - 1) / 2 else (value - (centre - 0.5)) / (width - 1) + 0.5

    def exact(value: float) -> float:  # C.11.2.1.3.2
        if value <= centre - width / 2:
            return 0.0
        return 1.0 if value > centre + width / 2 else (value - centre) / width + 0.5

    def sigmoid(value: float) -> float:  # C.11.2.1.3.1
        return 1 / (1 + math.exp(-4 * (value - centre) / width))

    return {"LINEAR": linear, "LINEAR_EXACT": exact, "SIGMOID": sigmoid}[name]


def pad(name: str, dataset: FileDataset, lowest: int, signed: bool) -> set[int]:
    """Add the padding's tags; return the stored values that are padding."""
    if name == "none":
        return set()
    dataset.add_new(0x00280120, "SS" if signed else "US", lowest)
    if name == "value":
        return {lowest}
    dataset.add_new(0x00280121, "SS" if signed else "US", lowest + 3)
    return {lowest, lowest + 1, lowest + 2, lowest + 3}


@pytest.mark.parametrize("signed", SIGNS)
@pytest.mark.parametrize("bits", BITS)
def test_every_combination_is_within_one_level_of_a_rendering_by_hand(bits: tuple[int, int, int], signed: bool) -> None:
    allocated, stored, high_bit = bits
    values = stored_values(stored, signed)
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if signed else (0, 2**stored - 1)
    cells = cells_of(values, allocated, stored, high_bit)
    worst: dict[tuple[str, ...], float] = {}
    combinations = list(itertools.product(PHOTOMETRICS, VOIS, MODALITIES, PADDINGS))
    for number, (photometric, voi, modality, padding) in enumerate(combinations):
        dataset = dicom_of(cells, BitsStored=stored, HighBit=high_bit, PixelRepresentation=int(signed))
        dataset.PhotometricInterpretation = photometric
        to_values, first, last = modality_by_hand(modality, dataset, low, high)
        to_share = voi_by_hand(voi, dataset, first, last)
        left_out = pad(padding, dataset, int(values.min()), signed)
        if to_share is None:
            if stored == 8 and not signed and modality != "table":
                ends = (first, last)
            else:
                found = [to_values(value) for value in values.ravel().tolist() if value not in left_out]
                ends = (min(found), max(found))
            bottom, span = ends[0], ends[1] - ends[0]
            to_share = lambda value: min(max((value - bottom) / span, 0), 1)  # noqa: E731, B023
        levels = {value: 255 * to_share(to_values(value)) for value in set(values.ravel().tolist())}
        expected = np.vectorize(levels.__getitem__)(values)
        if photometric == "MONOCHROME1":
            expected = 255 - expected
        # Implicit VR does not say whether the first value of a table is signed.
        syntax = ImplicitVRLittleEndian if number % 2 else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        pixels = decode_dicom(buffer.getvalue(), 10**6).pixels
        worst[(photometric, voi, modality, padding, syntax.name)] = float(np.abs(pixels - expected).max())
    assert len(worst) == SIZE // len(BITS) // len(SIGNS)
    assert {names: off for names, off in worst.items() if off > 1} == {}


def test_the_size_of_the_table_is_what_the_docs_say() -> None:
    assert SIZE == 2016
