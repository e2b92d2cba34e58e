"""A run made again by its recipe, and compared with the first."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cxrtool.errors import InterruptedWorkError, RequestError
from cxrtool.files import write_json
from cxrtool.model.bundle import BUNDLE_NAME, read_header
from cxrtool.model.header import BundleHeader
from cxrtool.progress import ProgressCallback, StopSignal, ignore_progress, never_stop
from cxrtool.resolved_settings import load_settings
from cxrtool.tasks.reproduce import Recipe
from cxrtool.tasks.tune import calibrate_model, tune_model
from cxrtool.training.folder import can_restart, refuse_existing_run
from cxrtool.training.loop import train
from cxrtool.training.state import EpochRecord, has_state

REPEATED_NAME = "reproduced.json"
"""File in a repeated run: which run it repeats and, once it is complete, how it compares."""


@dataclass(frozen=True)
class EpochDifference:
    """Absolute differences of an epoch's figures; None where one of the two runs has none."""

    epoch: int
    train_loss: float | None
    valid_loss: float | None
    valid_auroc: float | None


@dataclass(frozen=True)
class Repeated:
    """Result of `repeat_run`.

    Attributes:
        run: the new folder.
        recorded_sha256: digest of the weights of the first run.
        weights_sha256: digest of the new weights.
        best_epochs: the epoch of either model, the first run's first.
        epochs: differences of the epochs that both runs have.
        threshold: largest difference of a threshold; None if the first run was not tuned.
        calibration: largest difference of a slope or an intercept; None if it was not calibrated.
    """

    run: Path
    recorded_sha256: str
    weights_sha256: str
    best_epochs: tuple[object, object]
    epochs: tuple[EpochDifference, ...]
    threshold: float | None
    calibration: float | None

    @property
    def same_weights(self) -> bool:
        """Whether the weights are the same to the bit."""
        return self.weights_sha256 == self.recorded_sha256

    def largest(self, figure: str) -> float | None:
        """Return the largest difference of ``train_loss``, ``valid_loss`` or ``valid_auroc``; None without any."""
        found = [value for one in self.epochs if (value := getattr(one, figure)) is not None]
        return max(found, default=None)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        figures = ("train_loss", "valid_loss", "valid_auroc")
        largest = {figure: self.largest(figure) for figure in figures}
        return asdict(self) | {"run": str(self.run), "same_weights": self.same_weights, "largest": largest}


def repeat_run(
    recipe: Recipe, out: Path, progress: ProgressCallback = ignore_progress, stop: StopSignal = never_stop
) -> Repeated:
    """Train, tune and calibrate again as a recipe says, and compare the result with the run that it is of.

    Evaluations are not repeated: each would count as another look at its split.

    Args:
        recipe: how the run was made.
        out: a new folder. One in which this function was interrupted is continued.
        progress: called as images are read.
        stop: called between steps; see `StopSignal`.

    Raises:
        RequestError: data or settings cannot be used, or `out` holds another run.
        InterruptedWorkError: `stop` returned a signal; the steps are saved, and calling it again continues.
        CxrError: as `train`, `tune_model` and `calibrate_model`.
    """
    begun = _has_begun(out, recipe)
    if not begun:
        refuse_existing_run(out)
        write_json(out / REPEATED_NAME, {"repeats": str(recipe.run), "weights_sha256": recipe.header.weights_sha256})
    history: tuple[EpochRecord, ...] = ()
    for step in recipe.steps:
        settings = load_settings(step.settings, environ={})
        if step.command == "train":
            resume = out if begun and (has_state(out) or can_restart(out)) else None
            try:
                history = train(settings, None if resume else out, resume, progress, stop).history
            except InterruptedWorkError as error:
                raise InterruptedWorkError(
                    error.message, "Repeat the command to continue.", error.exit_code - 128
                ) from error
        elif step.command == "tune":
            tune_model(out, settings.settings, progress=progress)
        elif step.command == "calibrate":
            calibrate_model(out, settings.settings, progress=progress)
    result = _compare(recipe, out, history, read_header(out / BUNDLE_NAME))
    done = {"repeats": str(recipe.run), "weights_sha256": recipe.header.weights_sha256, "result": result.to_dict()}
    write_json(out / REPEATED_NAME, done)
    return result


def _has_begun(out: Path, recipe: Recipe) -> bool:
    """Whether `out` holds a repetition of this run.

    Raises:
        RequestError: it holds one of another run.
    """
    try:
        known = json.loads((out / REPEATED_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if isinstance(known, dict) and known.get("weights_sha256") == recipe.header.weights_sha256:
        return True
    raise RequestError(f"{out} repeats another run than {recipe.run}", "Choose another folder with --run.")


def _compare(recipe: Recipe, out: Path, history: tuple[EpochRecord, ...], header: BundleHeader) -> Repeated:
    before = recipe.header
    return Repeated(
        run=out,
        recorded_sha256=before.weights_sha256,
        weights_sha256=header.weights_sha256,
        best_epochs=(before.metrics.get("epoch"), header.metrics.get("epoch")),
        epochs=tuple(
            EpochDifference(
                epoch=ours.epoch,
                train_loss=_gap(ours.train_loss, theirs.train_loss),
                valid_loss=_gap(ours.valid_loss, theirs.valid_loss),
                valid_auroc=_gap(ours.valid_auroc, theirs.valid_auroc),
            )
            for ours, theirs in zip(recipe.history, history, strict=False)
        ),
        threshold=_largest(before.thresholds, header.thresholds) if before.tuning else None,
        calibration=_largest(_numbers(before), _numbers(header)) if before.calibration else None,
    )


def _gap(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else abs(ours - theirs)


def _largest(before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> float:
    ours, theirs = before or {}, after or {}
    return max(abs(value - theirs[name]) for name, value in ours.items())


def _numbers(header: BundleHeader) -> dict[str, float]:
    """Return each slope and intercept of the calibration."""
    scalings = header.scalings or {}
    slopes = {f"slope of {finding}": scaling.slope for finding, scaling in scalings.items()}
    return slopes | {f"intercept of {finding}": scaling.intercept for finding, scaling in scalings.items()}
