"""Reading of sheets into a `Manifest`: paths, patients, studies, views and raw labels of one split."""

import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Views
from cxrtool.data.identity import Texts, ages_of, identify, views_of
from cxrtool.data.layouts.base import Layout, Wanted
from cxrtool.data.layouts.chexpert import CheXpert
from cxrtool.data.sheets import Sheet
from cxrtool.errors import SheetError
from cxrtool.findings import CHEXPERT5, Findings
from cxrtool.sheet_options import SPLITS


@dataclass(frozen=True, eq=False)
class Manifest:
    """The rows of one split.

    Attributes:
        root: data folder.
        split: ``train``, ``valid`` or ``test``.
        sheet: CSV file of the split.
        sheet_sha256: digest of that file.
        paths: [N] text, relative to `root`, without the name of the data set's own folder.
        lines: [N] int64, line of each row in the sheet (the header is line 1).
        patients: [N] text, from a column or from the path, such as ``patient00001``.
        studies: [N] text, such as ``patient00001/study1``; no two patients share one.
        views: [N] text, ``frontal``, ``lateral``, or ``unknown`` if it cannot be read.
        projections: [N] text, ``AP``, ``PA``, other text, or empty.
        sexes: [N] text, may be empty.
        ages: [N] float32, years; NaN if not given.
        raw_labels: [N, F] float32 of 1, 0, -1 and NaN (blank), in the order of `findings`.
        allow_outside: whether links may lead out of `root`.
        columns: [N] text of each requested further column of the sheet, by name.
        patients_from: where patients come from: ``column`` or ``path``.
        notes: what was assumed or could not be read in the sheet, with counts.
        findings: names of the columns of `raw_labels`.
    """

    root: Path
    split: str
    sheet: Path
    sheet_sha256: str
    paths: Texts
    lines: NDArray[np.int64]
    patients: Texts
    studies: Texts
    views: Texts
    projections: Texts
    sexes: Texts
    ages: NDArray[np.float32]
    raw_labels: NDArray[np.float32]
    allow_outside: bool = False
    columns: Mapping[str, Texts] = field(default_factory=dict)
    patients_from: str = "path"
    notes: tuple[str, ...] = ()
    findings: Findings = CHEXPERT5

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, row: int) -> Path:
        """Return the path of a row's image."""
        return self.root / str(self.paths[row])

    @property
    def fence(self) -> Path | None:
        """Folder that images must not lead out of; None if links may."""
        return None if self.allow_outside else self.root

    def select(self, rows: NDArray[Any]) -> Self:
        """Return the rows given by a boolean mask, or by row numbers in that order; itself if the mask has them all."""
        if rows.dtype == np.bool_ and rows.all():
            return self
        selected = {
            name: getattr(self, name)[rows]
            for name in (
                "paths",
                "lines",
                "patients",
                "studies",
                "views",
                "projections",
                "sexes",
                "ages",
                "raw_labels",
            )
        }
        return replace(self, columns={name: texts[rows] for name, texts in self.columns.items()}, **selected)


def with_findings(manifest: Manifest, findings: Findings) -> Manifest:
    """Return the manifest with the labels of those of `findings` that it has, in their order."""
    kept = Findings(tuple(finding for finding in findings if finding in manifest.findings))
    columns = [manifest.findings.index(finding) for finding in kept]
    return replace(manifest, raw_labels=manifest.raw_labels[:, columns], findings=kept)


def load_manifest(
    root: Path,
    split: str,
    views: Views = Views.FRONTAL,
    allow_outside: bool = False,
    columns: Sequence[str] = (),
    findings: Findings = CHEXPERT5,
    partial: bool = False,
) -> Manifest:
    """Read the sheet of a split; CheXpert's 223,414 rows take about a second.

    Args:
        root: folder in CheXpert's layout.
        split: ``train``, ``valid`` or ``test`` (test.csv or test_labels.csv).
        views: views to keep, frontal or all.
        allow_outside: whether links may lead out of the folder.
        columns: further columns of the sheet to keep.
        findings: findings whose labels are read.
        partial: leave out findings that the sheet has no column for, with a note; otherwise they are refused.

    Raises:
        RequestError: the folder does not exist.
        SheetError: the sheet is missing or cannot be used; the message names the sheet and the line.
    """
    return manifest_of(CheXpert(root), split, Wanted(tuple(findings), tuple(columns), partial), views, allow_outside)


def manifest_of(
    layout: Layout, split: str, wanted: Wanted, views: Views = Views.ALL, allow_outside: bool = False
) -> Manifest:
    """Read a split of a data set in any layout; see `load_manifest`.

    Raises:
        RequestError: the folder does not exist.
        SheetError: a sheet is missing or cannot be used; the message names the sheet and the line.
    """
    sheet = layout.sheet(split, wanted)
    findings, note = _findings_there(sheet, wanted)
    kept = {name: sheet.frame[name].to_numpy(dtype=object) for name in wanted.columns}
    manifest = replace(_build(layout.root, split, sheet, findings), allow_outside=allow_outside, columns=kept)
    manifest = replace(manifest, notes=(*manifest.notes, *note))
    return with_views(manifest, views)


def in_views(manifest: Manifest, views: Views) -> NDArray[np.bool_]:
    """Return a mask, [N] bool, of the rows with one of the requested views."""
    every = np.ones(len(manifest), dtype=np.bool_)
    return every if views is Views.ALL else np.asarray(manifest.views == "frontal", dtype=np.bool_)


def with_views(manifest: Manifest, views: Views) -> Manifest:
    """Return the rows with one of the requested views."""
    return manifest if views is Views.ALL else manifest.select(in_views(manifest, views))


def _findings_there(sheet: Sheet, wanted: Wanted) -> tuple[Findings, tuple[str, ...]]:
    """Return the findings that the sheet has a column for, and a note on the others.

    Raises:
        SheetError: it has none of them, or lacks one and `partial` is not set.
    """
    findings = Findings(wanted.findings)
    there = [finding for finding in findings if sheet.has_labels(finding)]
    absent = [finding for finding in findings if not sheet.has_labels(finding)]
    if not there:
        raise SheetError(
            f"{sheet.path} has no column for any of {', '.join(findings)}", "Name its findings with --findings."
        )
    if not absent:
        return findings, ()
    if not wanted.partial:
        raise SheetError(f"{sheet.path} has no labels of {', '.join(absent)}", f"Try --findings {','.join(there)!r}.")
    return Findings(tuple(there)), (f"{sheet.path.name} has no labels of {', '.join(absent)}; these are left out",)


def _build(root: Path, split: str, sheet: Sheet, findings: Findings) -> Manifest:
    # Lists are four times as fast here as pandas' text columns (223,414 rows).
    written: list[str] = sheet.frame["Path"].tolist()
    if "" in written:
        line = sheet.lines[written.index("")]
        raise SheetError(f"{sheet.path} line {line} has no path", "Fill in the path, or remove the line.")
    written = _in_one_spelling(written)
    identity = identify(sheet, written)
    views, notes_on_views = views_of(sheet, written)
    ages, notes_on_ages = ages_of(sheet)
    return Manifest(
        root=root,
        split=split,
        sheet=sheet.path,
        sheet_sha256=sheet.sha256,
        paths=np.array(_strip_prefix(root, written), dtype=object),
        lines=sheet.lines,
        patients=identity.patients,
        studies=identity.studies,
        views=views,
        projections=_texts_of(sheet, "projection"),
        sexes=_texts_of(sheet, "sex"),
        ages=ages,
        raw_labels=np.column_stack([sheet.values(finding) for finding in findings]),
        findings=findings,
        patients_from=identity.source,
        notes=(*sheet.notes, *notes_on_views, *notes_on_ages),
    )


def _texts_of(sheet: Sheet, meaning: str) -> Texts:
    """Return the cells of the preferred column with a meaning; blank if there is none."""
    names = sheet.named.get(meaning)
    return sheet.frame[names[0]].to_numpy(dtype=object) if names else np.full(len(sheet.lines), "", dtype=object)


def _in_one_spelling(paths: list[str]) -> list[str]:
    """Return the paths without ``//`` and ``./``, so that an image has one path; those with ``..`` are unchanged."""
    return [posixpath.normpath(path) if ("//" in path or "./" in path) and ".." not in path else path for path in paths]


def _strip_prefix(root: Path, paths: list[str]) -> list[str]:
    """Return the paths without the data set's own name, where one name is before everything that lies in `root`.

    A first part counts as that name if it is not in `root`, no other first part is missing there, and what follows is a
    split or is in `root`. The folder of a patient who was not copied is thus kept.
    """
    firsts = {path.partition("/")[0] for path in paths}
    try:
        there = frozenset(os.listdir(root))
    except OSError:
        return paths
    foreign = firsts - there - {"", ".", "..", *SPLITS}
    if len(foreign) != 1:
        return paths
    start = f"{foreign.pop()}/"
    second = {path[len(start) :].partition("/")[0] for path in paths if path.startswith(start)}
    if not second & (there | frozenset(SPLITS)):
        return paths
    if len(firsts) == 1:  # as in CheXpert's own sheets: twice as fast
        return [path[len(start) :] or path for path in paths]
    return [path.removeprefix(start) or path for path in paths]


PHANTOM_NAME = "phantom.json"
"""File in the folder of a synthetic data set."""


def is_phantom(root: Path) -> bool:
    """Return whether a data folder holds synthetic radiographs."""
    return (root / PHANTOM_NAME).is_file()
