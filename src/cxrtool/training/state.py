"""What `--resume` needs: weights, optimizer, history and place, as one safetensors file with a digest over it all.

Order and augmentation are drawn from (seed, epoch, row), so that no generator has a state to keep, and a run goes on
in the middle of an epoch by leaving out the batches that it has trained on.
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
from safetensors.torch import save
from torch import Tensor
from torch.optim import Optimizer

from cxrtool.errors import RequestError
from cxrtool.files import keep_as, to_json, write_bytes
from cxrtool.model.bundle import digest_of_weights
from cxrtool.model.densenet import ChestNet

log = logging.getLogger(__name__)

STATE_NAME = "state.safetensors"
PREVIOUS_STATE_NAME = "state-previous.safetensors"
_KEY = "cxrtool-state"
_DIGEST_KEY = "cxrtool-state-sha256"


@dataclass(frozen=True)
class EpochRecord:
    """One row of history.csv.

    Attributes:
        epoch: from 1.
        train_loss: weighted, masked, mean over the epoch's steps.
        valid_loss: masked, not weighted, so that runs with other weights compare.
        valid_auroc: mean over findings with both classes, study level; None where there is none.
        valid_auprc: likewise.
        learning_rate: of the epoch.
        images_per_second: in training, reading included.
        seconds: of the epoch, validation included.
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
    """How far a run has come.

    Attributes:
        epoch: whole epochs done.
        best_epoch: the one in model.safetensors; 0 before the first.
        best_score: its score, larger is better; None before the first.
        best_sha256: digest of its weights; empty before the first.
        history: a record per epoch done.
        fingerprint: what must not change between parts of one run: settings, sheets, number of images.
        header: of the bundle of the last whole epoch; None before the first.
        step: steps done in the epoch under way; 0 between epochs.
        loss_sum: of those steps.
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
    """Write everything that the next step starts from, in one step; the state before stays under its second name.

    Raises:
        WriteError: it cannot be written; the state before is as it was.
    """
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = to_json(asdict(state))
    packed = save(on_cpu, metadata={_KEY: content, _DIGEST_KEY: _digest(content, on_cpu)})
    path = folder / STATE_NAME
    if path.exists():
        keep_as(path, folder / PREVIOUS_STATE_NAME)
    write_bytes(path, packed)


def _digest(content: str, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(f"{content}{digest_of_weights(tensors)}".encode()).hexdigest()


def has_state(folder: Path) -> bool:
    """Whether there is something to resume from, sound or not."""
    return any((folder / name).is_file() for name in (STATE_NAME, PREVIOUS_STATE_NAME))


def newest_state(folder: Path) -> tuple[TrainingState, dict[str, Tensor]]:
    """The newest state of a run that can be read; the one before, with a warning, where the newest is damaged.

    Raises:
        RequestError: there is none.
    """
    newest, previous = folder / STATE_NAME, folder / PREVIOUS_STATE_NAME
    try:
        return read_state(newest)
    except RequestError as error:
        if not previous.is_file():
            raise
        found = read_state(previous)
        log.warning("%s; going on from the state before it, %s", error.message, place_of(found[0]))
    keep_as(previous, newest)  # the next save keeps what is there as the one before
    return found


def place_of(state: TrainingState) -> str:
    """Where a state stands, as people say it."""
    done = f"{state.epoch} whole epoch{'' if state.epoch == 1 else 's'}"
    return f"{done} and {state.step} step{'' if state.step == 1 else 's'}" if state.step else done


def read_state(path: Path) -> tuple[TrainingState, dict[str, Tensor]]:
    """The state at `path` and its tensors.

    Raises:
        RequestError: there is nothing to resume, or it cannot be read, or a byte of it has changed.
    """
    if not path.is_file():
        raise RequestError(f"{path.parent} holds nothing to resume (no {path.name})", "Start it anew with --out.")
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
        raise RequestError(f"{path} cannot be read ({error})", "Start anew, or from --init RUN's model.") from None


def restore(tensors: Mapping[str, Tensor], network: ChestNet, optimizer: Optimizer) -> None:
    """Put saved tensors back. The weights are copied in place, so their device and layout stay."""
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
    # Saved tensors are contiguous; in another layout than their weight the moments would be summed in another
    # order, and the resumed weights differ in the last bit.
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for slot, value in optimizer.state.get(parameter, {}).items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    optimizer.state[parameter][slot] = torch.empty_like(parameter).copy_(value).detach()
