"""A model over a whole split: predictions, metrics and thresholds, with the files that hold them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Level
from cxrtool.data.cache import open_cache
from cxrtool.data.dataset import load_usable, refuse_shared_patients, sheet_column
from cxrtool.data.labels import encode_labels
from cxrtool.data.manifest import Manifest
from cxrtool.data.radiograph import Reading
from cxrtool.engines.device import sigmoid
from cxrtool.engines.engine import HowRun, manifest_logits, open_engine
from cxrtool.evaluation.assessment import Assessment, AssessmentSettings, assess, attribute_names
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.evaluation.metrics import Evaluation, evaluate
from cxrtool.evaluation.table import PredictionTable, to_study_level, write_predictions
from cxrtool.files import write_csv, write_json
from cxrtool.findings import EVALUATION_POLICY, FINDINGS, Blank
from cxrtool.model.bundle import BundleHeader, load_bundle, read_header
from cxrtool.progress import ProgressCallback, ignore_progress
from cxrtool.settings import DataSettings, EvalSettings, Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalResult:
    """What `evaluate_model` came to.

    Attributes:
        assessment: figures at the wished level, how sure they are, and what to beware of.
        table: the predictions behind them.
        folder: where predictions.csv, metrics.json and metrics.csv lie.
        header: the model's.
        how: what ran it.
    """

    assessment: Assessment
    table: PredictionTable
    folder: Path
    header: BundleHeader
    how: HowRun


def table_of(
    logits: NDArray[np.float32],
    manifest: Manifest,
    blank: Blank,
    weights_sha256: str = "",
    columns: Sequence[str] = (),
) -> PredictionTable:
    """Logits [N, 5] and the labels of their rows as an image-level table; uncertain cells are masked.

    `columns` of the sheet become attributes beside sex, age and projection.
    """
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
        attributes=_attributes(manifest, columns),
    )


def _attributes(manifest: Manifest, columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    ages = tuple("" if np.isnan(age) else f"{age:g}" for age in manifest.ages)
    own = {"sex": _as_texts(manifest.sexes), "age": ages, "projection": _as_texts(manifest.projections)}
    return own | {name: _as_texts(sheet_column(manifest, name)) for name in columns if name not in own}


def _as_texts(values: NDArray[np.object_]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)


def evaluate_logits(logits: NDArray[np.float32], manifest: Manifest, blank: Blank) -> Evaluation:
    """Study-level metrics of logits [N, 5], as training follows them."""
    return evaluate(to_study_level(table_of(logits, manifest, blank)))


def predict_split(
    model: Path,
    settings: Settings,
    split: str,
    progress: ProgressCallback = ignore_progress,
    columns: Sequence[str] = (),
) -> tuple[PredictionTable, BundleHeader, HowRun]:
    """Run the model at `model` over a split, with torch in float32 unless asked otherwise; `columns` as in `table_of`.

    Returns:
        The image-level table, the model's header, and what ran it.

    Raises:
        RequestError: two splits share patients, and `settings.data.i_know` is not set.
    """
    header = read_header(model)
    _warn_if_otherwise(header, settings.data)
    manifest = load_usable(settings.data, split)
    refuse_shared_patients(settings.data)
    network, header = load_bundle(model)
    engine = open_engine(model, network, header, settings.runtime, reported=True)
    reading = Reading.by(header.image_preprocessing, settings.runtime)
    cache = open_cache(manifest, settings.data, reading, progress).cache if settings.data.uses_cache else None
    logits = manifest_logits(engine, manifest, reading, progress, f"reading {split}", cache)
    table = table_of(logits, manifest, settings.data.blank, header.weights_sha256, columns)
    return table, header, engine.how


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
    wished = settings.eval
    images, header, how = predict_split(model, settings, wished.split, progress, attribute_names(wished.by))
    table = to_study_level(images) if wished.level is Level.STUDY else images
    assessment = assess_table(table, header, wished)
    folder = out or model.parent / f"eval_{wished.split}"
    write_predictions(folder / "predictions.csv", table)
    write_json(folder / "metrics.json", describe_evaluation(assessment, model, header, how))
    _write_metrics_csv(folder / "metrics.csv", assessment)
    _write_subgroups_csv(folder / "subgroups.csv", assessment)
    return EvalResult(assessment, table, folder, header, how)


def assess_table(table: PredictionTable, header: BundleHeader, wished: EvalSettings) -> Assessment:
    """What is said of a bundle's predictions `table`."""
    return assess(
        table,
        AssessmentSettings(bootstrap_settings(wished), attribute_names(wished.by), wished.prevalence),
        header.thresholds,
        header.tuning.origin if header.tuning else None,
        header.scalings,
    )


def bootstrap_settings(wished: EvalSettings) -> BootstrapSettings:
    """How patients are drawn."""
    return BootstrapSettings(wished.draws, wished.draw_seed, wished.confidence)


def describe_evaluation(assessment: Assessment, model: Path, header: BundleHeader, how: HowRun) -> dict[str, object]:
    """As ``cxr eval --json`` prints it and metrics.json keeps it."""
    return assessment.to_dict() | {
        "thresholds": header.thresholds,
        "tuned_on": header.tuning.split if header.tuning else None,
        **how.to_dict(),
        "model": {
            "path": str(model),
            "weights_sha256": header.weights_sha256,
            "policy": header.policy,
            "image_size": header.image_preprocessing.image_size,
            "run": header.run,
        },
    }


def _write_metrics_csv(path: Path, assessment: Assessment) -> None:
    evaluation = assessment.evaluation
    plain = {finding: metrics.to_dict() for finding, metrics in evaluation.labels.items()}
    plain["mean"] = {"auroc": evaluation.mean_auroc, "auprc": evaluation.mean_auprc}
    columns = list(plain[FINDINGS[0]])
    names = list(assessment.intervals[FINDINGS[0]])
    rows = []
    for finding, row in plain.items():
        intervals = [assessment.intervals[finding].get(name) for name in names]
        ends = [end for one in intervals for end in ((one.low, one.high) if one else (None, None))]
        rows.append([finding, *(row.get(column) for column in columns), *ends])
    header = ["finding", *columns, *(f"{name}_{end}" for name in names for end in ("low", "high"))]
    write_csv(path, header, rows)


def _write_subgroups_csv(path: Path, assessment: Assessment) -> None:
    rows = [item.to_dict() for item in assessment.subgroups]
    header = list(rows[0]) if rows else ["attribute", "group", "finding"]
    write_csv(path, header, [list(row.values()) for row in rows])
