"""A run's folder: its name, its lock, and what is written into it."""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, astuple, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from cxrtool.errors import ModelError, RequestError
from cxrtool.files import keep_as, write_csv, write_json
from cxrtool.locks import NoLocksError, open_locked
from cxrtool.model.bundle import BUNDLE_NAME, BundleHeader, read_header, save_bundle
from cxrtool.model.densenet import ChestNet
from cxrtool.settings import TrainSettings
from cxrtool.training.state import EpochRecord, TrainingState, has_state

log = logging.getLogger(__name__)

SETTINGS_NAME = "settings.yaml"
LAST_NAME = "last.safetensors"
PREVIOUS_BUNDLE_NAME = "model-previous.safetensors"


def run_name(settings: TrainSettings) -> str:
    policy = settings.policy.replace(",", "+").replace("=", "-").replace(" ", "")
    return f"{datetime.now():%Y%m%d-%H%M%S}_{policy}_{settings.image_size}px_seed{settings.seed}"


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

    def refuse() -> None:
        raise RequestError(f"another process trains in {folder}", "Wait for it, or name --out.")

    path = folder / ".lock"
    try:
        try:
            file = open_locked(path, refuse)
        except NoLocksError as error:
            log.warning("%s cannot be locked (%s): let no second process train in it", folder, error.strerror or error)
            file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise _cannot_use(folder, error) from None
    with file:
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


def save_epoch(
    folder: Path, state: TrainingState, weights: Mapping[str, Tensor], agreed: TrainingState | None = None
) -> TrainingState:
    """Make the files beside the state agree with it: the two models and the history.

    They are written after the state and from it, so that a run that was killed between the two, or that goes on from
    the state before a damaged one, begins with this and ends with the files of a run that was never stopped.

    Args:
        folder: the run's.
        state: newest.
        weights: of that state; the last whole epoch's only where its `step` is 0.
        agreed: the state before, where the files agree with it; without it they are read to find out.

    Returns:
        The state, with another best epoch if the best one's model is gone.

    Raises:
        WriteError: a file cannot be written.
    """
    if state.header is None:
        return state
    header = BundleHeader.model_validate(state.header)
    best, before, last = (folder / name for name in (BUNDLE_NAME, PREVIOUS_BUNDLE_NAME, LAST_NAME))
    if agreed is None:
        at_best, at_last = _weights_at(best), _weights_at(last)
    else:
        at_best, at_last = agreed.best_sha256 if best.is_file() else "", ""
    if at_best == state.best_sha256:
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
    if not state.step and at_last != header.weights_sha256:
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
