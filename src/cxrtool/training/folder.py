"""The folder of a run: its name, its lock and its files."""

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
from cxrtool.files import link_or_copy, write_csv, write_json
from cxrtool.locks import NoLocksError, open_locked
from cxrtool.model.bundle import BUNDLE_NAME, read_header, save_bundle
from cxrtool.model.densenet import ChestNet
from cxrtool.model.header import BundleHeader
from cxrtool.settings import TrainSettings
from cxrtool.training.state import EpochRecord, TrainingState, has_state

log = logging.getLogger(__name__)

SETTINGS_NAME = "settings.yaml"
MODEL_NAME = "model.json"
LAST_NAME = "last.safetensors"
PREVIOUS_BUNDLE_NAME = "model-previous.safetensors"


def run_name(settings: TrainSettings) -> str:
    """Return a readable folder name with date, policy, image size and seed."""
    policy = settings.policy.replace(",", "+").replace("=", "-").replace(" ", "")
    return f"{datetime.now():%Y%m%d-%H%M%S}_{policy}_{settings.image_size}px_seed{settings.seed}"


def refuse_changed_settings(before: dict[str, Any], after: dict[str, Any], folder: Path) -> None:
    """Refuse to resume a run with other settings or data.

    Args:
        before: fingerprint of the run in `folder`.
        after: fingerprint of the settings and data to resume with.
        folder: folder of the run.

    Raises:
        RequestError: a value differs.
    """
    changed = [
        f"{key} was {before.get(key)} and is now {after.get(key)}" for key in after if before.get(key) != after[key]
    ]
    if changed:
        raise RequestError(
            f"{folder} was trained with other settings: {'; '.join(changed)}",
            "Resume with the same settings, or start a new run with --out.",
        )


def refuse_existing_run(folder: Path) -> None:
    """Refuse to start a new run in the folder of another one.

    Raises:
        RequestError: `folder` already contains a run.
    """
    if has_state(folder) or any((folder / name).exists() for name in (SETTINGS_NAME, BUNDLE_NAME)):
        raise RequestError(
            f"{folder} already contains a run", f"Continue it with --resume {folder}, or choose another --out."
        )


def can_restart(folder: Path) -> bool:
    """Whether the run in `folder` was killed before its first state, so that it can start again with its settings."""
    return (folder / SETTINGS_NAME).is_file() and not has_state(folder) and not (folder / BUNDLE_NAME).exists()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run's folder inside the block, and create it if it is missing; a killed process leaves no lock.

    Raises:
        RequestError: another process trains there, or the folder is not writable.
    """

    def refuse() -> None:
        raise RequestError(
            f"another process is training in {folder}", "Wait for it to finish, or choose another --out."
        )

    path = folder / ".lock"
    try:
        try:
            file = open_locked(path, refuse)
        except NoLocksError as error:
            reason = error.strerror or error
            log.warning("%s cannot be locked (%s): do not start a second training in it", folder, reason)
            file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise _cannot_use(folder, error) from None
    with file:
        try:  # permissions would not reveal a full or read-only disk
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        except OSError as error:
            raise _cannot_use(folder, error) from None
        yield


def _cannot_use(folder: Path, error: OSError) -> RequestError:
    return RequestError(f"cannot write in {folder}: {error.strerror or error}", "Choose another --out.")


def warn_low_disk_space(folder: Path, network: ChestNet) -> None:
    """Warn if the disk has less space than a run takes: two states of three times the weights, and three models."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    needed, free = 9 * weights, shutil.disk_usage(folder).free
    if free < needed:
        log.warning("%s has %.0f MB free, but a run takes about %.0f MB", folder, free / 1e6, needed / 1e6)


def save_epoch(
    folder: Path, state: TrainingState, weights: Mapping[str, Tensor], agreed: TrainingState | None = None
) -> TrainingState:
    """Bring the two models and the history up to date with the state.

    They are written after the state and derived from it. A run that was killed in between, or that continues from the
    state before a damaged one, calls this first and so ends with the same files as a run without interruption.

    Args:
        folder: folder of the run.
        state: newest state.
        weights: weights of that state; they are those of the last complete epoch only if its `step` is 0.
        agreed: the previous state, if the files are known to match it; otherwise the files are read.

    Returns:
        The state, without its best epoch if the model of that epoch is missing.

    Raises:
        WriteError: a file cannot be written.
    """
    if state.header is None:
        return state
    header = BundleHeader.model_validate(state.header)
    best, before, last = (folder / name for name in (BUNDLE_NAME, PREVIOUS_BUNDLE_NAME, LAST_NAME))
    if agreed is None:
        at_best, at_last = _digest_of_weights_in(best), _digest_of_weights_in(last)
    else:
        at_best, at_last = agreed.best_sha256 if best.is_file() else "", ""
    if at_best == state.best_sha256:
        if state.best_epoch < state.epoch:
            before.unlink(missing_ok=True)  # the previous state has the same best epoch
    elif state.best_epoch == state.epoch and not state.step:
        if best.exists():
            link_or_copy(best, before)
        save_bundle(best, weights, header)
    elif _digest_of_weights_in(before) == state.best_sha256:
        link_or_copy(before, best)
    else:
        log.warning("the model of epoch %d, the best so far, is missing from %s", state.best_epoch, folder)
        state = replace(state, best_epoch=0, best_score=None, best_sha256="")
    if not state.step and at_last != header.weights_sha256:
        save_bundle(last, weights, header)
    columns = [field.name for field in fields(EpochRecord)]
    write_csv(folder / "history.csv", columns, [astuple(row) for row in state.history])
    write_json(folder / "history.json", [asdict(row) for row in state.history])
    return state


def _digest_of_weights_in(path: Path) -> str:
    """Return the digest of the weights that a bundle's header states; empty if there is no bundle."""
    try:
        return read_header(path).weights_sha256
    except ModelError:
        return ""


def settings_of_run(run: Path) -> dict[str, Any]:
    """Read the resolved settings that a run stored, as nested dicts.

    Raises:
        RequestError: the folder has none.
    """
    path = run / SETTINGS_NAME
    if not path.is_file():
        raise RequestError(f"{run} has nothing to resume (no {SETTINGS_NAME})", "Give the folder of a run.")
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content
