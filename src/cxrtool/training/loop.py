"""Training, read from top to bottom: `train` prepares a run, `_fit` goes through its epochs."""

import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils import clip_grad_norm_

from cxrtool.choices import SelectBy
from cxrtool.data.batches import manifest_batches, split_batches
from cxrtool.data.dataset import Dataset
from cxrtool.data.images import shown
from cxrtool.engines.engine import torch_engine
from cxrtool.errors import CxrError, InterruptedWorkError, RequestError, WriteError, first_line, is_out_of_memory
from cxrtool.evaluation.metrics import Evaluation
from cxrtool.files import write_json
from cxrtool.locks import sweep_partials
from cxrtool.model.bundle import BUNDLE_NAME, digest_of_weights
from cxrtool.model.densenet import ChestNet, build_network
from cxrtool.model.golden import golden_of
from cxrtool.predict.split import evaluate_logits, manifest_logits
from cxrtool.progress import Progress, ProgressCallback, StopSignal, ignore_progress, never_stop
from cxrtool.resolved_settings import ResolvedSettings
from cxrtool.training.augment import augment, draw_changes, epoch_order
from cxrtool.training.folder import (
    can_restart,
    locked,
    refuse_changed_settings,
    refuse_existing_run,
    run_name,
    save_epoch,
    warn_low_disk_space,
)
from cxrtool.training.loss import masked_bce
from cxrtool.training.memory import batch_that_fits
from cxrtool.training.parts import build_optimizer, freeze, set_training
from cxrtool.training.rows import match_rows, write_rows
from cxrtool.training.run import Run, bundle_header, describe_data, describe_run, prepare_run, with_caches
from cxrtool.training.state import (
    STATE_NAME,
    EpochRecord,
    TrainingState,
    has_state,
    newest_state,
    restore,
    save_state,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """Result of `train`.

    Attributes:
        run: folder of the run.
        bundle: model of the best epoch.
        best: record of the best epoch.
        history: one record per epoch.
        seconds: duration of the epochs trained in this call.
        unreadable: error messages of the images that were left out, with `data.skip_unreadable`.
    """

    run: Path
    bundle: Path
    best: EpochRecord
    history: tuple[EpochRecord, ...]
    seconds: float
    unreadable: tuple[str, ...] = ()


def train(
    resolved: ResolvedSettings,
    out: Path | None = None,
    resume: Path | None = None,
    progress: ProgressCallback = ignore_progress,
    stop: StopSignal = never_stop,
    dataset: Dataset | None = None,
) -> TrainResult:
    """Train one model on the train split and choose its best epoch on valid.

    Args:
        resolved: settings and their sources; `data.root` must be set.
        out: folder of the run; by default a readable name under `settings.runs`.
        resume: folder of a run to continue; it must have been started with the same settings.
        progress: called after each step.
        stop: called before each step and after each batch of valid; see `StopSignal`.
        dataset: the data of `resolved` if it is already open, with the rows of train and valid.

    Returns:
        The result. The folder has model.safetensors (best epoch), last.safetensors, history.csv and .json,
        settings.yaml, dataset.json, model.json and the state that `resume` needs.

    Raises:
        RequestError: the data, the settings or the folder cannot be used; no training was started.
        InterruptedWorkError: `stop` returned a signal; all steps are saved.
        WriteError: the disk is full; the last saved state is unchanged.
        CxrError: an image cannot be read, the loss is not finite, or memory has run out.
    """
    settings = resolved.settings
    folder = resume or out or settings.runs / run_name(settings.train)
    if resume is None:
        refuse_existing_run(folder)
    fresh = resume is None or can_restart(folder)
    if not fresh and not has_state(folder):
        raise RequestError(f"{folder} has nothing to resume (no {STATE_NAME})", "Start a new run with --out.")
    run = prepare_run(settings, dataset or Dataset(settings.data, ("train", "valid")), folder, progress, stop, fresh)
    init = settings.train.init if fresh else "none"
    network = run.runtime.place(build_network(run.reading.preprocessing, init, settings.train.seed, len(run.findings)))
    freeze(network, settings.train.freeze)
    work = Work(run, network, build_optimizer(network, settings.train))
    with locked(folder), _advise_resuming(folder):
        if fresh and has_state(folder):  # another process has written one in the meantime
            refuse_existing_run(folder)
        sweep_partials(folder)
        if fresh:
            state = TrainingState(0, 0, None, "", (), run.fingerprint)
        else:
            work, state = _resume(work)
        warn_low_disk_space(folder, network)
        work = replace(work, run=with_caches(work.run))  # it may take minutes, so all checks come first
        describe_run(work.run, resolved, network, fresh)
        if fresh:
            for split in (run.train, run.valid):
                write_rows(folder, split.manifest)
            save_state(folder, state, network, work.optimizer)
        return _fit(work, state)


@dataclass(frozen=True)
class Work:
    """Run, network and optimizer."""

    run: Run
    network: ChestNet
    optimizer: torch.optim.Optimizer


def _resume(work: Work) -> tuple[Work, TrainingState]:
    folder = work.run.folder
    state, tensors = newest_state(folder)
    work = replace(work, run=match_rows(work.run, state.fingerprint))
    refuse_changed_settings(state.fingerprint, work.run.fingerprint, folder)
    restore(tensors, work.network, work.optimizer)
    return work, save_epoch(folder, state, work.network.state_dict())


@contextmanager
def _advise_resuming(folder: Path) -> Iterator[None]:
    try:
        yield
    except WriteError as error:
        advice = f"Free some space, then continue: cxr train --resume {folder}"
        raise WriteError(error.message, advice if has_state(folder) else error.advice) from error


def _fit(work: Work, state: TrainingState) -> TrainResult:
    started = time.perf_counter()
    run, settings = work.run, work.run.settings.train
    for epoch in range(state.epoch + 1, settings.epochs + 1):
        began = time.perf_counter()
        losses, speed = _train_epoch(work, state)
        evaluation, valid_loss = _validate(work, state, losses)
        record = EpochRecord(
            epoch=epoch,
            train_loss=losses.mean,
            valid_loss=valid_loss,
            valid_auroc=evaluation.mean_auroc,
            valid_auprc=evaluation.mean_auprc,
            learning_rate=settings.lr,
            images_per_second=speed,
            seconds=time.perf_counter() - began,
        )
        state = _save(work, state, record, evaluation)
        if settings.patience and epoch - state.best_epoch >= settings.patience:
            log.warning("stopped after epoch %d: no better epoch in the last %d", epoch, settings.patience)
            break
    best = next(record for record in state.history if record.epoch == state.best_epoch)
    unreadable = (*run.train.unreadable, *run.valid.unreadable)
    seconds = time.perf_counter() - started
    return TrainResult(run.folder, run.folder / BUNDLE_NAME, best, state.history, seconds, unreadable)


@dataclass
class _Losses:
    """Losses of the steps of an epoch. They stay on the device until `read`, which waits for the device.

    Attributes:
        total: sum over the steps that were read.
        steps: number of steps of the epoch, read or not.
        waiting: rows and loss of the steps that were not read yet.
        empty: number of steps without a loss, because their images were left out.
    """

    total: float
    steps: int
    waiting: list[tuple[NDArray[np.int64], torch.Tensor]] = field(default_factory=list)
    empty: int = 0

    @property
    def mean(self) -> float:
        """Mean over the steps that were read."""
        return self.total / max(1, self.steps - len(self.waiting) - self.empty)

    def add(self, rows: NDArray[np.int64], loss: torch.Tensor) -> None:
        """Add a step."""
        self.steps += 1
        self.waiting.append((rows, loss.detach()))

    def add_empty(self) -> None:
        """Add a step without a loss."""
        self.steps += 1
        self.empty += 1

    def read(self, work: Work, epoch: int) -> None:
        """Read the waiting losses from the device.

        Raises:
            CxrError: a loss or a weight is not finite; the message names the step and its images.
        """
        if not self.waiting:
            return
        first = self.steps - len(self.waiting) + 1  # of the last ones, if images were left out between them
        values = torch.stack([loss for _, loss in self.waiting]).tolist()
        for step, (value, (rows, _)) in enumerate(zip(values, self.waiting, strict=True), start=first):
            if not np.isfinite(value):
                raise _not_finite(work.run, "loss is", epoch, step, rows)
            self.total += value
        rows = self.waiting[-1][0]
        self.waiting.clear()
        # A step with a finite loss can still make weights infinite; such weights must not be saved.
        finite = torch.stack([tensor.isfinite().all() for tensor in work.network.parameters()]).all()
        if not finite.item():
            raise _not_finite(work.run, "weights are", epoch, self.steps, rows)


def _not_finite(run: Run, what: str, epoch: int, step: int, rows: NDArray[np.int64]) -> CxrError:
    paths = [shown(run.train.manifest.file(int(row))) for row in rows]
    about = run.folder / "not-finite.json"
    write_json(about, {"epoch": epoch, "step": step, "rows": rows, "paths": paths})
    more = f" and {len(paths) - 2} more (all in {about})" if len(paths) > 2 else ""
    return CxrError(
        f"the {what} not finite in epoch {epoch} at step {step}, with images {', '.join(paths[:2])}{more}",
        "Try a smaller --lr, --clip-gradients 1 or --precision fp32; states saved before are unchanged.",
    )


def _train_epoch(work: Work, state: TrainingState) -> tuple[_Losses, float]:
    """Train the rest of the epoch after the position of `state`; return its losses and images per second."""
    try:
        return _train_steps(work, state)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error)
    # After the except block, so that no traceback keeps the memory of the failed step alive.
    settings = work.run.settings.train
    size = settings.batch_size
    work.optimizer.zero_grad(set_to_none=True)
    fits = batch_that_fits(size, settings.image_size, work.run.runtime)
    raise CxrError(
        f"memory has run out in epoch {state.epoch + 1}, in a step of {size} images ({reason})",
        f"Start again with --batch-size {fits}: a step of that size was just tried and fits."
        if fits
        else "Not even 2 images fit: use a smaller --image-size, or a machine with more memory.",
    )


def _train_steps(work: Work, state: TrainingState) -> tuple[_Losses, float]:
    run, settings, epoch = work.run, work.run.settings.train, state.epoch + 1
    device = run.runtime.device
    order = epoch_order(settings.seed, epoch, run.train.total)
    planned = split_batches(order, settings.batch_size, merge_single=True)[state.step :]
    before = len(order) - sum(map(len, planned))
    groups = [run.train.rows_of(numbers) for numbers in planned]
    skip = run.train.skip
    pos_weight = None if run.pos_weight is None else torch.from_numpy(run.pos_weight).to(device)
    losses, done, began, reported = _Losses(state.loss_sum, state.step), before, time.perf_counter(), 0.0
    set_training(work.network, settings.freeze)
    with closing(manifest_batches(run.train.manifest, groups, run.reading, run.train.cache, skip)) as batches:
        for numbers, batch in zip(planned, batches, strict=True):
            _stop_if_asked(work, state, losses)
            targets = torch.from_numpy(run.train.targets[batch.rows]).to(device)
            mask = torch.from_numpy(run.train.mask[batch.rows]).to(device)
            pixels = run.runtime.tensor(batch.pixels)
            if settings.augment:
                pixels = augment(pixels, draw_changes(settings.seed, epoch, run.train.numbers[batch.rows]))
            if len(batch.rows) > 1:
                losses.add(batch.rows, train_step(work, pixels, targets, mask, pos_weight))
            else:  # BatchNorm needs two images; a planned batch has them, but some may have been left out
                losses.add_empty()
            done += len(numbers)
            elapsed = time.perf_counter() - began
            if elapsed - reported > 0.3 or done == len(order):
                reported = elapsed
                losses.read(work, epoch)
                detail = f"loss {losses.mean:.4f}, {(done - before) / elapsed:.1f} images/s"
                run.progress(Progress(f"epoch {epoch}/{settings.epochs}", done, len(order), detail))
    return losses, (done - before) / (time.perf_counter() - began)


def train_step(
    work: Work,
    pixels: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor,
    pos_weight: torch.Tensor | None,
) -> torch.Tensor:
    """Train on one batch; return its loss, on the device."""
    runtime, clip = work.run.runtime, work.run.settings.train.clip_gradients
    with torch.autocast(runtime.device.type, torch.bfloat16, enabled=runtime.bf16):
        logits = work.network(pixels)
    loss = masked_bce(logits, targets, mask, pos_weight)
    work.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if clip:
        clip_grad_norm_(work.network.parameters(), clip)
    work.optimizer.step()
    return loss


def _stop_if_asked(work: Work, state: TrainingState, losses: _Losses) -> None:
    """If a signal has arrived, save the steps made since `state` and raise."""
    number = work.run.stop()
    if number is None:
        return
    losses.read(work, state.epoch + 1)
    folder, now = work.run.folder, replace(state, step=losses.steps, loss_sum=losses.total)
    if now.step > state.step:
        save_state(folder, now, work.network, work.optimizer)
    raise InterruptedWorkError(
        f"stopped in epoch {now.epoch + 1} after step {now.step}, which is saved; "
        f"{now.epoch} complete epoch{'s are' if now.epoch != 1 else ' is'} saved in {folder}",
        f"Continue with: cxr train --resume {folder}",
        number,
    )


def _validate(work: Work, state: TrainingState, losses: _Losses) -> tuple[Evaluation, float]:
    """Return metrics at study level and the unweighted loss on valid, both in float32."""
    run, network = work.run, work.network
    network.eval()
    runtime = replace(run.runtime, bf16=False)

    def progress(step: Progress) -> None:
        run.progress(step)
        _stop_if_asked(work, state, losses)

    phase = f"epoch {state.epoch + 1} valid"
    engine = torch_engine(network, runtime)
    valid = run.valid
    logits = manifest_logits(
        engine, valid.manifest, run.reading, len(run.findings), progress, phase, valid.cache, valid.skip
    )
    kept = np.ones(len(logits), dtype=np.bool_) if valid.skip is None else valid.skip.kept(len(logits))
    arrays = (logits[kept], valid.targets[kept], valid.mask[kept])
    loss = masked_bce(*(torch.from_numpy(array) for array in arrays))
    return evaluate_logits(logits[kept], valid.manifest.select(kept), run.settings.data.blank), loss.item()


def _save(work: Work, state: TrainingState, record: EpochRecord, evaluation: Evaluation) -> TrainingState:
    """Save the epoch; the state is written first, because the other files can be restored from it."""
    run, weights = work.run, work.network.state_dict()
    by_loss = run.select_by is SelectBy.LOSS
    score = -record.valid_loss if by_loss else record.valid_auroc
    # The first epoch counts as best even without a score, which skipped images may leave undefined.
    better = not state.best_epoch or (score is not None and (state.best_score is None or score > state.best_score))
    sha256 = digest_of_weights(weights)
    golden = golden_of(weights, run.reading.preprocessing)
    header = bundle_header(run, record, evaluation).model_copy(update={"weights_sha256": sha256, "golden": golden})
    kept = TrainingState(
        epoch=record.epoch,
        best_epoch=record.epoch if better else state.best_epoch,
        best_score=score if better else state.best_score,
        best_sha256=sha256 if better else state.best_sha256,
        history=(*state.history, record),
        fingerprint=run.fingerprint,
        header=header.model_dump(mode="json"),
    )
    save_state(run.folder, kept, work.network, work.optimizer)
    if run.train.unreadable or run.valid.unreadable:
        describe_data(run)
    return save_epoch(run.folder, kept, weights, state)
