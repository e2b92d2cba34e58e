"""One radiograph: read, preprocessed and screened; or many, read ahead in batches."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.decoded import ImageWarning
from cxrtool.data.dicom import Window
from cxrtool.data.images import read
from cxrtool.data.preprocessing import Preprocessing, preprocess
from cxrtool.data.read_ahead import read_ahead
from cxrtool.data.screening import screen
from cxrtool.data.sources import Source, name_of, open_source
from cxrtool.errors import CxrError, ImageError
from cxrtool.settings import DEFAULT_LIMITS, Limits, RuntimeSettings

Given = TypeVar("Given", bound=Source)


@dataclass(frozen=True)
class Radiograph:
    """One decoded radiograph.

    Attributes:
        name: what messages call it: its path, or for example ``array [512, 640] uint8``.
        path: its file; None where it came in another way.
        image: [H, W] uint8 as `read` gives it, at its own size where that was asked for.
        pixels: [S, S] uint8 as `preprocess` gives it.
        warnings: what to beware of, see `cxrtool.data.screening`.
    """

    name: str
    path: Path | None
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


def read_radiograph(source: Source, reading: Reading, root: Path | None = None) -> Radiograph:
    """Read, preprocess and screen one radiograph.

    Args:
        source: a path, or any other input that `open_source` takes.
        reading: preprocessing, and whether to keep the image at its own size (the pixels are the same), to refuse
            what is warned of, and which window of a DICOM to take.
        root: when given, a path or link that leads out of this folder is refused.

    Raises:
        ImageError: it cannot be read, a link leads out of `root`, or it is warned of and `reading` is strict.
        RequestError: `source` is of a kind that nothing here reads.
    """
    opened = open_source(source, reading.window, reading.limits, root)
    decoded = opened.decode(reading.preprocessing.image_size)
    pixels = preprocess(decoded.pixels, reading.preprocessing)
    warnings = screen(opened.name, decoded, pixels)
    if reading.strict and warnings:
        told = "; ".join(f"{warning.code}: {warning.message}" for warning in warnings)
        advice = "Without --strict it is read, with the warning beside it."
        raise ImageError(f"{opened.name}: {told}", advice, code="image-warned")
    at_its_size = len(decoded.pixels) == decoded.size[0] or not reading.whole
    image = decoded.pixels if at_its_size else opened.decode(0).pixels
    return Radiograph(opened.name, opened.path, image, pixels, warnings)


def read_pixels(
    path: Path, preprocessing: Preprocessing, root: Path | None = None, limits: Limits = DEFAULT_LIMITS
) -> NDArray[np.uint8]:
    """[S, S] uint8 of one file, as `read_radiograph` has them, without looking for warnings.

    Raises:
        ImageError: it cannot be read, or a link leads out of `root`.
    """
    return preprocess(read(path, root, preprocessing.image_size, limits=limits).pixels, preprocessing)


def radiograph_batches(
    sources: Iterable[Given], reading: Reading
) -> Iterator[list[tuple[Given, Radiograph | CxrError]]]:
    """Lists of up to `batch_size` inputs in order, each read or with the error that it met.

    At most a few batches are in memory, however many inputs there are.
    """
    load = partial(read_radiograph, reading=reading)
    waiting: list[tuple[Given, Radiograph | CxrError]] = []
    ahead = max(2 * reading.batch_size, 2 * reading.workers)
    for source, result in read_ahead(sources, load, reading.workers, ahead, reading.timeout, name_of):
        waiting.append((source, result))
        if len(waiting) == reading.batch_size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
