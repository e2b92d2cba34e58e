"""One radiograph: read, preprocessed and screened; or many, read ahead in batches."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.decoded import ImageWarning
from cxrtool.data.dicom import Window
from cxrtool.data.images import read, shown
from cxrtool.data.preprocessing import Preprocessing, preprocess
from cxrtool.data.read_ahead import read_ahead
from cxrtool.data.screening import screen
from cxrtool.errors import CxrError, ImageError
from cxrtool.settings import DEFAULT_LIMITS, Limits, RuntimeSettings


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
            limits=runtime.limits,
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
