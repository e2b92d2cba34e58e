"""Python functions that train, evaluate, tune, calibrate and compare, equivalent to the commands of the same names.

Every function takes settings as returned by `load_settings`, paths as text or `Path`, and `progress`: None draws a
progress bar in a terminal or a notebook and nothing elsewhere, True always shows progress, False never does, and a
callable is called with each `cxrtool.progress.Progress`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.errors import RequestError
from cxrtool.model.resolve import Model, open_model
from cxrtool.progress import StopSignal, never_stop
from cxrtool.progress_bar import ShowProgress, progress_for
from cxrtool.resolved_settings import AnySettings, load_settings, resolved
from cxrtool.settings import Settings

if TYPE_CHECKING:
    from cxrtool.evaluation.comparison import Comparison
    from cxrtool.model.bundle import Bundle
    from cxrtool.tasks.evaluate import EvalResult
    from cxrtool.tasks.scores import ScoresResult
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
    """Train a model and keep its best epoch, like ``cxr train``.

    >>> train(load_settings({"data.root": "CheXpert-v1.0-small", "train.epochs": 3}), "runs/first")  # doctest: +SKIP

    Args:
        settings: settings of data, training and runtime. Default with `resume`: the settings of that run.
        out: folder for the run. Default: a new folder with a readable name in the `runs` folder of the settings.
        resume: folder of an interrupted run to continue.
        progress: how to show progress, see `cxrtool.api`.
        stop: called between steps; if it returns a signal number, training stops and finished work is kept.

    Returns:
        The folder of the run, its model, the best epoch and the history.

    Raises:
        RequestError: the data, the settings or the folder cannot be used; no work was started.
        InterruptedWorkError: `stop` returned a signal number.
        CxrError: an image cannot be read, the loss is not finite, the disk is full, or memory has run out.
    """
    from cxrtool.training import loop
    from cxrtool.training.folder import SETTINGS_NAME, settings_of_run

    if out is not None and resume is not None:
        raise RequestError("out and resume cannot be combined", "A resumed run stays in its folder; pass only resume.")
    if settings is None:
        if resume is None:
            raise RequestError("no settings are given", "Pass load_settings({'data.root': ...}), or the run to resume.")
        settings_of_run(Path(resume))  # raises RequestError if the folder has no settings
        settings = load_settings(config=Path(resume) / SETTINGS_NAME, environ={})
    with progress_for(progress) as show:
        return loop.train(resolved(settings), _path(out), _path(resume), show, stop)


def evaluate(
    model: Model,
    settings: AnySettings,
    out: str | Path | None = None,
    *,
    readers: Sequence[str | Path] = (),
    progress: ShowProgress = None,
) -> "EvalResult":
    """Compute AUROC and AUPRC per finding with confidence intervals over patients, like ``cxr eval``.

    >>> evaluate("runs/first", load_settings({"data.root": "CheXpert-v1.0-small"}))  # doctest: +SKIP

    Args:
        model: a run folder, a bundle file or an opened bundle.
        settings: settings of data, split (`eval.split`), level and runtime.
        out: folder for predictions.csv, metrics.json and the other tables. Default: next to the model.
        readers: CSV files of readers to compare the model with: a column ``Study``, and 0 or 1 for each finding.
        progress: how to show progress, see `cxrtool.api`.

    Returns:
        The figures, the predictions behind them, and the paths of the files.

    Raises:
        RequestError: a file of a reader cannot be used.
        CxrError: data or model cannot be used, an image cannot be read, or a file cannot be written.
    """
    from cxrtool.tasks.evaluate import evaluate_model

    plain = resolved(settings).settings
    with _opened(model, plain) as bundle, progress_for(progress) as show:
        return evaluate_model(bundle, plain, _path(out), show, readers=tuple(map(Path, readers)))


def evaluate_scores(
    scores: str | Path,
    truth: str | Path,
    settings: AnySettings,
    out: str | Path | None = None,
    *,
    key: str | None = None,
    renames: Mapping[str, str] | None = None,
    thresholds: str | None = None,
) -> "ScoresResult":
    """Evaluate a table of scores of any program against a table of labels, like ``cxr eval --scores``.

    >>> evaluate_scores("theirs.csv", "groundtruth.csv", load_settings({}))  # doctest: +SKIP

    Args:
        scores: CSV, TSV or Parquet file, plain or compressed by gzip, with columns named after findings.
        truth: likewise, with labels 1, 0, -1 (uncertain) or blank.
        settings: settings of the split (`eval.split`), level, subgroups, draws and blank labels.
        out: folder for predictions.csv, metrics.json and the other tables. Default: next to the scores.
        key: column that identifies rows. Default: Study, Path, Image Index or another usual name.
        renames: new name of a column by its name, for findings that the files call differently.
        thresholds: thresholds as text, such as ``Edema=0.3``, or a file of `tune`. Default: no figures at thresholds.

    Returns:
        The figures, the joined table, and the paths of the files.

    Raises:
        RequestError: the files cannot be read or joined; the message lists all problems.
        WriteError: a file cannot be written.
    """
    from cxrtool.tasks.scores import ScoreFiles
    from cxrtool.tasks.scores import evaluate_scores as evaluate_files

    files = ScoreFiles(Path(scores), Path(truth), key, dict(renames or {}))
    return evaluate_files(files, resolved(settings).settings, _path(out), thresholds)


def tune(
    model: Model | None,
    settings: AnySettings,
    out: str | Path | None = None,
    *,
    predictions: str | Path | None = None,
    progress: ShowProgress = None,
) -> "TuneResult":
    """Choose a threshold per finding on the valid split and store the thresholds in the bundle, like ``cxr tune``.

    Args:
        model: a run folder, a bundle file or an opened bundle. If None, `predictions` is needed and no bundle is
            changed.
        settings: settings of data, split, criterion, grid and runtime.
        out: folder for thresholds.json and the tables. Default: next to the model or the predictions.
        predictions: a saved predictions.csv to use instead of running the model.
        progress: how to show progress, see `cxrtool.api`.

    Raises:
        RequestError: the rows come from the test split, or the predictions were made by another model.
        CxrError: data or model cannot be used, an image cannot be read, or a file cannot be written.
    """
    from cxrtool.tasks.tune import tune_model

    plain = resolved(settings).settings
    ready = nullcontext(None) if model is None else _opened(model, plain)
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
    """Fit the calibration of probabilities on the valid split and store it in the bundle, like ``cxr calibrate``.

    Args:
        model: a run folder, a bundle file or an opened bundle.
        settings: settings of data, split, method and runtime.
        out: folder for calibration.json. Default: next to the model.
        predictions: a saved predictions.csv of this model, to use instead of running it.
        progress: how to show progress, see `cxrtool.api`.

    Raises:
        CxrError: same as `tune`.
    """
    from cxrtool.tasks.tune import calibrate_model

    plain = resolved(settings).settings
    with _opened(model, plain) as bundle, progress_for(progress) as show:
        return calibrate_model(bundle, plain, _path(predictions), _path(out), show)


def compare(
    models: Sequence[Model],
    settings: AnySettings,
    out: str | Path | None = None,
    *,
    reference: str | Path | None = None,
    margin: float | None = None,
    progress: ShowProgress = None,
) -> "Comparison":
    """Compare models on the same patients, with intervals and corrected p-values, like ``cxr compare``.

    Args:
        models: two or more run folders, bundle files or saved predictions.csv files.
        settings: settings of data, split (`eval.split`), bootstrap draws and runtime.
        out: folder for the figures and differences. If None, nothing is written.
        reference: path or name of the model that each other is compared with. If None, all pairs are compared.
        margin: margin of non-inferiority, such as 0.02.
        progress: how to show progress, see `cxrtool.api`.

    Raises:
        RequestError: fewer than two models are given, their rows, labels or patients differ, a table is of another
            split, `reference` is none of the models, or `margin` is not between 0 and 1.
        CxrError: data or a model cannot be used, an image cannot be read, or a file cannot be written.
    """
    from cxrtool.tasks.compare import compare_models, write_comparison

    with progress_for(progress) as show:
        named = None if reference is None else str(reference)
        comparison = compare_models(models, resolved(settings).settings, progress=show, reference=named, margin=margin)
    if out is not None:
        write_comparison(Path(out), comparison)
    return comparison


@contextmanager
def _opened(model: Model, settings: Settings) -> Iterator["Bundle"]:
    """Open `model`; export it first if the chosen backend needs an export."""
    from cxrtool.engines.export import with_export

    with with_export(open_model(model), settings.runtime) as bundle:
        yield bundle


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
