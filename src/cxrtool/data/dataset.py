"""A data set in CheXpert's layout: its splits, missing images, and patients in several splits."""

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Views
from cxrtool.data.manifest import SPLITS, Manifest, available_splits, load_manifest
from cxrtool.errors import RequestError
from cxrtool.settings import DataSettings

log = logging.getLogger(__name__)

_EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class MissingImages:
    """Rows of a manifest without a usable image.

    Attributes:
        rows: [N] bool, True where the image is missing.
        reasons: reason for each of these rows, by row number.
    """

    rows: NDArray[np.bool_]
    reasons: dict[int, str]


def missing_images(manifest: Manifest) -> MissingImages:
    """Find rows whose file does not exist or is outside the data folder; each folder is listed once.

    Absolute paths and paths with ``..`` always count as outside; a link counts as outside if its target is, unless the
    manifest allows that.
    """
    real_root = "/" if manifest.allow_outside else os.path.realpath(manifest.root)
    inside_of: dict[str, tuple[bool, frozenset[str], frozenset[str]]] = {}
    rows = np.zeros(len(manifest), dtype=np.bool_)
    reasons: dict[int, str] = {}
    for row, path in enumerate(manifest.paths):
        folder, _, name = str(path).rpartition("/")
        if folder not in inside_of:
            inside_of[folder] = _list_folder(manifest.root, real_root, folder)
        inside, files, links = inside_of[folder]
        if not inside or os.path.isabs(path) or ".." in str(path).split("/"):
            reasons[row] = "outside the data folder"
        elif name not in files:
            reasons[row] = "no such file"
        elif name in links and not _is_inside(manifest.root / str(path), real_root):
            reasons[row] = "outside the data folder"
        rows[row] = row in reasons
    return MissingImages(rows, reasons)


def _list_folder(root: Path, real_root: str, folder: str) -> tuple[bool, frozenset[str], frozenset[str]]:
    """Return whether the folder is inside the root, its entries, and which of them are links."""
    place = root / folder
    if not _is_inside(place, real_root):
        return False, frozenset(), frozenset()
    try:
        with os.scandir(place) as entries:
            found = [(entry.name, entry.is_symlink()) for entry in entries]
    except OSError:
        found = []
    return True, frozenset(name for name, _ in found), frozenset(name for name, link in found if link)


def _is_inside(path: Path, real_root: str) -> bool:
    real = os.path.realpath(path)
    return real == real_root or real.startswith(real_root.rstrip(os.sep) + os.sep)


def shared_patients(patients: Mapping[str, Collection[str]]) -> list[str]:
    """Return a sentence with examples for each pair of splits that share patients; `patients` is by split."""
    found = []
    for (first, ours), (second, theirs) in combinations(patients.items(), 2):
        shared = sorted(set(ours) & set(theirs))
        if shared:
            examples = ", ".join(shared[:_EXAMPLES])
            found.append(f"{len(shared)} patients are in {first} and in {second} ({examples})")
    return found


class Dataset:
    """A data set in CheXpert's layout that reads each sheet once, on first use, and keeps it.

    Args:
        settings: data folder, views, and the share of images that may be missing.
        splits: splits whose rows will be used. For the others only the patients are kept, to compare them.
        columns: further columns of the sheets to read, by split.
    """

    def __init__(
        self,
        settings: DataSettings,
        splits: Sequence[str] = SPLITS,
        columns: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.settings = settings
        self._splits = tuple(splits)
        self._columns = dict(columns or {})
        self._manifests: dict[str, Manifest] = {}
        self._usable: dict[str, Manifest] = {}
        self._patients: dict[str, frozenset[str]] = {}

    @cached_property
    def available(self) -> tuple[str, ...]:
        """Splits that have a sheet.

        Raises:
            RequestError: no data folder is given, or it does not exist.
            SheetError: the folder contains no sheet.
        """
        return available_splits(self.settings.folder)

    def manifest(self, split: str) -> Manifest:
        """Return all rows of a split, of all views, with the requested further columns.

        Raises:
            SheetError: the sheet is missing or cannot be used.
            RequestError: no data folder is given, or it does not exist.
            ValueError: the split is not one of `splits`.
        """
        if split not in self._splits:
            raise ValueError(f"the rows of {split} were not requested: add it to `splits`")
        if split not in self._manifests:
            self._manifests[split] = self._read(split, self._columns.get(split, ()))
        return self._manifests[split]

    def usable(self, split: str) -> Manifest:
        """Return the rows of a split that have a requested view and an image.

        A warning gives the number of missing images with examples.

        Raises:
            SheetError: the sheet is missing or cannot be used.
            RequestError: more than the share `max_missing` of the images is missing, or no row is left.
        """
        if split not in self._usable:
            self._usable[split] = self._with_images(self.manifest(split))
        return self._usable[split]

    def shared_patients(self) -> list[str]:
        """Return a sentence for each pair of available splits that share patients, over all views."""
        return shared_patients({split: self._patients_of(split) for split in self.available})

    def refuse_shared_patients(self) -> None:
        """Check that no patient is in two splits.

        Raises:
            RequestError: two splits share patients; with `i_know` in the settings this is only a warning.
        """
        found = self.shared_patients()
        if not found:
            return
        if not self.settings.i_know:
            raise RequestError("; ".join(found), "Fix the sheets, or add --i-know: metrics will then be too high.")
        for text in found:
            log.warning("%s: metrics will be too high (--i-know)", text)

    def _read(self, split: str, columns: Sequence[str] = ()) -> Manifest:
        return load_manifest(self.settings.folder, split, Views.ALL, self.settings.allow_outside, columns)

    def _patients_of(self, split: str) -> frozenset[str]:
        if split not in self._patients:
            manifest = self.manifest(split) if split in self._splits else self._read(split)
            self._patients[split] = frozenset(manifest.patients)
        return self._patients[split]

    def _with_images(self, manifest: Manifest) -> Manifest:
        if self.settings.views is not Views.ALL:
            manifest = manifest.select(manifest.views == "frontal")
        missing = missing_images(manifest)
        count = int(missing.rows.sum())
        if count:
            examples = ", ".join(str(path) for path in manifest.paths[missing.rows][:_EXAMPLES])
            text = f"{count} of {len(manifest)} rows of {manifest.sheet.name} have no usable image ({examples}, ...)"
            if count > self.settings.max_missing * len(manifest):
                raise RequestError(
                    text,
                    f"Check the files with cxr check-data, or raise --max-missing, now {self.settings.max_missing:g}.",
                )
            log.warning("%s; these rows are not used", text)
            manifest = manifest.select(~missing.rows)
        if len(manifest) == 0:
            if self.settings.views is Views.ALL:
                raise RequestError(f"{manifest.sheet.name} has no row with an image", "Check the data folder.")
            raise RequestError(f"{manifest.sheet.name} has no {self.settings.views} image", "Try --views all.")
        return manifest
