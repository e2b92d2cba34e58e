"""What is chosen on valid and stored in the bundle: thresholds and calibrations."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cxrtool.engines.engine import HowRun
from cxrtool.errors import RequestError
from cxrtool.evaluation.calibration import Calibration, CalibrationFigures, calibration_figures, fit_calibration
from cxrtool.evaluation.intervals import Interval
from cxrtool.evaluation.operating import threshold_stability
from cxrtool.evaluation.table import PredictionTable, read_predictions, to_study_level, write_predictions
from cxrtool.evaluation.thresholds import TunedThresholds, threshold_grid, tune_thresholds, write_curves_csv
from cxrtool.files import write_csv, write_json
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import Bundle, StoredCalibration, Tuning, change_header
from cxrtool.model.resolve import Model, open_model
from cxrtool.predict.split import dataset_of, predict_split
from cxrtool.progress import ProgressCallback, ignore_progress
from cxrtool.settings import Settings, TuneSettings
from cxrtool.tasks.evaluate import bootstrap_settings


@dataclass(frozen=True)
class TuneResult:
    """What `tune_model` came to.

    Attributes:
        tuned: thresholds and curves.
        stability: where each threshold falls when patients are drawn anew.
        folder: where thresholds.json, thresholds.csv and curves.csv lie.
        bundle: the model they were written into, None when tuned from a table alone.
        how: what ran the model, None when tuned from a saved table.
    """

    tuned: TunedThresholds
    stability: Mapping[str, Interval]
    folder: Path
    bundle: Path | None
    how: HowRun | None

    def to_dict(self) -> dict[str, object]:
        """As ``cxr tune --json`` prints it and thresholds.json keeps it."""
        return self.tuned.to_dict() | {
            "stability": {finding: interval.to_dict() for finding, interval in self.stability.items()},
            "model": None if self.bundle is None else str(self.bundle),
            **_described(self.how),
        }


def tune_model(
    model: Model | None,
    settings: Settings,
    predictions: Path | None = None,
    out: Path | None = None,
    progress: ProgressCallback = ignore_progress,
) -> TuneResult:
    """Choose thresholds on a split that is not test and write them into the model's bundle.

    Args:
        model: an opened bundle, a run folder or a bundle file; may be None with `predictions`, and then only files
            are written.
        settings: data, split, criterion, grid and machine.
        predictions: a saved table to tune from, instead of running the model.
        out: folder for the files; ``tune_<split>`` beside the model or table unless given.
        progress: called as images are read.

    Raises:
        RequestError: the rows come from the test split and `settings.data.i_know` is not set, or the table is another
            model's.
    """
    wished = settings.tune
    bundle = None if model is None else open_model(model)
    table, how = _choosing_table(bundle, settings, wished.split, predictions, progress)
    grid = threshold_grid(wished.minimum, wished.maximum, wished.step)
    tuned = tune_thresholds(table, wished.criterion, grid, wished.target, settings.data.i_know)
    stability = threshold_stability(table, wished.criterion, grid, wished.target, bootstrap_settings(settings.eval))
    path = None if bundle is None else bundle.path
    beside = path or predictions
    folder = out or (beside.parent if beside else Path()) / f"tune_{table.split}"
    result = TuneResult(tuned, stability, folder, path, how)
    write_json(folder / "thresholds.json", result.to_dict())
    ends = [(stability[finding].low, stability[finding].high) for finding in tuned.thresholds]
    rows = [[finding, number, *end] for (finding, number), end in zip(tuned.thresholds.items(), ends, strict=True)]
    write_csv(folder / "thresholds.csv", ["finding", "threshold", "low", "high"], rows)
    write_curves_csv(folder / "curves.csv", tuned)
    if predictions is None:
        write_predictions(folder / "predictions.csv", table)
    if bundle is not None:
        change_header(bundle, thresholds=dict(tuned.thresholds), tuning=_provenance(wished, table))
    return result


def _choosing_table(
    bundle: Bundle | None, settings: Settings, split: str, predictions: Path | None, progress: ProgressCallback
) -> tuple[PredictionTable, HowRun | None]:
    """The study-level rows on which something is chosen: of a saved table, else of `bundle`; and what ran it."""
    if predictions is not None:
        table = read_predictions(predictions)
        if bundle is not None:
            _refuse_another_model(table, bundle, predictions)
        return table, None
    if bundle is None:
        raise RequestError("nothing to choose on", "Give --model and --data, or --predictions.")
    if split == "test" and not settings.data.i_know:
        raise RequestError(
            "nothing is chosen on the test split: its figures would no longer be out of sample",
            "Use --split valid, or say --i-know: it is then recorded in the bundle and every output.",
        )
    images, how = predict_split(bundle, settings, dataset_of(settings.data, split), split, progress)
    return to_study_level(images), how


def _described(how: HowRun | None) -> dict[str, object]:
    return {"backend": None, "precision": None} if how is None else how.to_dict()


def _refuse_another_model(table: PredictionTable, bundle: Bundle, predictions: Path) -> None:
    if table.model_sha256 and table.model_sha256 != bundle.header.weights_sha256:
        raise RequestError(
            f"{predictions} was made by another model than {bundle.path}",
            "Make it anew with cxr eval --split valid.",
        )


def _provenance(tune: TuneSettings, table: PredictionTable) -> Tuning:
    return Tuning(
        criterion=tune.criterion,
        target=tune.target,
        minimum=tune.minimum,
        maximum=tune.maximum,
        step=tune.step,
        split=table.split,
        level=table.level.value,
        rows=len(table),
        sheet_sha256=table.sheet_sha256,
    )


@dataclass(frozen=True)
class CalibrateResult:
    """What `calibrate_model` came to.

    Attributes:
        calibration: the maps.
        before: figures of the raw probabilities on the split they were fitted on, by finding.
        after: of the calibrated ones there; in sample, so too good.
        folder: where calibration.json lies.
        bundle: the model they were written into.
        how: what ran the model, None when fitted on a saved table.
    """

    calibration: Calibration
    before: Mapping[str, CalibrationFigures]
    after: Mapping[str, CalibrationFigures]
    folder: Path
    bundle: Path
    how: HowRun | None

    def to_dict(self) -> dict[str, object]:
        """As ``cxr calibrate --json`` prints it and calibration.json keeps it."""
        return {
            "method": self.calibration.method.value,
            "split": self.calibration.split,
            "rows": self.calibration.rows,
            "labels": {
                finding: asdict(self.calibration.scalings[finding])
                | {"raw": asdict(self.before[finding]), "calibrated": asdict(self.after[finding])}
                for finding in FINDINGS
            },
            "warnings": list(self.calibration.warnings),
            "model": str(self.bundle),
            **_described(self.how),
        }


def calibrate_model(
    model: Model,
    settings: Settings,
    predictions: Path | None = None,
    out: Path | None = None,
    progress: ProgressCallback = ignore_progress,
) -> CalibrateResult:
    """Fit a map from raw to calibrated probabilities on valid, at study level, and write it into the bundle.

    Ranks, and so AUROC, AUPRC and every decision, stay as they are: thresholds are kept on the raw scale.

    Args:
        model: an opened bundle, a run folder or a bundle file.
        settings: data, split, method and machine.
        predictions: a saved table of this model, instead of running it.
        out: folder for calibration.json; ``calibrate_<split>`` beside the model unless given.
        progress: called as images are read.

    Raises:
        RequestError: as `tune_model`.
    """
    wished = settings.calibrate
    bundle = open_model(model)
    table, how = _choosing_table(bundle, settings, wished.split, predictions, progress)
    calibration = fit_calibration(table, wished.method, settings.data.i_know)
    result = CalibrateResult(
        calibration,
        calibration_figures(table),
        calibration_figures(table, calibration.scalings),
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
