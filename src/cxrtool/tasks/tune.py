"""Choice of thresholds and calibration on valid, which are stored in the bundle."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cxrtool.engines.engine import HowRun
from cxrtool.errors import CxrError, RequestError
from cxrtool.evaluation.calibration import UNSCALED, Calibration, fit_calibration
from cxrtool.evaluation.calibration_figures import CalibrationFigures, calibration_figures
from cxrtool.evaluation.intervals import Interval, few_patients_warnings
from cxrtool.evaluation.stability import threshold_stability
from cxrtool.evaluation.table import PredictionTable, read_predictions, to_study_level, write_predictions
from cxrtool.evaluation.threshold_files import write_curves_csv
from cxrtool.evaluation.thresholds import ThresholdSearch, TunedThresholds, threshold_grid, tune_thresholds
from cxrtool.files import write_csv, write_json
from cxrtool.model.bundle import Bundle, change_header
from cxrtool.model.header import StoredCalibration, Tuning
from cxrtool.model.resolve import Model, open_model
from cxrtool.predict.split import dataset_of, predict_split
from cxrtool.progress import ProgressCallback, ignore_progress
from cxrtool.settings import Settings, TuneSettings
from cxrtool.tasks.evaluate import bootstrap_settings
from cxrtool.tasks.scores import ScoreFiles, joined

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuneResult:
    """Result of `tune_model`.

    Attributes:
        tuned: thresholds and curves.
        stability: interval of each threshold; see `threshold_stability`.
        folder: folder with thresholds.json, thresholds.csv and curves.csv.
        bundle: bundle that the thresholds were stored in; None if no model was given.
        how: backend and precision of the network; None if a saved table was used.
    """

    tuned: TunedThresholds
    stability: Mapping[str, Interval]
    folder: Path
    bundle: Path | None
    how: HowRun | None

    def to_dict(self) -> dict[str, object]:
        """Return the document of ``cxr tune --json`` and of thresholds.json."""
        return self.tuned.to_dict() | {
            "stability": {finding: interval.to_dict() for finding, interval in self.stability.items()},
            "model": None if self.bundle is None else str(self.bundle),
            **_describe(self.how),
        }


def tune_model(
    model: Model | None,
    settings: Settings,
    predictions: Path | None = None,
    out: Path | None = None,
    progress: ProgressCallback = ignore_progress,
) -> TuneResult:
    """Choose thresholds on a split other than test and store them in the model's bundle.

    Args:
        model: an opened bundle, a run folder or a bundle file. With `predictions` it may be None; then only files are
            written.
        settings: data, split, criterion, grid and device.
        predictions: a saved table to use instead of running the model.
        out: output folder; None uses ``tune_<split>`` beside the model or table.
        progress: called as images are read.

    Raises:
        RequestError: the rows come from the test split and `settings.data.i_know` is not set, or the table comes from
            another model.
        CxrError: no finding has both classes, so that nothing could be tuned; nothing was written.
    """
    options = settings.tune
    bundle = None if model is None else open_model(model)
    table, how = _choosing_table(bundle, settings, options.split, predictions, progress)
    path = None if bundle is None else bundle.path
    beside = path or predictions
    folder = out or (beside.parent if beside else Path()) / f"tune_{table.split}"
    before = None if bundle is None else bundle.header.thresholds
    result = _tuned(table, settings, folder, path, how, before)
    if predictions is None:
        write_predictions(folder / "predictions.csv", table)
    if bundle is not None:
        change_header(bundle, thresholds=dict(result.tuned.thresholds), tuning=_provenance(options, table))
    return result


def tune_scores(files: ScoreFiles, settings: Settings, out: Path | None = None) -> TuneResult:
    """Choose thresholds for scores that another program wrote, and write the files that `tune_model` writes.

    Args:
        files: scores and labels, of a split other than test.
        settings: split, criterion and grid.
        out: output folder; None uses ``tune_<split>`` beside the scores.

    Raises:
        RequestError: the files cannot be joined, the scores are not probabilities, or the split is test.
        CxrError: no finding has both classes, so that nothing could be tuned; nothing was written.
    """
    (found,) = joined([files], settings, settings.tune.split)
    for note in found.notes:
        log.warning("%s", note)
    table = to_study_level(found.table)
    if not table.are_probabilities:
        raise RequestError(f"{files.scores} holds scores that are not probabilities", "Thresholds need probabilities.")
    folder = out or files.scores.parent / f"tune_{table.split}"
    result = _tuned(table, settings, folder, None, None, None)
    write_predictions(folder / "predictions.csv", table)
    return result


def _tuned(
    table: PredictionTable,
    settings: Settings,
    folder: Path,
    path: Path | None,
    how: HowRun | None,
    before: Mapping[str, float] | None,
) -> TuneResult:
    """Choose thresholds on a table and write thresholds.json, thresholds.csv and curves.csv."""
    options = settings.tune
    grid = threshold_grid(options.minimum, options.maximum, options.step)
    search = ThresholdSearch(options.criterion, grid, options.target, options.grid_only)
    tuned = tune_thresholds(table, search, settings.data.i_know, before)
    if all(value is None for value in tuned.values.values()):
        raise CxrError(
            f"nothing could be tuned: no finding has both classes on {table.split}, over {len(table)} studies",
            "Use a larger split; the thresholds in the bundle are unchanged.",
        )
    tuned = replace(tuned, warnings=(*tuned.warnings, *few_patients_warnings(table.split, len(set(table.patients)))))
    stability = threshold_stability(table, search, bootstrap_settings(settings.eval))
    result = TuneResult(tuned, stability, folder, path, how)
    write_json(folder / "thresholds.json", result.to_dict())
    ends = [(stability[finding].low, stability[finding].high) for finding in tuned.thresholds]
    rows = [[finding, number, *end] for (finding, number), end in zip(tuned.thresholds.items(), ends, strict=True)]
    write_csv(folder / "thresholds.csv", ["finding", "threshold", "low", "high"], rows)
    write_curves_csv(folder / "curves.csv", tuned)
    return result


def _choosing_table(
    bundle: Bundle | None, settings: Settings, split: str, predictions: Path | None, progress: ProgressCallback
) -> tuple[PredictionTable, HowRun | None]:
    """Return a study-level table, saved or predicted by `bundle`, and how the network was run (None if saved)."""
    if predictions is not None:
        table = read_predictions(predictions)
        if bundle is not None:
            _check_model(table, bundle, predictions)
        return table, None
    if bundle is None:
        raise RequestError("there are no predictions to choose on", "Give --model and --data, or --predictions.")
    if split == "test" and not settings.data.i_know:
        raise RequestError(
            "cannot choose on the test split: its figures would no longer be out of sample",
            "Use --split valid, or use --i-know, which is recorded in the bundle and in every output.",
        )
    images, how = predict_split(
        bundle,
        settings,
        dataset_of(settings.data, split, bundle.header.labels),
        split,
        progress,
        "tune or calibrate",
    )
    return to_study_level(images), how


def _describe(how: HowRun | None) -> dict[str, object]:
    return {"backend": None, "precision": None} if how is None else how.to_dict()


def _check_model(table: PredictionTable, bundle: Bundle, predictions: Path) -> None:
    if table.model_sha256 and table.model_sha256 != bundle.header.weights_sha256:
        raise RequestError(
            f"{predictions} comes from another model than {bundle.path}",
            "Make it again with cxr eval --split valid.",
        )


def _provenance(tune: TuneSettings, table: PredictionTable) -> Tuning:
    return Tuning(
        criterion=tune.criterion,
        target=tune.target,
        minimum=tune.minimum,
        maximum=tune.maximum,
        step=tune.step,
        grid_only=tune.grid_only,
        split=table.split,
        level=table.level.value,
        rows=len(table),
        sheet_sha256=table.sheet_sha256,
    )


@dataclass(frozen=True)
class CalibrateResult:
    """Result of `calibrate_model`.

    Attributes:
        calibration: the fitted scalings.
        before: figures of the raw probabilities on the split of the fit, by finding.
        after: figures of the calibrated probabilities there, by finding; in sample, so too good.
        folder: folder with calibration.json.
        bundle: bundle that the calibration was stored in.
        how: backend and precision of the network; None if a saved table was used.
    """

    calibration: Calibration
    before: Mapping[str, CalibrationFigures]
    after: Mapping[str, CalibrationFigures]
    folder: Path
    bundle: Path
    how: HowRun | None

    def to_dict(self) -> dict[str, object]:
        """Return the document of ``cxr calibrate --json`` and of calibration.json."""
        return {
            "method": self.calibration.method.value,
            "split": self.calibration.split,
            "rows": self.calibration.rows,
            "labels": {
                finding: asdict(self.calibration.scalings[finding])
                | {
                    "raw": self.before[finding].to_dict(),
                    "calibrated": self.after[finding].to_dict(),
                    "in_sample": self.calibration.scalings[finding] != UNSCALED,
                }
                for finding in self.calibration.scalings
            },
            "warnings": list(self.calibration.warnings),
            "model": str(self.bundle),
            **_describe(self.how),
        }


def calibrate_model(
    model: Model,
    settings: Settings,
    predictions: Path | None = None,
    out: Path | None = None,
    progress: ProgressCallback = ignore_progress,
) -> CalibrateResult:
    """Fit a map from raw to calibrated probabilities on valid, at study level, and store it in the bundle.

    Ranks do not change, nor do AUROC, AUPRC and decisions: thresholds apply to raw probabilities.

    Args:
        model: an opened bundle, a run folder or a bundle file.
        settings: data, split, method and device.
        predictions: a saved table of this model to use instead of running it.
        out: output folder; None uses ``calibrate_<split>`` beside the model.
        progress: called as images are read.

    Raises:
        RequestError: as `tune_model`.
    """
    options = settings.calibrate
    bundle = open_model(model)
    table, how = _choosing_table(bundle, settings, options.split, predictions, progress)
    calibration = fit_calibration(table, options.method, settings.data.i_know)
    if all(scaling == UNSCALED for scaling in calibration.scalings.values()):
        text = f"no finding's probabilities are changed: {table.split} ({len(table)} studies) supports no calibration"
        calibration = replace(calibration, warnings=(*calibration.warnings, text))
    bootstrap = bootstrap_settings(settings.eval)
    result = CalibrateResult(
        calibration,
        calibration_figures(table, None, bootstrap),
        calibration_figures(table, calibration.scalings, bootstrap),
        out or bundle.path.parent / f"calibrate_{table.split}",
        bundle.path,
        how,
    )
    write_json(result.folder / "calibration.json", result.to_dict())
    stored = StoredCalibration(
        method=calibration.method,
        scalings=dict(calibration.scalings),
        split=table.split,
        level=table.level.value,
        rows=len(table),
        sheet_sha256=table.sheet_sha256,
    )
    change_header(bundle, calibration=stored)
    return result
