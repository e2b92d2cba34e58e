"""Read tags of a DICOM data set without trusting them: an empty tag counts as absent, and a bad one is named.

Messages name a tag by its keyword and never quote its value, which may be about a person.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.dicom_rendering import LookupTable, table_of

if TYPE_CHECKING:
    from pydicom import Dataset

_MOST_NUMBERS = 999
_MOST_ITEMS = 99


class DicomError(Exception):
    """A DICOM cannot be read.

    Args:
        reason: what is wrong, to be written after the name of the file.
        advice: what to do about it.
        code: key of `cxrtool.errors.CODES`.
    """

    def __init__(self, reason: str, advice: str = "Check the file.", code: str = "image-unreadable") -> None:
        super().__init__(reason)
        self.reason, self.advice, self.code = reason, advice, code


def value_of(dataset: "Dataset", keyword: str) -> Any:
    """Return the value of a tag, or None if it is absent or empty.

    Raises:
        DicomError: pydicom cannot parse it.
    """
    try:
        value = dataset.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom raises anything, and its messages quote the value
        raise _invalid(keyword) from None
    if value is None or (hasattr(value, "__len__") and len(value) == 0):
        return None
    return value


def text(dataset: "Dataset", keyword: str) -> str:
    """Return a tag as text in capitals, of several values the first; empty if it is absent or not text."""
    value = value_of(dataset, keyword)
    if value is not None and not isinstance(value, str) and hasattr(value, "__getitem__"):
        value = value[0]
    return "" if value is None else str(value).strip(" \0").upper()


def integer(dataset: "Dataset", keyword: str) -> int | None:
    """Return a tag as an integer, of several values the first; None if it is absent or empty.

    Raises:
        DicomError: it is not an integer.
    """
    value = value_of(dataset, keyword)
    if value is not None and not isinstance(value, str | bytes) and hasattr(value, "__getitem__"):
        value = value[0]
    if value is None:
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise _invalid(keyword) from None


def required(dataset: "Dataset", keyword: str, meaning: str) -> int:
    """Return a tag as an integer.

    Raises:
        DicomError: it is absent (the message says "does not state" and `meaning`) or not an integer.
    """
    value = integer(dataset, keyword)
    if value is None:
        raise DicomError(f"does not state {meaning}")
    return value


def numbers(dataset: "Dataset", keyword: str) -> list[float | None]:
    """Return the decimal numbers of a tag; None for each empty one.

    The text is parsed here, because pydicom refuses all of a tag for one empty value in it.

    Raises:
        DicomError: one of them is not a number.
    """
    try:
        item = dataset.get_item(keyword)
    except Exception:  # noqa: BLE001 - same as in value_of
        raise _invalid(keyword) from None
    value = None if item is None else item.value
    if value is None:
        return []
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="replace")
    if isinstance(value, str):
        value = value.split("\\")
    elif not hasattr(value, "__iter__"):
        value = [value]
    found = [str(part).strip(" \0") for part in list(value)[:_MOST_NUMBERS]]
    try:
        return [float(part) if part else None for part in found]
    except ValueError:
        raise _invalid(keyword) from None


def number(dataset: "Dataset", keyword: str, default: float) -> float:
    """Return the first number of a tag, or `default` if it is absent or empty.

    Raises:
        DicomError: it is not a finite number.
    """
    first = next(iter(numbers(dataset, keyword)), None)
    if first is None:
        return default
    if not math.isfinite(first):
        raise _invalid(keyword)
    return first


def items_of(dataset: "Dataset", keyword: str) -> list["Dataset"]:
    """Return the items of a sequence, not more than any radiograph has; none if it is absent or no sequence."""
    value = value_of(dataset, keyword)
    return [] if value is None or isinstance(value, str | bytes) else list(value[:_MOST_ITEMS])


def tables(dataset: "Dataset", keyword: str, possible: tuple[float, float]) -> list[LookupTable]:
    """Return the look-up tables of a sequence; items with nothing in them count as absent.

    Args:
        dataset: data set with the sequence.
        keyword: ``ModalityLUTSequence`` or ``VOILUTSequence``.
        possible: lowest and highest value that the input can have, see `table_of`.

    Raises:
        DicomError: a table is incomplete.
    """
    return [
        lookup_table(item, "LUTDescriptor", "LUTData", possible)
        for item in items_of(dataset, keyword)
        if value_of(item, "LUTDescriptor") is not None or value_of(item, "LUTData") is not None
    ]


def lookup_table(dataset: "Dataset", descriptor: str, data: str, possible: tuple[float, float]) -> LookupTable:
    """Return the look-up table in two tags.

    Raises:
        DicomError: the table is incomplete.
    """
    described, content = value_of(dataset, descriptor), value_of(dataset, data)
    if described is None or isinstance(described, str | int) or len(described) != 3:
        raise DicomError("has a look-up table without a descriptor of three numbers")
    if content is None:
        raise DicomError("has a look-up table without data")
    count, first, bits = (int(part) for part in described)
    big_endian = dataset.original_encoding[1] is False
    try:
        return table_of((count, first, bits), _words(content, big_endian), possible)
    except ValueError as error:
        raise DicomError(f"has a look-up table that {error}") from None


def _words(content: object, big_endian: bool) -> NDArray[np.uint16]:
    """Return the data of a table as 16-bit words, whether pydicom read them as bytes (OW), many numbers or one."""
    if isinstance(content, bytes):
        padded = content + b"\0" * (len(content) % 2)
        return np.frombuffer(padded, dtype=">u2" if big_endian else "<u2").astype(np.uint16)
    listed = np.atleast_1d(np.asarray(content, dtype=np.int64))
    return (listed % 2**16).astype(np.uint16)


def _invalid(keyword: str) -> DicomError:
    return DicomError(f"has an invalid value in the tag {keyword}")


COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


PALETTE = "PALETTE COLOR"


def is_signed(dataset: "Dataset") -> bool:
    return integer(dataset, "PixelRepresentation") == 1 and text(dataset, "PhotometricInterpretation") not in COLOUR
