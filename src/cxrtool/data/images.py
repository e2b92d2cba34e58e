"""A radiograph's file as grey pixels, and the files of a folder: everything that reads an image file calls `read`."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import __version__ as PIL_VERSION
from PIL import features

from cxrtool.data.decoded import Decoded
from cxrtool.data.decoding import RAISE_MIB, ImageFacts, decode_bytes, facts_of_bytes, refusal
from cxrtool.data.dicom import is_dicom
from cxrtool.errors import ImageError
from cxrtool.settings import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from cxrtool.data.dicom import Window

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom"})
PIXELS_VERSION = 1
"""Raised whenever `read` or `preprocess` gives other pixels than before, so that no cache of the old ones is used."""


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
    return decode_bytes(shown(path), read_bytes(path, root, limits), enough, window, limits)


def read_facts(path: Path, root: Path | None = None, limits: Limits = DEFAULT_LIMITS) -> ImageFacts:
    """Size and mode by the header alone; of a DICOM, whose header says less, by decoding it.

    Raises:
        ImageError: as `read`, for all that a header shows.
    """
    return facts_of_bytes(shown(path), read_bytes(path, root, limits), limits)


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


def read_bytes(path: Path, root: Path | None, limits: Limits) -> bytes:
    """A file's whole content; the arguments are those of `read`.

    Raises:
        ImageError: it is missing, empty, too large, not a regular file, not inside `root`, or cannot be read.
    """
    if root is not None and not _is_inside(path, root):
        raise _refuse(path, f"leads out of {root}", "Put the file itself into the data folder.", "image-outside")
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
            reason = f"has {status.st_size:,} bytes; at most {limits.file_bytes:,} are read"
            raise _refuse(path, reason, RAISE_MIB, "image-too-large")
        return path.read_bytes()
    except FileNotFoundError:
        raise _refuse(path, "no such file", "Check the path.", "image-missing") from None
    except PermissionError:
        raise _refuse(path, "permission denied", "Check the file's rights.") from None
    except (OSError, ValueError) as error:
        raise _refuse(path, f"cannot be read ({error})") from None


def _is_inside(path: Path, root: Path) -> bool:
    real_root = os.path.realpath(root)
    return os.path.realpath(path).startswith(real_root.rstrip(os.sep) + os.sep)


def _refuse(path: Path, reason: str, advice: str = "Check the file.", code: str | None = None) -> ImageError:
    return refusal(shown(path), reason, advice, code)


def shown(path: Path) -> str:
    """A path as text that every output can hold: bytes that are no UTF-8 are escaped."""
    return str(path).encode("utf-8", errors="backslashreplace").decode("utf-8")
