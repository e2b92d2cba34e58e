"""Read, preprocess and screen one radiograph, or many ahead of time in batches."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.decoded import ImageWarning
from cxrtool.data.dicom_grey import Window
from cxrtool.data.images import read
from cxrtool.data.preprocessing import Preprocessing, preprocess, without_border
from cxrtool.data.read_ahead import read_ahead
from cxrtool.data.screening import screen
from cxrtool.data.sources import Source, name_of, open_source
from cxrtool.errors import CxrError, ImageError
from cxrtool.settings import DEFAULT_LIMITS, Limits, RuntimeSettings

SourceT = TypeVar("SourceT", bound=Source)


@dataclass(frozen=True)
class Radiograph:
    """One decoded radiograph.

    Attributes:
        name: name used in messages: the path, or for example ``array [512, 640] uint8``.
        path: path of the file; None if the input was not a path.
        image: [H, W] uint8, the decoded image; at its original size if `Reading.full_size` is set.
        pixels: [S, S] uint8, the input of the network.
        warnings: warnings about the image, see `cxrtool.data.screening`.
        drawn: whether the file says that `cxr phantom` has drawn it.
    """

    name: str
    path: Path | None
    image: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    warnings: tuple[ImageWarning, ...] = ()
    drawn: bool = False


@dataclass(frozen=True)
class Reading:
    """How images are read.

    Attributes:
        preprocessing: preprocessing of each image.
        batch_size: number of images in a batch.
        workers: number of reading threads.
        timeout: seconds after which a read counts as hung; None waits without limit.
        full_size: keep each image at its original size, for drawing.
        strict: treat warnings as errors.
        window: window of DICOM files; None uses the first one in the file.
        limits: upper limits on image and file size.
    """

    preprocessing: Preprocessing
    batch_size: int
    workers: int = 2
    timeout: float | None = None
    full_size: bool = False
    strict: bool = False
    window: Window | None = None
    limits: Limits = DEFAULT_LIMITS

    @classmethod
    def from_settings(cls, preprocessing: Preprocessing, runtime: RuntimeSettings) -> Self:
        """Build from the runtime settings for a whole split, where `strict` and `window` do not apply."""
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
        source: a path or any other input that `open_source` accepts.
        reading: preprocessing, DICOM window and limits, and whether warnings are errors. `full_size` only changes
            `Radiograph.image`, not the input of the network.
        root: if given, a path or link that leads out of this folder is refused.

    Raises:
        ImageError: the image cannot be read, a link leads out of `root`, or it has warnings and `reading` is strict.
        RequestError: `source` is not a supported kind of input.
    """
    opened = open_source(source, reading.window, reading.limits, root)
    decoded = opened.decode(reading.preprocessing.image_size)
    pixels = preprocess(decoded.pixels, reading.preprocessing)
    # Black borders would count as dark corners and sides.
    height, width = decoded.pixels.shape
    shown = without_border(pixels, height, width, reading.preprocessing)
    warnings = screen(opened.name, decoded, shown)
    if reading.strict and warnings:
        messages = "; ".join(f"{warning.code}: {warning.message}" for warning in warnings)
        advice = "Leave out --strict to read the image with a warning."
        raise ImageError(f"{opened.name}: {messages}", advice, code="image-warned")
    needs_full_decode = reading.full_size and len(decoded.pixels) != decoded.size[0]
    image = opened.decode(0).pixels if needs_full_decode else decoded.pixels
    return Radiograph(opened.name, opened.path, image, pixels, warnings, decoded.drawn)


def read_pixels(
    path: Path, preprocessing: Preprocessing, root: Path | None = None, limits: Limits = DEFAULT_LIMITS
) -> NDArray[np.uint8]:
    """Read and preprocess one file without screening it for warnings.

    Returns:
        [S, S] uint8, equal to `Radiograph.pixels` from `read_radiograph`.

    Raises:
        ImageError: the file cannot be read, or a link leads out of `root`.
    """
    return preprocess(read(path, root, preprocessing.image_size, limits=limits).pixels, preprocessing)


def radiograph_batches(
    sources: Iterable[SourceT], reading: Reading
) -> Iterator[list[tuple[SourceT, Radiograph | CxrError]]]:
    """Read inputs ahead and yield them in order, in lists of up to `batch_size` pairs.

    At most a few batches are in memory, however many inputs there are. An input that takes longer than
    `reading.timeout` gets an error like one that cannot be read.

    Yields:
        (input, radiograph) pairs, with the error instead of the radiograph if the input cannot be read.
    """
    load = partial(read_radiograph, reading=reading)
    batch: list[tuple[SourceT, Radiograph | CxrError]] = []
    ahead = max(2 * reading.batch_size, 2 * reading.workers)
    for source, result in read_ahead(sources, load, reading.workers, ahead, reading.timeout, name_of, skip_hung=True):
        batch.append((source, result))
        if len(batch) == reading.batch_size:
            yield batch
            batch = []
    if batch:
        yield batch
