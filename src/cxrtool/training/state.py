"""The training state for `--resume`: weights, optimizer, history and position, in a safetensors file with a digest.

Order and augmentation are drawn from (seed, epoch, row), so there is no generator state to save, and a run continues in
the middle of an epoch by skipping the batches that are done.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim import Optimizer

from cxrtool.errors import RequestError
from cxrtool.files import link_or_copy, to_json, write_bytes
from cxrtool.model.bundle import digest_of_weights
from cxrtool.model.densenet import ChestNet
from cxrtool.model.tensor_file import tensor_file

log = logging.getLogger(__name__)

STATE_NAME = "state.safetensors"
PREVIOUS_STATE_NAME = "state-previous.safetensors"
_KEY = "cxrtool-state"
_DIGEST_KEY = "cxrtool-state-sha256"


@dataclass(frozen=True)
class EpochRecord:
    """One row of history.csv.

    Attributes:
        epoch: number of the epoch, from 1.
        train_loss: weighted masked loss, mean over the epoch's steps.
        valid_loss: masked loss without weights, so that runs with different weights can be compared.
        valid_auroc: mean over findings with both classes, at study level; None if there is no such finding.
        valid_auprc: the same for AUPRC.
        learning_rate: learning rate of the epoch.
        images_per_second: speed of training, including reading.
        seconds: duration of the epoch, including validation.
    """

    epoch: int
    train_loss: float
    valid_loss: float
    valid_auroc: float | None
    valid_auprc: float | None
    learning_rate: float
    images_per_second: float
    seconds: float


@dataclass(frozen=True)
class TrainingState:
    """Position of a run.

    Attributes:
        epoch: number of complete epochs.
        best_epoch: epoch in model.safetensors; 0 before the first one is complete.
        best_score: score of the best epoch, larger is better; None before the first one is complete.
        best_sha256: digest of the best epoch's weights; empty before the first one is complete.
        history: one record per complete epoch.
        fingerprint: everything that must not change when a run is resumed: settings, sheets, number of images.
        header: bundle header of the last complete epoch; None before the first one is complete.
        step: number of steps done in the current epoch; 0 between epochs.
        loss_sum: sum of the losses of these steps.
    """

    epoch: int
    best_epoch: int
    best_score: float | None
    best_sha256: str
    history: tuple[EpochRecord, ...]
    fingerprint: dict[str, Any]
    header: dict[str, Any] | None = None
    step: int = 0
    loss_sum: float = 0.0


def save_state(folder: Path, state: TrainingState, network: ChestNet, optimizer: Optimizer) -> None:
    """Write everything that the next step needs, atomically; the previous state is kept under its second name.

    Raises:
        WriteError: the state cannot be written; the previous one is unchanged.
    """
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = to_json(asdict(state))
    pieces = tensor_file(on_cpu, {_KEY: content, _DIGEST_KEY: _digest(content, on_cpu)})
    path = folder / STATE_NAME
    if path.exists():
        link_or_copy(path, folder / PREVIOUS_STATE_NAME)
    write_bytes(path, *pieces)


def _digest(content: str, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(f"{content}{digest_of_weights(tensors)}".encode()).hexdigest()


def has_state(folder: Path) -> bool:
    """Whether the folder has a state to resume from, sound or damaged."""
    return any((folder / name).is_file() for name in (STATE_NAME, PREVIOUS_STATE_NAME))


def newest_state(folder: Path) -> tuple[TrainingState, dict[str, Tensor]]:
    """Read the newest state of a run, or with a warning the previous one if the newest is damaged.

    Raises:
        RequestError: no state can be read.
    """
    newest, previous = folder / STATE_NAME, folder / PREVIOUS_STATE_NAME
    try:
        return read_state(newest)
    except RequestError as error:
        if not previous.is_file():
            raise
        found = read_state(previous)
        log.warning("%s; continuing from the previous state, %s", error.message, describe_position(found[0]))
    link_or_copy(previous, newest)  # the next save keeps this file as the previous state
    return found


def describe_position(state: TrainingState) -> str:
    """Return the position of a state as text: ``2 complete epochs and 3 steps``."""
    done = f"{state.epoch} complete epoch{'' if state.epoch == 1 else 's'}"
    return f"{done} and {state.step} step{'' if state.step == 1 else 's'}" if state.step else done


def read_state(path: Path) -> tuple[TrainingState, dict[str, Tensor]]:
    """Read the state at `path` and its tensors.

    Raises:
        RequestError: the file is missing, cannot be read, or does not match its digest.
    """
    if not path.is_file():
        raise RequestError(f"{path.parent} has nothing to resume (no {path.name})", "Start a new run with --out.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if metadata[_DIGEST_KEY] != _digest(metadata[_KEY], tensors):
            raise ValueError("its content does not match its digest")
        content = json.loads(metadata[_KEY])
        history = tuple(EpochRecord(**row) for row in content.pop("history"))
        return TrainingState(history=history, **content), tensors
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RequestError(
            f"{path} cannot be read ({error})", "Start a new run, from the run's model with --init if you like."
        ) from None


def restore(tensors: Mapping[str, Tensor], network: ChestNet, optimizer: Optimizer) -> None:
    """Load saved tensors. Weights are copied in place, so that their device and memory layout do not change."""
    network.load_state_dict({n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")})
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".")
            slots.setdefault(int(index), {})[slot] = tensor
    current = optimizer.state_dict()
    optimizer.load_state_dict({"state": slots, "param_groups": current["param_groups"]})
    _match_layout(optimizer)


def _match_layout(optimizer: Optimizer) -> None:
    # Saved tensors are contiguous. Moments in another memory layout than their weight would be summed in another
    # order, and the resumed weights would differ in the last bit.
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for slot, value in optimizer.state.get(parameter, {}).items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    optimizer.state[parameter][slot] = torch.empty_like(parameter).copy_(value).detach()
