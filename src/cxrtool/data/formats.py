"""Recognise formats by their first bytes, so that a message can name a file that is not read here."""

import re
import zlib

_HEADER = 352
_SIGNATURES = (
    ("AVIF", re.compile(rb".{4}ftypavi[fs]", re.DOTALL)),
    ("HEIC", re.compile(rb".{4}ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL)),
    ("a video (MP4 or QuickTime)", re.compile(rb".{4}ftyp", re.DOTALL)),
    ("JPEG XL", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", re.DOTALL)),
    ("JPEG 2000", re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", re.DOTALL)),
    ("a numpy array (NPY)", re.compile(rb"\x93NUMPY")),
    ("a GIF", re.compile(rb"GIF8[79]a")),
    ("a PDF", re.compile(rb"%PDF-")),
    ("HTML", re.compile(rb"\s*<(!doctype\s+html|html|head|body)", re.IGNORECASE)),
    ("a ZIP archive", re.compile(rb"PK\x03\x04")),
    ("NRRD", re.compile(rb"NRRD000")),
)
_GZIP = b"\x1f\x8b"
UNREAD_SUFFIXES = {
    ".avif": "AVIF",
    ".heic": "HEIC",
    ".heif": "HEIC",
    ".jxl": "JPEG XL",
    ".jp2": "JPEG 2000",
    ".j2k": "JPEG 2000",
    ".jpx": "JPEG 2000",
    ".nii": "NIfTI",
    ".nii.gz": "NIfTI",
    ".npy": "NPY",
    ".npz": "NPZ",
    ".gif": "GIF",
    ".nrrd": "NRRD",
    ".mha": "MetaImage",
}
"""Endings of image formats that are not read, and the name of each."""


def unread_format(content: bytes) -> str | None:
    """Return the name of the format of `content`, if it is a known one that is not read here."""
    start = content[:_HEADER]
    for name, pattern in _SIGNATURES:
        if pattern.match(start):
            return name
    if _is_nifti(start):
        return "NIfTI"
    if start.startswith(_GZIP):
        return "NIfTI (compressed)" if _is_nifti(_unpacked(content)) else "a gzip archive"
    return None


def _is_nifti(start: bytes) -> bool:
    """Return whether a header of NIfTI-1 or NIfTI-2 starts here, in either byte order."""
    return start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] in (b"n+2\0", b"ni2\0")


def _unpacked(content: bytes) -> bytes:
    """Return the first bytes of a gzip stream, and no more than the header needs."""
    try:
        return zlib.decompressobj(31).decompress(content[:65536], _HEADER)
    except zlib.error:
        return b""
