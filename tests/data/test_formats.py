"""Formats that are not read are named; other people's files start with these bytes."""

import gzip
import io
import struct

import numpy as np
import pytest
from PIL import Image

from bad_inputs import encoded, picture
from cxrtool.data.decoding import decode_bytes
from cxrtool.errors import ImageError
from cxrtool.settings import DEFAULT_LIMITS


def nifti(magic: bytes = b"n+1\0") -> bytes:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    header[344:348] = magic
    return bytes(header) + bytes(4000)


def numpy_file() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, picture())
    return buffer.getvalue()


FILES = {
    "AVIF": b"\0\0\0\x20ftypavif" + bytes(99),
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(99),
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99),
    "JPEG 2000": encoded("JPEG2000"),
    "NIfTI": nifti(),
    r"NIfTI \(compressed\)": gzip.compress(nifti()),
    "a gzip archive": gzip.compress(b"text"),
    "NPY": numpy_file(),
    "a GIF": encoded("GIF"),
    "a PDF": b"%PDF-1.7" + bytes(99),
    "HTML": b"\n<!DOCTYPE html><html>",
    "a ZIP archive": b"PK\x03\x04" + bytes(99),
}


@pytest.mark.parametrize("name", FILES)
def test_a_format_that_is_not_read_is_named(name: str) -> None:
    with pytest.raises(ImageError, match=f"is not an image that can be read here: it is .*{name}") as caught:
        decode_bytes("FILE", FILES[name], 0, None, DEFAULT_LIMITS)
    assert "DICOM" in caught.value.advice


def test_a_real_avif_is_named() -> None:
    buffer = io.BytesIO()
    try:
        Image.fromarray(picture()).save(buffer, format="AVIF")
    except (KeyError, OSError):
        pytest.skip("this Pillow writes no AVIF")
    with pytest.raises(ImageError, match="it is AVIF"):
        decode_bytes("FILE", buffer.getvalue(), 0, None, DEFAULT_LIMITS)


@pytest.mark.parametrize("content", [b"no image at all", b"RIFF", b"x" * 400])
def test_other_bytes_are_not_named(content: bytes) -> None:
    with pytest.raises(ImageError, match=r"FILE: is not an image$"):
        decode_bytes("FILE", content, 0, None, DEFAULT_LIMITS)
