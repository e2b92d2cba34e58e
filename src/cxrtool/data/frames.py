"""Sizes that compressed frames state, read before a decoder allocates memory for them."""

import re
import struct
from dataclasses import dataclass, field

from cxrtool.data.structure import RLE_NO_OPS, StructureError

_JPEG_START, _J2K_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
_BOX_SEARCH = 4096
_RUN = 128
# Start-of-frame markers of T.81 table B.1 and T.87 (JPEG-LS, 0xF7); 0xC4, 0xC8 and 0xCC mark other segments.
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_SEQUENTIAL = (b"\xff\xc0", b"\xff\xc1")
_JPEG_END = b"\xff\xd9"
# Starts of segments and the end: not a stuffed 0xFF00 of a scan, padding, a restart or another marker without a length.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]", re.DOTALL)
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


@dataclass(frozen=True)
class FrameHeader:
    """Size stated in a frame of JPEG, lossless JPEG, JPEG-LS or JPEG 2000."""

    width: int
    height: int
    components: int
    precision: int = field(default=0, compare=False)
    """Bits of a sample."""


def frame_header(frame: bytes) -> FrameHeader | None:
    """Return the size that `frame` states, or None if it has none of the four formats or is cut off before the size."""
    try:
        if frame.startswith(_JPEG_START):
            return _jpeg(frame)
        start = frame.find(_J2K_START, 0, _BOX_SEARCH)  # at 0, or after the boxes of a JP2 file
        return None if start < 0 else _jpeg2000(frame, start + 4)
    except (struct.error, IndexError):
        return None


def _jpeg(frame: bytes) -> FrameHeader | None:
    """Return the largest start-of-frame segment before the first scan, because a decoder may use any of them."""
    place, found = 2, None
    while frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        if marker in _WITHOUT_LENGTH:
            place += 2
            continue
        if marker == 0xDA:
            return found
        (length,) = struct.unpack_from(">H", frame, place + 2)
        if marker in _FRAMES:
            precision, height, width, components = struct.unpack_from(">BHHB", frame, place + 4)
            if found is None or width * height > found.width * found.height:
                found = FrameHeader(width, height, components, precision)
        place += 2 + length
    return None


def _jpeg2000(frame: bytes, place: int) -> FrameHeader:
    """Read the SIZ segment (T.800 A.5.1)."""
    right, lower, left, upper = struct.unpack_from(">4I", frame, place + 4)
    components, precision = struct.unpack_from(">HB", frame, place + 36)
    return FrameHeader(right - left, lower - upper, components, precision % 128 + 1)


def is_whole_jpeg(content: bytes) -> bool:
    """Return whether a JPEG has its end marker behind its last scan, whatever follows.

    Segments are skipped by their length, so that the end of a thumbnail inside one does not count.
    """
    place = 2
    while (marker := _MARKER.search(content, place)) is not None:
        if marker[0] == _JPEG_END:
            return True
        place = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2], "big")
    return False


def sequential_scan_ends_early(frame: bytes) -> bool:
    """Return whether the first scan of a sequential DCT JPEG states an end below 63 (T.81 table B.3), as some do."""
    place = 2
    sequential = False
    while (marker := _MARKER.search(frame, place)) is not None:
        length = int.from_bytes(frame[marker.end() : marker.end() + 2], "big")
        sequential |= marker[0] in _SEQUENTIAL
        if marker[0] == b"\xff\xda":
            return sequential and frame[marker.end() + length - 2 : marker.end() + length - 1] != b"\x3f"
        place = marker.end() + length
    return False


def unpacks_to(frame: bytes, pixels: int) -> bool:
    """Whether each segment of an RLE frame (PS3.5 annex G) unpacks to `pixels` bytes, or up to one run more as padding.

    Two bytes can stand for 128, so a decoder that does not count may need 64 times the size of the file.

    Raises:
        StructureError: a segment has more than `RLE_NO_OPS` bytes that stand for nothing.
    """
    if len(frame) < 64:
        return False
    count, *offsets = struct.unpack("<16I", frame[:64])
    if not 1 <= count <= 15:
        return False
    ends = [*offsets[1:count], len(frame)]
    return all(
        pixels <= _unpacked(frame, start, end, pixels + _RUN) <= pixels + _RUN
        for start, end in zip(offsets[:count], ends, strict=True)
    )


def _unpacked(frame: bytes, start: int, end: int, most: int) -> int:
    """Return the number of bytes that a segment unpacks to; counting stops above `most`."""
    total, place, end, no_ops = 0, start, min(end, len(frame)), 0
    while place < end and total <= most:
        head = frame[place]
        if head > 128:
            total += (257 - head) * (place + 1 < end)
            place += 2
        elif head < 128:
            total += min(head + 1, max(end - place - 1, 0))
            place += head + 2
        else:
            place, no_ops = place + 1, no_ops + 1
            if no_ops > RLE_NO_OPS:
                raise StructureError(f"has more than {RLE_NO_OPS:,} run lengths that stand for nothing")
    return total
