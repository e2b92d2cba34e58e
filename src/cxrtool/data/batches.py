"""Batches of a manifest's images, read ahead by threads.

Threads are used rather than torch's worker processes: Pillow and OpenCV release Python's global lock while they decode
and resize, threads start at once and need no shared memory, and the result does not depend on their number.
"""

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.images import shown
from cxrtool.data.radiograph import Reading, read_pixels
from cxrtool.data.read_ahead import read_ahead
from cxrtool.errors import CxrError, ImageError
from cxrtool.settings import DataSettings

log = logging.getLogger(__name__)

if TYPE_CHECKING:  # these import pandas, which predict does not need
    from cxrtool.data.manifest import Manifest
    from cxrtool.data.pixel_cache import PixelCache


@dataclass(frozen=True)
class Batch:
    """Some rows of a manifest.

    Attributes:
        rows: [B] int64, positions in the manifest; B is smaller than the group where images were skipped, or 0.
        pixels: [B, 1, S, S] uint8.
    """

    rows: NDArray[np.int64]
    pixels: NDArray[np.uint8]


@dataclass
class Unreadable:
    """Images of a split that cannot be read and are left out.

    Attributes:
        split: name of the split.
        most: largest number that may be left out.
        reasons: error message by row of the manifest.
    """

    split: str
    most: int
    reasons: dict[int, str] = field(default_factory=dict)

    def add(self, row: int, error: ImageError) -> None:
        """Leave out a row, with a warning the first time.

        Raises:
            CxrError: more than `most` images cannot be read.
        """
        if row in self.reasons:
            return
        self.reasons[row] = error.message
        self._refuse_too_many(error.message)
        log.warning("%s; the image is left out", error.message)

    def join(self, reasons: dict[int, str]) -> None:
        """Take over what other processes have left out.

        Raises:
            CxrError: more than `most` images cannot be read by all of them together.
        """
        self.reasons = reasons
        self._refuse_too_many(reasons[max(reasons)] if reasons else "")

    def _refuse_too_many(self, last: str) -> None:
        if len(self.reasons) > self.most:
            raise CxrError(
                f"{len(self.reasons)} images of {self.split} cannot be read, but --max-missing allows {self.most}; "
                f"the last is {last}",
                "Find all such files with: cxr check-data DATA --full. Or raise --max-missing.",
            )

    def kept(self, count: int) -> NDArray[np.bool_]:
        """Return which of `count` rows were not left out, [count] bool."""
        kept = np.ones(count, dtype=np.bool_)
        kept[list(self.reasons)] = False
        return kept


def skip_list(split: str, rows: int, data: DataSettings) -> Unreadable | None:
    """Return an empty list of unreadable images if the settings allow to skip them, else None."""
    return Unreadable(split, int(data.max_missing * rows)) if data.skip_unreadable else None


def manifest_batches(
    manifest: "Manifest",
    groups: Sequence[NDArray[np.int64]],
    reading: Reading,
    cache: "PixelCache | None" = None,
    skip: Unreadable | None = None,
) -> Generator[Batch, None, None]:
    """Yield the rows of each group as one batch, in the given order.

    Args:
        manifest: rows whose images are read.
        groups: row numbers of each batch; see `split_batches`.
        reading: preprocessing and threads; its batch size is not used.
        cache: cache of this manifest and preprocessing; identical pixels are read from it where it has them.
        skip: where images that cannot be read are listed and left out; None stops at the first.

    Raises:
        ImageError: an image cannot be read, and `skip` is None.
        CxrError: more images than `skip` allows cannot be read.
    """
    load = _loader(manifest, reading, cache)
    rows = [int(row) for group in groups for row in group]
    largest = max((len(group) for group in groups), default=1)
    results = read_ahead(
        rows, load, reading.workers, 2 * largest, reading.timeout, lambda row: shown(manifest.file(row))
    )
    try:
        for group in groups:
            found = [(row, _unwrap(row, next(results)[1], skip)) for row in group.tolist()]
            kept = [(row, pixels) for row, pixels in found if pixels is not None]
            side = reading.preprocessing.image_size
            stacked = np.stack([pixels for _, pixels in kept]) if kept else np.empty((0, side, side), dtype=np.uint8)
            yield Batch(np.array([row for row, _ in kept], dtype=np.int64), stacked[:, None])
    finally:
        results.close()


def _loader(manifest: "Manifest", reading: Reading, cache: "PixelCache | None") -> Callable[[int], NDArray[np.uint8]]:
    def load(row: int) -> NDArray[np.uint8]:
        pixels = None if cache is None else cache.read(row)
        if pixels is None:
            pixels = read_pixels(manifest.file(row), reading.preprocessing, manifest.fence, reading.limits)
        return pixels

    return load


def _unwrap(row: int, result: NDArray[np.uint8] | CxrError, skip: Unreadable | None) -> NDArray[np.uint8] | None:
    """Return the pixels, None if the image is skipped, or raise the error with advice."""
    if isinstance(result, ImageError) and skip is not None:
        skip.add(row, result)
        return None
    if isinstance(result, CxrError):
        advice = "Find all such files with: cxr check-data DATA --full. Leave them out with --skip-unreadable."
        raise type(result)(result.message, advice) from result
    return result


def split_batches(order: NDArray[np.int64], batch_size: int, least: int = 1) -> list[NDArray[np.int64]]:
    """Cut `order` into groups of `batch_size`.

    Args:
        order: [N] int64 row numbers.
        batch_size: number of rows in a group.
        least: a last group of fewer rows is added to the group before. BatchNorm needs more than one value per channel,
            and a 32 px image has only one in the last block, so each process that trains needs two images.
    """
    groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if len(groups) > 1 and len(groups[-1]) < least:
        groups[-2:] = [np.concatenate(groups[-2:])]
    return groups
