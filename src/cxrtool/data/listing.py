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
    listing.images += map(Path, images_in(folder, recursive, listing.left_out))
    return listing


def images_in(folder: Path, recursive: bool, left_out: Counter[str]) -> Iterator[str]:
    """Yield the paths of `list_folder` in the same order, as they are found: no subfolder is opened before its turn.

    Args:
        folder: folder to search.
        recursive: search subfolders too, except hidden ones.
        left_out: counts what is not an image, complete when the last path was yielded.
    """
    for path, name in _files(folder, recursive, left_out):
        reason = _reason_to_leave_out(path, name)
        if reason is None:
            yield path
        elif reason:
            left_out[reason] += 1


def _files(folder: Path, recursive: bool, left_out: Counter[str]) -> Iterator[tuple[str, str]]:
    """Yield path and name of each file, sorted as paths are: folder by folder, each between the files around its name.

    Links to folders are followed, each real folder once. All subfolders of a folder count as seen when it is opened.
    """
    root = os.path.realpath(folder)
    seen = {root}
    waiting = [_opened(str(folder), root, recursive, left_out, seen)]
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
            continue
        path, name, real = found
        if real:
            waiting.append(_opened(path, real, recursive, left_out, seen))
        else:
            yield path, name


def _opened(
    folder: str, real: str, recursive: bool, left_out: Counter[str], seen: set[str]
) -> Iterator[tuple[str, str, str]]:
    """Return path and name of each entry to look at, sorted by name, with a folder's real path or, for a file, ""."""
    names: list[str] = []
    folders: list[os.DirEntry[str]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _is_folder(entry):
                    names.append(entry.name)
                elif recursive and not entry.name.startswith("."):
                    folders.append(entry)
    except OSError:
        left_out["folders that cannot be opened"] += 1
    places: dict[str, str] = {}
    for entry in sorted(folders, key=_order):
        place = _real_path(entry, real)
        if place in seen:
            left_out[_TWICE] += 1
        else:
            seen.add(place)
            places[entry.name] = place
    ordered = sorted((*names, *places), key=os.path.normcase)
    return ((os.path.join(folder, name), name, places.get(name, "")) for name in ordered)


def _order(entry: "os.DirEntry[str]") -> str:
    return os.path.normcase(entry.name)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _real_path(entry: "os.DirEntry[str]", parent: str) -> str:
    """Return the real path of a folder; that of one that is no link is its parent's and its name."""
    if entry.is_symlink() or os.name != "posix":  # junctions on Windows are no links, but lead elsewhere
        return os.path.realpath(entry.path)
    return os.path.join(parent, entry.name)


def _reason_to_leave_out(path: str, name: str) -> str | None:
    """Return None for a radiograph, the kind of another file that counts, and ``""`` for one that does not."""
    dot = name.rfind(".")
    suffix = name[dot:].lower() if 0 < dot < len(name) - 1 else ""
    if name.startswith("."):
        return "hidden files" if suffix in IMAGE_SUFFIXES | DICOM_SUFFIXES else ""
    if suffix in IMAGE_SUFFIXES:
        return None
    unread = UNREAD_SUFFIXES.get(".nii.gz" if name.lower().endswith(".nii.gz") else suffix)
    if unread is not None:
        return f"{unread} files, a format that is not read"
    if suffix in DICOM_SUFFIXES:
        return _kind_without_image(_start_of(Path(path)))
    if suffix and not suffix[1:].isdigit():
        return ""
    # Named like IM000001 or 1.2.840.113619, as written by scanners and archives.
    start = _start_of(Path(path))
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
