"""Encoding and decoding of masks as run lengths in COCO's format."""

import numpy as np
from numpy.typing import NDArray

from cxrtool.errors import RequestError

Mask = NDArray[np.bool_]


def decode_rle(counts: str | bytes | list[int], size: tuple[int, ...]) -> Mask:
    """Decode run lengths into a mask.

    Args:
        counts: lengths of alternating runs of 0 and 1 down the columns, as numbers or as COCO's compressed text.
        size: height and width.

    Raises:
        RequestError: the runs do not fill the mask.
    """
    runs = counts if isinstance(counts, list) else _decompress(counts)
    height, width = size
    if sum(runs) != height * width or any(run < 0 for run in runs):
        raise RequestError(
            f"run lengths add up to {sum(runs)} pixels, but the mask is {width} x {height}", "Check the file."
        )
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape((width, height)).T


def encode_rle(mask: Mask) -> dict[str, object]:
    """Encode a mask as COCO's compressed run lengths, ``{"size": [height, width], "counts": text}``."""
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate(([0], edges, [len(flat)]))).tolist()
    if len(flat) and flat[0]:
        runs = [0, *runs]
    return {"size": list(mask.shape), "counts": _compress(runs)}


def _decompress(counts: str | bytes) -> list[int]:
    """Decode COCO's text: five bits per letter, low bits first; from the fourth run on, run[i] - run[i - 2]."""
    text = counts.encode() if isinstance(counts, str) else counts
    runs: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            letter = text[place] - 48
            value |= (letter & 0x1F) << shift
            more = bool(letter & 0x20)
            place, shift = place + 1, shift + 5
            if not more and letter & 0x10:
                value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def _compress(runs: list[int]) -> str:
    letters = []
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        more = True
        while more:
            letter = value & 0x1F
            value >>= 5
            more = value != (-1 if letter & 0x10 else 0)
            letters.append(chr((letter | (0x20 if more else 0)) + 48))
    return "".join(letters)
