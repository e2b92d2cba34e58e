"""Any radiograph file as grey pixels, and the one preprocessing: everything that sees an image calls these two.

Pillow is the one decoder. Where it would give wrong or missing pixels in silence (a cut JPEG, a bad PNG checksum), the
file is refused instead.
"""

import io
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, features
from PIL import __version__ as PIL_VERSION

from cxrtool.data.decoded import Decoded, ImageWarning
from cxrtool.data.dicom import is_dicom
from cxrtool.data.screening import COLOUR_SPREAD
from cxrtool.errors import ImageError
from cxrtool.settings import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from cxrtool.data.dicom import Window

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom"})
PIXELS_VERSION = 1
"""Raised whenever `read` or `preprocess` gives other pixels than before, so that no cache of the old ones is used."""
SMALLEST_SIDE = 32
LARGEST_ASPECT = 4.0

_RAISE_PIXELS = "Save it smaller, or raise runtime.max_megapixels."
_RAISE_MIB = "Save it smaller, or raise runtime.max_file_mib."
_JPEG_END = b"\xff\xd9"
_TRANSPARENT = ("LA", "PA", "RGBA", "La", "RGBa")
_MODES = {"CMYK": "in printing colours (CMYK)", "P": "in palette colours", "PA": "in palette colours"}
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")


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


def read(
    path: Path,
    root: Path | None = None,
    enough: int = 0,
    window: "Window | None" = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Decoded:
    """One radiograph as grey pixels, with what is to beware of in its file.

    The format goes by content, not by name. Orientation from EXIF is applied once; colour becomes luma (ITU-R 601);
    more than 8 bits are scaled by the range found in the file; transparency lies on black. A DICOM goes through its
    own rescale and window, see `cxrtool.data.dicom`.

    Args:
        path: the file.
        root: when given, a path or link that leads out of this folder is refused.
        enough: pixels a side that the caller needs. A JPEG four times as large is decoded at a half, a quarter or an
            eighth (by its DCT, which averages), never below twice this; what `preprocess` then makes of it differs by
            0.14 grey levels on average (measured, 2500 x 3000 to 320). 0 decodes everything at its own size.
        window: of a DICOM.
        limits: larger files and images are refused.

    Raises:
        ImageError: it is missing, not a regular file, not an image of an allowed format, cut, damaged, too large, too
            small or too narrow, or has several pages.
    """
    content = _read_bytes(path, root, limits)
    with _as_image_error(path):
        if is_dicom(content[:132]):
            return _decode_dicom(path, content, window, limits)
        return _decode(path, content, enough, limits)


def read_facts(path: Path, root: Path | None = None, limits: Limits = DEFAULT_LIMITS) -> ImageFacts:
    """Size and mode by the header alone; of a DICOM, whose header says less, by decoding it.

    Raises:
        ImageError: as `read`, for all that a header shows.
    """
    content = _read_bytes(path, root, limits)
    with _as_image_error(path):
        if is_dicom(content[:132]):
            return ImageFacts(_decode_dicom(path, content, None, limits).size, "DICOM")
        with _open(path, content, limits) as image:
            _check_header(path, image, limits)
            return ImageFacts((image.height, image.width), image.mode)


@contextmanager
def _as_image_error(path: Path) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except MemoryError:
        raise _refuse(path, "does not fit into the memory") from None
    except Exception as error:  # noqa: BLE001 - Pillow's plugins raise anything (SyntaxError, struct.error) on bad bytes
        raise _refuse(path, f"cannot be decoded ({type(error).__name__}: {error})") from None


def reader() -> str:
    """What pixels depend on besides the file and the `Preprocessing`: our version, and the decoder's."""
    turbo = features.version_feature("libjpeg_turbo")
    return f"version {PIXELS_VERSION}, Pillow {PIL_VERSION}, libjpeg-turbo {turbo or 'absent'}"


def list_images(inputs: Sequence[Path], recursive: bool = False) -> list[Path]:
    """Files as given and the images in folders, sorted; hidden ones are left out.

    A file that does not exist stays in the list: it gets its row with an error.
    """
    found: list[Path] = []
    for given in inputs:
        if given.is_dir():
            entries = given.rglob("*") if recursive else given.iterdir()
            found += sorted(
                path for path in entries if _looks_like_image(path.relative_to(given)) or _is_bare_dicom(path)
            )
        else:
            found.append(given)
    return found


def _looks_like_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _is_bare_dicom(path: Path) -> bool:
    """A DICOM under a name such as IM000001 or 1.2.840.113619: as scanners and archives write them."""
    if path.name.startswith(".") or (path.suffix and not path.suffix[1:].isdigit()):
        return False
    try:
        return path.is_file() and starts_as_dicom(path)
    except OSError:
        return False


def starts_as_dicom(path: Path) -> bool:
    """Whether the file's first bytes are a DICOM's.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        return is_dicom(file.read(132))


def _read_bytes(path: Path, root: Path | None, limits: Limits) -> bytes:
    if root is not None and not _is_inside(path, root):
        raise _refuse(path, f"leads out of {root}", "Put the file itself into the data folder.")
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise _refuse(path, "is a folder", "Give a file, or --recursive.")
        if not stat.S_ISREG(status.st_mode):
            # A FIFO would block for ever when opened.
            raise _refuse(path, "is not a regular file")
        if status.st_size == 0:
            raise _refuse(path, "is empty (0 bytes)", "Copy it again.")
        if status.st_size > limits.file_bytes:
            raise _refuse(path, f"has {status.st_size:,} bytes; at most {limits.file_bytes:,} are read", _RAISE_MIB)
        return path.read_bytes()
    except FileNotFoundError:
        raise _refuse(path, "no such file", "Check the path.") from None
    except PermissionError:
        raise _refuse(path, "permission denied", "Check the file's rights.") from None
    except (OSError, ValueError) as error:
        raise _refuse(path, f"cannot be read ({error})") from None


def _is_inside(path: Path, root: Path) -> bool:
    real_root = os.path.realpath(root)
    return os.path.realpath(path).startswith(real_root.rstrip(os.sep) + os.sep)


def _decode_dicom(path: Path, content: bytes, window: "Window | None", limits: Limits) -> Decoded:
    from cxrtool.data.dicom import DicomError, decode_dicom

    try:
        decoded = decode_dicom(content, limits.pixels, window)
    except DicomError as error:
        raise _refuse(path, error.reason, error.advice) from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - pydicom and its decoders raise anything, and quote tags
        raise _refuse(path, f"is a DICOM that cannot be decoded ({type(error).__name__})") from None
    height, width = decoded.size
    if _is_out_of_shape(width, height):
        raise _refuse(path, f"is {width} x {height} pixels, too small or too narrow for a radiograph")
    return decoded


def _open(path: Path, content: bytes, limits: Limits) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise _refuse(path, f"has more than {limits.pixels:,} pixels", _RAISE_PIXELS) from None
    except OSError:
        raise _refuse(path, "is not an image", f"Readable are {', '.join(FORMATS)} and DICOM.") from None


def _decode(path: Path, content: bytes, enough: int, limits: Limits) -> Decoded:
    with _open(path, content, limits) as image:
        _check_header(path, image, limits)
        if image.format == "JPEG" and _JPEG_END not in content[-4096:]:
            # Pillow fills what is missing in some files without a word.
            raise _refuse(path, "is cut: the JPEG has no end marker", "Copy it again.")
        if image.format == "PNG":
            with Image.open(io.BytesIO(content), formats=FORMATS) as twin:
                twin.verify()  # load() ignores checksums; verify() leaves the image unusable, hence a twin
        size, found = (image.height, image.width), _file_warnings(image, content)
        if image.format == "JPEG":
            # A colour JPEG holds its luma as it is; decoding that alone takes half the time.
            image.draft("L", (2 * enough, 2 * enough) if enough else image.size)
        image.load()
        grey, deep = _to_grey(image)
        return Decoded(grey, size, (*found, *deep))


def _file_warnings(image: Image.Image, content: bytes) -> list[ImageWarning]:
    """By the header and, where there are colours, a small copy."""
    found = []
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        found.append(ImageWarning("alpha", "has transparency, which was laid on black"))
    if image.mode in ("CMYK", "P", "PA"):
        found.append(ImageWarning("converted", f"is {_MODES[image.mode]}; its luma was taken"))
    if image.mode in ("RGB", "RGBA", "CMYK", "P", "PA", "YCbCr", "LAB", "HSV") and _is_coloured(content):
        found.append(ImageWarning("colour", "is a colour picture; its luma was taken"))
    return found


def _is_coloured(content: bytes) -> bool:
    with Image.open(io.BytesIO(content), formats=FORMATS) as twin:
        twin.draft("RGB", (64, 64))  # a JPEG at an eighth
        small = np.asarray(twin.convert("RGB").resize((64, 64), Image.Resampling.BOX)).astype(np.int16)
    return float((small.max(axis=2) - small.min(axis=2)).mean()) > COLOUR_SPREAD


def _check_header(path: Path, image: Image.Image, limits: Limits) -> None:
    width, height = image.size
    if width * height > limits.pixels:
        raise _refuse(path, f"has {width} x {height} pixels; at most {limits.pixels:,} are read", _RAISE_PIXELS)
    if _is_out_of_shape(width, height):
        raise _refuse(path, f"is {width} x {height} pixels, too small or too narrow for a radiograph")
    # Not n_frames: a TIFF's is found by walking its whole chain of pages, however long.
    if getattr(image, "is_animated", False):
        raise _refuse(path, "has several pages or frames", "Save the radiograph alone.")


def _is_out_of_shape(width: int, height: int) -> bool:
    return min(width, height) < SMALLEST_SIDE or max(width, height) > LARGEST_ASPECT * min(width, height)


def _to_grey(image: Image.Image) -> tuple[NDArray[np.uint8], tuple[ImageWarning, ...]]:
    if image.mode != "L" or image.getexif():
        upright = ImageOps.exif_transpose(image)
        if upright.mode in _SIXTEEN_BIT:
            values = np.asarray(upright)
            shallow = upright.mode.startswith("I;16") and int(values.max()) < 4096
            told = ImageWarning("shallow", "has 12 bits or fewer in a file of 16; scaled by the range found")
            return _scale_by_range(values), (told,) if shallow else ()
        if upright.mode in _TRANSPARENT or "transparency" in upright.info:
            coloured = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", coloured.size, (0, 0, 0, 255)), coloured)
        image = upright if upright.mode == "L" else upright.convert("RGB").convert("L")
    return np.array(image, dtype=np.uint8), ()


def _scale_by_range(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """More than 8 bits to 8: the range found becomes 0 to 255 (Pillow's own conversion cuts at 255)."""
    values = pixels.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError("pixels are not finite")
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.round((values - low) * (255.0 / (high - low))).astype(np.uint8)


def _refuse(path: Path, reason: str, advice: str = "Check the file.") -> ImageError:
    return ImageError(f"{shown(path)}: {' '.join(reason.split())}", advice)


def shown(path: Path) -> str:
    """A path as text that every output can hold: bytes that are no UTF-8 are escaped."""
    return str(path).encode("utf-8", errors="backslashreplace").decode("utf-8")
