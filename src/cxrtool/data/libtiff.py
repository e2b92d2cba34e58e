"""Keep libtiff, which Pillow unpacks TIFF files with, from writing its own lines to stderr."""

import ctypes
from functools import cache
from pathlib import Path

import PIL
from PIL import features

# Not ctypes.util.find_library, which starts other programs.
_SYSTEM = ("libtiff.so.6", "libtiff.so.5", "libtiff.dylib")


@cache
def silence() -> None:
    """Switch off libtiff's messages, which name no file and may quote its tags; Pillow raises an error all the same.

    Pillow has no setting for it, so libtiff is asked itself. Where it is linked into Pillow, it cannot be.
    """
    for path in _candidates() if features.check_codec("libtiff") else []:
        try:
            library = ctypes.CDLL(path)
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)
        except (OSError, AttributeError):
            continue
        return


def _candidates() -> list[str]:
    """Return the library files that Pillow may have loaded: those of its wheels, else that of the system."""
    package = Path(PIL.__file__).parent
    bundled = [*(package.parent / "pillow.libs").glob("libtiff*"), *(package / ".dylibs").glob("libtiff*")]
    return [*map(str, bundled), *(() if bundled else _SYSTEM)]
