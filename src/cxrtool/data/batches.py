"""Radiographs in batches, read ahead by threads: the one loader of train, eval, predict and explain.

Threads rather than torch's worker processes: Pillow and OpenCV release the interpreter's lock while they decode and
resize, a thread starts at once, needs no shared memory and cannot be killed for it, and what is read does not depend
on how many there are.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.dicom import Window
from cxrtool.data.images import DEFAULT_LIMITS, Limits, Preprocessing, preprocess, read, shown
from cxrtool.data.read_ahead import read_ahead
from cxrtool.data.screening import ImageWarning, screen
from cxrtool.errors import CxrError, ImageError
from cxrtool.settings import RuntimeSettings

if TYPE_CHECKING:  # pandas comes with them, which predict does not need
    from cxrtool.data.cache import PixelCache
    from cxrtool.data.manifest import Manifest


@dataclass(frozen=True)
class Radiograph:
    """One decoded radiograph.

    Attributes:
        path: its file.
        image: [H, W] uint8 as `read` gives it, at its own size where that was asked for.
        pixels: [S, S] uint8 as `preprocess` gives it.
        warnings: what to beware of, see `cxrtool.data.screening`.
    """

    path: Path
    image: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    warnings: tuple[ImageWarning, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Some rows of a manifest.

    Attributes:
        rows: [B] int64, positions in the manifest.
        pixels: [B, 1, S, S] uint8.
    """

    rows: NDArray[np.int64]
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Reading:
    """How images are read ahead.

    Attributes:
        preprocessing: what each image goes through.
        batch_size: images in a batch.
        workers: threads.
        timeout: seconds after which a read counts as hung.
        whole: keep images at their own size, for pictures.
        strict: a warning is an error.
        window: of DICOM files.
        limits: what is too large to be read.
    """

    preprocessing: Preprocessing
    batch_size: int
    workers: int = 2
    timeout: float | None = None
    whole: bool = False
    strict: bool = False
    window: Window | None = None
    limits: Limits = DEFAULT_LIMITS

    @classmethod
    def by(cls, preprocessing: Preprocessing, runtime: RuntimeSettings) -> Self:
        """As the settings ask, of a whole split: neither strict nor by a window of its own."""
        return cls(
            preprocessing,
            runtime.batch_size,
            runtime.reading_threads,
            runtime.read_timeout,
            limits=Limits(runtime.max_megapixels, runtime.max_file_mib),
        )


def read_radiograph(path: Path, reading: Reading, root: Path | None = None) -> Radiograph:
    """Read, preprocess and screen one file.

    Args:
        path: the file.
        reading: preprocessing, and whether to keep the image at its own size (the pixels are the same), to refuse
            what is warned of, and which window of a DICOM to take.
        root: when given, a path or link that leads out of this folder is refused.

    Raises:
        ImageError: it cannot be read, a link leads out of `root`, or it is warned of and `reading` is strict.
    """
    decoded = read(path, root, reading.preprocessing.image_size, reading.window, reading.limits)
    pixels = preprocess(decoded.pixels, reading.preprocessing)
    warnings = screen(path, decoded, pixels)
    if reading.strict and warnings:
        told = "; ".join(f"{warning.code}: {warning.message}" for warning in warnings)
        raise ImageError(f"{shown(path)}: {told}", "Without --strict it is read, with the warning beside it.")
    at_its_size = len(decoded.pixels) == decoded.size[0] or not reading.whole
    image = decoded.pixels if at_its_size else read(path, root, 0, reading.window, reading.limits).pixels
    return Radiograph(path, image, pixels, warnings)


def read_pixels(
    path: Path, preprocessing: Preprocessing, root: Path | None = None, limits: Limits = DEFAULT_LIMITS
) -> NDArray[np.uint8]:
    """[S, S] uint8 of one file, as `read_radiograph` has them, without looking for warnings.

    Raises:
        ImageError: it cannot be read, or a link leads out of `root`.
    """
    return preprocess(read(path, root, preprocessing.image_size, limits=limits).pixels, preprocessing)


def radiograph_batches(paths: Iterable[Path], reading: Reading) -> Iterator[list[tuple[Path, Radiograph | CxrError]]]:
    """Lists of up to `batch_size` files in order, each read or with the error that it met.

    At most a few batches are in memory, however many paths there are.
    """
    load = partial(read_radiograph, reading=reading)
    waiting: list[tuple[Path, Radiograph | CxrError]] = []
    ahead = max(2 * reading.batch_size, 2 * reading.workers)
    for path, result in read_ahead(paths, load, reading.workers, ahead, reading.timeout, shown):
        waiting.append((path, result))
        if len(waiting) == reading.batch_size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def manifest_batches(
    manifest: "Manifest",
    groups: Sequence[NDArray[np.int64]],
    reading: Reading,
    cache: "PixelCache | None" = None,
) -> Generator[Batch, None, None]:
    """The rows of each group as one batch, in the order given.

    Args:
        manifest: whose images to read.
        groups: row numbers, a batch each; see `split_batches`.
        reading: preprocessing and threads; its batch size is not used.
        cache: of this manifest and preprocessing; what it holds is read from there, the same to the bit.

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
            pixels = [_or_raise(next(results)[1]) for _ in group]
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


def _or_raise(result: NDArray[np.uint8] | CxrError) -> NDArray[np.uint8]:
    if isinstance(result, CxrError):
        raise type(result)(result.message, "Find all such files with: cxr check-data DATA --full.") from result
    return result


def split_batches(order: NDArray[np.int64], batch_size: int, merge_single: bool = False) -> list[NDArray[np.int64]]:
    """Cut `order` into groups of `batch_size`.

    Args:
        order: [N] int64 row numbers.
        batch_size: rows in a group.
        merge_single: put a last group of one into the one before: BatchNorm has no variance over one value, which
            is what a 32 px image leaves in the last block.
    """
    groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if merge_single and len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [np.concatenate(groups[-2:])]
    return groups
