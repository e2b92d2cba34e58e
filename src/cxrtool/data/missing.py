"""Rows without a usable image: which they are, why, and what would cure them."""

import os
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.identity import names_patient
from cxrtool.data.manifest import Manifest
from cxrtool.sheet_options import SPLITS

_DEEPEST = 4
"""Folders above or below the data folder at which images are looked for, to name a cure."""


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


def missing_images(manifest: Manifest) -> MissingImages:
    """Find rows whose file does not exist or is outside the data folder; each folder is listed once.

    Absolute paths and paths with ``..`` always count as outside; a link counts as outside if its target is, unless the
    manifest allows that.
    """
    real_root = "/" if manifest.allow_outside else os.path.realpath(manifest.root)
    inside_of: dict[str, tuple[bool, frozenset[str], frozenset[str]]] = {}
    rows = np.zeros(len(manifest), dtype=np.bool_)
    reasons: dict[int, Reason] = {}
    for row, path in enumerate(manifest.paths):
        folder, _, name = str(path).rpartition("/")
        if folder not in inside_of:
            inside_of[folder] = _list_folder(manifest.root, real_root, folder)
        inside, files, links = inside_of[folder]
        if os.path.isabs(path):
            reasons[row] = Reason.ABSOLUTE
        elif ".." in str(path).split("/"):
            reasons[row] = Reason.PARENT
        elif not inside:
            reasons[row] = Reason.LINK
        elif name not in files:
            reasons[row] = Reason.BACKSLASHES if "\\" in path else Reason.NO_FILE
        elif name in links and not _is_inside(manifest.root / str(path), real_root):
            reasons[row] = Reason.LINK
        rows[row] = row in reasons
    return MissingImages(rows, reasons)


def _list_folder(root: Path, real_root: str, folder: str) -> tuple[bool, frozenset[str], frozenset[str]]:
    """Return whether the folder is inside the root, its entries, and which of them are links."""
    place = root / folder
    try:
        if not _is_inside(place, real_root):
            return False, frozenset(), frozenset()
        with os.scandir(place) as entries:
            found = [(entry.name, entry.is_symlink()) for entry in entries]
    except OSError:
        found = []
    return True, frozenset(name for name, _ in found), frozenset(name for name, link in found if link)


def _is_inside(path: Path, real_root: str) -> bool:
    real = os.path.realpath(path)
    return real == real_root or real.startswith(real_root.rstrip(os.sep) + os.sep)


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
