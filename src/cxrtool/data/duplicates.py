"""Radiographs that are in two splits under other names: the same bytes, or the same picture saved in another way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.text import counted

_SIDE, _KEPT = 64, 16
BITS = _KEPT * _KEPT - 1
MOST_BITS = 48
"""Pictures that differ in more of `BITS` are different; the others are compared in detail."""
LEAST_DETAIL = 0.68
"""Pictures whose `detail_correlation` is at least this high are the same.

How many copies both limits find is measured by benchmarks/duplicates.py (docs/measurements/duplicates.md).
"""
_DETAIL_SIDE, _DETAIL_SIGMA = 128, 3.0
_BLOCK = 4096
_EXAMPLES = 5


@dataclass(frozen=True)
class Fingerprint:
    """What identifies an image file.

    Attributes:
        path: its path in the sheet.
        file: the file.
        digest: SHA-256 of the file.
        bits: [32] uint8, see `picture_bits`; None if the picture is not to be compared.
    """

    path: str
    file: Path
    digest: str
    bits: NDArray[np.uint8] | None = None


def picture_bits(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a perceptual hash: signs of the low frequencies of the picture at 64 x 64 pixels.

    As pHash (Zauner 2010) but with 255 bits, because in 63 bits chest radiographs are all alike.

    Args:
        pixels: [H, W] uint8.

    Returns:
        [32] uint8, the `BITS` bits packed.
    """
    small = cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    frequencies = np.asarray(cv2.dct(small))[:_KEPT, :_KEPT].ravel()[1:]
    return np.packbits(frequencies > 0)


def alike(first: NDArray[np.uint8], second: NDArray[np.uint8], most: int = MOST_BITS) -> list[tuple[int, int, int]]:
    """Return the pairs of `picture_bits` that differ in at most `most` bits.

    Args:
        first: [N, 32] uint8.
        second: [M, 32] uint8.
        most: number of bits.

    Returns:
        Row in `first`, row in `second`, and number of bits that differ, in order of the rows.
    """
    found: list[tuple[int, int, int]] = []
    others = [_signs(second[start : start + _BLOCK]) for start in range(0, len(second), _BLOCK)]
    for start in range(0, len(first), _BLOCK):
        signs = _signs(first[start : start + _BLOCK])
        for block, other in enumerate(others):
            different = (BITS - signs @ other.T) / 2
            rows, columns = np.nonzero(different <= most)
            pairs = zip(rows.tolist(), columns.tolist(), different[rows, columns].tolist(), strict=True)
            found += [(start + row, block * _BLOCK + column, int(bits)) for row, column, bits in pairs]
    return sorted(found)


def _signs(bits: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return bits as -1 and 1, whose products a matrix multiplication counts: [N, BITS] float32."""
    return np.unpackbits(bits, axis=1, count=BITS).astype(np.float32) * 2 - 1


def detail_correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return the correlation of two pictures' fine structure, from -1 to 1.

    Both are reduced to 128 x 128 pixels; what is coarser than three pixels is taken away, because all chests share it,
    and local contrast is made equal. 1 is the same picture, in any size, brightness or contrast.

    Args:
        first: [H, W] uint8.
        second: [H, W] uint8, of any size.
    """
    return float((_detail(first) * _detail(second)).sum())


def _detail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    small = cv2.resize(pixels, (_DETAIL_SIDE, _DETAIL_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    fine = small - cv2.GaussianBlur(small, (0, 0), _DETAIL_SIGMA)
    contrast = np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), 2 * _DETAIL_SIGMA))
    fine = fine / (contrast + 2)  # two grey levels, so that noise in flat regions stays small
    fine -= fine.mean()
    norm = np.linalg.norm(fine)
    return np.asarray(fine / norm if norm else fine, dtype=np.float32)


def duplicates_between(
    splits: Mapping[str, Sequence[Fingerprint]], read: Callable[[Path], NDArray[np.uint8]]
) -> list[str]:
    """Return sentences, with examples, on files and pictures that are in two splits.

    Args:
        splits: the images of each split.
        read: function that returns the pixels of a file, [H, W] uint8.
    """
    found = []
    for first, second in combinations(splits, 2):
        found += _same_bytes(first, second, splits)
        found += _same_pictures(first, second, splits, read)
    return found


def _same_bytes(first: str, second: str, splits: Mapping[str, Sequence[Fingerprint]]) -> list[str]:
    ours, theirs = ({one.digest: one.path for one in splits[split]} for split in (first, second))
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        return []
    example = f"{ours[shared[0]]} and {theirs[shared[0]]}"
    images = counted(len(shared), "image has", "images have")
    return [f"{images} the same bytes in {first} and {second} ({example})"]


def _same_pictures(
    first: str,
    second: str,
    splits: Mapping[str, Sequence[Fingerprint]],
    read: Callable[[Path], NDArray[np.uint8]],
) -> list[str]:
    """Return a sentence on pictures that are the same; those with the same bytes are left to `_same_bytes`."""
    ours, theirs = ([one for one in splits[split] if one.bits is not None] for split in (first, second))
    if not ours or not theirs:
        return []
    arrays = [np.stack([one.bits for one in part if one.bits is not None]) for part in (ours, theirs)]
    pairs = [
        (ours[row].path, theirs[column].path)
        for row, column, _ in alike(arrays[0], arrays[1])
        if ours[row].digest != theirs[column].digest
        and detail_correlation(read(ours[row].file), read(theirs[column].file)) >= LEAST_DETAIL
    ]
    if not pairs:
        return []
    count = len({path for path, _ in pairs})
    named = "; ".join(f"{one} is {other}" for one, other in pairs[:_EXAMPLES])
    more = f"; and {len(pairs) - _EXAMPLES} more" if len(pairs) > _EXAMPLES else ""
    images = counted(count, f"image of {first} is", f"images of {first} are")
    return [f"{images} in {second} too, saved in another way ({named}{more})"]
