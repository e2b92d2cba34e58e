"""Inputs with one fault each, and words that the error message must contain."""

import io
import os
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from cxrtool.findings import FINDINGS
from tests_support import dicom_of

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(FINDINGS)
ROW = "train/patient00042/study1/view1_frontal.jpg,Male,60,Frontal,AP,1.0,0.0,-1.0,,1.0"


def sheet(folder: Path, text: str | bytes, name: str = "train.csv") -> Path:
    """Write a sheet and return its folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


RAMP = (np.arange(64 * 48).reshape(64, 48) % 4096).astype(np.uint16)
"""0 to 3071, 12 bits."""


def picture(height: int = 96, width: int = 80) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:height, :width]
    return ((np.sin(rows / 9) + np.cos(columns / 7) + 2) * 60).astype(np.uint8)


def encoded(kind: str = "JPEG", mode: str = "L", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(buffer, format=kind, **options)
    return buffer.getvalue()


def with_bad_crc() -> bytes:
    content = bytearray(encoded("PNG"))
    content[content.index(b"IDAT") + 20] ^= 0xFF
    return bytes(content)


def huge_header() -> bytes:
    content = bytearray(encoded("JPEG"))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = b"\x75\x30\x75\x30"  # 30,000 x 30,000
    return bytes(content)


def pages() -> bytes:
    buffer = io.BytesIO()
    first = Image.fromarray(picture())
    first.save(buffer, format="TIFF", save_all=True, append_images=[first])
    return buffer.getvalue()


def png_of(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height), 7).save(buffer, format="PNG")
    return buffer.getvalue()


BAD_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero bytes": (lambda: b"", "empty"),
    "HTML named .jpg": (lambda: b"<html><body>404</body></html>", "not an image"),
    "JPEG cut at half": (lambda: encoded()[: len(encoded()) // 2], "truncated"),
    "progressive JPEG cut": (lambda: encoded(progressive=True)[:-200], "truncated"),
    "JPEG without its end": (lambda: encoded()[:-2], "truncated"),
    "PNG with a bad checksum": (with_bad_crc, "cannot be decoded"),
    "PNG with a tenth of its rows": (lambda: encoded("PNG")[: len(encoded("PNG")) // 10], "decoded"),
    "header of 900 megapixels": (huge_header, "pixels"),
    "two pages": (pages, "several pages"),
    "one pixel": (lambda: png_of(1, 1), "too small"),
    "a strip": (lambda: png_of(5000, 40), "too narrow"),
    "a GIF": (lambda: encoded("GIF"), "not an image"),
}


BAD_SHEETS = {
    "an empty sheet": ("", ["empty"]),
    "header only": (HEADER + "\n", ["no rows"]),
    "a column missing": (f"{HEADER.replace('Edema', 'Edma')}\n{ROW}\n", ["no column 'Edema'", "Edma"]),
    "a column twice": (f"{HEADER},Edema\n{ROW},1\n", ["'Edema' twice"]),
    "spaces around a column's name": (f"{HEADER.replace('Edema', ' Edema ')}\n{ROW}\n", ["' Edema '", "spaces"]),
    "semicolons": (f"{HEADER}\n{ROW}\n".replace(",", ";"), ["semicolons"]),
    "UTF-16": (f"{HEADER}\n{ROW}\n".encode("utf-16"), ["UTF-16"]),
    "every row too long": (f"{HEADER}\n{ROW},1\n{ROW},1\n", ["line 2", "cells"]),
    "a ragged row": (f"{HEADER}\n{ROW}\n{ROW},1\n", ["line 3", "cells"]),
    "a ragged row with quotes": (f'{HEADER}\n"{ROW.replace(",", chr(34) + ",", 1)}\n{ROW},1\n', ["line 3", "cells"]),
    "an unclosed quote": (f'{HEADER}\n"{ROW}\n{ROW}\n', ["line 2", "quote"]),
    "a NUL byte": (f"{HEADER}\n{ROW}\n\0{ROW}\n", ["line 3", "NUL"]),
    "label yes": (f"{HEADER}\n{ROW}\n{ROW.replace('-1.0', 'yes')}\n", ["line 3", "Consolidation", "'yes'", "1, 0, -1"]),
    "label 2": (f"{HEADER}\n{ROW.replace('-1.0', '2')}\n", ["line 2", "'2'"]),
    "label -2": (f"{HEADER}\n{ROW.replace('-1.0', '-2')}\n", ["line 2", "'-2'"]),
    "label 1,0": (f"{HEADER}\n{ROW.replace('-1.0', chr(34) + '1,0' + chr(34))}\n", ["line 2", "'1,0'"]),
    "label nan": (f"{HEADER}\n{ROW.replace('-1.0', 'nan')}\n", ["line 2", "'nan'"]),
    "not UTF-8": (f"{HEADER}\n{ROW}\n".encode() + b"\xff\n", ["line 3", "UTF-8"]),
    "a path without a patient": (
        f"{HEADER}\n{ROW}\nflat/a.jpg,{ROW.partition(',')[2]}\n",
        ["line 3", "'flat/a.jpg'", "patient_id and study_id"],
    ),
    "two patient columns": (f"{HEADER},patient_id,Subject ID\n{ROW},1,1\n", ["'patient_id'", "'Subject ID'"]),
    "a patient without a name": (f"{HEADER},Patient ID,study_id\n{ROW},1,1\n{ROW}, ,1\n", ["line 3", "Patient ID"]),
    "a study of two patients": (f"{HEADER},patient_id\n{ROW},1\n{ROW},2\n", ["line 3", "two patients"]),
}


def dicom(values: NDArray[Any] = RAMP, **tags: object) -> FileDataset:
    return dicom_of(values, **tags)


def without(name: str) -> FileDataset:
    dataset = dicom()
    delattr(dataset, name)
    return dataset


def lying_j2k() -> FileDataset:
    dataset = dicom()
    dataset.compress(JPEG2000Lossless)
    dataset.Rows = 60
    return dataset


BAD_DICOMS: dict[str, tuple[Callable[[], FileDataset], str]] = {
    "no pixel data": (lambda: without("PixelData"), "no pixel data"),
    "multi-frame": (lambda: dicom(NumberOfFrames=2), "several frames"),
    "window of width 0": (lambda: dicom(WindowCenter=5, WindowWidth=0), "window of width 0"),
    "slope 0": (lambda: dicom(RescaleSlope=0, RescaleIntercept=0), "slope of 0"),
    "more rows than pixels": (lambda: dicom(Rows=100), "instead|not"),
    "fewer rows than pixels": (lambda: dicom(Rows=40), "not"),
    "a frame of another size": (lying_j2k, "its frame"),
    "giant rows": (lambda: dicom(Rows=60000, Columns=60000), "at most"),
    "no rows": (lambda: without("Rows"), "rows"),
}


def bomb_png() -> bytes:
    """Return a PNG whose header states 30,000 x 30,000, with a correct checksum."""
    content = bytearray(png_of(64, 64))
    content[16:24] = (30_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def dicom_bytes(dataset: FileDataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def deflated_bomb(pixels: int = 32_000_000) -> bytes:
    """Return a DICOM whose deflated part unpacks to `pixels` zeros of two bytes."""
    small = dicom()
    small.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    start = dicom_bytes(small)
    meta = start[: 132 + 12 + int.from_bytes(start[140:144], "little")]
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(1_000_000)
    size = 2 * pixels
    element = b"\xe0\x7f\x10\x00OW\0\0" + size.to_bytes(4, "little")
    body = squeeze.compress(element) + b"".join(squeeze.compress(zeros) for _ in range(size // len(zeros)))
    return meta + body + squeeze.flush()


def with_another_syntax_first(content: bytes) -> bytes:
    """State another syntax first; pydicom uses the last of a repeated element."""
    plain = b"1.2.840.10008.1.2.1\0"
    element = b"\x02\x00\x10\x00UI" + len(plain).to_bytes(2, "little") + plain
    return content[:144] + element + content[144:]


def lossless_jpeg_that_lies() -> FileDataset:
    """Return a DICOM of 64 x 48 with a frame of 65,500 x 65,500."""
    from pydicom.encaps import encapsulate

    dataset = dicom((np.arange(64 * 48).reshape(64, 48) % 200).astype(np.uint8))
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
    frame = b"\xff\xd8\xff\xc3\x00\x0b\x08\xff\xdc\xff\xdc\x01\x01\x11\x00\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00"
    dataset.PixelData = encapsulate([frame + b"\0" * 99])
    dataset["PixelData"].is_undefined_length = True
    return dataset


LOSSLESS_JPEG_LIES = "its frame has 65500 x 65500" if find_spec("libjpeg") else "needs a codec that is not installed"
"""What is said of it, with or without the codec of the extra `dicom-gpl`."""


class Bomb:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.path),)
