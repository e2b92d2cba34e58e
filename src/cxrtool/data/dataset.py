"""A data set: its splits, their usable rows, and patients in several splits."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Views
from cxrtool.data.flow import RowFlow
from cxrtool.data.layouts.base import FilesRead, Layout, Wanted
from cxrtool.data.layouts.joined import labels_in, with_labels
from cxrtool.data.layouts.registry import open_layout
from cxrtool.data.manifest import Manifest, manifest_of, with_views
from cxrtool.data.missing import diagnosis, missing_images
from cxrtool.data.sheets import Sheet
from cxrtool.data.text_file import TextFile
from cxrtool.errors import RequestError, SheetError
from cxrtool.findings import Findings
from cxrtool.settings import DataSettings
from cxrtool.sheet_options import SPLITS
from cxrtool.text import counted

log = logging.getLogger(__name__)

_EXAMPLES = 3


@dataclass(frozen=True)
class _Relabelled:
    """A layout whose labels come from another file."""

    layout: Layout
    labels: TextFile

    @property
    def root(self) -> Path:
        return self.layout.root

    @property
    def title(self) -> str:
        return self.layout.title

    def splits(self) -> tuple[str, ...] | None:
        return self.layout.splits()

    def sheet(self, split: str, wanted: Wanted) -> Sheet:
        images = self.layout.sheet(split, Wanted((), wanted.columns, partial=True))
        return with_labels(images, labels_in(self.labels, wanted.findings))


def shared_patients(patients: Mapping[str, Collection[str]]) -> list[str]:
    """Return a sentence with examples for each pair of splits that share patients; `patients` is by split."""
    found = []
    for (first, ours), (second, theirs) in combinations(patients.items(), 2):
        shared = sorted(set(ours) & set(theirs))
        if shared:
            examples = ", ".join(shared[:_EXAMPLES])
            found.append(
                f"{counted(len(shared), 'patient is', 'patients are')} in {first} and in {second} ({examples})"
            )
    return found


class Dataset:
    """A data set that reads each sheet once, on first use, and keeps it.

    Args:
        settings: data folder, views, and the share of images that may be missing.
        splits: splits whose rows will be used. For the others only the patients are kept, to compare them.
        columns: further columns of the sheets to read, by split.
        findings: findings whose labels are read, such as those of a model; None uses those in `settings`.
        partial: leave out findings that a sheet has no column for; see `load_manifest`.
        undivided: split that the rows of a sheet without splits count as, if `splits` has several; None refuses it.
    """

    def __init__(
        self,
        settings: DataSettings,
        splits: Sequence[str] = SPLITS,
        columns: Mapping[str, Sequence[str]] | None = None,
        findings: Findings | None = None,
        partial: bool = False,
        undivided: str | None = None,
    ) -> None:
        self._undivided = undivided
        self._label_files = FilesRead()
        self.partial = partial
        self.findings = findings or settings.label_names
        self.settings = settings
        self._splits = tuple(splits)
        self._columns = dict(columns or {})
        self._manifests: dict[str, Manifest] = {}
        self._usable: dict[str, Manifest] = {}
        self._flows: dict[str, RowFlow] = {}
        self._patients: dict[str, tuple[frozenset[str], str]] = {}

    @cached_property
    def available(self) -> tuple[str, ...]:
        """Splits that have a sheet.

        Raises:
            RequestError: no data folder is given, or it does not exist.
            SheetError: the folder contains no sheet.
        """
        found = self.layout.splits()
        if found is not None:
            return found
        if len(self._splits) == 1:
            return self._splits
        if self._undivided is not None:
            return (self._undivided,)
        raise RequestError(
            f"{self.layout.title} in {self.settings.folder} is not divided into splits, and this command needs "
            f"{' and '.join(self._splits)}",
            "Divide it by patient with cxr split, or add a column split.",
        )

    @cached_property
    def layout(self) -> Layout:
        """Where the rows are; see `open_layout`."""
        return open_layout(self.settings)

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

        Warnings count missing images, with examples, and what was assumed or could not be read in the sheet.

        Raises:
            SheetError: the sheet is missing or cannot be used, or gives one image different labels.
            RequestError: more than the share `max_missing` of the images is missing, or no row is left.
        """
        if split not in self._usable:
            self._usable[split] = self._usable_rows(self.manifest(split))
        return self._usable[split]

    def flow(self, split: str) -> RowFlow:
        """Return how many rows of a split's sheet are usable, and why the others are not.

        Raises:
            CxrError: as `usable`.
        """
        self.usable(split)
        return self._flows[split]

    def shared_patients(self) -> list[str]:
        """Return a sentence for each pair of available splits that share patients, over all views.

        One more says so if some sheets name patients in a column and others only in paths, which cannot be compared.
        """
        found = {split: self._patients_of(split) for split in self.available}
        sources = {split: source for split, (_, source) in found.items()}
        sentences = shared_patients({split: patients for split, (patients, _) in found.items()})
        if len(set(sources.values())) > 1:
            named = ", ".join(f"{split} by {source}" for split, source in sources.items())
            sentences.append(f"patients are named in different ways ({named}), so splits cannot be compared")
        return sentences

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
        wanted = Wanted(tuple(self.findings), tuple(columns), self.partial)
        layout: Layout = self.layout
        labels = self.settings.label_files.of(split)
        if labels is not None:
            layout = _Relabelled(layout, self._label_files.read(labels))
        return manifest_of(layout, split, wanted, Views.ALL, self.settings.allow_outside)

    def _patients_of(self, split: str) -> tuple[frozenset[str], str]:
        if split not in self._patients:
            manifest = self.manifest(split) if split in self._splits else self._read(split)
            self._patients[split] = frozenset(manifest.patients), manifest.patients_from
        return self._patients[split]

    def _usable_rows(self, sheet: Manifest) -> Manifest:
        for note in sheet.notes:
            log.warning("%s", note)
        manifest = _refuse_or_drop_repeated(sheet)
        viewed = with_views(manifest, self.settings.views)
        missing = missing_images(viewed)
        count = int(missing.rows.sum())
        if count:
            text = describe_missing(viewed, count, missing.rows)
            if count > self.settings.max_missing * len(viewed):
                more = "" if count == len(viewed) else f" Or raise --max-missing, now {self.settings.max_missing:g}."
                reason, cure = diagnosis(viewed, missing)
                raise RequestError(f"{text}: {reason}", cure + more)
            log.warning("%s; these rows are not used", text)
        usable = viewed.select(~missing.rows)
        if len(usable) == 0:
            raise RequestError(*no_row_left(manifest, self.settings.views))
        lateral = int((manifest.views == "lateral").sum()) - int((viewed.views == "lateral").sum())
        self._flows[sheet.split] = RowFlow(
            rows=len(sheet),
            repeated=len(sheet) - len(manifest),
            lateral=lateral,
            unknown_view=len(manifest) - len(viewed) - lateral,
            missing=count,
            unreadable=0,
            images=len(usable),
            studies=len(set(usable.studies)),
            patients=len(set(usable.patients)),
        )
        return usable


def describe_missing(manifest: Manifest, count: int, rows: NDArray[np.bool_]) -> str:
    """Return how many rows have no usable image, with examples."""
    examples = ", ".join(str(path) for path in manifest.paths[rows][:_EXAMPLES])
    return f"{count} of {len(manifest)} rows of {manifest.sheet.name} have no usable image ({examples}, ...)"


def no_row_left(manifest: Manifest, views: Views) -> tuple[str, str]:
    """Return what is wrong with a sheet of which no row can be used, and advice."""
    if views is Views.ALL:
        return f"{manifest.sheet.name} has no row with an image", "Check the data folder."
    return f"{manifest.sheet.name} has no {views} image", "Try --views all."


def repeated_paths(manifest: Manifest) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return pairs of rows with the same path: those with equal labels, patient and study, and those that differ."""
    if len(set(manifest.paths)) == len(manifest):
        return [], []
    first: dict[str, int] = {}
    same: list[tuple[int, int]] = []
    different: list[tuple[int, int]] = []
    for row, path in enumerate(manifest.paths):
        earlier = first.setdefault(str(path), row)
        if earlier != row:
            equal = (
                np.array_equal(manifest.raw_labels[earlier], manifest.raw_labels[row], equal_nan=True)
                and manifest.studies[earlier] == manifest.studies[row]
                and manifest.patients[earlier] == manifest.patients[row]
            )
            (same if equal else different).append((earlier, row))
    return same, different


def describe_repeated(manifest: Manifest, pairs: Sequence[tuple[int, int]], what: str) -> str:
    """Return how many paths are repeated, with examples and their lines."""
    examples = "; ".join(
        f"{manifest.paths[row]} (lines {manifest.lines[earlier]} and {manifest.lines[row]})"
        for earlier, row in pairs[:_EXAMPLES]
    )
    return f"{manifest.sheet.name}: {len(pairs)} paths {what}: {examples}"


CONFLICT, REPEAT = "have two different labels or patients", "occur twice"


def _refuse_or_drop_repeated(manifest: Manifest) -> Manifest:
    same, different = repeated_paths(manifest)
    if different:
        raise SheetError(describe_repeated(manifest, different, CONFLICT), "Remove the wrong rows.")
    if not same:
        return manifest
    log.warning("%s; each is used once", describe_repeated(manifest, same, REPEAT))
    kept = np.ones(len(manifest), dtype=np.bool_)
    kept[[row for _, row in same]] = False
    return manifest.select(kept)
