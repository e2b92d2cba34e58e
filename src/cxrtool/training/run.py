"""What a run is made of, and what its folder says about it."""

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from cxrtool.choices import Precision, SelectBy
from cxrtool.data.batches import manifest_batches, split_batches
from cxrtool.data.cache import open_cache
from cxrtool.data.dataset import load_usable, refuse_shared_patients
from cxrtool.data.labels import by_finding, encode_labels
from cxrtool.data.manifest import Manifest
from cxrtool.data.pixel_cache import PixelCache
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.data.radiograph import Reading
from cxrtool.engines.device import Runtime, choose_runtime
from cxrtool.errors import ModelError, RequestError
from cxrtool.evaluation.metrics import Evaluation
from cxrtool.files import keep_as, write_csv, write_json, write_text
from cxrtool.findings import EVALUATION_POLICY, FINDINGS
from cxrtool.model.bundle import (
    BUNDLE_NAME,
    BundleHeader,
    SplitDigest,
    current_versions,
    now,
    read_header,
    save_bundle,
)
from cxrtool.model.densenet import ChestNet
from cxrtool.progress import ProgressCallback
from cxrtool.settings import ResolvedSettings, Settings, TrainSettings
from cxrtool.training.loss import positive_weights
from cxrtool.training.state import EpochRecord, TrainingState, has_state

log = logging.getLogger(__name__)

SETTINGS_NAME = "settings.yaml"
LAST_NAME = "last.safetensors"
PREVIOUS_BUNDLE_NAME = "model-previous.safetensors"
StopSignal = Callable[[], int | None]
"""Asked between steps; a signal's number ends the run cleanly."""


@dataclass(frozen=True)
class Split:
    manifest: Manifest
    targets: NDArray[np.float32]
    mask: NDArray[np.bool_]
    cache: PixelCache | None = None


@dataclass(frozen=True)
class Run:
    """Everything an epoch needs that does not change."""

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


def run_name(settings: TrainSettings) -> str:
    policy = settings.policy.replace(",", "+").replace("=", "-").replace(" ", "")
    return f"{datetime.now():%Y%m%d-%H%M%S}_{policy}_{settings.image_size}px_seed{settings.seed}"


def prepare_run(settings: Settings, folder: Path, progress: ProgressCallback, stop: StopSignal) -> Run:
    if settings.data.root is None:
        raise RequestError("no data is given", "Name the folder with --data.")
    torch.set_float32_matmul_precision(settings.runtime.matmul_precision.value)
    torch.backends.cudnn.benchmark = settings.runtime.cudnn_benchmark
    refuse_shared_patients(settings.data)
    train_split = _load_split(settings, "train")
    valid_split = _load_split(settings, "valid")
    if len(train_split.manifest) < 2:
        raise RequestError("the train split has a single image", "BatchNorm needs two or more.")
    weights, one_class = positive_weights(train_split.targets, train_split.mask, settings.train.pos_weight_clip)
    for column in one_class:
        log.warning("%s has one class only in the train split; its weight is %g", FINDINGS[column], weights[column])
    if not train_split.mask.any():
        raise RequestError("no label of the train split counts", "Use another --policy or --blank.")
    if settings.runtime.precision is Precision.INT8:
        raise RequestError("training does not run in int8", "Use --precision auto, fp32 or bf16.")
    runtime = choose_runtime(settings.runtime, auto_bf16=True)
    reading = Reading.by(Preprocessing(image_size=settings.train.image_size), settings.runtime)
    return Run(
        folder=folder,
        settings=settings,
        runtime=runtime,
        reading=reading,
        train=train_split,
        valid=valid_split,
        pos_weight=weights if settings.train.pos_weight else None,
        select_by=_choose_selection(settings.train.select_by, valid_split),
        fingerprint=_fingerprint(settings, train_split.manifest, valid_split.manifest),
        progress=progress,
        stop=stop,
    )


def with_caches(run: Run) -> Run:
    """`run` with its splits' pixel caches, built where need be; as it is where the settings want none.

    Not part of the fingerprint: pixels are the same to the bit, so a run may be resumed with or without.
    """
    if not run.settings.data.uses_cache:
        return run
    return replace(run, train=_with_cache(run, run.train), valid=_with_cache(run, run.valid))


def _with_cache(run: Run, split: Split) -> Split:
    found = open_cache(split.manifest, run.settings.data, run.reading, run.progress, run.stop)
    # An epoch would stop at what cannot be read: it is read now, so that it stops before the first.
    unread = split_batches(found.cache.not_held, run.reading.batch_size)
    for _ in manifest_batches(split.manifest, unread, run.reading):
        pass
    return replace(split, cache=found.cache)


def _load_split(settings: Settings, split: str) -> Split:
    assert settings.data.root is not None
    manifest = load_usable(settings.data, split)
    policy = settings.train.uncertainty if split == "train" else EVALUATION_POLICY
    targets, mask = encode_labels(manifest.raw_labels, policy, settings.data.blank)
    return Split(manifest, targets, mask)


def _choose_selection(wished: SelectBy, valid: Split) -> SelectBy:
    both = [len(np.unique(valid.targets[valid.mask[:, column], column])) == 2 for column in range(len(FINDINGS))]
    if wished is SelectBy.AUROC and not any(both):
        log.warning("no finding of the valid split has both classes: the best epoch goes by loss")
        return SelectBy.LOSS
    return wished


def _fingerprint(settings: Settings, train_rows: Manifest, valid_rows: Manifest) -> dict[str, Any]:
    kept = settings.train.model_dump(mode="json", exclude={"epochs", "patience"})
    kept |= settings.data.model_dump(mode="json", include={"views", "blank"})
    for manifest in (train_rows, valid_rows):
        kept[f"{manifest.split} sheet"] = manifest.sheet_sha256
        kept[f"{manifest.split} images"] = len(manifest)
    return kept


def refuse_changes(before: dict[str, Any], after: dict[str, Any], folder: Path) -> None:
    changed = [f"{key}: {before.get(key)} then, {after.get(key)} now" for key in after if before.get(key) != after[key]]
    if changed:
        raise RequestError(
            f"{folder} was trained otherwise: {'; '.join(changed)}",
            "Resume with the same, or start another run.",
        )


def refuse_run_there(folder: Path) -> None:
    """Refuse to begin where a run is.

    Raises:
        RequestError: one is there.
    """
    if has_state(folder) or any((folder / name).exists() for name in (SETTINGS_NAME, BUNDLE_NAME)):
        raise RequestError(f"{folder} holds a run already", f"Go on with --resume {folder}, or name another --out.")


def can_begin_anew(folder: Path) -> bool:
    """Whether the run in `folder` was killed before its first state: it then begins with the settings that it has."""
    return (folder / SETTINGS_NAME).is_file() and not has_state(folder) and not (folder / BUNDLE_NAME).exists()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder, made where need be; the kernel frees it when the process ends, however it ends.

    Raises:
        RequestError: another process trains there, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise _cannot_use(folder, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(f"another process trains in {folder}", "Wait for it, or name --out.") from None
        except OSError as error:
            log.warning("%s cannot be locked (%s): let no second process train in it", folder, error.strerror)
        try:  # by writing, as rights do not tell of a disk that is full or read-only
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        except OSError as error:
            raise _cannot_use(folder, error) from None
        yield


def _cannot_use(folder: Path, error: OSError) -> RequestError:
    return RequestError(f"cannot write in {folder}: {error.strerror or error}", "Name another --out.")


def warn_of_little_space(folder: Path, network: ChestNet) -> None:
    """Say so when the disk has less room than a run takes: two states of three times the weights, three models."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    needed, free = 9 * weights, shutil.disk_usage(folder).free
    if free < needed:
        log.warning("%s has %.0f MB free, and a run takes about %.0f MB", folder, free / 1e6, needed / 1e6)


def save_epoch(folder: Path, state: TrainingState, weights: Mapping[str, Tensor]) -> TrainingState:
    """Make the files beside the state agree with it: the two models and the history.

    They are written after the state and from it, so that a run that was killed between the two, or that goes on from
    the state before a damaged one, begins with this and ends with the files of a run that was never stopped.

    Args:
        folder: the run's.
        state: newest.
        weights: of that state; the last whole epoch's only where its `step` is 0.

    Returns:
        The state, with another best epoch if the best one's model is gone.

    Raises:
        WriteError: a file cannot be written.
    """
    if state.header is None:
        return state
    header = BundleHeader.model_validate(state.header)
    best, before, last = (folder / name for name in (BUNDLE_NAME, PREVIOUS_BUNDLE_NAME, LAST_NAME))
    if _weights_at(best) == state.best_sha256:
        if state.best_epoch < state.epoch:
            before.unlink(missing_ok=True)  # the state before has the same best epoch
    elif state.best_epoch == state.epoch and not state.step:
        if best.exists():
            keep_as(best, before)
        save_bundle(best, weights, header)
    elif _weights_at(before) == state.best_sha256:
        keep_as(before, best)
    else:
        log.warning("the model of epoch %d, the best, is gone from %s", state.best_epoch, folder)
        state = replace(state, best_epoch=0, best_score=None, best_sha256="")
    if not state.step and _weights_at(last) != header.weights_sha256:
        save_bundle(last, weights, header)
    columns = [field.name for field in fields(EpochRecord)]
    write_csv(folder / "history.csv", columns, [astuple(row) for row in state.history])
    write_json(folder / "history.json", [asdict(row) for row in state.history])
    return state


def _weights_at(path: Path) -> str:
    """The digest that a bundle states of its weights; empty where there is no bundle."""
    try:
        return read_header(path).weights_sha256
    except ModelError:
        return ""


def describe_run(run: Run, resolved: ResolvedSettings, network: ChestNet) -> None:
    write_text(run.folder / SETTINGS_NAME, resolved.to_yaml())
    write_json(
        run.folder / "dataset.json",
        {
            "pos_weight": None if run.pos_weight is None else by_finding(run.pos_weight),
            "splits": {split.manifest.split: _describe_split(split) for split in (run.train, run.valid)},
        },
    )
    write_json(
        run.folder / "model.json",
        {
            "architecture": "densenet121",
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "findings": FINDINGS,
            "preprocessing": run.reading.preprocessing.to_dict(),
            "init": run.settings.train.init,
            "device": str(run.runtime.device),
            "precision": run.runtime.precision,
            "channels_last": run.runtime.channels_last,
            "threads": torch.get_num_threads(),
            "versions": current_versions(),
        },
    )


def _describe_split(split: Split) -> dict[str, Any]:
    positive = (split.targets > 0.5) & split.mask
    negative = (split.targets <= 0.5) & split.mask
    return _digest(split.manifest).model_dump() | {
        "labels": {
            finding: {
                "positives": int(positive[:, column].sum()),
                "negatives": int(negative[:, column].sum()),
                "ignored": int((~split.mask[:, column]).sum()),
            }
            for column, finding in enumerate(FINDINGS)
        }
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
    return BundleHeader(
        findings=FINDINGS,
        preprocessing=run.reading.preprocessing.to_dict(),
        policy=run.settings.train.policy,
        blank=run.settings.data.blank,
        views=run.settings.data.views.value,
        training=run.settings.train.model_dump(mode="json")
        | {"device": str(run.runtime.device), "precision": run.runtime.precision},
        data={split.manifest.split: _digest(split.manifest) for split in (run.train, run.valid)},
        pos_weight=None if run.pos_weight is None else dict(by_finding(run.pos_weight)),
        metrics={"epoch": record.epoch, "valid_loss": record.valid_loss, "valid": evaluation.to_dict()},
        versions=current_versions(),
        run=run.folder.name,
        created=now(),
    )


def settings_of_run(run: Path) -> dict[str, Any]:
    """The resolved settings that a run stored, as dotted overrides are merged over them.

    Raises:
        RequestError: the folder holds none.
    """
    path = run / SETTINGS_NAME
    if not path.is_file():
        raise RequestError(f"{run} holds nothing to resume (no {SETTINGS_NAME})", "Name a run folder.")
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content
