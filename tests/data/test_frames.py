"""What a compressed frame says of its size, against the encoders that wrote it."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import generate_frames
from pydicom.uid import JPEG2000Lossless, RLELossless

from bad_inputs import dicom, encoded
from cxrtool.data.frames import FrameHeader, frame_header, unpacks_to


@pytest.mark.parametrize(
    ("content", "components"),
    [
        (encoded("JPEG"), 1),
        (encoded("JPEG", "RGB", progressive=True), 3),
        (encoded("JPEG", "CMYK"), 4),
        (encoded("JPEG2000", no_jp2=True), 1),
        (encoded("JPEG2000"), 1),  # in the boxes of a JP2 file
        (encoded("JPEG2000", "RGB"), 3),
    ],
)
def test_the_size_is_the_encoders(content: bytes, components: int) -> None:
    assert frame_header(content) == FrameHeader(80, 96, components)


def test_the_precision_is_that_of_the_samples() -> None:
    assert [frame_header(encoded(kind)).precision for kind in ("JPEG", "JPEG2000")] == [8, 8]  # type: ignore[union-attr]
    dataset = dicom()
    dataset.compress(JPEG2000Lossless)
    header = frame_header(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    assert header is not None
    assert header.precision == 12


@pytest.mark.parametrize("marker", [0xC3, 0xF7])
def test_lossless_jpeg_and_jpeg_ls(marker: int) -> None:
    start = struct.pack(">HBBHBHHB3x", 0xFFD8, 0xFF, marker, 11, 16, 2000, 1500, 1)
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00"
    assert frame_header(start + scan) == FrameHeader(1500, 2000, 1)
    second = start[2:].replace(struct.pack(">H", 2000), struct.pack(">H", 60_000))
    assert frame_header(start + second + scan) == FrameHeader(1500, 60_000, 1)


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000", "PNG"])
def test_cut_or_foreign_frames_give_no_size(kind: str) -> None:
    for end in range(24):
        assert frame_header(encoded(kind)[:end]) is None
    assert frame_header(b"\xff\xd8" * 40) is None


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99), st.sampled_from([1, 2, 200]))
def test_run_lengths_of_pydicoms_encoder_unpack_to_the_picture(height: int, width: int, seed: int, levels: int) -> None:
    values = np.random.default_rng(seed).integers(0, levels, (height, width)).astype(np.uint16)
    dataset = dicom(values)
    dataset.compress(RLELossless)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    assert unpacks_to(frame, height * width)
    assert not unpacks_to(frame, height * width + 1)
    assert not unpacks_to(frame[:64], height * width)
    assert not unpacks_to(frame[:40], height * width)
