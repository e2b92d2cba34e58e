"""A model over a whole split: predictions, metrics and thresholds, with the files that hold them."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Level
from cxrtool.data.batches import Reading
from cxrtool.data.manifest import Manifest, load_manifest, missing_images
from cxrtool.errors import RequestError
from cxrtool.evaluation.metrics import Evaluation, evaluate
from cxrtool.evaluation.thresholds import (
    TunedThresholds,
    threshold_grid,
    tune_thresholds,
    write_curves_csv,
)
from cxrtool.files import write_csv, write_json
from cxrtool.findings import EVALUATION_POLICY, Blank, encode_labels
from cxrtool.inference.forward import choose_runtime, manifest_logits, sigmoid
from cxrtool.model.bundle import BundleHeader, Tuning, load_bundle, read_header, set_thresholds
from cxrtool.predictions import PredictionTable, read_predictions, to_study_level, write_predictions
from cxrtool.progress import ProgressCallback, ignore_progress
from cxrtool.settings import DataSettings, Settings, TuneSettings

log = logging.getLogger(__name__)

_EXAMPLES = 3


@dataclass(frozen=True)
class EvalResult:
    """What `evaluate_model` came to.

    Attributes:
        evaluation: metrics at the wished level.
        table: the predictions behind them.
        folder: where predictions.csv, metrics.json and metrics.csv lie.
        header: the model's.
        precision: ``fp32`` or ``bf16``.
    """

    evaluation: Evaluation
    table: PredictionTable
    folder: Path
    header: BundleHeader
    precision: str


@dataclass(frozen=True)
class TuneResult:
    """What `tune_model` came to.

    Attributes:
        tuned: thresholds and curves.
        folder: where thresholds.json, thresholds.csv and curves.csv lie.
        bundle: the model they were written into, None when tuned from a table alone.
    """

    tuned: TunedThresholds
    folder: Path
    bundle: Path | None


def load_usable(data: DataSettings, split: str) -> Manifest:
    """The rows of a split whose images are there.

    Missing ones are counted and named in a warning.

    Raises:
        SheetError: the sheet cannot be used.
        RequestError: no data folder is given, more rows than `data.max_missing` lack their image, or none is left.
    """
    if data.root is None:
        raise RequestError("no data is given", "Name the folder with --data.")
    manifest = load_manifest(data.root, split, data.views)
    missing = missing_images(manifest)
    count = int(missing.rows.sum())
    if count:
        examples = ", ".join(str(path) for path in manifest.paths[missing.rows][:_EXAMPLES])
        told = f"{count} of {len(manifest)} rows of {manifest.sheet.name} have no usable image ({examples}, ...)"
        if count > data.max_missing * len(manifest):
            raise RequestError(
                told,
                f"Allowed is a share of {data.max_missing:g}: see `cxr check-data`, or raise --max-missing.",
            )
        log.warning("%s; they are left out", told)
        manifest = manifest.select(~missing.rows)
    if len(manifest) == 0:
        raise RequestError(f"{manifest.sheet.name} has no {data.views} image", "Try --views all.")
    return manifest


def table_of(
    logits: NDArray[np.float32], manifest: Manifest, blank: Blank, weights_sha256: str = ""
) -> PredictionTable:
    """Logits [N, 5] and the labels of their rows as an image-level table; uncertain cells are masked."""
    targets, mask = encode_labels(manifest.raw_labels, EVALUATION_POLICY, blank)
    return PredictionTable(
        ids=tuple(str(path) for path in manifest.paths),
        patients=tuple(str(patient) for patient in manifest.patients),
        studies=tuple(str(study) for study in manifest.studies),
        images=np.ones(len(manifest), dtype=np.int64),
        split=manifest.split,
        level=Level.IMAGE,
        sheet_sha256=manifest.sheet_sha256,
        model_sha256=weights_sha256,
        probabilities=sigmoid(logits),
        targets=targets,
        mask=mask,
    )


def evaluate_logits(logits: NDArray[np.float32], manifest: Manifest, blank: Blank) -> Evaluation:
    """Study-level metrics of logits [N, 5], as training follows them."""
    return evaluate(to_study_level(table_of(logits, manifest, blank)))


def predict_split(
    model: Path, settings: Settings, split: str, progress: ProgressCallback = ignore_progress
) -> tuple[PredictionTable, BundleHeader, str]:
    """Run the model at `model` over a split in float32 unless asked otherwise.

    Returns:
        The image-level table, the model's header, and the precision that ran.
    """
    header = read_header(model)
    _warn_if_otherwise(header, settings.data)
    manifest = load_usable(settings.data, split)
    network, header = load_bundle(model)
    runtime = choose_runtime(settings.runtime)
    reading = Reading(
        header.image_preprocessing,
        settings.runtime.batch_size,
        settings.runtime.workers,
        settings.runtime.read_timeout,
    )
    logits = manifest_logits(runtime.place(network), manifest, reading, runtime, progress, f"reading {split}")
    table = table_of(logits, manifest, settings.data.blank, header.weights_sha256)
    return table, header, runtime.precision


def _warn_if_otherwise(header: BundleHeader, data: DataSettings) -> None:
    if header.views != data.views.value:
        log.warning("the model was trained on %s views and is now run on %s", header.views, data.views)


def evaluate_model(
    model: Path, settings: Settings, out: Path | None = None, progress: ProgressCallback = ignore_progress
) -> EvalResult:
    """Metrics of a model on `settings.eval.split`, with predictions.csv, metrics.json and metrics.csv.

    Args:
        model: a bundle file.
        settings: data, split, level and machine.
        out: folder for the files; beside the model as ``eval_<split>`` unless given.
        progress: called as images are read.

    Raises:
        CxrError: data or model cannot be used, an image cannot be read, or a file cannot be written.
    """
    images, header, precision = predict_split(model, settings, settings.eval.split, progress)
    table = to_study_level(images) if settings.eval.level is Level.STUDY else images
    evaluation = evaluate(table, header.thresholds)
    folder = out or model.parent / f"eval_{settings.eval.split}"
    write_predictions(folder / "predictions.csv", table)
    write_json(folder / "metrics.json", describe_evaluation(evaluation, model, header, precision))
    _write_metrics_csv(folder / "metrics.csv", evaluation)
    return EvalResult(evaluation, table, folder, header, precision)


def describe_evaluation(evaluation: Evaluation, model: Path, header: BundleHeader, precision: str) -> dict[str, object]:
    """As ``cxr eval --json`` prints it and metrics.json keeps it."""
    return evaluation.to_dict() | {
        "thresholds": header.thresholds,
        "precision": precision,
        "model": {
            "path": str(model),
            "weights_sha256": header.weights_sha256,
            "policy": header.policy,
            "image_size": header.image_preprocessing.image_size,
            "run": header.run,
        },
    }


def _write_metrics_csv(path: Path, evaluation: Evaluation) -> None:
    labels = evaluation.to_dict()["labels"]
    assert isinstance(labels, dict)
    columns = list(next(iter(labels.values())))
    write_csv(path, ["finding", *columns], [[label, *row.values()] for label, row in labels.items()])


def tune_model(
    settings: Settings,
    model: Path | None = None,
    predictions: Path | None = None,
    out: Path | None = None,
    progress: ProgressCallback = ignore_progress,
) -> TuneResult:
    """Choose thresholds on a split that is not test and write them into the model's bundle.

    Args:
        settings: data, split, criterion, grid and machine.
        model: a bundle file; may be left out with `predictions`, and then only files are written.
        predictions: a saved table to tune from, instead of running the model.
        out: folder for the files; ``tune_<split>`` beside the model or table unless given.
        progress: called as images are read.

    Raises:
        RequestError: the rows come from the test split, or the table is another model's.
    """
    _refuse_test(settings.tune.split)
    if predictions is not None:
        table = read_predictions(predictions)
        if model is not None:
            _refuse_another_model(table, model, predictions)
    elif model is not None:
        images, _, _ = predict_split(model, settings, settings.tune.split, progress)
        table = to_study_level(images)
        log.info("tuning on %s studies", len(table.ids))
    else:
        raise RequestError("nothing to tune on", "Give --model and --data, or --predictions.")
    tuned = tune_thresholds(table, settings.tune.criterion, _grid(settings.tune), settings.tune.target)
    beside = model or predictions
    folder = out or (beside.parent if beside else Path()) / f"tune_{table.split}"
    write_json(folder / "thresholds.json", tuned.to_dict())
    write_csv(folder / "thresholds.csv", ["finding", "threshold"], list(tuned.thresholds.items()))
    write_curves_csv(folder / "curves.csv", tuned)
    if predictions is None:
        write_predictions(folder / "predictions.csv", table)
    if model is not None:
        set_thresholds(model, tuned.thresholds, _provenance(settings.tune, table))
    return TuneResult(tuned, folder, model)


def _refuse_test(split: str) -> None:
    if split == "test":
        raise RequestError(
            "thresholds are not tuned on the test split: its figures would no longer be out of sample",
            "Use --split valid.",
        )


def _refuse_another_model(table: PredictionTable, model: Path, predictions: Path) -> None:
    digest = read_header(model).weights_sha256
    if table.model_sha256 and table.model_sha256 != digest:
        raise RequestError(
            f"{predictions} was made by another model than {model}",
            "Make it anew with cxr eval --split valid.",
        )


def _grid(tune: TuneSettings) -> NDArray[np.float64]:
    return threshold_grid(tune.minimum, tune.maximum, tune.step)


def _provenance(tune: TuneSettings, table: PredictionTable) -> Tuning:
    return Tuning(
        criterion=tune.criterion.value,
        target=tune.target,
        split=table.split,
        level=table.level.value,
        rows=len(table.ids),
        sheet_sha256=table.sheet_sha256,
    )
