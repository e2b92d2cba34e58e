"""The kinds of input that a radiograph can come as, opened for decoding under a name for messages."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxrtool.data.decoded import Decoded
from cxrtool.data.decoding import (
    FILE_SIZE_ADVICE,
    decode_array,
    decode_bytes,
    decode_dataset,
    decode_pil_image,
    image_error,
)
from cxrtool.data.images import read_bytes, shown
from cxrtool.errors import RequestError
from cxrtool.settings import Limits

if TYPE_CHECKING:
    from pydicom import Dataset

    from cxrtool.data.dicom_grey import Window


class BinaryFile(Protocol):
    """A file object whose ``read(n)`` returns up to n bytes, and no bytes at the end."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes from the current position."""


Source: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | NDArray[Any] | Image.Image | Dataset"
)
"""Types of input that `open_source` accepts."""
KINDS = "a path, bytes, a binary file object, a numpy array, a PIL image or a pydicom data set"
_CHUNK = 2**20


@dataclass(frozen=True)
class OpenedSource:
    """An input whose content has been read and can be decoded.

    Attributes:
        name: name used in messages: the path, or for example ``array [512, 640] uint8``.
        path: path of the file; None if the input was not a path.
        decode: function that decodes the grey pixels for a `target_size`, see `cxrtool.data.images.read`; may be
            called more than once.
    """

    name: str
    path: Path | None
    decode: Callable[[int], Decoded]


def open_source(source: Source, window: "Window | None", limits: Limits, root: Path | None = None) -> OpenedSource:
    """Read the content of an input once and return it ready for decoding.

    Args:
        source: a path; the content of a file as bytes; a binary file object, read from its current position to the
            end; an array as in `decode_array`; a PIL image; or a pydicom data set.
        window: window of a DICOM; None uses the first one in the file.
        limits: larger inputs are refused, here or when decoded.
        root: if given, a path or link that leads out of this folder is refused.

    Raises:
        ImageError: the input cannot be read.
        RequestError: the input is not of a supported kind.
    """
    name, path = name_of(source), path_of(source)
    if path is not None:
        content = read_bytes(path, root, limits)
        return OpenedSource(name, path, lambda target_size: decode_bytes(name, content, target_size, window, limits))
    if isinstance(source, np.ndarray):
        return OpenedSource(name, None, lambda _: decode_array(name, source, limits))
    if isinstance(source, Image.Image):
        return OpenedSource(name, None, lambda _: decode_pil_image(name, source, limits))
    if _is_dataset(source):
        return OpenedSource(name, None, lambda _: decode_dataset(name, source, window, limits))  # type: ignore[arg-type]
    if isinstance(source, bytes | bytearray | memoryview):
        content = _checked(name, bytes(source), limits)
        return OpenedSource(name, None, lambda target_size: decode_bytes(name, content, target_size, window, limits))
    if callable(getattr(source, "read", None)):
        content = _checked(name, _read_to_end(name, source, limits), limits)  # type: ignore[arg-type]
        return OpenedSource(name, None, lambda target_size: decode_bytes(name, content, target_size, window, limits))
    raise RequestError(f"{name} cannot be read as a radiograph", f"Pass {KINDS}.", code="input-unsupported")


def path_of(source: object) -> Path | None:
    """Return the path that `source` is, or None if it is not a path."""
    return Path(os.fsdecode(source)) if isinstance(source, str | os.PathLike) else None


def name_of(source: object) -> str:
    """Return the name of an input for messages: one line that never quotes the tags of a DICOM data set."""
    path = path_of(source)
    if path is not None:
        return shown(path)
    if isinstance(source, bytes | bytearray | memoryview):
        return f"bytes ({len(source):,})"
    if isinstance(source, np.ndarray):
        return f"array {list(source.shape)} {source.dtype}"
    if isinstance(source, Image.Image):
        return f"PIL image {source.width} x {source.height}"
    if _is_dataset(source):
        return "pydicom data set"
    if callable(getattr(source, "read", None)):
        file_name = getattr(source, "name", None)
        return shown(Path(file_name)) if isinstance(file_name, str) and file_name else "file object"
    return _describe(source)


def _describe(source: object) -> str:
    """Return the type of an unsupported input, with shape and dtype if it resembles an array."""
    kind = type(source)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    shape, dtype = getattr(source, "shape", None), getattr(source, "dtype", None)
    size = f" of shape {list(shape)}" if isinstance(shape, tuple) else ""
    return f"an input of type {name}{size}{'' if dtype is None else f' and dtype {dtype}'}"


def _is_dataset(source: object) -> bool:
    """Return whether `source` is a pydicom data set. Does not import pydicom: the caller that made one has."""
    pydicom = sys.modules.get("pydicom")
    return pydicom is not None and isinstance(source, pydicom.Dataset)


def _checked(name: str, content: bytes, limits: Limits) -> bytes:
    if not content:
        raise image_error(name, "is empty (0 bytes)", "Copy it again.")
    if len(content) > limits.file_bytes:
        raise image_error(name, f"has more than {limits.file_bytes:,} bytes", FILE_SIZE_ADVICE, "image-too-large")
    return content


def _read_to_end(name: str, file: BinaryFile, limits: Limits) -> bytes:
    """Read in chunks, at most one beyond the limit; a raw file or a socket may return less than requested."""
    chunks: list[bytes] = []
    size = 0
    while size <= limits.file_bytes:
        try:
            chunk = file.read(_CHUNK)
        except Exception as error:  # noqa: BLE001 - a file object of another library may raise anything
            raise image_error(name, f"cannot be read ({type(error).__name__}: {error})") from None
        if not isinstance(chunk, bytes):
            kind = "text" if isinstance(chunk, str) else type(chunk).__name__
            raise RequestError(
                f"{name} returns {kind} instead of bytes", "Open it with 'rb'.", code="input-unsupported"
            )
        if not chunk:
            break
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)
