"""Training, read from top to bottom: `train` prepares a run, `_fit` goes through its epochs."""

import fcntl
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch.nn.utils import clip_grad_norm_

from cxrtool.choices import MatmulPrecision, OptimizerName, SelectBy
from cxrtool.data.augment import epoch_order
from cxrtool.data.batches import Reading, manifest_batches, split_batches
from cxrtool.data.images import Preprocessing
from cxrtool.data.manifest import Manifest
from cxrtool.errors import CxrError, InterruptedWorkError, RequestError
from cxrtool.evaluation.metrics import Evaluation
from cxrtool.files import write_csv, write_json, write_text
from cxrtool.findings import EVALUATION_POLICY, FINDINGS, by_finding, encode_labels
from cxrtool.inference.evaluate import evaluate_logits, load_usable
from cxrtool.inference.forward import Runtime, choose_runtime, manifest_logits
from cxrtool.model.bundle import (
    BUNDLE_NAME,
    BundleHeader,
    SplitDigest,
    current_versions,
    now,
    save_bundle,
)
from cxrtool.model.densenet import ChestNet, build_network
from cxrtool.progress import Progress, ProgressCallback, ignore_progress
from cxrtool.settings import ResolvedSettings, Settings, TrainSettings
from cxrtool.training.loss import masked_bce, positive_weights
from cxrtool.training.state import (
    STATE_NAME,
    EpochRecord,
    TrainingState,
    read_state,
    restore,
    save_state,
)

log = logging.getLogger(__name__)

LAST_NAME = "last.safetensors"
SETTINGS_NAME = "settings.yaml"
StopSignal = Callable[[], int | None]
"""Asked after each step; a signal's number ends the run cleanly."""


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        run: its folder.
        bundle: the best epoch's model.
        best: the best epoch's record.
        history: a record per epoch.
        seconds: from the first epoch of this call to the end.
    """

    run: Path
    bundle: Path
    best: EpochRecord
    history: tuple[EpochRecord, ...]
    seconds: float


@dataclass(frozen=True)
class _Split:
    manifest: Manifest
    targets: NDArray[np.float32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class _Run:
    """Everything an epoch needs that does not change."""

    folder: Path
    settings: Settings
    runtime: Runtime
    reading: Reading
    train: _Split
    valid: _Split
    pos_weight: NDArray[np.float32] | None
    select_by: SelectBy
    fingerprint: dict[str, Any]
    progress: ProgressCallback
    stop: StopSignal


def train(
    resolved: ResolvedSettings,
    out: Path | None = None,
    resume: Path | None = None,
    progress: ProgressCallback = ignore_progress,
    stop: StopSignal = lambda: None,
) -> TrainResult:
    """Train one model on DATA's train split and choose its best epoch on valid.

    Args:
        resolved: settings and their sources; `data.root` must be set.
        out: the run's folder; without it a readable name under `settings.runs`.
        resume: the folder of a run to go on with; its settings must be `resolved`'s.
        progress: called after each step.
        stop: asked after each step; see `StopSignal`.

    Returns:
        The run, with RUN/model.safetensors (best), last.safetensors, history.csv and .json, settings.yaml,
        dataset.json, model.json and the state that `resume` needs.

    Raises:
        RequestError: the data, the settings or the folder cannot be used; nothing was begun.
        InterruptedWorkError: `stop` gave a signal; whole epochs are kept.
        CxrError: an image cannot be read, or the loss is not finite.
    """
    settings = resolved.settings
    folder = resume or out or settings.runs / _run_name(settings.train)
    state_path = folder / STATE_NAME
    if resume is None and any((folder / name).exists() for name in (SETTINGS_NAME, STATE_NAME, BUNDLE_NAME)):
        raise RequestError(f"{folder} holds a run already", f"Go on with --resume {folder}, or name another --out.")
    saved = read_state(state_path) if resume else None
    run = _prepare(settings, folder, progress, stop)
    if saved is not None:
        _refuse_changes(saved[0].fingerprint, run.fingerprint, folder)
    network = run.runtime.place(build_network(run.reading.preprocessing, _start(settings, resume), settings.train.seed))
    optimizer = _build_optimizer(network, settings.train)
    state = TrainingState(0, 0, None, (), run.fingerprint)
    if saved is not None:
        state, tensors = saved
        restore(tensors, network, optimizer)
    with _locked(folder):
        _describe_run(run, resolved, network)
        if saved is None:
            save_state(state_path, state, network, optimizer)
        return _fit(run, network, optimizer, state)


def _run_name(settings: TrainSettings) -> str:
    policy = settings.policy.replace(",", "+").replace("=", "-").replace(" ", "")
    return f"{datetime.now():%Y%m%d-%H%M%S}_{policy}_{settings.image_size}px_seed{settings.seed}"


def _start(settings: Settings, resume: Path | None) -> str:
    return "none" if resume else settings.train.init


def _prepare(settings: Settings, folder: Path, progress: ProgressCallback, stop: StopSignal) -> _Run:
    if settings.data.root is None:
        raise RequestError("no data is given", "Name the folder with --data.")
    torch.set_float32_matmul_precision(settings.runtime.matmul_precision.value)
    torch.backends.cudnn.benchmark = settings.runtime.cudnn_benchmark
    train_split = _load_split(settings, "train")
    valid_split = _load_split(settings, "valid")
    if len(train_split.manifest) < 2:
        raise RequestError("the train split has a single image", "BatchNorm needs two or more.")
    weights, one_class = positive_weights(train_split.targets, train_split.mask, settings.train.pos_weight_clip)
    for column in one_class:
        log.warning("%s has one class only in the train split; its weight is %g", FINDINGS[column], weights[column])
    if not train_split.mask.any():
        raise RequestError("no label of the train split counts", "Use another --policy or --blank.")
    runtime = choose_runtime(settings.runtime, auto_bf16=True)
    reading = Reading(
        Preprocessing(image_size=settings.train.image_size),
        settings.runtime.batch_size,
        settings.runtime.workers,
        settings.runtime.read_timeout,
    )
    return _Run(
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


def _load_split(settings: Settings, split: str) -> _Split:
    assert settings.data.root is not None
    manifest = load_usable(settings.data, split)
    policy = settings.train.uncertainty if split == "train" else EVALUATION_POLICY
    targets, mask = encode_labels(manifest.raw_labels, policy, settings.data.blank)
    return _Split(manifest, targets, mask)


def _choose_selection(wished: SelectBy, valid: _Split) -> SelectBy:
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


def _refuse_changes(before: dict[str, Any], after: dict[str, Any], folder: Path) -> None:
    changed = [f"{key}: {before.get(key)} then, {after.get(key)} now" for key in after if before.get(key) != after[key]]
    if changed:
        raise RequestError(
            f"{folder} was trained otherwise: {'; '.join(changed)}",
            "Resume with the same, or start another run.",
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RequestError(f"another process trains in {folder}", "Wait for it, or name --out.") from None
            yield
    except PermissionError as error:
        raise RequestError(f"cannot write in {folder}: {error.strerror}", "Name another --out.") from None


def _build_optimizer(network: ChestNet, settings: TrainSettings) -> torch.optim.Optimizer:
    kind = torch.optim.Adam if settings.optimizer is OptimizerName.ADAM else torch.optim.AdamW
    return kind(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)


def _describe_run(run: _Run, resolved: ResolvedSettings, network: ChestNet) -> None:
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


def _describe_split(split: _Split) -> dict[str, Any]:
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


def _fit(run: _Run, network: ChestNet, optimizer: torch.optim.Optimizer, state: TrainingState) -> TrainResult:
    started = time.perf_counter()
    settings = run.settings.train
    for epoch in range(state.epoch + 1, settings.epochs + 1):
        began = time.perf_counter()
        train_loss, speed = _train_epoch(run, network, optimizer, epoch, state.epoch)
        evaluation, valid_loss = _validate(run, network, epoch)
        record = EpochRecord(
            epoch=epoch,
            train_loss=train_loss,
            valid_loss=valid_loss,
            valid_auroc=evaluation.mean_auroc,
            valid_auprc=evaluation.mean_auprc,
            learning_rate=settings.lr,
            images_per_second=speed,
            seconds=time.perf_counter() - began,
        )
        state = _keep(run, network, optimizer, state, record, evaluation)
        if settings.patience and epoch - state.best_epoch >= settings.patience:
            log.warning("no better epoch for %d: stopped after epoch %d", settings.patience, epoch)
            break
    best = next(record for record in state.history if record.epoch == state.best_epoch)
    return TrainResult(run.folder, run.folder / BUNDLE_NAME, best, state.history, time.perf_counter() - started)


def _train_epoch(
    run: _Run, network: ChestNet, optimizer: torch.optim.Optimizer, epoch: int, kept_epochs: int
) -> tuple[float, float]:
    """One pass over the train split; mean loss and images per second."""
    settings = run.settings.train
    device = run.runtime.device
    order = epoch_order(settings.seed, epoch, len(run.train.manifest))
    groups = split_batches(order, settings.batch_size, merge_single=True)
    pos_weight = None if run.pos_weight is None else torch.from_numpy(run.pos_weight).to(device)
    total_loss = torch.zeros((), device=device)
    steps, done, began, reported = 0, 0, time.perf_counter(), 0.0
    network.train()
    augment_seed = (settings.seed, epoch) if settings.augment else None
    for batch in manifest_batches(run.train.manifest, groups, run.reading, augment_seed):
        targets = torch.from_numpy(run.train.targets[batch.rows]).to(device)
        mask = torch.from_numpy(run.train.mask[batch.rows]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=run.runtime.bf16):
            logits = network(run.runtime.tensor(batch.pixels))
        loss = masked_bce(logits, targets, mask, pos_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if settings.clip_gradients:
            clip_grad_norm_(network.parameters(), settings.clip_gradients)
        optimizer.step()
        total_loss += loss.detach()
        steps, done = steps + 1, done + len(batch.rows)
        elapsed = time.perf_counter() - began
        # Reading the loss waits for the device, so it is read a few times a second and not each step.
        if elapsed - reported > 0.3 or done == len(order):
            reported = elapsed
            _refuse_non_finite(total_loss.item(), epoch, steps)
            detail = f"loss {total_loss.item() / steps:.4f}, {done / elapsed:.1f} images/s"
            run.progress(Progress(f"epoch {epoch}/{settings.epochs}", done, len(order), detail))
        _stop_if_asked(run, epoch, kept_epochs)
    return total_loss.item() / steps, done / (time.perf_counter() - began)


def _refuse_non_finite(total_loss: float, epoch: int, step: int) -> None:
    if not np.isfinite(total_loss):
        raise CxrError(
            f"the loss is not finite in epoch {epoch} at or shortly before step {step}",
            "Try a smaller --lr, --clip-gradients 1 or --precision fp32; the last whole epoch is kept.",
        )


def _stop_if_asked(run: _Run, epoch: int, kept_epochs: int) -> None:
    number = run.stop()
    if number is not None:
        raise InterruptedWorkError(
            f"stopped in epoch {epoch}; {kept_epochs} whole epoch{'s are' if kept_epochs != 1 else ' is'} "
            f"kept in {run.folder}",
            f"Go on with: cxr train --resume {run.folder}",
            number,
        )


def _validate(run: _Run, network: ChestNet, epoch: int) -> tuple[Evaluation, float]:
    """Metrics at study level and the unweighted loss on valid, in float32."""
    network.eval()
    runtime = Runtime(run.runtime.device, False, run.runtime.channels_last, run.runtime.pin_memory)
    logits = manifest_logits(network, run.valid.manifest, run.reading, runtime, run.progress, f"epoch {epoch} valid")
    loss = masked_bce(*(torch.from_numpy(array) for array in (logits, run.valid.targets, run.valid.mask)))
    return evaluate_logits(logits, run.valid.manifest, run.settings.data.blank), loss.item()


def _keep(
    run: _Run,
    network: ChestNet,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    record: EpochRecord,
    evaluation: Evaluation,
) -> TrainingState:
    """Write the epoch's files; the state last, so that a kill before it costs this epoch and nothing else."""
    by_loss = run.select_by is SelectBy.LOSS
    score = -record.valid_loss if by_loss else record.valid_auroc
    better = score is not None and (state.best_score is None or score > state.best_score)
    history = (*state.history, record)
    header = _header(run, record, evaluation)
    weights = network.state_dict()
    if better:
        save_bundle(run.folder / BUNDLE_NAME, weights, header)
    save_bundle(run.folder / LAST_NAME, weights, header)
    columns = [field.name for field in fields(EpochRecord)]
    write_csv(run.folder / "history.csv", columns, [astuple(row) for row in history])
    write_json(run.folder / "history.json", [asdict(row) for row in history])
    kept = TrainingState(
        epoch=record.epoch,
        best_epoch=record.epoch if better else state.best_epoch,
        best_score=score if better else state.best_score,
        history=history,
        fingerprint=run.fingerprint,
    )
    save_state(run.folder / STATE_NAME, kept, network, optimizer)
    return kept


def _header(run: _Run, record: EpochRecord, evaluation: Evaluation) -> BundleHeader:
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


__all__ = ["LAST_NAME", "SETTINGS_NAME", "MatmulPrecision", "TrainResult", "settings_of_run", "train"]
