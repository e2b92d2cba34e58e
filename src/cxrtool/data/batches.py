"""Batches of a manifest's images, read ahead by threads.

Threads are used rather than torch's worker processes: Pillow and OpenCV release Python's global lock while they decode
and resize, threads start at once and need no shared memory, and the result does not depend on their number.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.images import shown
from cxrtool.data.radiograph import Reading, read_pixels
from cxrtool.data.read_ahead import read_ahead
from cxrtool.errors import CxrError

if TYPE_CHECKING:  # these import pandas, which predict does not need
    from cxrtool.data.manifest import Manifest
    from cxrtool.data.pixel_cache import PixelCache


@dataclass(frozen=True)
class Batch:
    """Some rows of a manifest.

    Attributes:
        rows: [B] int64, positions in the manifest.
        pixels: [B, 1, S, S] uint8.
    """

    rows: NDArray[np.int64]
    pixels: NDArray[np.uint8]


def manifest_batches(
    manifest: "Manifest",
    groups: Sequence[NDArray[np.int64]],
    reading: Reading,
    cache: "PixelCache | None" = None,
) -> Generator[Batch, None, None]:
    """Yield the rows of each group as one batch, in the given order.

    Args:
        manifest: rows whose images are read.
        groups: row numbers of each batch; see `split_batches`.
        reading: preprocessing and threads; its batch size is not used.
        cache: cache of this manifest and preprocessing; identical pixels are read from it where it has them.

    Raises:
        ImageError: an image cannot be read.
    """
    load = _loader(manifest, reading, cache)
    rows = [int(row) for group in groups for row in group]
    largest = max((len(group) for group in groups), default=1)
    results = read_ahead(
        rows, load, reading.workers, 2 * largest, reading.timeout, lambda row: shown(manifest.file(row))
    )
    try:
        for group in groups:
            pixels = [_unwrap(next(results)[1]) for _ in group]
            yield Batch(group, np.stack(pixels)[:, None])
    finally:
        results.close()


def _loader(manifest: "Manifest", reading: Reading, cache: "PixelCache | None") -> Callable[[int], NDArray[np.uint8]]:
    def load(row: int) -> NDArray[np.uint8]:
        pixels = None if cache is None else cache.read(row)
        if pixels is None:
            pixels = read_pixels(manifest.file(row), reading.preprocessing, manifest.fence, reading.limits)
        return pixels

    return load


def _unwrap(result: NDArray[np.uint8] | CxrError) -> NDArray[np.uint8]:
    """Return the pixels, or raise the error with advice."""
    if isinstance(result, CxrError):
        raise type(result)(result.message, "Find all such files with: cxr check-data DATA --full.") from result
    return result


def split_batches(order: NDArray[np.int64], batch_size: int, merge_single: bool = False) -> list[NDArray[np.int64]]:
    """Cut `order` into groups of `batch_size`.

    Args:
        order: [N] int64 row numbers.
        batch_size: number of rows in a group.
        merge_single: add a last group of one row to the group before. BatchNorm needs more than one value per channel,
            and a 32 px image has only one in the last block.
    """
    groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if merge_single and len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [np.concatenate(groups[-2:])]
    return groups
