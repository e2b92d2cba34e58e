"""What a Python program calls to train, evaluate, tune, calibrate and compare, as the command line does.

Every function takes settings as `load_settings` gives them and paths as text or `Path`, and shows how far it has come.
``progress=None`` draws a bar where somebody looks on (a terminal or a notebook), True draws always, False never, and a
callable is called with each `cxrtool.progress.Progress`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.errors import RequestError
from cxrtool.model.resolve import Model, open_model
from cxrtool.progress import StopSignal, never_stop
from cxrtool.progress_bar import ShowProgress, progress_for
from cxrtool.settings import AnySettings, Settings, load_settings, resolved

if TYPE_CHECKING:
    from cxrtool.evaluation.comparison import Comparison
    from cxrtool.model.bundle import Bundle
    from cxrtool.tasks.evaluate import EvalResult
    from cxrtool.tasks.tune import CalibrateResult, TuneResult
    from cxrtool.training.loop import TrainResult


def train(
    settings: AnySettings | None = None,
    out: str | Path | None = None,
    *,
    resume: str | Path | None = None,
    progress: ShowProgress = None,
    stop: StopSignal = never_stop,
) -> "TrainResult":
    """Train a model and keep its best epoch, as ``cxr train``.

    >>> train(load_settings({"data.root": "CheXpert-v1.0-small", "train.epochs": 3}), "runs/first")  # doctest: +SKIP

    Args:
        settings: data, training and machine; may be left out with `resume`, and then the run's own are taken.
        out: the run's folder; a readable name under `settings.runs` unless given.
        resume: the folder of a run to go on with.
        progress: see above.
        stop: asked between steps; a signal's number ends the training with all that is done kept.

    Returns:
        The run's folder, its model, the best epoch and the history.

    Raises:
        RequestError: the data, the settings or the folder cannot be used; nothing was begun.
        InterruptedWorkError: `stop` gave a signal.
        CxrError: an image cannot be read, the loss is not finite, the disk is full, or memory has run out.
    """
    from cxrtool.training import loop
    from cxrtool.training.folder import SETTINGS_NAME, settings_of_run

    if out is not None and resume is not None:
        raise RequestError("out and resume exclude each other", "A resumed run stays in its folder.")
    if settings is None:
        if resume is None:
            raise RequestError("no settings are given", "Give load_settings({'data.root': ...}), or resume a run.")
        settings_of_run(Path(resume))  # refuses a folder without any
        settings = load_settings(config=Path(resume) / SETTINGS_NAME, environ={})
    with progress_for(progress) as show:
        return loop.train(resolved(settings), _path(out), _path(resume), show, stop)


def evaluate(
    model: Model, settings: AnySettings, out: str | Path | None = None, *, progress: ShowProgress = None
) -> "EvalResult":
    """AUROC and AUPRC per finding with intervals over patients, as ``cxr eval``.

    >>> evaluate("runs/first", load_settings({"data.root": "CheXpert-v1.0-small"}))  # doctest: +SKIP

    Args:
        model: a run folder, a bundle file or an opened bundle.
        settings: data, split (`eval.split`), level and machine.
        out: folder for predictions.csv, metrics.json and the other tables; beside the model unless given.
        progress: see above.

    Returns:
        The figures, the predictions behind them, and where the files lie.

    Raises:
        CxrError: data or model cannot be used, an image cannot be read, or a file cannot be written.
    """
    from cxrtool.tasks.evaluate import evaluate_model

    plain = resolved(settings).settings
    with _ready(model, plain) as bundle, progress_for(progress) as show:
        return evaluate_model(bundle, plain, _path(out), show)


def tune(
    model: Model | None,
    settings: AnySettings,
    out: str | Path | None = None,
    *,
    predictions: str | Path | None = None,
    progress: ShowProgress = None,
) -> "TuneResult":
    """Choose a threshold per finding on valid and store them in the bundle, as ``cxr tune``.

    Args:
        model: a run folder, a bundle file or an opened bundle; None with `predictions`, and then only files
            are written.
        settings: data, split, criterion, grid and machine.
        out: folder for thresholds.json and the tables; beside the model or table unless given.
        predictions: a saved predictions.csv to tune from, instead of running the model.
        progress: see above.

    Raises:
        RequestError: the rows come from the test split, or the table is another model's.
        CxrError: data or model cannot be used, an image cannot be read, or a file cannot be written.
    """
    from cxrtool.tasks.tune import tune_model

    plain = resolved(settings).settings
    ready = nullcontext(None) if model is None else _ready(model, plain)
    with ready as bundle, progress_for(progress) as show:
        return tune_model(bundle, plain, _path(predictions), _path(out), show)


def calibrate(
    model: Model,
    settings: AnySettings,
    out: str | Path | None = None,
    *,
    predictions: str | Path | None = None,
    progress: ShowProgress = None,
) -> "CalibrateResult":
    """Fit a map from raw to calibrated probabilities on valid and store it in the bundle, as ``cxr calibrate``.

    Args:
        model: a run folder, a bundle file or an opened bundle.
        settings: data, split, method and machine.
        out: folder for calibration.json; beside the model unless given.
        predictions: a saved predictions.csv of this model, instead of running it.
        progress: see above.

    Raises:
        CxrError: as `tune`.
    """
    from cxrtool.tasks.tune import calibrate_model

    plain = resolved(settings).settings
    with _ready(model, plain) as bundle, progress_for(progress) as show:
        return calibrate_model(bundle, plain, _path(predictions), _path(out), show)


def compare(
    models: Sequence[Model],
    settings: AnySettings,
    out: str | Path | None = None,
    *,
    progress: ShowProgress = None,
) -> "Comparison":
    """Differences between models on the same patients, with intervals and corrected p-values, as ``cxr compare``.

    Args:
        models: run folders, bundle files or saved predictions.csv files, two or more.
        settings: data, split (`eval.split`), draws and machine.
        out: folder for the figures and differences; nothing is written unless given.
        progress: see above.

    Raises:
        RequestError: fewer than two, their rows or labels differ, or a table is of another split.
        CxrError: data or a model cannot be used, an image cannot be read, or a file cannot be written.
    """
    from cxrtool.tasks.compare import compare_models, write_comparison

    with progress_for(progress) as show:
        comparison = compare_models(models, resolved(settings).settings, progress=show)
    if out is not None:
        write_comparison(Path(out), comparison)
    return comparison


@contextmanager
def _ready(model: Model, settings: Settings) -> Iterator["Bundle"]:
    """Open `model`, and export it first if the chosen backend reads an export."""
    from cxrtool.engines.export import with_export

    with with_export(open_model(model), settings.runtime) as bundle:
        yield bundle


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
