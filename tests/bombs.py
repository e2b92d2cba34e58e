"""Small files of much structure, on which decoders spend far more than on their pixels."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

SIZE = 4 * 2**20
"""Bytes of the largest."""
_SIDE = 64
_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_RLE, _JPEG, _J2K = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"
_ITEM, _END = struct.pack("<HHI", 0xFFFE, 0xE000, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
_LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT")
_PIXELS = np.random.default_rng(0).integers(0, 255, (_SIDE, _SIDE)).astype(np.uint8)


def _element(group: int, element: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    head = struct.pack("<HH", group, element) + vr
    return head + (struct.pack("<HI", 0, size) if vr in _LONG else struct.pack("<H", size)) + value


def _implicit(group: int, element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", group, element, len(value)) + value


def _meta(syntax: str) -> bytes:
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta = _element(2, 0x10, b"UI", uid)
    return b"\0" * 128 + b"DICM" + _element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta


def _numbers() -> list[tuple[int, int, bytes]]:
    return [
        (0x28, 2, struct.pack("<H", 1)),
        (0x28, 4, b"MONOCHROME2 "),
        (0x28, 0x10, struct.pack("<H", _SIDE)),
        (0x28, 0x11, struct.pack("<H", _SIDE)),
        (0x28, 0x100, struct.pack("<H", 8)),
        (0x28, 0x101, struct.pack("<H", 8)),
        (0x28, 0x102, struct.pack("<H", 7)),
        (0x28, 0x103, struct.pack("<H", 0)),
    ]


def _image() -> bytes:
    return b"".join(_element(g, e, b"CS" if e == 4 else b"US", value) for g, e, value in _numbers())


def _plain(more: bytes = b"") -> bytes:
    return _meta(_EXPLICIT) + _image() + more + _element(0x7FE0, 0x10, b"OB", _PIXELS.tobytes())


def _plain_implicit(more: bytes) -> bytes:
    image = b"".join(_implicit(*one) for one in _numbers())
    return _meta(_IMPLICIT) + image + more + _implicit(0x7FE0, 0x10, _PIXELS.tobytes())


def _packed(syntax: str, fragments: bytes) -> bytes:
    return _meta(syntax) + _image() + _element(0x7FE0, 0x10, b"OB", fragments + _END, 0xFFFFFFFF)


def _fragment(content: bytes) -> bytes:
    content += b"\0" * (len(content) % 2)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def _saved(kind: str, size: int = _SIDE, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.resize(_PIXELS, (size, size))).save(buffer, kind, **options)
    return buffer.getvalue()


def dicom_of_items() -> bytes:
    """Half a million empty items in a sequence of undefined length."""
    return _plain(_element(8, 0x1111, b"SQ", _ITEM * (SIZE // 8) + _END, 0xFFFFFFFF))


def dicom_of_table_items() -> bytes:
    """The same in a sequence of stated length that the decoder uses."""
    return _plain(_element(0x28, 0x3010, b"SQ", _ITEM * (SIZE // 8)))


def _private(count: int) -> bytes:
    number = np.arange(count, dtype=np.uint32)
    records = np.zeros(count, dtype=[("group", "<u2"), ("element", "<u2"), ("vr", "S2"), ("length", "<u2")])
    records["group"], records["element"] = 0x29 + 2 * (number // 60000), 0x1000 + number % 60000
    records["vr"] = b"LO"
    return records.tobytes()


def dicom_of_private_elements() -> bytes:
    """Half a million empty private elements."""
    return _plain(_private(SIZE // 8))


def dicom_of_meta_elements() -> bytes:
    """Half a million elements in the file meta."""
    meta = _element(2, 0x10, b"UI", _EXPLICIT.encode() + b"\0")
    return b"\0" * 128 + b"DICM" + meta + _element(2, 0x102, b"OB", b"") * (SIZE // 12) + _image()


def dicom_of_windows() -> bytes:
    """Two million window centres, in implicit VR, where no element is too short for them."""
    return _plain_implicit(
        _implicit(0x28, 0x1050, b"1\\" * (SIZE // 4)) + _implicit(0x28, 0x1051, b"1\\" * (SIZE // 4))
    )


def dicom_of_fragments() -> bytes:
    """Half a million empty fragments before a JPEG."""
    return _packed(_JPEG, _ITEM * (SIZE // 8) + _fragment(_saved("JPEG")))


def dicom_of_offsets() -> bytes:
    """A table of a million offsets before a JPEG."""
    return _packed(_JPEG, _fragment(b"\0" * SIZE) + _fragment(_saved("JPEG")))


def dicom_of_no_ops() -> bytes:
    """Four million run lengths that stand for nothing before the pixels."""
    content = _PIXELS.tobytes()
    runs = b"".join(bytes([127]) + content[at : at + 128] for at in range(0, len(content), 128))
    return _packed(_RLE, _ITEM + _fragment(struct.pack("<16I", 1, 64, *[0] * 14) + b"\x80" * SIZE + runs))


def dicom_of_tiles() -> bytes:
    """A JPEG 2000 that states tiles of one pixel."""
    frame = bytearray(_saved("JPEG2000", no_jp2=True))
    frame[8 + 16 : 8 + 24] = struct.pack(">II", 1, 1)
    frame[8 : 8 + 8] = struct.pack(">II", 1024, 1024)
    return _sized(_packed(_J2K, _ITEM + _fragment(bytes(frame))), 1024)


def _sized(content: bytes, side: int) -> bytes:
    """Return a DICOM with another number of rows and columns."""
    for element in (0x10, 0x11):
        before, after = (_element(0x28, element, b"US", struct.pack("<H", number)) for number in (_SIDE, side))
        content = content.replace(before, after)
    return content


def flat_jpeg_with_scans() -> bytes:
    """Five hundred scans of four megapixels in 0.3 MiB."""
    buffer = io.BytesIO()
    Image.new("L", (2000, 2000), 128).save(buffer, "JPEG", progressive=True, quality=50, optimize=True)
    content = buffer.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * 500 + b"\xff\xd9"


def dicom_of_scans() -> bytes:
    """The same in a DICOM."""
    return _sized(_packed(_JPEG, _ITEM + _fragment(flat_jpeg_with_scans())), 2000)


def jpeg_of_segments() -> bytes:
    """A hundred thousand EXIF segments."""
    return (
        b"\xff\xd8"
        + b"\xff\xe1\x00\x22Exif\0\0"
        + b"\0" * 26
        + b"\xff\xe1\x00\x08Exif\0\0" * 100_000
        + _saved("JPEG")[2:]
    )


def jpeg_of_padding() -> bytes:
    """Four million bytes of padding between two segments."""
    return b"\xff\xd8" + b"\xff" * SIZE + _saved("JPEG")[2:]


def _tiff(tags: list[tuple[int, int, int, int]], data: bytes) -> bytes:
    """A TIFF of 64 x 96 pixels with further tags, whose values are in `data`, which is at byte 8."""
    plain = [(256, 3, 1, 64), (257, 3, 1, 96), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    strip = [(273, 4, 1, 8), (278, 3, 1, 96), (279, 4, 1, 64 * 96)]
    given = {tag[0]: tag for tag in (*plain, *strip, *tags)}
    entries = b"".join(struct.pack("<HHII", *given[tag]) for tag in sorted(given))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(given)) + entries + b"\0" * 4


def tiff_of_overlaps() -> bytes:
    """Nine hundred tags of a megabyte each, all the same bytes."""
    return _tiff([(0xC000 + n, 7, 2**20, 8) for n in range(900)], b"\x07" * 2**20)


def jpeg_of_overlaps() -> bytes:
    """An EXIF block of 64 KiB whose tags stand for 45 MiB, and which turns the image."""
    block = b"Exif\0\0" + _tiff([(0x0112, 3, 1, 6), *((0xC000 + n, 7, 50_000, 8) for n in range(900))], b"\0" * 50_000)
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(block) + 2) + block + _saved("JPEG")[2:]


def tiff_of_strips() -> bytes:
    """Half a million strips."""
    count = 500_000
    return _tiff([(273, 4, count, 8), (278, 3, 1, 1), (279, 4, count, 8)], np.full(count, 8, "<u4").tobytes())


def tiff_of_fractions() -> bytes:
    """Half a million fractions as the resolution."""
    return _tiff([(282, 5, 500_000, 8)], np.full(1_000_000, 1, "<u4").tobytes())


def _chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_chunks() -> bytes:
    """A third of a million empty chunks."""
    content = _saved("PNG")
    return content[:33] + _chunk(b"ruSt") * (SIZE // 12) + content[33:]


def png_of_texts() -> bytes:
    """Sixty texts that unpack to a megabyte each."""
    content = _saved("PNG")
    text = _chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * (2**20 - 100)))
    return content[:33] + text * 60 + content[33:]


def bmp_of_lines() -> bytes:
    """A BMP in run lengths of lines that end before they begin."""
    head = struct.pack("<IiiHHIIiiII", 40, 8000, 8000, 1, 8, 1, 0, 0, 0, 256, 0)
    start = 14 + len(head) + 1024
    body = (b"\x01\x05\x00\x00") * 8000
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + b"\0" * 1024 + body


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "DICOM of items": (dicom_of_items, "too many DICOM elements or items"),
    "DICOM of table items": (dicom_of_table_items, "too many DICOM elements or items"),
    "DICOM of private elements": (dicom_of_private_elements, "too many DICOM elements or items"),
    "DICOM of meta elements": (dicom_of_meta_elements, "too many DICOM elements or items"),
    "DICOM of windows": (dicom_of_windows, "bytes in its element (0028,1050)"),
    "DICOM of fragments": (dicom_of_fragments, "too many DICOM elements or items"),
    "DICOM of offsets": (dicom_of_offsets, "table of offsets"),
    "DICOM of RLE no-ops": (dicom_of_no_ops, "stand for nothing"),
    "DICOM of tiles": (dicom_of_tiles, "JPEG 2000 tiles"),
    "DICOM of JPEG scans": (dicom_of_scans, "scans of 4,000,000 pixels"),
    "JPEG of scans": (flat_jpeg_with_scans, "scans of 4,000,000 pixels"),
    "JPEG of segments": (jpeg_of_segments, "JPEG segments"),
    "JPEG of padding": (jpeg_of_padding, "padding"),
    "JPEG of overlaps": (jpeg_of_overlaps, "overlap"),
    "TIFF of overlaps": (tiff_of_overlaps, "overlap"),
    "TIFF of strips": (tiff_of_strips, "strips"),
    "TIFF of fractions": (tiff_of_fractions, "numbers"),
    "PNG of chunks": (png_of_chunks, "chunks"),
    "PNG of texts": (png_of_texts, "compressed texts"),
    "BMP of lines": (bmp_of_lines, "run lengths"),
}
"""The content of each, and words of the message that refuses it."""
