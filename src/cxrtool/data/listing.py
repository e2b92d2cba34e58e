"""List the radiographs of a folder, and count what was left out and why."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cxrtool.data.dicom import is_dicom
from cxrtool.data.formats import UNREAD_SUFFIXES

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dc3", ".ima"})
_START = 1024
_CLASS_TAG = b"\x02\x00\x02\x00UI"
_NO_IMAGES = (
    ("1.2.840.10008.1.3.10", "DICOMDIR"),
    ("1.2.840.10008.5.1.4.1.1.11.", "DICOM presentation states"),
    ("1.2.840.10008.5.1.4.1.1.88.", "DICOM reports"),
    ("1.2.840.10008.5.1.4.1.1.104.", "DICOM documents"),
    ("1.2.840.10008.5.1.4.1.1.9.", "DICOM waveforms"),
    ("1.2.840.10008.5.1.4.1.1.66", "DICOM registrations and segmentations"),
)
"""Starts of the SOP classes that have no radiograph (PS3.4 B.5), and the name of such files."""
_TWICE = "links to folders that were searched already"


@dataclass
class Listing:
    """The radiographs in a folder.

    Attributes:
        images: their paths, sorted.
        left_out: number of other files that could be taken for images, by what they are.
    """

    images: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def describe(self) -> str:
        """Return what was left out, for example ``DICOMDIR (1), hidden files (3)``; empty if nothing was."""
        return ", ".join(f"{kind} ({count})" for kind, count in sorted(self.left_out.items()))


def list_folder(folder: Path, recursive: bool = False) -> Listing:
    """List the images of a folder by their names, and DICOM files without a suffix by their content.

    Hidden files, DICOM files without an image (DICOMDIR, presentation states, reports) and formats that are not read
    are counted, not listed. Linked folders are searched like others, each real folder once.

    Args:
        folder: folder to search.
        recursive: search subfolders too, except hidden ones.
    """
    listing = Listing()
    for path in _files(folder, recursive, listing.left_out):
        reason = _reason_to_leave_out(path)
        if reason is None:
            listing.images.append(path)
        elif reason:
            listing.left_out[reason] += 1
    listing.images.sort()
    return listing


def _files(folder: Path, recursive: bool, left_out: Counter[str]) -> Iterator[Path]:
    """Yield the files of a folder, of its subfolders too if `recursive`; links to folders are followed once each."""
    seen = {os.path.realpath(folder)}

    def count(_: OSError) -> None:
        left_out["folders that cannot be opened"] += 1

    for parent, folders, files in os.walk(folder, onerror=count, followlinks=True):
        yield from (Path(parent, name) for name in files)
        kept = []
        for name in sorted(folders) if recursive else []:
            if name.startswith("."):
                continue
            real = os.path.realpath(os.path.join(parent, name))
            if real in seen:
                left_out[_TWICE] += 1
                continue
            seen.add(real)
            kept.append(name)
        folders[:] = kept


def _reason_to_leave_out(path: Path) -> str | None:
    """Return None for a radiograph, the kind of another file that counts, and ``""`` for one that does not."""
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        return "hidden files" if suffix in IMAGE_SUFFIXES | DICOM_SUFFIXES else ""
    if suffix in IMAGE_SUFFIXES:
        return None
    unread = UNREAD_SUFFIXES.get(".nii.gz" if path.name.lower().endswith(".nii.gz") else suffix)
    if unread is not None:
        return f"{unread} files, a format that is not read"
    if suffix in DICOM_SUFFIXES:
        return _kind_without_image(_start_of(path))
    if suffix and not suffix[1:].isdigit():
        return ""
    # Named like IM000001 or 1.2.840.113619, as written by scanners and archives.
    start = _start_of(path)
    return _kind_without_image(start) if is_dicom(start) else ""


def _start_of(path: Path) -> bytes:
    """Return the first bytes of a file; none if it is not a regular file, or cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would block without end
            return b""
        with path.open("rb") as file:
            return file.read(_START)
    except (OSError, ValueError):
        return b""


def _kind_without_image(start: bytes) -> str | None:
    """Return what a DICOM without pixels is, by the SOP class in its meta information; None for any other."""
    place = start.find(_CLASS_TAG)
    if place < 0:
        return None
    length = int.from_bytes(start[place + 6 : place + 8], "little")
    sop_class = start[place + 8 : place + 8 + length].decode("ascii", errors="replace").strip("\0 ")
    return next((kind for prefix, kind in _NO_IMAGES if sop_class.startswith(prefix)), None)
