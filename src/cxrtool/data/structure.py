"""Limits on the structure of a file, checked by one pass over its bytes before a decoder works through it.

A few bytes of structure can cost a decoder thousands of times more: an empty item of a DICOM sequence becomes an object
of half a kilobyte, and a scan of a few bytes makes a JPEG decoder visit every pixel. With these limits no file of up to
4 MiB takes more than 64 MiB or 2 seconds beyond what its pixels take. Every limit is far above what radiographs have.
"""

import io
import re
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset

SCANS = 20
"""Scans of a JPEG that are always allowed. Encoders write up to 18, for progressive CMYK."""
SCANNED_PIXELS = 400_000_000
"""Scans times pixels up to which a JPEG may have more than `SCANS` scans. Decoders visit 400 million a second."""
SEGMENTS = 1000
"""Marker segments of a JPEG, restart markers not counted. A profile in pieces of 64 KiB has at most 255."""
PADDING = 2**16
"""Bytes of padding between two segments of a JPEG's header, which Pillow reads one by one."""
PNG_CHUNKS = 10_000
"""Chunks of a PNG, and one more for each kilobyte of the file."""
PNG_PACKED_TEXTS = 16
"""Compressed texts and profiles of a PNG, each of which may unpack to 1 MiB."""
TAGS = 1000
"""Tags of a TIFF's or an EXIF's directory."""
TAG_NUMBERS = 500_000
"""Numbers in all tags of a directory. A table of transfer functions has 196,608."""
TAG_FRACTIONS = 10_000
"""Fractions in all tags of a directory, which take more memory than other numbers."""
STRIPS = 50_000
"""Strips or tiles of a TIFF."""
EXIF_TEXT = 2**17
"""Letters of an EXIF block that a PNG holds as text, two letters a byte."""
BMP_RUN_PIXELS = 4_000_000
"""Pixels of a BMP in run lengths, which Pillow decodes in Python."""
DICOM_READS = 60_000
"""Reads with which a DICOM is parsed, two or three for each element or item, and one more for each 4 KiB."""
DICOM_VALUE = 2**16
"""Bytes of an element that describes the image, look-up tables and palettes not counted."""
FRAGMENTS = 1000
"""Fragments of a DICOM's compressed frame, and one more for each kilobyte."""
RLE_NO_OPS = 1000
"""Bytes of an RLE frame that stand for nothing. Encoders write none."""
J2K_TILES = 4096
"""Tiles of a JPEG 2000, for each of which its decoder allocates memory."""

_JPEG, _PNG, _BMP = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM"
_J2K = b"\xff\x4f\xff\x51"
_TIFF = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
# A marker is 0xFF and neither 0x00 (which escapes 0xFF among pixels) nor a restart marker nor padding.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]", re.DOTALL)
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_JPEG_LS = 0xF7
_TAG_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TEXT_TYPES, _FRACTION_TYPES = (1, 2, 6, 7), (5, 10)
_STRIP_TAGS = (273, 279, 324, 325)
_SUBDIRECTORIES = (0x8769, 0x8825, 0xA005)
_ITEM = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_IMAGE_GROUPS = (0x0008, 0x0018, 0x0020, 0x0028, 0x2050)
_PIXEL_DATA = 0x7FE00010


class StructureError(Exception):
    """A file has more structure than a radiograph needs.

    Args:
        reason: what it has too much of, to be written after the name of the file.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def check_structure(content: bytes) -> None:
    """Check an image file that is not a DICOM; one that is cut off passes, because its decoder refuses it.

    Raises:
        StructureError: the file is above a limit of this module.
    """
    try:
        if content.startswith(_JPEG):
            check_jpeg(content)
        elif content.startswith(_PNG):
            _check_png(content)
        elif content[:4] in _TIFF:
            _check_tiff(content)
        elif content.startswith(_BMP):
            _check_bmp(content)
    except (struct.error, IndexError):
        return


def check_jpeg(content: bytes) -> None:
    """Check the number of segments and of scans of a JPEG.

    Raises:
        StructureError: there are too many.
    """
    pixels = scans = 0
    place = 2
    for _ in range(SEGMENTS):
        found = _MARKER.search(content, place)
        if found is None:
            return
        if scans == 0 and found.start() - place > PADDING:
            raise StructureError(f"has more than {PADDING:,} bytes of padding in its header")
        marker, place = content[found.end() - 1], found.end()
        if marker in (0xD9, _JPEG_LS):  # the end; and JPEG-LS has one scan for each component and escapes differently
            return
        if marker in (0x01, 0xD8) or place + 2 > len(content):
            continue
        if marker in _FRAMES and place + 7 <= len(content):
            height, width = struct.unpack_from(">HH", content, place + 3)
            pixels = max(pixels, height * width)
        if marker == 0xDA:
            scans += 1
            if scans > SCANS and scans * pixels > SCANNED_PIXELS:
                raise StructureError(f"has more than {scans - 1} scans of {pixels:,} pixels")
        place += struct.unpack_from(">H", content, place)[0]
    raise StructureError(f"has more than {SEGMENTS:,} JPEG segments")


def _check_png(content: bytes) -> None:
    most = PNG_CHUNKS + len(content) // 1024
    place, texts = len(_PNG), 0
    for _ in range(most):
        if place + 8 > len(content):
            return
        length, kind = struct.unpack_from(">I4s", content, place)
        if kind == b"IEND":
            return
        texts += kind in (b"zTXt", b"iTXt", b"iCCP")
        if texts > PNG_PACKED_TEXTS:
            raise StructureError(f"has more than {PNG_PACKED_TEXTS} compressed texts")
        place += 12 + length
    raise StructureError(f"has more than {most:,} chunks")


def _check_tiff(content: bytes) -> None:
    order, big = _TIFF[content[:4]]
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)
    _check_directory(content, order, big, place)


def check_exif(exif: object, text: object = None) -> None:
    """Check the directories of an EXIF block.

    Args:
        exif: the block as Pillow keeps it in `Image.info`; anything but bytes passes.
        text: the block as a PNG holds it in text; anything but text passes.

    Raises:
        StructureError: it is above a limit of this module.
    """
    if isinstance(text, str | bytes) and len(text) > EXIF_TEXT:
        raise StructureError(f"has an EXIF block of more than {EXIF_TEXT:,} letters")
    if not isinstance(exif, bytes):
        return
    block = exif.removeprefix(b"Exif\0\0")
    if block[:4] not in _TIFF:
        return
    try:
        _check_tiff(block)
    except struct.error:
        return


def _check_directory(content: bytes, order: str, big: bool, place: int, seen: frozenset[int] = frozenset()) -> None:
    head, entry, inline = ("Q", "HHQQ", 8) if big else ("H", "HHII", 4)
    (tags,) = struct.unpack_from(order + head, content, place)
    if tags > TAGS:
        raise StructureError(f"has a directory of {tags:,} tags; at most {TAGS:,} are allowed")
    size = struct.calcsize(order + entry)
    numbers = fractions = total = 0
    for index in range(tags):
        tag, kind, count, value = struct.unpack_from(
            order + entry, content, place + struct.calcsize(order + head) + index * size
        )
        if tag in _STRIP_TAGS and count > STRIPS:
            raise StructureError(f"has {count:,} strips or tiles; at most {STRIPS:,} are allowed")
        stored = count * _TAG_BYTES.get(kind, 0)
        if stored > len(content):
            continue  # Pillow skips a value that is cut off
        total += stored if stored > inline else 0
        numbers += 0 if kind in _TEXT_TYPES else count
        fractions += count if kind in _FRACTION_TYPES else 0
        if tag in _SUBDIRECTORIES and value not in seen:
            _check_subdirectory(content, order, big, value, seen | {place, value})
    if total > len(content):
        raise StructureError("has tags whose values overlap")
    if numbers > TAG_NUMBERS or fractions > TAG_FRACTIONS:
        raise StructureError(f"has tags of {max(numbers, fractions):,} numbers")


def _check_subdirectory(content: bytes, order: str, big: bool, place: int, seen: frozenset[int]) -> None:
    if len(seen) > 2 * len(_SUBDIRECTORIES):
        raise StructureError("has directories nested too deeply")
    try:
        _check_directory(content, order, big, place, seen)
    except struct.error:
        return


def _check_bmp(content: bytes) -> None:
    size, width, height, _, _, compression = struct.unpack_from("<IiiHHI", content, 14)
    if size >= 40 and compression in (1, 2) and max(abs(width * height), len(content)) > BMP_RUN_PIXELS:
        raise StructureError(f"is a BMP in run lengths of more than {BMP_RUN_PIXELS:,} pixels or bytes")


class CountedFile(io.BytesIO):
    """The content of a DICOM as a file that counts how often it is read, whatever its structure is."""

    def __init__(self, content: bytes, reads: int = 0) -> None:
        super().__init__(content)
        self.reads = reads
        self.most = DICOM_READS + len(content) // 4096

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like `io.BytesIO.read`.

        Raises:
            StructureError: the file has been read too often.
        """
        self.reads += 1
        if self.reads > self.most:
            raise StructureError("has too many DICOM elements or items")
        return super().read(size)


def check_elements(dataset: "Dataset", reads: int) -> None:
    """Check the elements that pydicom has not parsed yet: sequences of stated length, and long values.

    Args:
        dataset: data set as `pydicom.dcmread` returns it.
        reads: reads of its `CountedFile`, which count towards the same limit.

    Raises:
        StructureError: a sequence has too many elements or items, or an element that describes the image is too long.
    """
    from pydicom.dataelem import RawDataElement
    from pydicom.filereader import read_sequence

    for element in _raw_elements(dataset):
        if not isinstance(element, RawDataElement):
            continue
        value = element.value
        if isinstance(value, bytes) and value[:4] in _ITEM:
            file = CountedFile(value, reads)
            items = read_sequence(file, element.is_implicit_VR, element.is_little_endian, len(value), "iso8859")
            reads = file.reads
            for item in items:
                list(_raw_elements(item))


def _raw_elements(dataset: "Dataset") -> Iterator[object]:
    """Yield the elements of a data set as they are, except pixel data, and refuse long values."""
    for tag in dataset.keys():  # noqa: SIM118 - iterating a data set itself sorts and parses
        if int(tag) == _PIXEL_DATA:
            continue
        element = dataset.get_item(tag)
        value = getattr(element, "value", None)
        if (
            isinstance(value, bytes)
            and len(value) > DICOM_VALUE
            and int(tag) >> 16 in _IMAGE_GROUPS
            and value[:4] not in _ITEM
            and not _is_table(int(tag))
        ):
            raise StructureError(
                f"has {len(value):,} bytes in its element ({int(tag) >> 16:04x},{int(tag) & 0xFFFF:04x})"
            )
        yield element


def _is_table(tag: int) -> bool:
    """Whether the element holds a palette or a look-up table (PS3.3 C.7.9, C.11)."""
    return tag == 0x00283006 or 0x00281200 <= tag <= 0x00281224


def check_fragments(pixel_data: bytes) -> None:
    """Check the number of fragments of a compressed frame, little endian as the standard requires.

    Raises:
        StructureError: there are too many, or the table of offsets is that of many frames.
    """
    most = FRAGMENTS + len(pixel_data) // 1024
    place = 0
    for number in range(most + 1):
        if pixel_data[place : place + 4] != _ITEM[0] or place + 8 > len(pixel_data):
            return
        (length,) = struct.unpack_from("<I", pixel_data, place + 4)
        if number == 0 and length > DICOM_VALUE:
            raise StructureError("has a table of offsets of several frames")
        place += 8 + length
    raise StructureError(f"has more than {most:,} fragments")


def check_frame(frame: bytes) -> None:
    """Check a compressed frame of a DICOM.

    Raises:
        StructureError: it is a JPEG of too many scans or segments, or a JPEG 2000 of too many tiles.
    """
    try:
        if frame.startswith(_JPEG):
            check_jpeg(frame)
        elif (start := frame.find(_J2K, 0, 4096)) >= 0:
            width, height, left, upper, wide, high, *_ = struct.unpack_from(">6I", frame, start + 8)
            if wide and high and -(-(width - left) // wide) * -(-(height - upper) // high) > J2K_TILES:
                raise StructureError(f"has more than {J2K_TILES:,} JPEG 2000 tiles")
    except (struct.error, IndexError):
        return
