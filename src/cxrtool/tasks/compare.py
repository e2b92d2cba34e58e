"""Comparison of several models, or of their saved tables, on the same split."""

from collections.abc import Sequence
from pathlib import Path

from cxrtool.data.dataset import Dataset
from cxrtool.errors import RequestError
from cxrtool.evaluation.comparison import Candidate, Comparison, compare
from cxrtool.evaluation.table import PredictionTable, read_predictions, to_study_level
from cxrtool.files import write_csv, write_json
from cxrtool.findings import CHEXPERT5, Findings
from cxrtool.model.bundle import Bundle
from cxrtool.model.resolve import Model, open_model
from cxrtool.predict.split import dataset_of, predict_split
from cxrtool.progress import ProgressCallback, ignore_progress
from cxrtool.settings import Settings
from cxrtool.tasks.evaluate import bootstrap_settings


def compare_models(
    models: Sequence[Model],
    settings: Settings,
    names: Sequence[str] | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Comparison:
    """Compare models on `settings.eval.split`, at study level.

    Args:
        models: opened bundles, run folders, bundle files or predictions.csv files.
        settings: data, split and device.
        names: names of the models in the comparison; None uses the shortest ends of their paths that differ.
        progress: called as images are read.

    Raises:
        RequestError: there are fewer than two models, rows or labels differ, or a table is from another split.
    """
    check_models(models)
    names = names or short_names([model.path if isinstance(model, Bundle) else Path(model) for model in models])
    opened = [model if is_table(model) else open_model(model) for model in models]
    findings = dict.fromkeys(name for model in opened if isinstance(model, Bundle) for name in model.header.findings)
    dataset = dataset_of(settings.data, settings.eval.split, Findings(tuple(findings)) if findings else CHEXPERT5)
    candidates = [
        Candidate(name, (_table(model, settings, dataset, progress),))
        for name, model in zip(names, opened, strict=True)
    ]
    return compare(candidates, bootstrap_settings(settings.eval))


def check_models(models: Sequence[Model]) -> None:
    """Check that there are at least two models and that their files exist.

    Raises:
        RequestError: there are fewer than two, or a file does not exist.
    """
    if len(models) < 2:
        raise RequestError(f"a comparison needs at least two models, not {len(models)}", "Name two or more.")
    missing = [model for model in models if not isinstance(model, Bundle) and not Path(model).exists()]
    if missing:
        raise RequestError(f"{missing[0]} does not exist", "Name run folders, bundles or predictions.csv files.")


def is_table(model: Model) -> bool:
    """Return whether `model` is a CSV table of predictions rather than a model."""
    return not isinstance(model, Bundle) and Path(model).suffix.lower() == ".csv"


def _table(model: Model, settings: Settings, dataset: Dataset, progress: ProgressCallback) -> PredictionTable:
    if not isinstance(model, Bundle) and is_table(model):
        return to_study_level(read_predictions(Path(model)))
    images, _ = predict_split(open_model(model), settings, dataset, settings.eval.split, progress)
    return to_study_level(images)


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that differ from each other."""
    longest = max(len(path.parts) for path in paths)
    for length in range(1, longest + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write compare_<split>.json, and figures_<split>.csv and differences_<split>.csv."""
    write_json(folder / f"compare_{comparison.split}.json", comparison.to_dict())
    write_csv(
        folder / f"figures_{comparison.split}.csv",
        ["model", "finding", "figure", "value", "low", "high", "seed_deviation"],
        [
            [name, finding, figure, one.value, one.interval.low, one.interval.high, one.seed_deviation]
            for name, rows in comparison.figures.items()
            for finding, row in rows.items()
            for figure, one in row.items()
        ],
    )
    write_csv(
        folder / f"differences_{comparison.split}.csv",
        ["first", "second", "finding", "figure", "difference", "low", "high", "p_value", "p_holm"],
        [
            [
                one.first,
                one.second,
                one.finding,
                one.figure,
                one.value,
                one.interval.low,
                one.interval.high,
                one.p_value,
                one.p_holm,
            ]
            for one in comparison.differences
        ],
    )
