"""Prediction of a whole split: logits, and the table of predictions."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Blank, Level
from cxrtool.data.batches import Unreadable, manifest_batches, skip_list, split_batches
from cxrtool.data.cache import open_cache
from cxrtool.data.dataset import Dataset
from cxrtool.data.labels import encode_labels, warn_of_contradictions
from cxrtool.data.manifest import Manifest, with_findings
from cxrtool.data.radiograph import Reading
from cxrtool.engines.device import sigmoid
from cxrtool.engines.engine import Engine, HowRun
from cxrtool.engines.open import open_engine
from cxrtool.evaluation.ledger import Look, digest_of_rows, record_look
from cxrtool.evaluation.metrics import Evaluation, evaluate
from cxrtool.evaluation.table import PredictionTable, to_study_level
from cxrtool.findings import EVALUATION_POLICY, Findings
from cxrtool.model.bundle import Bundle
from cxrtool.model.header import BundleHeader, current_versions, now
from cxrtool.progress import Progress, ProgressCallback, ignore_progress
from cxrtool.settings import DataSettings, Settings

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from cxrtool.data.pixel_cache import PixelCache

_STANDARD_ATTRIBUTES = ("sex", "age", "projection")
"""Attributes in every table, under these names whatever the columns of the sheet are called."""


def manifest_logits(
    engine: Engine,
    manifest: "Manifest",
    reading: Reading,
    outputs: int,
    progress: ProgressCallback = ignore_progress,
    phase: str = "reading",
    cache: "PixelCache | None" = None,
    skip: Unreadable | None = None,
    groups: Sequence[NDArray[np.int64]] | None = None,
) -> NDArray[np.float32]:
    """Compute the logits of the images of a manifest, read from `cache` if one is given.

    Args:
        engine: runs the network.
        manifest: the images, N of them.
        reading: how images are read.
        outputs: number of logits per image, F.
        progress: called as images are done.
        phase: name of the work for `progress`.
        cache: decoded pixels to read instead of the files.
        skip: where unreadable images are listed.
        groups: rows of each batch, which may be empty; None takes all rows in batches of `reading.batch_size`.

    Returns:
        [N, F] float32, in the manifest's order; NaN for images in `skip` and in no group.

    Raises:
        ImageError: an image cannot be read, and `skip` is None.
    """
    logits = np.full((len(manifest), outputs), np.nan, dtype=np.float32)
    if groups is None:
        groups = split_batches(np.arange(len(manifest), dtype=np.int64), reading.batch_size)
    done, total = 0, sum(map(len, groups))
    for group, batch in zip(groups, manifest_batches(manifest, groups, reading, cache, skip), strict=True):
        if len(batch.rows):
            logits[batch.rows] = engine.logits(batch.pixels)
        done += len(group)
        progress(Progress(phase, done, total))
    return logits


def table_of(
    logits: NDArray[np.float32],
    manifest: Manifest,
    blank: Blank,
    weights_sha256: str = "",
) -> PredictionTable:
    """Return logits [N, F] and the labels of their rows as an image-level table; uncertain labels are masked.

    Its attributes are sex, age, projection and the further columns of the manifest.
    """
    targets, mask = encode_labels(manifest.raw_labels, EVALUATION_POLICY.of(manifest.findings), blank)
    return PredictionTable(
        ids=tuple(str(path) for path in manifest.paths),
        patients=tuple(str(patient) for patient in manifest.patients),
        studies=tuple(str(study) for study in manifest.studies),
        images=np.ones(len(manifest), dtype=np.int64),
        split=manifest.split,
        level=Level.IMAGE,
        sheet_sha256=manifest.sheet_sha256,
        model_sha256=weights_sha256,
        scores=sigmoid(logits).astype(np.float64),
        targets=targets,
        mask=mask,
        attributes=_attributes(manifest),
        findings=manifest.findings,
    )


def _attributes(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    ages = tuple("" if np.isnan(age) else f"{age:g}" for age in manifest.ages)
    own = {"sex": _as_texts(manifest.sexes), "age": ages, "projection": _as_texts(manifest.projections)}
    return own | {name: _as_texts(texts) for name, texts in manifest.columns.items()}


def dataset_of(data: DataSettings, split: str, findings: Findings, attributes: Sequence[str] = ()) -> Dataset:
    """Return the data set for running a model on a split, with the labels of the model's findings.

    `attributes` that are columns of the sheet are read too.
    """
    columns = {split: [name for name in attributes if name not in _STANDARD_ATTRIBUTES]}
    return Dataset(data, (split,), columns, findings, partial=True)


def _as_texts(values: NDArray[np.object_]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)


def evaluate_logits(logits: NDArray[np.float32], manifest: Manifest, blank: Blank) -> Evaluation:
    """Return study-level metrics of logits [N, F], as reported during training."""
    return evaluate(to_study_level(table_of(logits, manifest, blank)))


def predict_split(
    bundle: Bundle,
    settings: Settings,
    dataset: Dataset,
    split: str,
    progress: ProgressCallback = ignore_progress,
    command: str = "eval",
    out: Path | None = None,
    studies: Collection[str] | None = None,
) -> tuple[PredictionTable, HowRun]:
    """Run a model on a split of `dataset`, by default with torch in float32.

    Unless the split is train, a line in the ledger beside the bundle records it (`cxrtool.evaluation.ledger`).

    Args:
        bundle: the model.
        settings: data, options of the evaluation, and runtime.
        dataset: data set whose sheets were or will be read.
        split: name of the split.
        progress: called as images are read.
        command: what the ledger names as the reason, such as ``compare``.
        out: folder that the user chose for the output, for the ledger.
        studies: names of the only studies to read, unless the split lacks one of them; None reads all.

    Returns:
        The image-level table, and the backend and precision used.

    Raises:
        RequestError: two splits share patients, and `settings.data.i_know` is not set.
    """
    header = bundle.header
    _warn_if_views_differ(header, settings.data)
    manifest = with_findings(dataset.usable(split), header.labels)
    dataset.refuse_shared_patients()
    whole, rows = manifest, np.arange(len(manifest), dtype=np.int64)
    if studies is not None and set(studies) <= set(manifest.studies):
        rows = np.flatnonzero(np.isin(manifest.studies.astype(str), list(studies)))
    engine = open_engine(bundle, settings.runtime, reported=True)
    reading = Reading.from_settings(header.image_preprocessing, settings.runtime)
    cache = open_cache(manifest, settings.data, reading, progress).cache if settings.data.uses_cache else None
    skip = skip_list(split, len(manifest), settings.data)
    phase, groups = f"reading {split}", split_batches(rows, reading.batch_size)
    logits = manifest_logits(engine, manifest, reading, len(header.findings), progress, phase, cache, skip, groups)
    read = rows
    if skip is not None and skip.reasons:
        log.warning("%d of %d images of %s were left out", len(skip.reasons), len(rows), split)
        read = rows[skip.kept(len(whole))[rows]]
    if len(read) < len(whole):
        manifest, logits = whole.select(read), logits[read]
    columns = [header.labels.index(finding) for finding in manifest.findings]
    table = table_of(logits[:, columns], manifest, settings.data.blank, header.weights_sha256)
    warn_of_contradictions(f"the {split} split", manifest.studies, table.targets, table.mask)
    record_split(bundle, settings, table if len(rows) == len(whole) else whole, command, out)
    return table, engine.how


def record_split(
    bundle: Bundle, settings: Settings, rows: PredictionTable | Manifest, command: str, out: Path | None = None
) -> None:
    """Write into the ledger beside a bundle that it was evaluated on the rows of a split other than train."""
    if rows.split == "train":
        return
    ids = rows.ids if isinstance(rows, PredictionTable) else tuple(str(path) for path in rows.paths)
    asked = settings.eval.model_dump(mode="json", exclude={"split"})
    look = Look(
        time=now(),
        command=command,
        split=rows.split,
        sheet_sha256=rows.sheet_sha256,
        rows_sha256=digest_of_rows(ids),
        images=len(ids),
        studies=len(set(rows.studies)),
        patients=len(set(rows.patients)),
        weights_sha256=bundle.header.weights_sha256,
        version=current_versions()["cxrtool"],
        options=asked | settings.data.model_dump(mode="json", include={"views", "blank", "i_know"}),
        out=None if out is None else str(out),
    )
    record_look(bundle.path.parent, look)


def _warn_if_views_differ(header: BundleHeader, data: DataSettings) -> None:
    if header.views != data.views.value:
        log.warning("the model was trained on %s views but is run on %s views", header.views, data.views)
