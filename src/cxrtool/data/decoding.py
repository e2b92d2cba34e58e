"""Bytes, a Pillow image, an array or a DICOM data set as grey pixels: the one decoder behind every kind of input.

Pillow is the one decoder. Where it would give wrong or missing pixels in silence (a cut JPEG, a bad PNG checksum), the
input is refused instead. Every function takes the name that messages call the input by.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cxrtool.data.decoded import Decoded, ImageWarning
from cxrtool.data.dicom import is_dicom
from cxrtool.data.screening import COLOUR_SPREAD
from cxrtool.errors import ImageError
from cxrtool.settings import Limits

if TYPE_CHECKING:
    from pydicom import Dataset

    from cxrtool.data.dicom import Window

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
SMALLEST_SIDE = 32
LARGEST_ASPECT = 4.0
RAISE_MIB = "Save it smaller, or raise runtime.max_file_mib."

_RAISE_PIXELS = "Save it smaller, or raise runtime.max_megapixels."
_JPEG_END = b"\xff\xd9"
_TRANSPARENT = ("LA", "PA", "RGBA", "La", "RGBa")
_COLOURED = ("RGB", "RGBA", "CMYK", "P", "PA", "YCbCr", "LAB", "HSV")
_MODES = {"CMYK": "in printing colours (CMYK)", "P": "in palette colours", "PA": "in palette colours"}
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_TAKEN = "Take [H, W] or [H, W, 3] (RGB) of uint8, of uint16, or of floats from 0 (black) to 1 (white)."


# On stderr, of bad tags and of what lies between its own limit and twice that: what counts is refused here.
warnings.filterwarnings("ignore", module=r"PIL(\.|$)")


@dataclass(frozen=True)
class ImageFacts:
    """What an image's header says.

    Attributes:
        size: (height, width).
        mode: Pillow's, or ``DICOM``.
    """

    size: tuple[int, int]
    mode: str


def refusal(name: str, reason: str, advice: str = "Check the file.", code: str | None = None) -> ImageError:
    """The error that says why the image called `name` is not read."""
    return ImageError(f"{name}: {' '.join(reason.split())}", advice, code=code)


@contextmanager
def as_image_error(name: str) -> Iterator[None]:
    """Whatever a decoder raises in the block becomes an `ImageError` about `name`."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError:
        raise refusal(name, "does not fit into the memory") from None
    except Exception as error:  # noqa: BLE001 - Pillow's plugins raise anything (SyntaxError, struct.error) on bad bytes
        raise refusal(name, f"cannot be decoded ({type(error).__name__}: {error})") from None


def decode_bytes(name: str, content: bytes, enough: int, window: "Window | None", limits: Limits) -> Decoded:
    """A file's content as grey pixels; the arguments are those of `cxrtool.data.images.read`.

    Raises:
        ImageError: likewise, for all that content shows.
    """
    with as_image_error(name):
        if is_dicom(content[:132]):
            from cxrtool.data.dicom import decode_dicom

            return _of_dicom(name, lambda: decode_dicom(content, limits.pixels, window))
        return _of_file(name, content, enough, limits)


def facts_of_bytes(name: str, content: bytes, limits: Limits) -> ImageFacts:
    """Size and mode by the header alone; of a DICOM, whose header says less, by decoding it.

    Raises:
        ImageError: as `decode_bytes`, for all that a header shows.
    """
    if is_dicom(content[:132]):
        return ImageFacts(decode_bytes(name, content, 0, None, limits).size, "DICOM")
    with as_image_error(name), _open(name, content, limits) as image:
        _check_header(name, image, limits)
        return ImageFacts((image.height, image.width), image.mode)


def decode_picture(name: str, picture: Image.Image, limits: Limits) -> Decoded:
    """A Pillow image by its mode, as a file of that mode: EXIF orientation, 16 bits, palette, transparency.

    Args:
        name: what messages call it.
        picture: in any mode that Pillow turns into RGB; its pixels are loaded, nothing else changes.
        limits: larger ones are refused before their pixels are loaded.

    Raises:
        ImageError: it is too large, too small or too narrow, has several frames, or its pixels cannot be loaded.
    """
    with as_image_error(name):
        _check_header(name, picture, limits)
        found = _file_warnings(picture, lambda: picture)
        grey, deep = _to_grey(picture)
        return Decoded(grey, (picture.height, picture.width), (*found, *deep))


def decode_array(name: str, array: NDArray[Any], limits: Limits) -> Decoded:
    """An array as grey pixels.

    Args:
        name: what messages call it.
        array: [H, W] grey or [H, W, 3] RGB; uint8 from 0 (black) to 255 (white); uint16, of which the range found
            becomes black to white, as of a file of 16 bits; or floats from 0 (black) to 1 (white). It is copied.
        limits: larger ones are refused.

    Raises:
        ImageError: it has another type or shape, values that are not finite or out of range, or is too large, too
            small or too narrow.
    """
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise refusal(name, f"has the shape {list(array.shape)}", _TAKEN, "image-wrong-values")
    if array.dtype.kind not in "uf" or (array.dtype.kind == "u" and array.dtype.itemsize > 2):
        raise refusal(name, f"holds values of type {array.dtype}", _TAKEN, "image-wrong-values")
    if array.nbytes > limits.file_bytes:
        reason = f"has {array.nbytes:,} bytes; at most {limits.file_bytes:,} are read"
        raise refusal(name, reason, RAISE_MIB, "image-too-large")
    height, width = array.shape[:2]
    _check_size(name, width, height, limits)
    with as_image_error(name):
        pixels, told = _eight_bits(name, array)
        if pixels.ndim == 2:
            return Decoded(pixels, (height, width), told)
        picture = Image.fromarray(pixels)
        if _is_coloured(picture):
            told = (_COLOUR, *told)
        return Decoded(np.array(picture.convert("L")), (height, width), told)


def decode_dataset(name: str, dataset: "Dataset", window: "Window | None", limits: Limits) -> Decoded:
    """A pydicom data set as grey pixels, by the rules of a DICOM file; one read lazily loads its pixels now.

    Raises:
        ImageError: as for a DICOM file.
    """
    from cxrtool.data import dicom

    def decode() -> Decoded:
        held = len(dataset.get("PixelData") or b"")
        if held > limits.file_bytes:
            reason = f"has {held:,} bytes of pixel data; at most {limits.file_bytes:,} are read"
            raise dicom.DicomError(reason, RAISE_MIB, "image-too-large")
        return dicom.decode_dataset(dataset, limits.pixels, window)

    with as_image_error(name):
        return _of_dicom(name, decode)


def _of_dicom(name: str, decode: Callable[[], Decoded]) -> Decoded:
    from cxrtool.data.dicom import DicomError

    try:
        decoded = decode()
    except DicomError as error:
        raise refusal(name, error.reason, error.advice, error.code) from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - pydicom and its decoders raise anything, and quote tags
        raise refusal(name, f"is a DICOM that cannot be decoded ({type(error).__name__})") from None
    height, width = decoded.size
    if _is_out_of_shape(width, height):
        raise _out_of_shape(name, width, height)
    return decoded


def _open(name: str, content: bytes, limits: Limits) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise refusal(name, f"has more than {limits.pixels:,} pixels", _RAISE_PIXELS, "image-too-large") from None
    except OSError:
        raise refusal(name, "is not an image", f"Readable are {', '.join(FORMATS)} and DICOM.") from None


def _of_file(name: str, content: bytes, enough: int, limits: Limits) -> Decoded:
    with _open(name, content, limits) as image:
        _check_header(name, image, limits)
        if image.format == "JPEG" and _JPEG_END not in content[-4096:]:
            # Pillow fills what is missing in some files without a word.
            raise refusal(name, "is cut: the JPEG has no end marker", "Copy it again.")
        if image.format == "PNG":
            with Image.open(io.BytesIO(content), formats=FORMATS) as twin:
                twin.verify()  # load() ignores checksums; verify() leaves the image unusable, hence a twin
        size, found = (image.height, image.width), _file_warnings(image, lambda: _small_twin(content))
        if image.format == "JPEG":
            # A colour JPEG holds its luma as it is; decoding that alone takes half the time.
            image.draft("L", (2 * enough, 2 * enough) if enough else image.size)
        image.load()
        grey, deep = _to_grey(image)
        return Decoded(grey, size, (*found, *deep))


_COLOUR = ImageWarning("colour", "is a colour picture; its luma was taken")


def _file_warnings(image: Image.Image, to_look_at: Callable[[], Image.Image]) -> list[ImageWarning]:
    """By the header and, where there may be colours, a copy to look at."""
    found = []
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        found.append(ImageWarning("alpha", "has transparency, which was laid on black"))
    if image.mode in _MODES:
        found.append(ImageWarning("converted", f"is {_MODES[image.mode]}; its luma was taken"))
    if image.mode in _COLOURED and _is_coloured(to_look_at()):
        found.append(_COLOUR)
    return found


def _small_twin(content: bytes) -> Image.Image:
    """The same image, a JPEG at an eighth."""
    twin = Image.open(io.BytesIO(content), formats=FORMATS)
    twin.draft("RGB", (64, 64))
    return twin


def _is_coloured(image: Image.Image) -> bool:
    small = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BOX)).astype(np.int16)
    return float((small.max(axis=2) - small.min(axis=2)).mean()) > COLOUR_SPREAD


def _check_header(name: str, image: Image.Image, limits: Limits) -> None:
    _check_size(name, *image.size, limits)
    # Not n_frames: a TIFF's is found by walking its whole chain of pages, however long.
    if getattr(image, "is_animated", False):
        raise refusal(name, "has several pages or frames", "Save the radiograph alone.", "image-wrong-shape")


def _check_size(name: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        reason = f"has {width} x {height} pixels; at most {limits.pixels:,} are read"
        raise refusal(name, reason, _RAISE_PIXELS, "image-too-large")
    if _is_out_of_shape(width, height):
        raise _out_of_shape(name, width, height)


def _is_out_of_shape(width: int, height: int) -> bool:
    return min(width, height) < SMALLEST_SIDE or max(width, height) > LARGEST_ASPECT * min(width, height)


def _out_of_shape(name: str, width: int, height: int) -> ImageError:
    reason = f"is {width} x {height} pixels, too small or too narrow for a radiograph"
    return refusal(name, reason, code="image-wrong-shape")


def _to_grey(image: Image.Image) -> tuple[NDArray[np.uint8], tuple[ImageWarning, ...]]:
    if image.mode != "L" or image.getexif():
        upright = ImageOps.exif_transpose(image)
        if upright.mode in _SIXTEEN_BIT:
            return _scale_deep(np.asarray(upright), may_be_shallow=upright.mode.startswith("I;16"))
        if upright.mode in _TRANSPARENT or "transparency" in upright.info:
            coloured = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", coloured.size, (0, 0, 0, 255)), coloured)
        image = upright if upright.mode == "L" else upright.convert("RGB").convert("L")
    return np.array(image, dtype=np.uint8), ()


def _eight_bits(name: str, array: NDArray[Any]) -> tuple[NDArray[np.uint8], tuple[ImageWarning, ...]]:
    """A copy of uint8 of the same shape; uint16 by the range found, floats by the range they must have."""
    if array.dtype == np.uint8:
        return np.array(array, dtype=np.uint8, order="C"), ()
    if array.dtype.kind == "u":
        return _scale_deep(np.asarray(array), may_be_shallow=True)
    low, high = float(array.min()), float(array.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise refusal(name, "holds floats that are not finite", _TAKEN, "image-wrong-values")
    if low < 0 or high > 1:
        raise refusal(name, f"holds floats from {low:g} to {high:g}", _TAKEN, "image-wrong-values")
    return np.round(np.asarray(array) * 255).astype(np.uint8), ()


def _scale_deep(values: NDArray[Any], may_be_shallow: bool) -> tuple[NDArray[np.uint8], tuple[ImageWarning, ...]]:
    """More than 8 bits to 8, with a warning where 16 hold 12 or fewer."""
    shallow = may_be_shallow and int(values.max()) < 4096
    told = ImageWarning("shallow", "has 12 bits or fewer of 16; scaled by the range found")
    return _scale_by_range(values), (told,) if shallow else ()


def _scale_by_range(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """The range found becomes 0 to 255 (Pillow's own conversion cuts at 255)."""
    values = pixels.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError("pixels are not finite")
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.round((values - low) * (255.0 / (high - low))).astype(np.uint8)
