"""One epoch of training: its steps, its losses, and where it may be stopped."""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from cxrtool.data.batches import Batch, Unreadable, manifest_batches, split_batches
from cxrtool.data.images import shown
from cxrtool.errors import CxrError, InterruptedWorkError, first_line, is_out_of_memory
from cxrtool.files import write_json
from cxrtool.model.densenet import ChestNet
from cxrtool.progress import Progress
from cxrtool.training.augment import draw_changes, epoch_order
from cxrtool.training.feed import Block, StepArrays, on_device
from cxrtool.training.memory import batch_that_fits
from cxrtool.training.parts import set_training
from cxrtool.training.processes import Processes
from cxrtool.training.run import Run
from cxrtool.training.state import TrainingState, save_state
from cxrtool.training.step import TrainingStep


@dataclass(frozen=True)
class Work:
    """Run, network and optimizer, and the processes that share them."""

    run: Run
    network: ChestNet
    optimizer: torch.optim.Optimizer
    processes: Processes


@dataclass
class Losses:
    """Losses of the steps of an epoch. They stay on the device until `read`, which waits for the device.

    Attributes:
        total: sum over the steps that were read.
        steps: number of steps of the epoch, read or not.
        waiting: rows of all processes, and this one's part of the loss, of the steps that were not read yet.
        empty: number of steps without a loss, because their images were left out.
        last: rows of the last step that was read; None before the first.
    """

    total: float
    steps: int
    waiting: list[tuple[NDArray[np.int64], torch.Tensor]] = field(default_factory=list)
    empty: int = 0
    last: NDArray[np.int64] | None = None

    @property
    def mean(self) -> float:
        """Mean over the steps that were read."""
        return self.total / max(1, self.steps - len(self.waiting) - self.empty)

    def add(self, rows: NDArray[np.int64], loss: torch.Tensor) -> None:
        """Add a step."""
        self.steps += 1
        self.waiting.append((rows, loss))

    def add_empty(self) -> None:
        """Add a step without a loss."""
        self.steps += 1
        self.empty += 1

    def read(self, work: Work, epoch: int) -> None:
        """Read the waiting losses from the device; all processes must do so after the same step.

        Raises:
            CxrError: a loss is not finite; the message names the step and its images.
        """
        if not self.waiting:
            return
        first = self.steps - len(self.waiting) + 1  # of the last ones, if images were left out between them
        values = work.processes.total(torch.stack([loss for _, loss in self.waiting])).tolist()
        for step, (value, (rows, _)) in enumerate(zip(values, self.waiting, strict=True), start=first):
            if not np.isfinite(value):
                raise _not_finite(work, "loss is", epoch, step, rows)
            self.total += value
        self.last = self.waiting[-1][0]
        self.waiting.clear()

    def read_last(self, work: Work, epoch: int) -> None:
        """Read the waiting losses before the weights are saved.

        Raises:
            CxrError: a loss is not finite, or the last step, with a finite loss, has made weights infinite.
        """
        self.read(work, epoch)
        if self.last is None:
            return
        finite = torch.stack([tensor.isfinite().all() for tensor in work.network.parameters()]).all()
        if not finite.item():
            raise _not_finite(work, "weights are", epoch, self.steps, self.last)


def _not_finite(work: Work, what: str, epoch: int, step: int, rows: NDArray[np.int64]) -> CxrError:
    paths = [shown(work.run.train.manifest.file(int(row))) for row in rows]
    about = work.run.folder / "not-finite.json"
    if work.processes.first:
        write_json(about, {"epoch": epoch, "step": step, "rows": rows, "paths": paths})
    more = f" and {len(paths) - 2} more (all in {about})" if len(paths) > 2 else ""
    return CxrError(
        f"the {what} not finite in epoch {epoch} at step {step}, with images {', '.join(paths[:2])}{more}",
        "Try a smaller --lr, --clip-gradients 1 or --precision fp32; states saved before are unchanged.",
    )


def train_epoch(work: Work, step: TrainingStep, state: TrainingState) -> tuple[Losses, float]:
    """Train the rest of the epoch after the position of `state`; return its losses and images per second."""
    try:
        return _train_steps(work, step, state)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error)
    # After the except block, so that no traceback keeps the memory of the failed step alive.
    settings, count = work.run.settings.train, work.processes.count
    work.optimizer.zero_grad(set_to_none=True)
    fits = count * batch_that_fits(settings.batch_size // count, settings.image_size, work.run.runtime)
    raise CxrError(
        f"memory has run out in epoch {state.epoch + 1}, in a step of {settings.batch_size} images ({reason})",
        f"Start again with --batch-size {fits}: a step of that size was just tried and fits."
        if fits
        else "Not even 2 images fit: use a smaller --image-size, or a machine with more memory.",
    )


_STEPS_BETWEEN_LOOKS = 8
"""On a GPU, which waits while losses are read. On a CPU they are read, and signals looked for, after each step."""


def _train_steps(work: Work, step: TrainingStep, state: TrainingState) -> tuple[Losses, float]:
    run, settings, epoch, processes = work.run, work.run.settings.train, state.epoch + 1, work.processes
    order = epoch_order(settings.seed, epoch, run.train.total)
    planned = split_batches(order, settings.batch_size, least=2 * processes.count)[state.step :]
    before = len(order) - sum(map(len, planned))
    groups = [run.train.rows_of(numbers) for numbers in planned]
    losses, done, began = Losses(state.loss_sum, state.step), before, time.perf_counter()
    look = 1 if run.runtime.device.type == "cpu" else _STEPS_BETWEEN_LOOKS

    def report() -> None:
        losses.read(work, epoch)
        detail = f"loss {losses.mean:.4f}, {(done - before) / (time.perf_counter() - began):.1f} images/s"
        run.progress(Progress(f"epoch {epoch}/{settings.epochs}", done, len(order), detail))

    set_training(work.network, settings.freeze)
    with closing(_blocks(work, epoch, groups)) as blocks:
        for number, (numbers, rows, block) in enumerate(zip(planned, groups, blocks, strict=True)):
            # Only now, when the next step's input is on its way, may this one wait for the step before.
            if number % look == 0:
                stop_if_asked(work, state, losses)
                if number:
                    report()
            if block is None:
                losses.add_empty()
            else:
                losses.add(rows, step(block))
            done += len(numbers)
    report()
    losses.read_last(work, epoch)
    join_unreadable(run.train.skip, processes)
    return losses, (done - before) / (time.perf_counter() - began)


def _blocks(work: Work, epoch: int, groups: Sequence[NDArray[np.int64]]) -> Generator[Block | None, None, None]:
    """Yield what this process needs for each step, on its device; None for a step whose images were left out."""
    run, processes = work.run, work.processes
    shares = [processes.share(rows) for rows in groups]

    def steps(batches: Iterator[Batch]) -> Iterator[StepArrays | None]:
        for batch in batches:
            # BatchNorm needs two images; a planned batch has them, but some may have been left out.
            images = len(batch.rows) if run.train.skip is None else processes.sum(len(batch.rows))
            yield _arrays_of(run, epoch, batch).with_at_least(2) if images > 1 else None

    read = manifest_batches(run.train.manifest, shares, run.reading, run.train.cache, run.train.skip)
    with closing(read), closing(on_device(steps(read), run.runtime)) as blocks:
        yield from blocks


def _arrays_of(run: Run, epoch: int, batch: Batch) -> StepArrays:
    changes = None
    if run.settings.train.augment:
        changes = draw_changes(run.settings.train.seed, epoch, run.train.numbers[batch.rows])
    return StepArrays(batch.pixels, run.train.targets[batch.rows], run.train.mask[batch.rows], changes)


def training_step(work: Work) -> TrainingStep:
    """Return what trains `work` on one batch."""
    run, settings = work.run, work.run.settings
    return TrainingStep(
        work.processes.parallel(work.network),
        work.optimizer,
        run.runtime,
        work.processes,
        None if run.pos_weight is None else torch.from_numpy(run.pos_weight).to(run.runtime.device),
        settings.train.clip_gradients,
        settings.runtime.cuda_graphs,
    )


def stop_if_asked(work: Work, state: TrainingState, losses: Losses) -> None:
    """If a signal has arrived in any process, save the steps made since `state` and raise; all must ask together."""
    number = work.processes.largest(work.run.stop() or 0)
    if not number:
        return
    losses.read_last(work, state.epoch + 1)
    folder, now = work.run.folder, replace(state, step=losses.steps, loss_sum=losses.total)
    if now.step > state.step:
        work.processes.from_first(lambda: save_state(folder, now, work.network, work.optimizer))
    raise InterruptedWorkError(
        f"stopped in epoch {now.epoch + 1} after step {now.step}, which is saved; "
        f"{now.epoch} complete epoch{'s are' if now.epoch != 1 else ' is'} saved in {folder}",
        f"Continue with: cxr train --resume {folder}",
        number,
    )


def join_unreadable(skip: Unreadable | None, processes: Processes) -> None:
    """Tell all processes which images the others have left out."""
    if skip is not None:
        skip.join(processes.joined(skip.reasons))
