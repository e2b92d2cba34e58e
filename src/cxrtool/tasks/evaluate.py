"""A model over a whole split: predictions, metrics and thresholds, with the files that hold them."""

from dataclasses import dataclass
from pathlib import Path

from cxrtool.choices import Level
from cxrtool.engines.engine import HowRun
from cxrtool.evaluation.assessment import Assessment, AssessmentSettings, assess, attribute_names
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.evaluation.table import PredictionTable, to_study_level, write_predictions
from cxrtool.files import write_csv, write_json
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import Bundle, BundleHeader
from cxrtool.model.resolve import Model, open_model
from cxrtool.predict.split import dataset_of, predict_split
from cxrtool.progress import ProgressCallback, ignore_progress
from cxrtool.settings import EvalSettings, Settings


@dataclass(frozen=True)
class EvalResult:
    """What `evaluate_model` came to.

    Attributes:
        assessment: figures at the wished level, how sure they are, and what to beware of.
        table: the predictions behind them.
        images: as `table`, by image.
        folder: where predictions.csv, metrics.json and metrics.csv lie.
        how: what ran it.
    """

    assessment: Assessment
    table: PredictionTable
    images: PredictionTable
    folder: Path
    how: HowRun


def evaluate_model(
    model: Model, settings: Settings, out: Path | None = None, progress: ProgressCallback = ignore_progress
) -> EvalResult:
    """Metrics of a model on `settings.eval.split`, with predictions.csv, metrics.json and metrics.csv.

    Args:
        model: an opened bundle, a run folder or a bundle file.
        settings: data, split, level and machine.
        out: folder for the files; beside the model as ``eval_<split>`` unless given.
        progress: called as images are read.

    Raises:
        CxrError: data or model cannot be used, an image cannot be read, or a file cannot be written.
    """
    wished = settings.eval
    bundle = open_model(model)
    dataset = dataset_of(settings.data, wished.split, attribute_names(wished.by))
    images, how = predict_split(bundle, settings, dataset, wished.split, progress)
    table = to_study_level(images) if wished.level is Level.STUDY else images
    assessment = assess_table(table, bundle.header, wished)
    folder = out or bundle.path.parent / f"eval_{wished.split}"
    write_predictions(folder / "predictions.csv", table)
    write_json(folder / "metrics.json", describe_evaluation(assessment, bundle, how))
    _write_metrics_csv(folder / "metrics.csv", assessment)
    _write_subgroups_csv(folder / "subgroups.csv", assessment)
    return EvalResult(assessment, table, images, folder, how)


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


def describe_evaluation(assessment: Assessment, bundle: Bundle, how: HowRun) -> dict[str, object]:
    """As ``cxr eval --json`` prints it and metrics.json keeps it."""
    header = bundle.header
    return assessment.to_dict() | {
        "thresholds": header.thresholds,
        "tuned_on": header.tuning.split if header.tuning else None,
        **how.to_dict(),
        "model": {
            "path": str(bundle.path),
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
