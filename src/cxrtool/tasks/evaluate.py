"""Evaluation of a model on a whole split: predictions and metrics, and the files that hold them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxrtool.choices import Level
from cxrtool.data.characteristics import Characteristics, characteristics_of
from cxrtool.data.dataset import Dataset
from cxrtool.data.flow import RowFlow
from cxrtool.engines.engine import HowRun
from cxrtool.evaluation.assessment import Assessment, AssessmentSettings, assess, attribute_names
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.evaluation.reader_files import ReaderFile, match_readers, read_readers
from cxrtool.evaluation.reader_study import check_level, study_readers
from cxrtool.evaluation.readers import ReaderStudy
from cxrtool.evaluation.table import PredictionTable, to_study_level, write_predictions
from cxrtool.files import write_csv, write_json
from cxrtool.findings import Findings
from cxrtool.model.bundle import Bundle
from cxrtool.model.header import BundleHeader
from cxrtool.model.resolve import Model, open_model
from cxrtool.predict.split import dataset_of, predict_split
from cxrtool.progress import ProgressCallback, ignore_progress
from cxrtool.settings import EvalSettings, Settings


@dataclass(frozen=True)
class EvalResult:
    """Result of `evaluate_model`.

    Attributes:
        assessment: figures at the requested level, with intervals and warnings.
        table: the predictions that the figures come from.
        images: the same predictions at image level.
        folder: folder with predictions.csv, metrics.json, metrics.csv, subgroups.csv, gaps.csv and, with readers,
            readers.csv.
        how: backend and precision of the network.
        flow: how many rows of the sheet were analysed, and why the others were not.
        characteristics: patients, studies and images that were analysed.
        readers: the model beside readers; None without readers.
    """

    assessment: Assessment
    table: PredictionTable
    images: PredictionTable
    folder: Path
    how: HowRun
    flow: RowFlow
    characteristics: Characteristics
    readers: ReaderStudy | None = None


def evaluate_model(
    model: Model,
    settings: Settings,
    out: Path | None = None,
    progress: ProgressCallback = ignore_progress,
    command: str = "eval",
    readers: Sequence[Path] = (),
) -> EvalResult:
    """Evaluate a model on `settings.eval.split` and write its predictions and metrics.

    Args:
        model: an opened bundle, a run folder or a bundle file.
        settings: data, split, level and device.
        out: output folder; None uses ``eval_<split>`` beside the model.
        progress: called as images are read.
        command: what the ledger beside the model names as the reason.
        readers: CSV files of readers to compare the model with; see `read_readers`.

    Raises:
        CxrError: data or model cannot be used, an image cannot be read, or a file cannot be written.
        RequestError: a file of a reader cannot be used, or readers are given at image level.
    """
    options = settings.eval
    bundle = open_model(model)
    files = readers_of(readers, options.level, bundle.header.labels)
    dataset = dataset_of(settings.data, options.split, bundle.header.labels, attribute_names(options.by))
    images, how = predict_split(bundle, settings, dataset, options.split, progress, command, out)
    flow, characteristics = analysed_rows(dataset, images)
    table = to_study_level(images) if options.level is Level.STUDY else images
    assessment = assess_table(table, bundle.header, options)
    study = compare_with_readers(table, files, options) if files else None
    folder = out or bundle.path.parent / f"eval_{options.split}"
    write_predictions(folder / "predictions.csv", table)
    document = describe_evaluation(assessment, bundle, how, flow, characteristics, study)
    write_json(folder / "metrics.json", document)
    write_figures(folder, assessment, study)
    return EvalResult(assessment, table, images, folder, how, flow, characteristics, study)


def write_figures(folder: Path, assessment: Assessment, readers: ReaderStudy | None = None) -> None:
    """Write metrics.csv, subgroups.csv and gaps.csv, and with readers readers.csv."""
    _write_metrics_csv(folder / "metrics.csv", assessment)
    _write_rows(folder / "subgroups.csv", [item.to_dict() for item in assessment.subgroups])
    _write_rows(folder / "gaps.csv", [item.to_dict() for item in assessment.gaps])
    if readers is not None:
        _write_rows(folder / "readers.csv", [row.to_row() for row in readers.rows])


def readers_of(paths: Sequence[Path], level: Level, findings: Findings) -> tuple[ReaderFile, ...]:
    """Read the files of readers before anything is predicted.

    Raises:
        RequestError: a file cannot be used, or figures are of images.
    """
    if paths:
        check_level(level)
    return read_readers(paths, findings)


def compare_with_readers(table: PredictionTable, files: Sequence[ReaderFile], options: EvalSettings) -> ReaderStudy:
    """Compare a table of predictions with readers, matched by study."""
    readings, notes = match_readers(files, table)
    return study_readers(table, readings, bootstrap_settings(options), notes)


def analysed_rows(dataset: Dataset, images: PredictionTable) -> tuple[RowFlow, Characteristics]:
    """Return the flow to the rows of an image-level table made from `dataset`, and their characteristics."""
    usable = dataset.usable(images.split)
    if len(images) < len(usable):
        read = set(images.ids)
        usable = usable.select(np.array([str(path) in read for path in usable.paths]))
    found = characteristics_of(usable)
    return dataset.flow(images.split).analysed(found.images, found.studies, found.patients), found


def assess_table(table: PredictionTable, header: BundleHeader, options: EvalSettings) -> Assessment:
    """Assess a table of predictions by a bundle, with its thresholds and calibration."""
    return assess(
        table,
        AssessmentSettings(bootstrap_settings(options), attribute_names(options.by), options.prevalence),
        header.thresholds,
        header.tuning.origin if header.tuning else None,
        header.scalings,
        header.calibration.origin if header.calibration else None,
    )


def bootstrap_settings(options: EvalSettings) -> BootstrapSettings:
    """Return how patients are drawn, from the settings of ``cxr eval``."""
    return BootstrapSettings(options.draws, options.draw_seed, options.confidence)


def describe_evaluation(
    assessment: Assessment,
    bundle: Bundle,
    how: HowRun,
    flow: RowFlow | None = None,
    characteristics: Characteristics | None = None,
    readers: ReaderStudy | None = None,
) -> dict[str, object]:
    """Return the document of ``cxr eval --json`` and of metrics.json."""
    header = bundle.header
    return assessment.to_dict() | {
        "thresholds": header.thresholds,
        "tuned_on": header.tuning.split if header.tuning else None,
        "flow": None if flow is None else flow.to_dict(),
        "characteristics": None if characteristics is None else characteristics.to_dict(),
        **how.to_dict(),
        "model": {
            "path": str(bundle.path),
            "weights_sha256": header.weights_sha256,
            "policy": header.policy,
            "image_size": header.image_preprocessing.image_size,
            "run": header.run,
        },
        "readers": None if readers is None else readers.to_dict(),
    }


def _write_metrics_csv(path: Path, assessment: Assessment) -> None:
    evaluation = assessment.evaluation
    plain = {finding: metrics.to_dict() for finding, metrics in evaluation.labels.items()}
    plain["mean"] = {"auroc": evaluation.mean_auroc, "auprc": evaluation.mean_auprc}
    first = next(iter(evaluation.labels))
    columns, names = list(plain[first]), list(assessment.intervals[first])
    rows = []
    for finding, row in plain.items():
        intervals = [assessment.intervals[finding].get(name) for name in names]
        ends = [end for one in intervals for end in ((one.low, one.high) if one else (None, None))]
        rows.append([finding, *(row.get(column) for column in columns), *ends])
    header = ["finding", *columns, *(f"{name}_{end}" for name in names for end in ("low", "high"))]
    write_csv(path, header, rows)


def _write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    header = list(rows[0]) if rows else ["attribute", "group", "finding"]
    write_csv(path, header, [list(row.values()) for row in rows])
