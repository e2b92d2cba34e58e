"""Inputs with one thing wrong each, and words of what is said of them; the number is the entry of the catalogue."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.uid import JPEG2000Lossless

from cxrtool.findings import FINDINGS
from tests_support import dicom_of

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(FINDINGS)
ROW = "train/patient00042/study1/view1_frontal.jpg,Male,60,Frontal,AP,1.0,0.0,-1.0,,1.0"


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
    "02 zero bytes": (lambda: b"", "empty"),
    "03 HTML named .jpg": (lambda: b"<html><body>404</body></html>", "not an image"),
    "04 JPEG cut at half": (lambda: encoded()[: len(encoded()) // 2], "cut"),
    "05 progressive JPEG cut": (lambda: encoded(progressive=True)[:-200], "cut"),
    "06 JPEG without its end": (lambda: encoded()[:-2], "cut"),
    "08 PNG with a bad checksum": (with_bad_crc, "cannot be decoded"),
    "09 PNG with a tenth of its rows": (lambda: encoded("PNG")[: len(encoded("PNG")) // 10], "decoded"),
    "10 header of 900 megapixels": (huge_header, "pixels"),
    "18 two pages": (pages, "several pages"),
    "21 one pixel": (lambda: png_of(1, 1), "too small"),
    "21 a strip": (lambda: png_of(5000, 40), "too narrow"),
    "a GIF": (lambda: encoded("GIF"), "not an image"),
}


BAD_SHEETS = {
    "29 empty": ("", ["empty"]),
    "30 header only": (HEADER + "\n", ["no rows"]),
    "31 column missing": (f"{HEADER.replace('Edema', 'Oedema')}\n{ROW}\n", ["no column 'Edema'", "Oedema"]),
    "32 column twice": (f"{HEADER},Edema\n{ROW},1\n", ["'Edema' twice"]),
    "33 spaces around": (f"{HEADER.replace('Edema', ' Edema ')}\n{ROW}\n", ["' Edema '", "spaces"]),
    "34 semicolons": (f"{HEADER}\n{ROW}\n".replace(",", ";"), ["semicolons"]),
    "35 UTF-16": (f"{HEADER}\n{ROW}\n".encode("utf-16"), ["UTF-16"]),
    "36 rows longer": (f"{HEADER}\n{ROW},1\n{ROW},1\n", ["line 2", "11 cells"]),
    "37 one ragged row": (f"{HEADER}\n{ROW}\n{ROW},1\n", ["line 3", "11 cells"]),
    "37 with quotes": (f'{HEADER}\n"{ROW.replace(",", chr(34) + ",", 1)}\n{ROW},1\n', ["line 3", "11 cells"]),
    "38 unclosed quote": (f'{HEADER}\n"{ROW}\n{ROW}\n', ["line 2", "quote"]),
    "39 NUL": (f"{HEADER}\n{ROW}\n\0{ROW}\n", ["line 3", "NUL"]),
    "40 yes": (f"{HEADER}\n{ROW}\n{ROW.replace('-1.0', 'yes')}\n", ["line 3", "Consolidation", "'yes'", "1, 0, -1"]),
    "40 two": (f"{HEADER}\n{ROW.replace('-1.0', '2')}\n", ["line 2", "'2'"]),
    "40 minus two": (f"{HEADER}\n{ROW.replace('-1.0', '-2')}\n", ["line 2", "'-2'"]),
    "40 comma": (f"{HEADER}\n{ROW.replace('-1.0', chr(34) + '1,0' + chr(34))}\n", ["line 2", "'1,0'"]),
    "40 nan": (f"{HEADER}\n{ROW.replace('-1.0', 'nan')}\n", ["line 2", "'nan'"]),
    "not UTF-8": (f"{HEADER}\n{ROW}\n".encode() + b"\xff\n", ["line 3", "UTF-8"]),
    "a view of no kind": (f"{HEADER}\n{ROW.replace('Frontal', 'PA')}\n", ["line 2", "'PA'", "Frontal or Lateral"]),
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
    "49 no pixel data": (lambda: without("PixelData"), "no pixel data"),
    "51 multi-frame": (lambda: dicom(NumberOfFrames=2), "several frames"),
    "53 window of width 0": (lambda: dicom(WindowCenter=5, WindowWidth=0), "window of width 0"),
    "54 slope 0": (lambda: dicom(RescaleSlope=0, RescaleIntercept=0), "slope of 0"),
    "55 more rows than pixels": (lambda: dicom(Rows=100), "instead|not"),
    "55 fewer rows than pixels": (lambda: dicom(Rows=40), "not"),
    "55 a frame of another size": (lying_j2k, "its frame"),
    "giant": (lambda: dicom(Rows=60000, Columns=60000), "at most"),
    "no rows": (lambda: without("Rows"), "rows"),
}
