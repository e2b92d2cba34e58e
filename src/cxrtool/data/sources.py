"""Every kind of input that a radiograph may come as, opened for the one decoder under a name for messages."""

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
    RAISE_MIB,
    decode_array,
    decode_bytes,
    decode_dataset,
    decode_picture,
    refusal,
)
from cxrtool.data.images import read_bytes, shown
from cxrtool.errors import RequestError
from cxrtool.settings import Limits

if TYPE_CHECKING:
    from pydicom import Dataset

    from cxrtool.data.dicom import Window


class BinaryFile(Protocol):
    """Anything whose ``read(n)`` gives up to n bytes, and none at the end."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes from where the file stands."""


Source: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | NDArray[Any] | Image.Image | Dataset"
)
"""What `open_source` takes."""
KINDS = "a path, bytes, a binary file object, a numpy array, a PIL image or a pydicom data set"
_CHUNK = 2**20


@dataclass(frozen=True)
class OpenSource:
    """An input whose content is at hand.

    Attributes:
        name: what messages call it: the path, or for example ``array [512, 640] uint8``.
        path: its file; None where it is none.
        decode: gives its grey pixels for the pixels a side that are needed, see `cxrtool.data.images.read`; may be
            called again.
    """

    name: str
    path: Path | None
    decode: Callable[[int], Decoded]


def open_source(source: Source, window: "Window | None", limits: Limits, root: Path | None = None) -> OpenSource:
    """Make an input ready to be decoded; what has to be read is read once, here.

    Args:
        source: a path; a file's content as bytes; a binary file object, read from where it stands to its end; an
            array as `decode_array` takes it; a PIL image; a pydicom data set.
        window: of a DICOM.
        limits: what is larger is refused, here or when it is decoded.
        root: when given, a path or link that leads out of this folder is refused.

    Raises:
        ImageError: it cannot be read.
        RequestError: it is of a kind that nothing here reads.
    """
    name, path = name_of(source), path_of(source)
    if path is not None:
        content = read_bytes(path, root, limits)
        return OpenSource(name, path, lambda enough: decode_bytes(name, content, enough, window, limits))
    if isinstance(source, np.ndarray):
        return OpenSource(name, None, lambda _: decode_array(name, source, limits))
    if isinstance(source, Image.Image):
        return OpenSource(name, None, lambda _: decode_picture(name, source, limits))
    if _is_dataset(source):
        return OpenSource(name, None, lambda _: decode_dataset(name, source, window, limits))  # type: ignore[arg-type]
    if isinstance(source, bytes | bytearray | memoryview):
        content = _checked(name, bytes(source), limits)
        return OpenSource(name, None, lambda enough: decode_bytes(name, content, enough, window, limits))
    if callable(getattr(source, "read", None)):
        content = _checked(name, _read_to_end(name, source, limits), limits)  # type: ignore[arg-type]
        return OpenSource(name, None, lambda enough: decode_bytes(name, content, enough, window, limits))
    raise RequestError(f"{name} is no radiograph", f"Give {KINDS}.", code="input-unsupported")


def path_of(source: object) -> Path | None:
    """The file that `source` names, None where it is not a path."""
    return Path(os.fsdecode(source)) if isinstance(source, str | os.PathLike) else None


def name_of(source: object) -> str:
    """What messages call an input: never more than a line, and of a data set nothing that stands in its tags."""
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
        given = getattr(source, "name", None)
        return shown(Path(given)) if isinstance(given, str) and given else "file object"
    return _described(source)


def _described(source: object) -> str:
    """Type, and of what is like an array also shape and type of its values."""
    kind = type(source)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    shape, values = getattr(source, "shape", None), getattr(source, "dtype", None)
    size = f" of shape {list(shape)}" if isinstance(shape, tuple) else ""
    return f"an input of type {name}{size}{'' if values is None else f' and {values}'}"


def _is_dataset(source: object) -> bool:
    """Whether it is pydicom's, without importing pydicom: who made one has."""
    pydicom = sys.modules.get("pydicom")
    return pydicom is not None and isinstance(source, pydicom.Dataset)


def _checked(name: str, content: bytes, limits: Limits) -> bytes:
    if not content:
        raise refusal(name, "is empty (0 bytes)", "Copy it again.")
    if len(content) > limits.file_bytes:
        raise refusal(name, f"has more than {limits.file_bytes:,} bytes", RAISE_MIB, "image-too-large")
    return content


def _read_to_end(name: str, file: BinaryFile, limits: Limits) -> bytes:
    """At most a piece more than the limit; a raw file or a socket may give less than was asked for."""
    parts: list[bytes] = []
    size = 0
    while size <= limits.file_bytes:
        try:
            part = file.read(_CHUNK)
        except Exception as error:  # noqa: BLE001 - a file object of another library raises what it likes
            raise refusal(name, f"cannot be read ({type(error).__name__}: {error})") from None
        if not isinstance(part, bytes):
            kind = "text" if isinstance(part, str) else type(part).__name__
            raise RequestError(
                f"{name} gives {kind} where bytes are needed", "Open it with 'rb'.", code="input-unsupported"
            )
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)
