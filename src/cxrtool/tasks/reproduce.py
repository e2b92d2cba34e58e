"""How a run was made: the steps with their settings, and what differs on this machine."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from cxrtool.data.dataset import Dataset
from cxrtool.engines.device import choose_runtime
from cxrtool.engines.precision import current_machine
from cxrtool.errors import CxrError, ModelError, RequestError
from cxrtool.evaluation.ledger import Look, read_ledger
from cxrtool.files import sha256_of_file
from cxrtool.model.bundle import BUNDLE_NAME, read_header
from cxrtool.model.densenet import initial_file
from cxrtool.model.header import BundleHeader, current_versions
from cxrtool.model.hub import is_on_hub
from cxrtool.resolved_settings import ResolvedSettings, default_values, load_settings
from cxrtool.settings import MOST_WORKERS, Settings
from cxrtool.training.folder import MODEL_NAME, SETTINGS_NAME
from cxrtool.training.state import EpochRecord

_ON_A_SPLIT = ("data.", "runtime.")
_OF_TRAINING_ONLY = ("data.findings", "runtime.precision")
"""Other commands take the findings from the bundle, and compute reported figures in float32."""
_MACHINE = ("device", "precision", "threads", "processor", "python")
"""What model.json says of the machine."""


@dataclass(frozen=True)
class Step:
    """One command that made the run.

    Attributes:
        command: ``train``, ``tune``, ``calibrate`` or ``eval``.
        settings: its settings that differ from the defaults, plain values by dotted key.
    """

    command: str
    settings: Mapping[str, object]


@dataclass(frozen=True)
class Difference:
    """Something that is not here as it was when the run was made."""

    what: str
    recorded: str
    here: str


@dataclass(frozen=True)
class Recipe:
    """Result of `recipe_of`.

    Attributes:
        run: folder of the run.
        header: header of its bundle.
        steps: what made it, in order.
        automatic: settings in the steps whose value in the run was ``auto``, by dotted key, with what it was there.
        init: initial weights, as the setting names them.
        init_sha256: digest of their file; None for ``imagenet`` and ``none``.
        machine: device, precision, threads, processor and Python of the training, as far as they are recorded.
        history: figures of its epochs.
        notes: what to know before following the steps.
        differences: what differs here.
    """

    run: Path
    header: BundleHeader
    steps: tuple[Step, ...]
    automatic: Mapping[str, object]
    init: str
    init_sha256: str | None
    machine: Mapping[str, object]
    history: tuple[EpochRecord, ...]
    notes: tuple[str, ...]
    differences: tuple[Difference, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the document of ``cxr reproduce --json``, without the commands as text."""
        return {
            "run": str(self.run),
            "weights_sha256": self.header.weights_sha256,
            "versions": dict(self.header.versions),
            "data": {split: digest.model_dump() for split, digest in self.header.data.items()},
            "init": self.init,
            "init_sha256": self.init_sha256,
            "machine": dict(self.machine),
            "steps": [asdict(step) for step in self.steps],
            "notes": list(self.notes),
            "differences": [asdict(one) for one in self.differences],
        }


def run_folder(given: Path) -> Path:
    """Return the folder of a run, given by its name or by a file in it.

    Raises:
        RequestError: there is no such folder, or it holds no run; the message says which folder is needed.
    """
    folder = given if given.is_dir() else given.parent
    if not is_on_hub(str(given)) and given.exists() and (folder / SETTINGS_NAME).is_file():
        return folder
    advice = f"Give the folder that cxr train wrote: it holds {BUNDLE_NAME}, {SETTINGS_NAME} and {MODEL_NAME}."
    if is_on_hub(str(given)):
        raise RequestError(f"{given} is a model without the folder of its run", advice)
    if not given.exists():
        raise RequestError(f"run {given} does not exist", advice)
    try:
        header = read_header(given / BUNDLE_NAME if given.is_dir() else given)
    except ModelError:
        raise RequestError(f"{given} holds no run (no {SETTINGS_NAME})", advice) from None
    if "imported_from_sha256" in header.training:
        raise RequestError(f"{given} was imported: no run of cxr train made it", advice)
    raise RequestError(f"{given} is a model without the folder of its run, which was named {header.run}", advice)


def recipe_of(run: Path, data: Path | None = None) -> Recipe:
    """Read how a run was made, and compare that with this machine.

    Args:
        run: folder of a run, or a file in it.
        data: where the data is here; None looks where it was.

    Raises:
        RequestError: there is no run, or its settings cannot be read.
        ModelError: it has no bundle, because no epoch was completed.
    """
    folder = run_folder(run)
    header = read_header(folder / BUNDLE_NAME)
    stored = load_settings({"data.root": data}, folder / SETTINGS_NAME, environ={}).settings
    about = _json_at(folder / MODEL_NAME, {})
    about = about if isinstance(about, dict) else {}
    history = _history(folder)
    automatic = _automatic(stored, about)
    notes = []
    epochs: dict[str, object] = {}
    if _stopped_early(stored, header, history):
        epochs = {"train.epochs": len(history)}
        notes.append(
            f"the run was stopped after epoch {len(history)} of {stored.train.epochs}, and so are the commands"
        )
    processes = about.get("processes", 1)
    if isinstance(processes, int) and processes > 1:
        notes.append(
            f"{processes} processes trained together: only cxr train with --gpus {processes} gives these weights"
        )
    looks = _evaluations(folder, header)
    return Recipe(
        run=folder,
        header=header,
        steps=tuple(_steps(stored, automatic | epochs, header, looks)),
        automatic=automatic,
        init=stored.train.init,
        init_sha256=about.get("init_sha256"),
        machine={key: about[key] for key in _MACHINE if key in about},
        history=history,
        notes=tuple(notes),
        differences=(
            *_other_versions(header),
            *_other_machine(stored, about),
            *_other_sheets(stored, header, looks),
            *_other_init(stored.train.init, about.get("init_sha256")),
        ),
    )


def _json_at(path: Path, missing: object) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # a run can be followed without its notes
        return missing


def _history(folder: Path) -> tuple[EpochRecord, ...]:
    names = [field.name for field in fields(EpochRecord)]
    rows = _json_at(folder / "history.json", [])
    complete = isinstance(rows, list) and all(isinstance(row, dict) and set(names) <= set(row) for row in rows)
    return tuple(EpochRecord(**{name: row[name] for name in names}) for row in rows) if complete else ()


def _stopped_early(settings: Settings, header: BundleHeader, history: Sequence[EpochRecord]) -> bool:
    """Whether somebody stopped the run before its last epoch, so that `patience` does not explain its length."""
    best, patience = header.metrics.get("epoch"), settings.train.patience
    patient = bool(patience) and isinstance(best, int) and len(history) - best >= patience
    return 0 < len(history) < settings.train.epochs and not patient


def _automatic(settings: Settings, about: Mapping[str, Any]) -> dict[str, object]:
    """Return what precision and threads were where the settings say ``auto``; both change the last bits."""
    found: dict[str, object] = {}
    precision, threads = about.get("precision"), about.get("threads")
    if settings.runtime.precision.value == "auto" and precision in ("fp32", "bf16"):
        found["runtime.precision"] = precision
    known = isinstance(threads, int) and 1 <= threads <= MOST_WORKERS
    if settings.runtime.threads == "auto" and about.get("device") == "cpu" and known:
        found["runtime.threads"] = threads
    return found


def _steps(stored: Settings, changes: dict[str, object], header: BundleHeader, looks: Sequence[Look]) -> Iterator[Step]:
    defaults = default_values()
    values = ResolvedSettings(stored, {}).values() | changes

    def step(command: str, sections: tuple[str, ...], changed: dict[str, object], without: Sequence[str]) -> Step:
        wanted = {key: value for key, value in (values | changed).items() if key.startswith(sections)}
        return Step(command, {k: v for k, v in wanted.items() if k not in without and v != defaults[k]})

    yield step("train", (*_ON_A_SPLIT, "train."), {}, ())
    if header.tuning is not None:
        named = header.tuning.model_dump(mode="json", include=set(type(stored.tune).model_fields))
        changed = {f"tune.{key}": value for key, value in named.items()} | _knowing(header.tuning.split)
        yield step("tune", (*_ON_A_SPLIT, "tune."), changed, _OF_TRAINING_ONLY)
    if header.calibration is not None:
        calibration = header.calibration
        changed = {"calibrate.split": calibration.split, "calibrate.method": calibration.method.value}
        changed |= _knowing(calibration.split)
        yield step("calibrate", (*_ON_A_SPLIT, "calibrate."), changed, _OF_TRAINING_ONLY)
    for look in looks:
        changed = {f"eval.{key}": value for key, value in look.options.items()} | {"eval.split": look.split}
        changed |= {f"data.{key}": value for key, value in look.options.items()}
        known = {key: value for key, value in changed.items() if key in defaults}
        yield step("eval", (*_ON_A_SPLIT, "eval."), known, _OF_TRAINING_ONLY)


def _knowing(split: str) -> dict[str, object]:
    return {"data.i_know": True} if split == "test" else {}


def _evaluations(folder: Path, header: BundleHeader) -> list[Look]:
    """Return one look of ``cxr eval`` for each split and set of options with which these weights were evaluated."""
    found: dict[str, Look] = {}
    for look in read_ledger(folder):
        if look.command == "eval" and look.weights_sha256 == header.weights_sha256:
            found.setdefault(json.dumps([look.split, dict(look.options)], sort_keys=True), look)
    return list(found.values())


def _other_versions(header: BundleHeader) -> Iterator[Difference]:
    here = current_versions()
    for name, version in header.versions.items():
        if here.get(name, "not installed") != version:
            yield Difference(name, version, here.get(name, "not installed"))


def _other_machine(settings: Settings, about: Mapping[str, Any]) -> Iterator[Difference]:
    try:
        runtime = choose_runtime(settings.runtime, auto_bf16=True)
    except RequestError as error:
        yield Difference("device", str(about.get("device", "unknown")), error.message)
        return
    device = str(runtime.device)
    here = {"device": device, "precision": runtime.precision, **current_machine()}
    if device == "cpu":
        here["threads"] = str(torch.get_num_threads())
    for name, value in here.items():
        if name in about and str(about[name]) != value:
            yield Difference(name, str(about[name]), value)


def _other_sheets(settings: Settings, header: BundleHeader, looks: Sequence[Look]) -> Iterator[Difference]:
    """Compare digests of the sheets; none of their images is looked at."""
    wanted = {f"{split} sheet": (split, digest.sheet_sha256) for split, digest in header.data.items()}
    used = [("tune", header.tuning), ("calibrate", header.calibration), *(("eval", look) for look in looks)]
    for command, part in used:
        if part is not None and (part.split, part.sheet_sha256) not in wanted.values():
            wanted[f"{part.split} sheet of cxr {command}"] = part.split, part.sheet_sha256
    dataset = Dataset(
        settings.data, tuple({split for split, _ in wanted.values()}), findings=header.labels, partial=True
    )
    for what, (split, recorded) in wanted.items():
        try:
            here = f"sha256 {dataset.manifest(split).sheet_sha256}"
        except CxrError as error:
            here = f"cannot be read ({error.message})"
        if here != f"sha256 {recorded}":
            yield Difference(what, f"sha256 {recorded}", here)


def _other_init(init: str, recorded: str | None) -> Iterator[Difference]:
    try:
        path = initial_file(init)
        here = None if path is None else f"sha256 {sha256_of_file(path)}"
    except CxrError as error:
        here = error.message
    except OSError as error:
        here = f"cannot be read ({error.strerror})"
    if here is None or here == f"sha256 {recorded}" or (recorded is None and here.startswith("sha256 ")):
        return
    yield Difference(f"initial weights {init}", "unknown" if recorded is None else f"sha256 {recorded}", here)
