"""What `--resume` needs: weights, optimizer and history of the last whole epoch, as one safetensors file.

Order and augmentation are drawn from (seed, epoch, row), so that no generator has a state to keep.
"""

import json
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
from cxrtool.files import to_json, write_bytes
from cxrtool.model.densenet import ChestNet

STATE_NAME = "state.safetensors"
_KEY = "cxrtool-state"


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
        history: a record per epoch done.
        fingerprint: what must not change between parts of one run: settings, sheets, number of images.
    """

    epoch: int
    best_epoch: int
    best_score: float | None
    history: tuple[EpochRecord, ...]
    fingerprint: dict[str, Any]


def save_state(path: Path, state: TrainingState, network: ChestNet, optimizer: Optimizer) -> None:
    """Write everything that the next epoch starts from, in one step."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(on_cpu, metadata={_KEY: to_json(asdict(state))}))


def read_state(path: Path) -> tuple[TrainingState, dict[str, Tensor]]:
    """The state at `path` and its tensors.

    Raises:
        RequestError: there is nothing to resume, or it cannot be read.
    """
    if not path.is_file():
        raise RequestError(f"{path.parent} holds nothing to resume (no {path.name})", "Start it anew with --out.")
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads(file.metadata()[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
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
