"""Rows without a usable image: which they are, why, and what would cure them."""

import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, StrEnum, auto
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.identity import names_patient
from cxrtool.data.manifest import Manifest
from cxrtool.sheet_options import SPLITS

_DEEPEST = 4
"""Folders above or below the data folder at which images are looked for, to name a cure."""
_FEW = 4
"""Entries of a folder up to which each is looked up by itself; listing the folder takes as long as about four."""


class Reason(StrEnum):
    """Why a row has no usable image."""

    NO_FILE = "no such file"
    BACKSLASHES = "no such file: the path has backslashes, as on Windows"
    ABSOLUTE = "outside the data folder: the path is absolute"
    PARENT = "outside the data folder: the path contains .."
    LINK = "outside the data folder: a link leads there"


@dataclass(frozen=True, eq=False)
class MissingImages:
    """Rows of a manifest without a usable image.

    Attributes:
        rows: [N] bool, True where the image is missing.
        reasons: reason for each of these rows, by row number.
    """

    rows: NDArray[np.bool_]
    reasons: dict[int, Reason]

    def select(self, rows: NDArray[np.bool_]) -> Self:
        """Return what is missing among the rows of a boolean mask [N]."""
        numbers = np.cumsum(rows) - 1
        kept = {int(numbers[row]): reason for row, reason in self.reasons.items() if rows[row]}
        return replace(self, rows=self.rows[rows], reasons=kept)


def missing_images(manifest: Manifest) -> MissingImages:
    """Find rows whose file does not exist or is outside the data folder; each folder is looked at once.

    Absolute paths and paths with ``..`` always count as outside; a link counts as outside if its target is, unless the
    manifest allows that. Of CheXpert's 191,000 images in as many folders, this takes two or three seconds.
    """
    paths: list[str] = manifest.paths.tolist()
    tree = _Tree(manifest.root, paths, manifest.allow_outside)
    reasons: dict[int, Reason] = {}
    for row, path in enumerate(paths):
        reason = _refused(path) or tree.reason(path)
        if reason is not None:
            reasons[row] = reason
    rows = np.zeros(len(manifest), dtype=np.bool_)
    rows[list(reasons)] = True
    return MissingImages(rows, reasons)


def _refused(path: str) -> Reason | None:
    """Return why the text of a path alone refuses it; nothing on disk is looked at."""
    if os.path.isabs(path):
        return Reason.ABSOLUTE
    return Reason.PARENT if ".." in path and ".." in path.split("/") else None


class _Kind(Enum):
    """What a path leads to."""

    NOTHING = auto()
    PLAIN = auto()
    """A file or folder with no link on the way from the data folder."""
    LINK = auto()
    """A link, or a file or folder behind one, inside the data folder."""
    OUTSIDE = auto()


class _Tree:
    """The part of a data folder that paths lead to.

    A real path is asked for only behind a link, because it takes a system call for each part of the path: a path
    without any link on its way cannot lead out.
    """

    def __init__(self, root: Path, paths: Iterable[str], allow_outside: bool) -> None:
        self._start = f"{root}{os.sep}"
        self._real_root = "/" if allow_outside else os.path.realpath(root)
        self._folders = {"": _Kind.PLAIN}
        self._listed: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        self._large = _large_folders(path for path in paths if _refused(path) is None)

    def reason(self, path: str) -> Reason | None:
        """Return why there is no usable image at a path, or None if there is one."""
        folder, _, name = path.rpartition("/")
        kind = self._kind(folder, name)
        if kind is _Kind.OUTSIDE:
            return Reason.LINK
        if kind is _Kind.NOTHING:
            return Reason.BACKSLASHES if "\\" in path else Reason.NO_FILE
        return None

    def _kind_of_folder(self, folder: str) -> _Kind:
        if folder not in self._folders:
            above, _, name = folder.rpartition("/")
            self._folders[folder] = self._kind(above, name)
        return self._folders[folder]

    def _kind(self, folder: str, name: str) -> _Kind:
        above = self._kind_of_folder(folder)
        if above is _Kind.NOTHING:
            return above
        found = self._entry(folder, name)
        if found is _Kind.PLAIN and above is _Kind.PLAIN:
            return found
        if found is _Kind.NOTHING:
            return above if above is _Kind.OUTSIDE else found
        real = os.path.realpath(f"{self._start}{folder}/{name}" if folder else self._start + name)
        inside = real == self._real_root or real.startswith(self._real_root.rstrip(os.sep) + os.sep)
        return _Kind.LINK if inside else _Kind.OUTSIDE

    def _entry(self, folder: str, name: str) -> _Kind:
        """Return what an entry of a folder is in itself: `PLAIN`, `LINK` or `NOTHING`."""
        if name in ("", "."):
            return _Kind.NOTHING
        if folder in self._large:
            if folder not in self._listed:
                self._listed[folder] = _list_folder(self._start + folder)
            names, links = self._listed[folder]
            return _Kind.NOTHING if name not in names else _Kind.LINK if name in links else _Kind.PLAIN
        try:
            mode = os.lstat(f"{self._start}{folder}/{name}" if folder else self._start + name).st_mode
        except (OSError, ValueError):
            return _Kind.NOTHING
        return _Kind.LINK if stat.S_ISLNK(mode) else _Kind.PLAIN


def _large_folders(paths: Iterable[str]) -> frozenset[str]:
    """Return the folders of which paths lead through or to more than `_FEW` entries."""
    counts: Counter[str] = Counter()
    for path in paths:
        folder = path.rpartition("/")[0]
        while counts[folder] == 0 and folder:  # a folder that is new is one more entry of the folder above
            counts[folder] = 1
            folder = folder.rpartition("/")[0]
        counts[folder] += 1
    return frozenset(folder for folder, count in counts.items() if count > _FEW)


def _list_folder(folder: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the entries of a folder, and which of them are links; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.is_symlink()) for entry in entries]
    except (OSError, ValueError):
        found = []
    return frozenset(name for name, _ in found), frozenset(name for name, link in found if link)


def diagnosis(manifest: Manifest, missing: MissingImages) -> tuple[Reason, str]:
    """Return the most frequent reason for missing images, and what to do about it as one sentence."""
    reason, _ = Counter(missing.reasons.values()).most_common(1)[0]
    return reason, _cure_of(manifest, missing, reason)


def _cure_of(manifest: Manifest, missing: MissingImages, reason: Reason) -> str:
    path = str(manifest.paths[next(row for row, why in missing.reasons.items() if why is reason)])
    root = manifest.root
    if reason is Reason.LINK:
        return "Add --allow-outside to follow links that lead out of the data folder."
    if reason is Reason.BACKSLASHES:
        return "Replace every backslash by / in the column Path."
    if reason is Reason.ABSOLUTE:
        start = f"{os.path.abspath(root).rstrip(os.sep)}{os.sep}"
        if path.startswith(start):
            return f"Make the column Path relative to the data folder: remove {start!r} at the start."
        return f"Make the column Path relative to the data folder, {root}."
    if reason is Reason.PARENT:
        return "Give as --data the folder above, with the sheets in it, and write paths without '..'."
    if not missing.rows.all():
        return "Copy these images too, or remove their rows."
    return _cure_of_no_file(root, path)


def _cure_of_no_file(root: Path, path: str) -> str:
    parts = path.split("/")
    for count in range(1, min(len(parts), _DEEPEST + 1)):
        if _is_file(root.joinpath(*parts[count:])) or (parts[count] in SPLITS and not (root / parts[0]).exists()):
            start, above = "/".join(parts[:count]), _folder_above(root, path)
            give = f"give --data {above}" if above else f"give as --data a folder that contains {start}"
            return (
                f"The paths begin with {start}/, which is not in {root}: remove that from the column Path, "
                f"or {give}, with the sheets in it."
            )
    above = _folder_above(root, path)
    if above:
        return f"Give --data {above} and put the sheets there: the paths are relative to that folder."
    below = _folder_below(root, path)
    if below:
        return f"Give --data {below} and put the sheets there: the images are in that folder."
    return "Copy the images, or check that --data is the folder that the paths start from."


def _folder_above(root: Path, path: str) -> Path | None:
    """Return the nearest folder above `root` that a path, with or without its first part, leads from to a file."""
    above, shorter = Path(os.path.abspath(root)).parents, _without_name(path)
    return next(
        (one for one in above[:_DEEPEST] if _is_file(one / path) or (shorter and _is_file(one / shorter))), None
    )


def _folder_below(root: Path, path: str) -> Path | None:
    """Return a folder at most two below `root` from which a path leads to a file."""
    shorter = _without_name(path)
    for pattern in ("*", "*/*"):
        for number, one in enumerate(root.glob(pattern)):
            if number > 1000:  # a folder of patients
                break
            if _is_file(one / path) or (shorter and _is_file(one / shorter)):
                return one
    return None


def _without_name(path: str) -> str:
    """Return a path without its first part if that may be a data set's name; else an empty text."""
    rest = path.partition("/")[2]
    return rest if rest.partition("/")[0] in SPLITS or names_patient(rest) else ""


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
