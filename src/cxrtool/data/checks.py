"""Contents and problems of a data set."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.dataset import (
    CONFLICT,
    REPEAT,
    Dataset,
    describe_missing,
    describe_repeated,
    no_row_left,
    repeated_paths,
)
from cxrtool.data.duplicates import Fingerprint, duplicates_between, picture_bits
from cxrtool.data.identity import UNKNOWN
from cxrtool.data.images import read, read_facts, shown
from cxrtool.data.labels import encode_labels
from cxrtool.data.manifest import Manifest, in_views, with_views
from cxrtool.data.missing import MissingImages, diagnosis, missing_images
from cxrtool.data.read_ahead import read_ahead
from cxrtool.data.splitting import changed_sheets, read_record
from cxrtool.errors import CxrError
from cxrtool.files import sha256_of_file
from cxrtool.findings import EVALUATION_POLICY, UNCERTAIN
from cxrtool.settings import DEFAULT_LIMITS, DataSettings, Limits
from cxrtool.text import counted

_EXAMPLES = 5
_HEADERS_READ = 200


@dataclass(frozen=True)
class LabelCounts:
    """Number of rows with each label of one finding."""

    positive: int
    negative: int
    uncertain: int
    blank: int


@dataclass(frozen=True)
class SplitReport:
    """Sheet and images of a split.

    Attributes:
        sheet: name of the sheet.
        rows: number of rows in the sheet.
        frontal: number of rows with a frontal view.
        lateral: number of rows with a lateral view.
        unknown_view: number of rows whose view cannot be read.
        patients: number of distinct patients.
        studies: number of distinct studies.
        labels: label counts by finding, over all rows.
        projections: number of rows by projection: AP, PA, other text or empty.
        sexes: number of rows by sex as written in the sheet.
        age: smallest, median and largest age in years; None without ages.
        missing: number of rows without a usable image.
        missing_examples: path, line and reason of the first few.
        images_read: number of images of which the header, or with ``--full`` everything, was read.
        sizes: number of those images by ``width x height``, the most frequent first.
        modes: number of those images by Pillow's mode.
        unreadable: path and error of those images that cannot be read.
    """

    sheet: str
    rows: int
    frontal: int
    lateral: int
    unknown_view: int
    patients: int
    studies: int
    labels: dict[str, LabelCounts]
    projections: dict[str, int]
    sexes: dict[str, int]
    age: tuple[float, float, float] | None
    missing: int
    missing_examples: tuple[str, ...]
    images_read: int
    sizes: dict[str, int]
    modes: dict[str, int]
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class DataReport:
    """Result of `check_data`.

    Attributes:
        root: data folder.
        full: whether every image was read.
        splits: reports by split.
        errors: problems that make metrics from this data wrong, or that would stop ``cxr train``, ``eval`` or ``tune``.
        warnings: other problems.
    """

    root: Path
    full: bool
    splits: dict[str, SplitReport]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Return a dict ready for JSON, as printed by ``cxr check-data --json``."""
        return asdict(self) | {"root": str(self.root)}


@dataclass(frozen=True)
class _ImageFacts:
    size: str
    mode: str
    fingerprint: Fingerprint | None


def check_data(
    dataset: Dataset,
    full: bool = False,
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    limits: Limits = DEFAULT_LIMITS,
    duplicates: bool = False,
    image_size: int = 0,
) -> DataReport:
    """Check all sheets of a data set, and the headers of some images, or with `full` all images completely.

    Args:
        dataset: data set with the rows of all its splits.
        full: read every image, and compare the files' bytes between splits.
        workers: number of reading threads.
        progress: called with the number of images done and in total.
        limits: upper limits on an image; larger ones count as unreadable.
        duplicates: as `full`, and compare the pictures of the views in use; see `duplicates_between`.
        image_size: width and height of a network's input in pixels; smaller images give a warning. 0 gives none.

    Raises:
        RequestError: the folder does not exist or contains no sheet, or the record of ``cxr split`` cannot be read.
        SheetError: a sheet cannot be read.
    """
    full = full or duplicates
    manifests = {split: dataset.manifest(split) for split in dataset.available}
    missing = {split: missing_images(manifest) for split, manifest in manifests.items()}
    rows_to_read = {split: _rows_to_read(missing[split], full) for split in manifests}
    total = sum(len(rows) for rows in rows_to_read.values())
    errors, warnings = dataset.shared_patients(), []
    reports: dict[str, SplitReport] = {}
    fingerprints: dict[str, list[Fingerprint]] = {}
    done = 0
    for split, manifest in manifests.items():
        facts: dict[str, _ImageFacts] = {}
        unreadable: dict[int, str] = {}
        compared = in_views(manifest, dataset.settings.views) & duplicates
        for row, found in _inspect(manifest, rows_to_read[split], full, workers, limits, compared):
            path = str(manifest.paths[row])
            if isinstance(found, CxrError):
                unreadable[row] = f"{path}: {found.message.removeprefix(f'{manifest.root / path}: ')}"
            else:
                facts[path] = found
            done += 1
            progress(done, total)
        fingerprints[split] = [fact.fingerprint for fact in facts.values() if fact.fingerprint is not None]
        reports[split] = _report(manifest, missing[split], facts, unreadable)
        stopping, bearable = _image_problems(manifest, missing[split], unreadable, dataset.settings)
        errors += _errors_within(manifest, dataset.settings) + stopping
        warnings += _warnings_within(manifest, reports[split]) + _small_images(reports[split], image_size) + bearable
    fence = next(iter(manifests.values())).fence
    errors += duplicates_between(fingerprints, lambda file: read(file, fence, limits=limits).pixels)
    warnings += _changed_since_split(manifests)
    if "valid" not in manifests:
        warnings.append("there is no valid split, which train, tune and calibrate need")
    return DataReport(dataset.settings.folder, full, reports, tuple(errors), tuple(warnings))


def _rows_to_read(missing: MissingImages, full: bool) -> list[int]:
    rows = np.flatnonzero(~missing.rows)
    if not full and len(rows) > _HEADERS_READ:
        rows = rows[np.linspace(0, len(rows) - 1, _HEADERS_READ).astype(int)]
    return [int(row) for row in rows]


def _inspect(
    manifest: Manifest, rows: list[int], full: bool, workers: int, limits: Limits, compared: NDArray[np.bool_]
) -> Iterator[tuple[int, _ImageFacts | CxrError]]:
    load = partial(_facts, manifest=manifest, full=full, limits=limits, compared=compared)
    yield from read_ahead(rows, load, workers, name_of=lambda row: shown(manifest.file(row)))


def _facts(row: int, manifest: Manifest, full: bool, limits: Limits, compared: NDArray[np.bool_]) -> _ImageFacts:
    path = manifest.file(row)
    facts = read_facts(path, manifest.fence, limits)
    fingerprint = None
    if full:
        pixels = read(path, manifest.fence, limits=limits).pixels
        bits = picture_bits(pixels) if compared[row] else None
        fingerprint = Fingerprint(str(manifest.paths[row]), path, sha256_of_file(path), bits)
    height, width = facts.size
    return _ImageFacts(f"{width} x {height}", facts.mode, fingerprint)


def _changed_since_split(manifests: dict[str, Manifest]) -> list[str]:
    record = read_record(next(iter(manifests.values())).sheet.parent)
    if record is None:
        return []
    return changed_sheets(record, {split: manifest.sheet_sha256 for split, manifest in manifests.items()})


def _report(
    manifest: Manifest, missing: MissingImages, facts: dict[str, _ImageFacts], unreadable: dict[int, str]
) -> SplitReport:
    ages = manifest.ages[~np.isnan(manifest.ages)]
    return SplitReport(
        sheet=manifest.sheet.name,
        rows=len(manifest),
        frontal=int((manifest.views == "frontal").sum()),
        lateral=int((manifest.views == "lateral").sum()),
        unknown_view=int((manifest.views == UNKNOWN).sum()),
        patients=len(set(manifest.patients)),
        studies=len(set(manifest.studies)),
        labels={finding: _label_counts(manifest, column) for column, finding in enumerate(manifest.findings)},
        projections=_count(manifest.projections),
        sexes=_count(manifest.sexes),
        age=(float(ages.min()), float(np.median(ages)), float(ages.max())) if len(ages) else None,
        missing=int(missing.rows.sum()),
        missing_examples=tuple(
            f"{manifest.paths[row]} (line {manifest.lines[row]}): {reason}"
            for row, reason in list(missing.reasons.items())[:_EXAMPLES]
        ),
        images_read=len(facts) + len(unreadable),
        sizes=_count([fact.size for fact in facts.values()]),
        modes=_count([fact.mode for fact in facts.values()]),
        unreadable=tuple(unreadable.values()),
    )


def _label_counts(manifest: Manifest, column: int) -> LabelCounts:
    labels = manifest.raw_labels[:, column]
    return LabelCounts(
        positive=int((labels == 1).sum()),
        negative=int((labels == 0).sum()),
        uncertain=int((labels == UNCERTAIN).sum()),
        blank=int(np.isnan(labels).sum()),
    )


def _count(values: object) -> dict[str, int]:
    return dict(Counter(values).most_common())  # type: ignore[call-overload, no-any-return]


def _errors_within(manifest: Manifest, settings: DataSettings) -> list[str]:
    """Return what in the sheet itself makes figures wrong, or stops training, evaluation or tuning."""
    name = manifest.sheet.name
    same, different = repeated_paths(manifest)
    errors = [
        describe_repeated(manifest, pairs, what) for pairs, what in ((same, REPEAT), (different, CONFLICT)) if pairs
    ]
    viewed = with_views(manifest, settings.views)
    if len(viewed) == 0:
        errors.append(". ".join(no_row_left(manifest, settings.views)))
    elif manifest.split == "train" and len(viewed) == 1:
        errors.append(f"{name} has one image only: training needs at least two")
    elif manifest.split == "train" and not _encoded(viewed, settings)[1].any():
        errors.append(f"{name}: every label is uncertain or ignored. Train with --policy u-ones or u-zeros")
    elif manifest.split == "valid" and not _can_be_tuned(viewed, settings):
        errors.append(
            f"{name}: no finding has both classes at study level, so thresholds cannot be tuned and no epoch can be "
            "chosen by AUROC. Use a larger valid split"
        )
    return errors


def _encoded(manifest: Manifest, settings: DataSettings) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return targets and mask as in evaluation, [N, F] each."""
    return encode_labels(manifest.raw_labels, EVALUATION_POLICY.of(manifest.findings), settings.blank)


def _can_be_tuned(manifest: Manifest, settings: DataSettings) -> bool:
    """Return whether any finding has positive and negative studies, as `cxrtool.evaluation.table.to_study_level`."""
    targets, mask = _encoded(manifest, settings)
    _, studies = np.unique(manifest.studies.astype(str), return_inverse=True)
    for column in range(len(manifest.findings)):
        counted = mask[:, column]
        positive = set(studies[counted & (targets[:, column] > 0.5)])
        if positive and set(studies[counted]) - positive:
            return True
    return False


def _image_problems(
    manifest: Manifest, missing: MissingImages, unreadable: dict[int, str], settings: DataSettings
) -> tuple[list[str], list[str]]:
    """Return errors and warnings on missing and unreadable images: errors where training would stop."""
    name = manifest.sheet.name
    viewed = with_views(manifest, settings.views)
    if len(viewed) == 0:
        return [], []
    missing = missing.select(in_views(manifest, settings.views))
    count, most = int(missing.rows.sum()), settings.max_missing * len(viewed)
    errors, warnings = [], []
    if count > most:
        errors.append(f"{describe_missing(viewed, count, missing.rows)}: {'. '.join(diagnosis(viewed, missing))}")
    elif count:
        warnings.append(f"{describe_missing(viewed, count, missing.rows)}; these rows would not be used")
    used = set(viewed.lines.tolist())
    bad = [text for row, text in unreadable.items() if int(manifest.lines[row]) in used]
    if bad:
        text = f"{name}: {counted(len(bad), 'image')} cannot be read: {'; '.join(bad[:_EXAMPLES])}"
        if settings.skip_unreadable and len(bad) <= most:
            warnings.append(f"{text}. They would be skipped")
        else:
            errors.append(f"{text}. Copy them again, remove their rows, or use --skip-unreadable")
    others = len(unreadable) - len(bad)
    if others:
        warnings.append(f"{name}: {counted(others, 'image')} of views that are not used cannot be read")
    return errors, warnings


def _warnings_within(manifest: Manifest, report: SplitReport) -> list[str]:
    name = manifest.sheet.name
    warnings = [
        f"{name}: {finding} is blank in every row"
        for finding, counts in report.labels.items()
        if counts.blank == report.rows
    ]
    conflicts = _conflicting_studies(manifest)
    if conflicts:
        studies = counted(len(conflicts), "study has", "studies have")
        warnings.append(f"{name}: {studies} images with different labels ({', '.join(conflicts[:_EXAMPLES])})")
    warnings += manifest.notes
    return warnings


def _small_images(report: SplitReport, image_size: int) -> list[str]:
    """Return a warning if images are smaller than the network's input."""
    sides = {size: min(map(int, size.split(" x "))) for size in report.sizes}
    small = sum(count for size, count in report.sizes.items() if sides[size] < image_size)
    if not small:
        return []
    return [
        f"{report.sheet}: {small:,} of {report.images_read:,} images read are smaller than {image_size} x {image_size} "
        f"(the smallest {min(sides, key=sides.__getitem__)}); a model of that size would see them enlarged"
    ]


def _conflicting_studies(manifest: Manifest) -> list[str]:
    labels: dict[str, bytes] = {}
    conflicts: dict[str, None] = {}
    filled = np.nan_to_num(manifest.raw_labels, nan=9.0)
    for study, row in zip(manifest.studies, filled, strict=True):
        if labels.setdefault(str(study), row.tobytes()) != row.tobytes():
            conflicts[str(study)] = None
    return list(conflicts)
