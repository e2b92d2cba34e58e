"""Training, read from top to bottom: `train` prepares a run, `_fit` goes through its epochs."""

import logging
import time
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from cxrtool.choices import OptimizerName, SelectBy
from cxrtool.data.augment import draw_changes, epoch_order
from cxrtool.data.batches import manifest_batches, split_batches
from cxrtool.errors import CxrError, InterruptedWorkError, RequestError
from cxrtool.evaluation.metrics import Evaluation
from cxrtool.files import write_csv, write_json
from cxrtool.inference.engines import manifest_logits, torch_engine
from cxrtool.inference.evaluate import evaluate_logits
from cxrtool.inference.forward import Runtime
from cxrtool.model.bundle import (
    BUNDLE_NAME,
    save_bundle,
)
from cxrtool.model.densenet import ChestNet, build_network
from cxrtool.progress import Progress, ProgressCallback, ignore_progress
from cxrtool.settings import ResolvedSettings, TrainSettings
from cxrtool.training.augment import augment
from cxrtool.training.loss import masked_bce
from cxrtool.training.run import (
    SETTINGS_NAME,
    Run,
    StopSignal,
    bundle_header,
    describe_run,
    locked,
    prepare_run,
    refuse_changes,
    run_name,
    with_caches,
)
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
    folder = resume or out or settings.runs / run_name(settings.train)
    state_path = folder / STATE_NAME
    if resume is None and any((folder / name).exists() for name in (SETTINGS_NAME, STATE_NAME, BUNDLE_NAME)):
        raise RequestError(f"{folder} holds a run already", f"Go on with --resume {folder}, or name another --out.")
    saved = read_state(state_path) if resume else None
    run = prepare_run(settings, folder, progress, stop)
    if saved is not None:
        refuse_changes(saved[0].fingerprint, run.fingerprint, folder)
    init = "none" if resume else settings.train.init
    network = run.runtime.place(build_network(run.reading.preprocessing, init, settings.train.seed))
    optimizer = _build_optimizer(network, settings.train)
    state = TrainingState(0, 0, None, (), run.fingerprint)
    if saved is not None:
        state, tensors = saved
        restore(tensors, network, optimizer)
    run = with_caches(run)  # last, as it may take minutes: what can be refused has been
    with locked(folder):
        describe_run(run, resolved, network)
        if saved is None:
            save_state(state_path, state, network, optimizer)
        return _fit(run, network, optimizer, state)


def _build_optimizer(network: ChestNet, settings: TrainSettings) -> torch.optim.Optimizer:
    kind = torch.optim.Adam if settings.optimizer is OptimizerName.ADAM else torch.optim.AdamW
    return kind(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)


def _fit(run: Run, network: ChestNet, optimizer: torch.optim.Optimizer, state: TrainingState) -> TrainResult:
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
    run: Run, network: ChestNet, optimizer: torch.optim.Optimizer, epoch: int, kept_epochs: int
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
    for batch in manifest_batches(run.train.manifest, groups, run.reading, run.train.cache):
        pixels = run.runtime.tensor(batch.pixels)
        if settings.augment:
            pixels = augment(pixels, draw_changes(settings.seed, epoch, batch.rows))
        targets = torch.from_numpy(run.train.targets[batch.rows]).to(device)
        mask = torch.from_numpy(run.train.mask[batch.rows]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=run.runtime.bf16):
            logits = network(pixels)
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


def _stop_if_asked(run: Run, epoch: int, kept_epochs: int) -> None:
    number = run.stop()
    if number is not None:
        raise InterruptedWorkError(
            f"stopped in epoch {epoch}; {kept_epochs} whole epoch{'s are' if kept_epochs != 1 else ' is'} "
            f"kept in {run.folder}",
            f"Go on with: cxr train --resume {run.folder}",
            number,
        )


def _validate(run: Run, network: ChestNet, epoch: int) -> tuple[Evaluation, float]:
    """Metrics at study level and the unweighted loss on valid, in float32."""
    network.eval()
    runtime = Runtime(run.runtime.device, False, run.runtime.channels_last, run.runtime.pin_memory)
    engine = torch_engine(network, runtime)
    phase = f"epoch {epoch} valid"
    logits = manifest_logits(engine, run.valid.manifest, run.reading, run.progress, phase, run.valid.cache)
    loss = masked_bce(*(torch.from_numpy(array) for array in (logits, run.valid.targets, run.valid.mask)))
    return evaluate_logits(logits, run.valid.manifest, run.settings.data.blank), loss.item()


def _keep(
    run: Run,
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
    header = bundle_header(run, record, evaluation)
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
