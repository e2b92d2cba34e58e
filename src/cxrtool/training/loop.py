"""Training, read from top to bottom: `train` prepares a run, `_fit` goes through its epochs."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cxrtool.choices import SelectBy
from cxrtool.data.batches import split_batches
from cxrtool.data.dataset import Dataset
from cxrtool.engines.engine import torch_engine
from cxrtool.errors import RequestError, WriteError
from cxrtool.evaluation.metrics import Evaluation
from cxrtool.locks import sweep_partials
from cxrtool.model.bundle import BUNDLE_NAME, digest_of_weights
from cxrtool.model.densenet import build_network
from cxrtool.model.golden import golden_of
from cxrtool.predict.split import evaluate_logits, manifest_logits
from cxrtool.progress import Progress, ProgressCallback, StopSignal, ignore_progress, never_stop
from cxrtool.resolved_settings import ResolvedSettings
from cxrtool.training.epoch import Losses, Work, join_unreadable, stop_if_asked, train_epoch, training_step
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
from cxrtool.training.parts import build_optimizer, freeze
from cxrtool.training.processes import ALONE, Processes, was_restarted
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
    processes: Processes = ALONE,
) -> TrainResult:
    """Train one model on the train split and choose its best epoch on valid.

    Args:
        resolved: settings and their sources; `data.root` must be set.
        out: folder of the run; by default a readable name under `settings.runs`.
        resume: folder of a run to continue; it must have been started with the same settings.
        progress: called after each step.
        stop: called between steps, on a GPU after every eighth, and after each batch of valid; see `StopSignal`.
        dataset: the data of `resolved` if it is already open, with the rows of train and valid.
        processes: the processes that train together, each of which calls this function; see `join_processes`.

    Returns:
        The result. The folder has model.safetensors (best epoch), last.safetensors, history.csv and .json,
        settings.yaml, dataset.json, model.json and the state that `resume` needs.

    Raises:
        RequestError: the data, the settings or the folder cannot be used; no training was started.
        InterruptedWorkError: `stop` returned a signal; all steps are saved.
        WriteError: the disk is full; the last saved state is unchanged.
        CxrError: an image cannot be read, the loss is not finite, or memory has run out.
        OtherProcessError: another process has ended, for such a reason or because it was killed.
    """
    settings = resolved.settings
    folder = processes.from_first(lambda: resume or out or settings.runs / run_name(settings.train))
    if was_restarted() and processes.from_first(lambda: has_state(folder) or can_restart(folder)):
        resume = folder
    if resume is None:
        processes.from_first(partial(refuse_existing_run, folder))
    fresh = resume is None or can_restart(folder)
    if not fresh and not has_state(folder):
        raise RequestError(f"{folder} has nothing to resume (no {STATE_NAME})", "Start a new run with --out.")
    run = prepare_run(settings, dataset or Dataset(settings.data, ("train", "valid")), folder, progress, stop, fresh)
    _refuse_too_many_processes(run, processes)
    init = settings.train.init if fresh else "none"
    network = run.runtime.place(build_network(run.reading.preprocessing, init, settings.train.seed, len(run.findings)))
    network = processes.with_shared_statistics(network)
    freeze(network, settings.train.freeze)
    work = Work(run, network, build_optimizer(network, settings.train), processes)
    with _locked_by_first(folder, processes), _advise_resuming(folder):
        processes.from_first(partial(_clear, folder, fresh))
        if fresh:
            state = TrainingState(0, 0, None, "", (), run.fingerprint)
        else:
            work, state = _resume(work)
        # It may take minutes, so all checks come first.
        work = replace(work, run=processes.first_alone(partial(with_caches, work.run)))
        processes.from_first(partial(_describe, work, state, resolved, fresh))
        return _fit(work, state)


@contextmanager
def _locked_by_first(folder: Path, processes: Processes) -> Iterator[None]:
    with ExitStack() as stack:
        processes.from_first(lambda: stack.enter_context(locked(folder)))
        yield


def _refuse_too_many_processes(run: Run, processes: Processes) -> None:
    needed, settings = 2 * processes.count, run.settings.train
    if settings.batch_size < needed or len(run.train.manifest) < needed:
        raise RequestError(
            f"{processes.count} processes need {needed} images in a step, but --batch-size is {settings.batch_size}, "
            f"and the train split has {len(run.train.manifest)}",
            "Start fewer processes. --batch-size counts the images of all of them.",
        )


def _clear(folder: Path, fresh: bool) -> None:
    if fresh and has_state(folder):  # another process has written one in the meantime
        refuse_existing_run(folder)
    sweep_partials(folder)


def _describe(work: Work, state: TrainingState, resolved: ResolvedSettings, fresh: bool) -> None:
    """Write what the run's folder says of it, and the state of a new one."""
    run, folder = work.run, work.run.folder
    warn_low_disk_space(folder, work.network)
    describe_run(run, resolved, work.network, fresh, work.processes.count)
    if fresh:
        for split in (run.train, run.valid):
            write_rows(folder, split.manifest)
        save_state(folder, state, work.network, work.optimizer)


def _resume(work: Work) -> tuple[Work, TrainingState]:
    folder = work.run.folder
    state, tensors = newest_state(folder)
    work = replace(work, run=match_rows(work.run, state.fingerprint))
    refuse_changed_settings(state.fingerprint, work.run.fingerprint, folder)
    restore(tensors, work.network, work.optimizer)
    return work, work.processes.from_first(lambda: save_epoch(folder, state, work.network.state_dict()))


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
    step = training_step(work)
    for epoch in range(state.epoch + 1, settings.epochs + 1):
        began = time.perf_counter()
        losses, speed = train_epoch(work, step, state)
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
        state = work.processes.from_first(partial(_save, work, state, record, evaluation))
        if settings.patience and epoch - state.best_epoch >= settings.patience:
            log.warning("stopped after epoch %d: no better epoch in the last %d", epoch, settings.patience)
            break
    best = next(record for record in state.history if record.epoch == state.best_epoch)
    unreadable = (*run.train.unreadable, *run.valid.unreadable)
    seconds = time.perf_counter() - started
    return TrainResult(run.folder, run.folder / BUNDLE_NAME, best, state.history, seconds, unreadable)


def _validate(work: Work, state: TrainingState, losses: Losses) -> tuple[Evaluation, float]:
    """Return metrics at study level and the unweighted loss on valid, both in float32.

    The processes read a share of the images each, as many batches of them as the others.
    """
    run, network, processes = work.run, work.network, work.processes
    processes.copy_buffers(network)
    network.eval()

    def progress(step: Progress) -> None:
        run.progress(step)
        stop_if_asked(work, state, losses)

    valid, count = run.valid, len(run.valid.manifest)
    groups = split_batches(np.arange(count, dtype=np.int64), run.reading.batch_size * processes.count)
    logits = manifest_logits(
        torch_engine(network, replace(run.runtime, bf16=False)),
        valid.manifest,
        run.reading,
        len(run.findings),
        progress,
        f"epoch {state.epoch + 1} valid",
        valid.cache,
        valid.skip,
        [processes.share(group) for group in groups],
    )
    join_unreadable(valid.skip, processes)
    logits = processes.put_together(logits)
    return processes.from_first(partial(_score, run, logits))


def _score(run: Run, logits: NDArray[np.float32]) -> tuple[Evaluation, float]:
    valid = run.valid
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
