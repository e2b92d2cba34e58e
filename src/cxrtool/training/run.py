"""Preparation of a run from settings and data, and its description in the run's folder."""

import json
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxrtool.choices import Blank, Precision, SelectBy
from cxrtool.data.batches import Unreadable, manifest_batches, skip_list, split_batches
from cxrtool.data.cache import open_cache
from cxrtool.data.characteristics import characteristics_of
from cxrtool.data.dataset import Dataset
from cxrtool.data.flow import RowFlow
from cxrtool.data.labels import by_finding, encode_labels, warn_of_contradictions
from cxrtool.data.manifest import Manifest, is_phantom
from cxrtool.data.pixel_cache import PixelCache
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.data.radiograph import Reading
from cxrtool.engines.device import Runtime, choose_runtime
from cxrtool.engines.precision import current_machine
from cxrtool.errors import ModelError, RequestError
from cxrtool.evaluation.metrics import Evaluation
from cxrtool.files import sha256_of_file, write_json, write_text
from cxrtool.findings import EVALUATION_POLICY, Findings
from cxrtool.model.bundle import read_header
from cxrtool.model.densenet import ChestNet, initial_file
from cxrtool.model.header import BundleHeader, SplitDigest, current_versions, now
from cxrtool.predict.split import evaluate_logits
from cxrtool.progress import ProgressCallback, StopSignal
from cxrtool.resolved_settings import ResolvedSettings
from cxrtool.settings import Settings, TrainSettings
from cxrtool.training.folder import MODEL_NAME, SETTINGS_NAME
from cxrtool.training.loss import positive_weights
from cxrtool.training.state import EpochRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Rows of a split with encoded labels.

    Attributes:
        manifest: the rows, N of them.
        targets: [N, F] float32 of 0 and 1.
        mask: [N, F] bool, True where a label counts.
        numbers: [N] int64, position of each row among those that the run was started with.
        total: number of rows that the run was started with.
        cache: decoded pixels, if a cache is used.
        skip: where unreadable images are listed and left out; None stops at the first.
        flow: how many rows of the sheet are usable; None if not known.
    """

    manifest: Manifest
    targets: NDArray[np.float32]
    mask: NDArray[np.bool_]
    numbers: NDArray[np.int64]
    total: int
    cache: PixelCache | None = None
    skip: Unreadable | None = None
    flow: RowFlow | None = None

    def rows_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows with these numbers in the same order, without those that are gone."""
        if self._row_by_number is None:
            return numbers
        rows = self._row_by_number[numbers]
        return rows[rows >= 0]

    @cached_property
    def _row_by_number(self) -> NDArray[np.int64] | None:
        """The row with each number, [total] int64, -1 where it is gone; None if each row's number is its place."""
        place = np.arange(len(self.numbers))
        if len(place) == self.total and np.array_equal(self.numbers, place):
            return None
        rows = np.full(self.total, -1, dtype=np.int64)
        rows[self.numbers] = place
        return rows

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Error messages of the images that were left out so far."""
        return () if self.skip is None else tuple(self.skip.reasons.values())


@dataclass(frozen=True)
class Run:
    """Everything that stays the same over all epochs of a run."""

    folder: Path
    settings: Settings
    runtime: Runtime
    reading: Reading
    train: Split
    valid: Split
    pos_weight: NDArray[np.float32] | None
    select_by: SelectBy
    fingerprint: dict[str, Any]
    progress: ProgressCallback
    stop: StopSignal

    @property
    def findings(self) -> Findings:
        """The findings that the run learns."""
        return self.train.manifest.findings


def prepare_run(
    settings: Settings, dataset: Dataset, folder: Path, progress: ProgressCallback, stop: StopSignal, fresh: bool
) -> Run:
    """Check settings and data, and prepare a run; nothing is written.

    A run that is continued (not `fresh`) keeps its preprocessing, and needs the file of its initial weights no more.

    Raises:
        RequestError: the settings or the data cannot be used.
    """
    torch.backends.cudnn.benchmark = settings.runtime.cudnn_benchmark
    dataset.refuse_shared_patients()
    train_split = _load_split(settings, dataset, "train")
    valid_split = _load_split(settings, dataset, "valid")
    if len(train_split.manifest) < 2:
        raise RequestError("the train split has only one image", "Training needs at least two, because of BatchNorm.")
    weights, one_class = positive_weights(train_split.targets, train_split.mask, settings.train.pos_weight_clip)
    names = train_split.manifest.findings.names
    for column in one_class:
        log.warning("%s has only one class in the train split; its weight is %g", names[column], weights[column])
    if not train_split.mask.any():
        raise RequestError("all labels of the train split are ignored", "Use another --policy or --blank.")
    if settings.runtime.precision is Precision.INT8:
        raise RequestError("--precision int8 does not work for training", "Use --precision auto, fp32 or bf16.")
    runtime = choose_runtime(settings.runtime, auto_bf16=True)
    preprocessing = _preprocessing(settings.train) if fresh else _recorded_preprocessing(settings.train, folder)
    reading = Reading.from_settings(preprocessing, settings.runtime)
    return Run(
        folder=folder,
        settings=settings,
        runtime=runtime,
        reading=reading,
        train=train_split,
        valid=valid_split,
        pos_weight=weights if settings.train.pos_weight else None,
        select_by=_choose_selection(settings.train.select_by, valid_split, settings.data.blank),
        fingerprint=_fingerprint(settings, train_split.manifest, valid_split.manifest),
        progress=progress,
        stop=stop,
    )


def _preprocessing(settings: TrainSettings) -> Preprocessing:
    """Return the preprocessing of a new run: a bundle that it starts from says how pixels are normalised.

    Its network has as many input channels as that bundle's, so that a network of one channel can be trained further.
    """
    wanted = Preprocessing(image_size=settings.image_size, fit=settings.fit)
    path = initial_file(settings.init)
    if path is None or not path.is_file():
        return wanted
    try:
        first = read_header(path).image_preprocessing
    except ModelError:  # weights without a header; whether they fit is checked where they are loaded
        return wanted
    if first.fit is not settings.fit:
        log.warning("%s was trained with --fit %s, and this run uses %s", path, first.fit, settings.fit)
    return replace(wanted, mean=first.mean, std=first.std)


def _recorded_preprocessing(settings: TrainSettings, folder: Path) -> Preprocessing:
    about = folder / MODEL_NAME
    try:
        return Preprocessing.from_dict(json.loads(about.read_text(encoding="utf-8"))["preprocessing"])
    except (OSError, ValueError, LookupError, TypeError, RequestError):
        if settings.init in ("imagenet", "none"):
            return Preprocessing(image_size=settings.image_size, fit=settings.fit)
        raise RequestError(
            f"{about} cannot be read, and only it says how this run's images are normalised", "Start a new run."
        ) from None


def with_caches(run: Run) -> Run:
    """Return `run` with pixel caches, built if needed, or unchanged if the settings do not request a cache.

    Caches are not part of the fingerprint: their pixels are identical, so a run may be resumed with or without them.
    """
    if not run.settings.data.uses_cache:
        return run
    return replace(run, train=_with_cache(run, run.train), valid=_with_cache(run, run.valid))


def _with_cache(run: Run, split: Split) -> Split:
    found = open_cache(split.manifest, run.settings.data, run.reading, run.progress, run.stop)
    # Read images that are missing in the cache now, so that a broken one stops the run before the first epoch.
    unread = split_batches(found.cache.unreadable_rows, run.reading.batch_size)
    for _ in manifest_batches(split.manifest, unread, run.reading, skip=split.skip):
        pass
    return replace(split, cache=found.cache)


def _load_split(settings: Settings, dataset: Dataset, split: str) -> Split:
    manifest = dataset.usable(split)
    policy = settings.train.uncertainty if split == "train" else EVALUATION_POLICY
    targets, mask = encode_labels(manifest.raw_labels, policy.of(manifest.findings), settings.data.blank)
    warn_of_contradictions(f"the {split} split", manifest.studies, targets, mask)
    skip = skip_list(split, len(manifest), settings.data)
    numbers = np.arange(len(manifest), dtype=np.int64)
    return Split(manifest, targets, mask, numbers, len(manifest), skip=skip, flow=dataset.flow(split))


def _choose_selection(requested: SelectBy, valid: Split, blank: Blank) -> SelectBy:
    """Return the figure that chooses the best epoch: the loss if AUROC is undefined at study level, where it counts."""
    nothing = np.zeros((len(valid.manifest), len(valid.manifest.findings)), dtype=np.float32)
    labels = evaluate_logits(nothing, valid.manifest, blank).labels.values()
    if requested is SelectBy.AUROC and not any(one.positives and one.negatives for one in labels):
        log.warning("no finding of the valid split has studies of both classes, so the best epoch is chosen by loss")
        return SelectBy.LOSS
    return requested


def _fingerprint(settings: Settings, train_rows: Manifest, valid_rows: Manifest) -> dict[str, Any]:
    kept = settings.train.model_dump(mode="json", exclude={"epochs", "patience"})
    kept |= settings.data.model_dump(mode="json", include={"views", "blank", "findings"})
    for manifest in (train_rows, valid_rows):
        kept[f"{manifest.split} sheet"] = manifest.sheet_sha256
        kept[f"{manifest.split} images"] = len(manifest)
    return kept


def describe_run(run: Run, resolved: ResolvedSettings, network: ChestNet, fresh: bool, processes: int = 1) -> None:
    """Write settings.yaml, dataset.json and model.json to the run's folder.

    A run that is continued (not `fresh`) keeps the digest of its initial weights, whose file it does not need any more.
    """
    about = run.folder / MODEL_NAME
    started_from = _digest_of_init(run.settings.train.init) if fresh else _recorded_init(about)
    write_text(run.folder / SETTINGS_NAME, resolved.to_yaml())
    describe_data(run)
    write_json(
        about,
        {
            "architecture": "densenet121",
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "findings": run.findings.names,
            "preprocessing": run.reading.preprocessing.to_dict(),
            "init": run.settings.train.init,
            "init_sha256": started_from,
            "device": str(run.runtime.device),
            "precision": run.runtime.precision,
            "tf32": run.runtime.tf32,
            "channels_last": run.runtime.channels_last,
            "processes": processes,
            "batch_norm": _batch_norm(run.runtime, processes),
            "threads": torch.get_num_threads(),
            **current_machine(),
            "versions": current_versions(),
        },
    )


def _batch_norm(runtime: Runtime, processes: int) -> str:
    """Say over which images of a step BatchNorm takes its statistics in training."""
    if processes == 1 or runtime.device.type == "cuda":
        return "over all images of a step"
    return "over the images of each process; the running statistics are those of the first process"


def _digest_of_init(init: str) -> str | None:
    path = initial_file(init)
    return None if path is None else sha256_of_file(path)


def _recorded_init(about: Path) -> Any:
    try:
        return json.loads(about.read_text(encoding="utf-8")).get("init_sha256")
    except (OSError, ValueError, AttributeError):  # it is only a record: a run goes on without it
        return None


def describe_data(run: Run) -> None:
    """Write dataset.json: rows, patients and labels of the splits, and the images that were left out so far."""
    write_json(
        run.folder / "dataset.json",
        {
            "pos_weight": None if run.pos_weight is None else by_finding(run.pos_weight, run.findings),
            "splits": {split.manifest.split: _describe_split(split) for split in (run.train, run.valid)},
        },
    )


def _describe_split(split: Split) -> dict[str, Any]:
    positive = (split.targets > 0.5) & split.mask
    negative = (split.targets <= 0.5) & split.mask
    read = split.manifest if split.skip is None else split.manifest.select(split.skip.kept(len(split.manifest)))
    found = characteristics_of(read)
    flow = None if split.flow is None else split.flow.analysed(found.images, found.studies, found.patients)
    return _digest(split.manifest).model_dump() | {
        "labels": {
            finding: {
                "positives": int(positive[:, column].sum()),
                "negatives": int(negative[:, column].sum()),
                "ignored": int((~split.mask[:, column]).sum()),
            }
            for column, finding in enumerate(split.manifest.findings)
        },
        "unreadable": list(split.unreadable),
        "flow": None if flow is None else flow.to_dict(),
        "characteristics": found.to_dict(),
    }


def _digest(manifest: Manifest) -> SplitDigest:
    return SplitDigest(
        sheet=manifest.sheet.name,
        sheet_sha256=manifest.sheet_sha256,
        images=len(manifest),
        patients=len(set(manifest.patients)),
        studies=len(set(manifest.studies)),
    )


def bundle_header(run: Run, record: EpochRecord, evaluation: Evaluation) -> BundleHeader:
    """Return the header of the bundle of an epoch."""
    return BundleHeader(
        findings=run.findings.names,
        preprocessing=run.reading.preprocessing.to_dict(),
        policy=run.settings.train.policy,
        blank=run.settings.data.blank,
        views=run.settings.data.views.value,
        training=run.settings.train.model_dump(mode="json")
        | {"device": str(run.runtime.device), "precision": run.runtime.precision},
        data={split.manifest.split: _digest(split.manifest) for split in (run.train, run.valid)},
        pos_weight=None if run.pos_weight is None else dict(by_finding(run.pos_weight, run.findings)),
        metrics={"epoch": record.epoch, "valid_loss": record.valid_loss, "valid": evaluation.to_dict()},
        versions=current_versions(),
        run=run.folder.name,
        created=now(),
        synthetic=is_phantom(run.train.manifest.root),
    )
