"""Decode bytes, a Pillow image, an array or a DICOM data set to grey pixels.

Pillow decodes image files, pydicom decodes DICOM. Where Pillow would silently give wrong or missing pixels (a truncated
JPEG, a bad PNG checksum), the input is refused instead. Messages name the input by the argument `name`.
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

from cxrtool.data import libtiff
from cxrtool.data.decoded import PHANTOM_COMMENT, Decoded, ImageWarning
from cxrtool.data.dicom import is_dicom
from cxrtool.data.formats import unread_format
from cxrtool.data.frames import is_whole_jpeg
from cxrtool.data.screening import COLOUR_SPREAD
from cxrtool.data.structure import StructureError, check_exif, check_structure
from cxrtool.errors import ImageError
from cxrtool.settings import Limits

if TYPE_CHECKING:
    from pydicom import Dataset

    from cxrtool.data.dicom_grey import Window

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
SMALLEST_SIDE = 32
LARGEST_ASPECT = 4.0
FILE_SIZE_ADVICE = "Reduce the file, or raise runtime.max_file_mib."

_PIXELS_ADVICE = "Reduce the image, or raise runtime.max_megapixels."
_STRUCTURE_ADVICE = "Save it again with another program."
_JPEG = ("JPEG", "MPO")
"""MPO is a JPEG with further pictures behind the first, such as the depth map of a phone; the first is read."""
_MIN_IS_WHITE = 0
_PHOTOMETRIC = 262
_TRANSPARENT = ("LA", "PA", "RGBA", "La", "RGBa")
_COLOURED = ("RGB", "RGBA", "CMYK", "P", "PA", "YCbCr", "LAB", "HSV")
_CONVERTED_MODES = {"CMYK": "a CMYK image", "P": "a palette image", "PA": "a palette image"}
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_ARRAY_ADVICE = "Pass [H, W] or [H, W, 3] (RGB) of uint8, of uint16, or of floats from 0 (black) to 1 (white)."


# Pillow warns on stderr of bad tags and of images above its own size limit; this module checks the size itself.
warnings.filterwarnings("ignore", module=r"PIL(\.|$)")


@dataclass(frozen=True)
class ImageFacts:
    """Facts from the header of an image.

    Attributes:
        size: (height, width) in pixels.
        mode: Pillow's mode, or ``DICOM``.
    """

    size: tuple[int, int]
    mode: str


def image_error(name: str, reason: str, advice: str = "Check the file.", code: str | None = None) -> ImageError:
    """Return an error that says why the image called `name` cannot be read."""
    return ImageError(f"{name}: {' '.join(reason.split())}", advice, code=code)


@contextmanager
def as_image_error(name: str) -> Iterator[None]:
    """Turn any exception of a decoder in the block into an `ImageError` about `name`."""
    try:
        yield
    except ImageError:
        raise
    except StructureError as error:
        raise image_error(name, f"{error.reason}, more than a radiograph needs", _STRUCTURE_ADVICE) from None
    except MemoryError:
        raise image_error(name, "does not fit into memory") from None
    except Exception as error:  # noqa: BLE001 - Pillow's plugins raise anything (SyntaxError, struct.error) on bad bytes
        raise image_error(name, f"cannot be decoded: {_plain(error)}") from None


def _plain(error: Exception) -> str:
    """Return what a decoder says of the file, or only that it is damaged if it speaks of Python's own objects.

    Pillow's plugins raise SyntaxError, OSError or ValueError with words about the file, and the others by accident.
    """
    said = str(error)
    worded = isinstance(error, SyntaxError | OSError | ValueError) and " " in said
    return said if worded and "<" not in said and not said.startswith("decoder error") else "it is damaged"


def decode_bytes(name: str, content: bytes, target_size: int, window: "Window | None", limits: Limits) -> Decoded:
    """Decode the content of a file; the arguments are the same as in `cxrtool.data.images.read`.

    Raises:
        ImageError: the content is not a supported image, truncated, damaged, too large, too small or too narrow, or has
            several pages.
    """
    with as_image_error(name):
        if is_dicom(content[:132]):
            from cxrtool.data.dicom import decode_dicom

            return _decode_dicom(name, lambda: decode_dicom(content, limits.pixels, window))
        return _decode_file(name, content, target_size, limits)


def facts_of_bytes(name: str, content: bytes, limits: Limits) -> ImageFacts:
    """Read size and mode from the header alone. A DICOM is decoded, because its header is not enough to check it.

    Raises:
        ImageError: same as `decode_bytes`, as far as the header shows the fault.
    """
    if is_dicom(content[:132]):
        return ImageFacts(decode_bytes(name, content, 0, None, limits).size, "DICOM")
    with as_image_error(name), _open(name, content, limits) as image:
        _check_header(name, image, limits)
        return ImageFacts((image.height, image.width), image.mode)


def decode_pil_image(name: str, image: Image.Image, limits: Limits) -> Decoded:
    """Decode a Pillow image like a file of the same mode: EXIF orientation, 16 bits, palette, transparency.

    Args:
        name: name used in messages.
        image: image in any mode that Pillow converts to RGB. Its pixels are loaded, but it is not changed otherwise.
        limits: a larger image is refused before its pixels are loaded.

    Raises:
        ImageError: the image is too large, too small or too narrow, has several frames, or cannot be loaded.
    """
    with as_image_error(name):
        _check_header(name, image, limits)
        warned = _file_warnings(image, lambda: image)
        grey, depth_warnings = _to_grey(image)
        return Decoded(grey, (image.height, image.width), (*warned, *depth_warnings))


def decode_array(name: str, array: NDArray[Any], limits: Limits) -> Decoded:
    """Convert an array to grey pixels.

    Args:
        name: name used in messages.
        array: [H, W] grey or [H, W, 3] RGB; uint8 from 0 (black) to 255 (white); uint16, scaled from the range found
            like a 16-bit file; or floats from 0 (black) to 1 (white). It is copied.
        limits: a larger array is refused.

    Raises:
        ImageError: the array has another dtype or shape, has values that are not finite or out of range, or is too
            large, too small or too narrow.
    """
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise image_error(name, f"has the unsupported shape {list(array.shape)}", _ARRAY_ADVICE, "image-wrong-values")
    if array.dtype.kind not in "uf" or (array.dtype.kind == "u" and array.dtype.itemsize > 2):
        raise image_error(name, f"has the unsupported dtype {array.dtype}", _ARRAY_ADVICE, "image-wrong-values")
    if array.nbytes > limits.file_bytes:
        reason = f"has {array.nbytes:,} bytes; at most {limits.file_bytes:,} are allowed"
        raise image_error(name, reason, FILE_SIZE_ADVICE, "image-too-large")
    height, width = array.shape[:2]
    _check_size(name, width, height, limits)
    with as_image_error(name):
        pixels, warned = _to_eight_bits(name, array)
        if pixels.ndim == 2:
            return Decoded(pixels, (height, width), warned)
        image = Image.fromarray(pixels)
        if _is_coloured(image):
            warned = (_COLOUR, *warned)
        return Decoded(np.array(image.convert("L")), (height, width), warned)


def decode_dataset(name: str, dataset: "Dataset", window: "Window | None", limits: Limits) -> Decoded:
    """Decode a pydicom data set like a DICOM file; a data set that was read lazily loads its pixels now.

    Raises:
        ImageError: same as for a DICOM file.
    """
    from cxrtool.data import dicom
    from cxrtool.data.dicom_tags import DicomError

    def decode() -> Decoded:
        size = len(dataset.get("PixelData") or b"")
        if size > limits.file_bytes:
            reason = f"has {size:,} bytes of pixel data; at most {limits.file_bytes:,} are allowed"
            raise DicomError(reason, FILE_SIZE_ADVICE, "image-too-large")
        return dicom.decode_dataset(dataset, limits.pixels, window)

    with as_image_error(name):
        return _decode_dicom(name, decode)


def _decode_dicom(name: str, decode: Callable[[], Decoded]) -> Decoded:
    from cxrtool.data.dicom_tags import DicomError

    try:
        decoded = decode()
    except DicomError as error:
        raise image_error(name, error.reason, error.advice, error.code) from None
    height, width = decoded.size
    if _has_bad_shape(width, height):
        raise _shape_error(name, width, height)
    return decoded


def _open(name: str, content: bytes, limits: Limits) -> Image.Image:
    check_structure(content)
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise image_error(name, f"has more than {limits.pixels:,} pixels", _PIXELS_ADVICE, "image-too-large") from None
    except OSError:
        found = unread_format(content)
        reason = "is not an image" if found is None else f"is not an image that can be read here: it is {found}"
        raise image_error(name, reason, f"Supported formats are {', '.join(FORMATS)} and DICOM.") from None
    check_exif(image.info.get("exif"), image.info.get("Raw profile type exif"))
    return image


def _decode_file(name: str, content: bytes, target_size: int, limits: Limits) -> Decoded:
    with _open(name, content, limits) as image:
        _check_header(name, image, limits)
        if image.format in _JPEG and not is_whole_jpeg(content):
            # Pillow silently fills in what is missing from some truncated files.
            raise image_error(name, "is truncated: the JPEG has no end marker", "Copy it again.")
        if image.format == "PNG":
            with Image.open(io.BytesIO(content), formats=FORMATS) as copy:
                copy.verify()  # load() ignores checksums; verify() makes the image unusable, so it needs a copy
        size, warned = (image.height, image.width), _file_warnings(image, lambda: _small_copy(content))
        if image.format in _JPEG:
            # A colour JPEG stores luma separately; decoding only luma takes half the time.
            image.draft("L", (2 * target_size, 2 * target_size) if target_size else image.size)
        image.load()
        grey, depth_warnings = _to_grey(image)
        drawn = image.info.get("comment") == PHANTOM_COMMENT
        return Decoded(grey, size, (*warned, *depth_warnings), drawn)


_ALPHA = ImageWarning("alpha", "has transparency, which was blended onto black")
_COLOUR = ImageWarning("colour", "is a colour image, converted to grey (luma)")


def _file_warnings(image: Image.Image, load_copy: Callable[[], Image.Image]) -> list[ImageWarning]:
    """Return warnings from the header. `load_copy` is called only if the pixels must be searched for colour."""
    found = []
    if image.mode in _CONVERTED_MODES:
        found.append(ImageWarning("converted", f"is {_CONVERTED_MODES[image.mode]}, converted to grey (luma)"))
    if image.mode in _COLOURED and _is_coloured(load_copy()):
        found.append(_COLOUR)
    return found


def _small_copy(content: bytes) -> Image.Image:
    """Open the image again; a JPEG as small as its decoder allows, at least 64 pixels a side."""
    copy = Image.open(io.BytesIO(content), formats=FORMATS)
    copy.draft("RGB", (64, 64))
    return copy


def _is_coloured(image: Image.Image) -> bool:
    small = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BOX)).astype(np.int16)
    return float((small.max(axis=2) - small.min(axis=2)).mean()) > COLOUR_SPREAD


def _check_header(name: str, image: Image.Image, limits: Limits) -> None:
    if image.format == "TIFF":
        libtiff.silence()
    _check_size(name, *image.size, limits)
    # Not n_frames, which walks the whole chain of pages of a TIFF, however long.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise image_error(
            name, "has several pages or frames", "Save the radiograph as a file of one page.", "image-wrong-shape"
        )


def _check_size(name: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        reason = f"has {width} x {height} pixels; at most {limits.pixels:,} are allowed"
        raise image_error(name, reason, _PIXELS_ADVICE, "image-too-large")
    if _has_bad_shape(width, height):
        raise _shape_error(name, width, height)


def _has_bad_shape(width: int, height: int) -> bool:
    return min(width, height) < SMALLEST_SIDE or max(width, height) > LARGEST_ASPECT * min(width, height)


def _shape_error(name: str, width: int, height: int) -> ImageError:
    reason = f"is {width} x {height} pixels, too small or too narrow for a radiograph"
    return image_error(name, reason, code="image-wrong-shape")


def _to_grey(image: Image.Image) -> tuple[NDArray[np.uint8], tuple[ImageWarning, ...]]:
    warned: tuple[ImageWarning, ...] = ()
    if image.mode != "L" or "transparency" in image.info or image.getexif():
        upright = ImageOps.exif_transpose(image)
        if upright.mode in _SIXTEEN_BIT:
            return _deep_to_grey(image, upright)
        if upright.mode in _TRANSPARENT or "transparency" in upright.info:
            upright, warned = _without_alpha(upright)
        image = upright if upright.mode == "L" else upright.convert("RGB").convert("L")
    return np.array(image, dtype=np.uint8), warned


def _without_alpha(image: Image.Image) -> tuple[Image.Image, tuple[ImageWarning, ...]]:
    """Return the image blended onto black, with a warning unless it is opaque everywhere."""
    coloured = image.convert("RGBA")
    if coloured.getchannel("A").getextrema()[0] == 255:
        return coloured, ()
    black = Image.new("RGBA", coloured.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, coloured), (_ALPHA,)


def _deep_to_grey(image: Image.Image, upright: Image.Image) -> tuple[NDArray[np.uint8], tuple[ImageWarning, ...]]:
    """Reduce an image of more than 8 bits; `image` still has the tags that `upright` may have lost.

    Pillow inverts a TIFF whose lowest value is white (MinIsWhite) at 8 bits, but not at 16 or 32.
    """
    values, clear = np.asarray(upright), image.info.get("transparency")
    grey, warned = _reduce_depth(values, may_be_shallow=upright.mode.startswith("I;16"))
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _MIN_IS_WHITE:
        grey = 255 - grey
    if isinstance(clear, int) and (hidden := values == clear).any():
        grey[hidden] = 0
        warned = (_ALPHA, *warned)
    return grey, warned


def _to_eight_bits(name: str, array: NDArray[Any]) -> tuple[NDArray[np.uint8], tuple[ImageWarning, ...]]:
    """Return a uint8 copy of the same shape: uint16 is scaled from the range found, floats from [0, 1]."""
    if array.dtype == np.uint8:
        return np.array(array, dtype=np.uint8, order="C"), ()
    if array.dtype.kind == "u":
        return _reduce_depth(np.asarray(array), may_be_shallow=True)
    low, high = float(array.min()), float(array.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise image_error(name, "has values that are not finite", _ARRAY_ADVICE, "image-wrong-values")
    if low < 0 or high > 1:
        raise image_error(
            name, f"has floats from {low:g} to {high:g}, not from 0 to 1", _ARRAY_ADVICE, "image-wrong-values"
        )
    return np.round(np.asarray(array) * 255).astype(np.uint8), ()


def _reduce_depth(values: NDArray[Any], may_be_shallow: bool) -> tuple[NDArray[np.uint8], tuple[ImageWarning, ...]]:
    """Reduce more than 8 bits to 8, with a warning if 16-bit values use 12 bits or fewer."""
    shallow = may_be_shallow and int(values.max()) < 4096
    warning = ImageWarning("shallow", "uses 12 bits or fewer of 16; scaled from the range found")
    return _scale_range(values), (warning,) if shallow else ()


def _scale_range(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale the range found to 0 to 255 (Pillow's own conversion clips at 255)."""
    values = pixels.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError("pixels are not finite")
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.round((values - low) * (255.0 / (high - low))).astype(np.uint8)
