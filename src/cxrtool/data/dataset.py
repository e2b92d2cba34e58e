"""A data set in CheXpert's layout: its splits, what is missing of them, and patients in two of them."""

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Views
from cxrtool.data.manifest import Manifest, Texts, available_splits, load_manifest, texts_of
from cxrtool.data.sheets import read_sheet
from cxrtool.errors import RequestError
from cxrtool.settings import DataSettings

log = logging.getLogger(__name__)

_EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class MissingImages:
    """Which rows of a manifest have no usable image.

    Attributes:
        rows: [N] bool.
        reasons: by row position.
    """

    rows: NDArray[np.bool_]
    reasons: dict[int, str]


def sheet_column(manifest: Manifest, name: str) -> Texts:
    """Any column of the manifest's sheet, as text, [N].

    Raises:
        SheetError: there is no such column.
    """
    sheet = read_sheet(manifest.sheet, (name,))
    return texts_of(sheet, name)[np.searchsorted(sheet.lines, manifest.lines)]


def missing_images(manifest: Manifest) -> MissingImages:
    """Which rows have no file, or one outside the data folder; each folder is listed once.

    A path with ``..`` and an absolute one are outside wherever they lead; a link is where it leads out, unless the
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
        elif name in links and not _leads_into(manifest.root / str(path), real_root):
            reasons[row] = "outside the data folder"
        rows[row] = row in reasons
    return MissingImages(rows, reasons)


def _list_folder(root: Path, real_root: str, folder: str) -> tuple[bool, frozenset[str], frozenset[str]]:
    """Whether the folder lies in the root, its entries, and which of them are links."""
    place = root / folder
    if not _leads_into(place, real_root):
        return False, frozenset(), frozenset()
    try:
        with os.scandir(place) as entries:
            found = [(entry.name, entry.is_symlink()) for entry in entries]
    except OSError:
        found = []
    return True, frozenset(name for name, _ in found), frozenset(name for name, link in found if link)


def _leads_into(path: Path, real_root: str) -> bool:
    real = os.path.realpath(path)
    return real == real_root or real.startswith(real_root.rstrip(os.sep) + os.sep)


def load_usable(data: DataSettings, split: str) -> Manifest:
    """The rows of a split whose images are there.

    Missing ones are counted and named in a warning.

    Raises:
        SheetError: the sheet cannot be used.
        RequestError: no data folder is given, more rows than `data.max_missing` lack their image, or none is left.
    """
    manifest = load_manifest(data.folder, split, data.views, data.allow_outside)
    missing = missing_images(manifest)
    count = int(missing.rows.sum())
    if count:
        examples = ", ".join(str(path) for path in manifest.paths[missing.rows][:_EXAMPLES])
        told = f"{count} of {len(manifest)} rows of {manifest.sheet.name} have no usable image ({examples}, ...)"
        if count > data.max_missing * len(manifest):
            raise RequestError(
                told,
                f"Allowed is a share of {data.max_missing:g}: see `cxr check-data`, or raise --max-missing.",
            )
        log.warning("%s; they are left out", told)
        manifest = manifest.select(~missing.rows)
    if len(manifest) == 0:
        raise RequestError(f"{manifest.sheet.name} has no {data.views} image", "Try --views all.")
    return manifest


def shared_patients(manifests: Iterable[Manifest]) -> list[str]:
    """A sentence for each pair of splits that share patients, with examples."""
    found = []
    for first, second in combinations(manifests, 2):
        shared = sorted(set(first.patients) & set(second.patients))
        if shared:
            examples = ", ".join(shared[:_EXAMPLES])
            found.append(f"{len(shared)} patients are in {first.split} and in {second.split} ({examples})")
    return found


def refuse_shared_patients(data: DataSettings) -> None:
    """Check every sheet of the data folder against the others.

    Raises:
        RequestError: two splits share patients; with `data.i_know` it is a warning.
    """
    if data.root is None:
        return
    found = shared_patients(load_manifest(data.folder, split, Views.ALL) for split in available_splits(data.root))
    if not found:
        return
    if not data.i_know:
        raise RequestError("; ".join(found), "Mend the sheets, or go on with --i-know: figures are then too good.")
    for told in found:
        log.warning("%s: figures are too good (--i-know)", told)
