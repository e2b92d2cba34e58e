"""Comparison of several models, or of their saved tables, on the same split."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cxrtool.data.dataset import Dataset
from cxrtool.errors import RequestError
from cxrtool.evaluation.comparison import Comparison, check_margin, compare
from cxrtool.evaluation.difference import Difference, finite_or_none
from cxrtool.evaluation.pairing import Candidate
from cxrtool.evaluation.table import PredictionTable, read_predictions, to_study_level
from cxrtool.files import write_csv, write_json
from cxrtool.findings import CHEXPERT5, Findings
from cxrtool.model.bundle import Bundle
from cxrtool.model.resolve import Model, open_model
from cxrtool.predict.split import dataset_of, predict_split
from cxrtool.progress import ProgressCallback, ignore_progress
from cxrtool.settings import Settings
from cxrtool.tasks.evaluate import bootstrap_settings
from cxrtool.tasks.scores import ScoreFiles, joined

log = logging.getLogger(__name__)

DIFFERENCE_COLUMNS: Mapping[str, Callable[[Difference], object]] = {
    "first": lambda one: one.first,
    "second": lambda one: one.second,
    "finding": lambda one: one.finding,
    "figure": lambda one: one.figure,
    "difference": lambda one: one.value,
    "low": lambda one: one.interval.low,
    "high": lambda one: one.interval.high,
    "p_value": lambda one: one.p_value,
    "p_holm": lambda one: one.p_holm,
    "p_method": lambda one: one.p_method,
    "p_delong": lambda one: one.p_delong,
    "p_bootstrap": lambda one: one.p_bootstrap,
    "bootstrap_low": lambda one: one.bootstrap_interval.low,
    "bootstrap_high": lambda one: one.bootstrap_interval.high,
    "covers_seeds": lambda one: one.covers_seeds,
    "p_without_seeds": lambda one: one.p_without_seeds,
    "standard_error": lambda one: finite_or_none(one.estimate.standard_error),
    "comparisons": lambda one: one.comparisons,
    "detectable": lambda one: one.detectable,
    "beyond_chance": lambda one: one.beyond_chance,
    "margin": lambda one: one.margin,
    "first_not_inferior": lambda one: one.first_not_inferior,
    "second_not_inferior": lambda one: one.second_not_inferior,
}
"""Columns of differences_<split>.csv, and how each is read from a difference."""


def compare_models(
    models: Sequence[Model],
    settings: Settings,
    names: Sequence[str] | None = None,
    progress: ProgressCallback = ignore_progress,
    reference: str | None = None,
    margin: float | None = None,
    truth: ScoreFiles | None = None,
) -> Comparison:
    """Compare models on `settings.eval.split`, at study level.

    Args:
        models: opened bundles, run folders, bundle files or predictions.csv files.
        settings: data, split and device.
        names: names of the models in the comparison; None uses the shortest ends of their paths that differ.
        progress: called as images are read.
        reference: path or name of the model that each other is compared with; None compares all pairs.
        margin: margin of non-inferiority, such as 0.02.
        truth: table of labels, with which all of `models` are joined as tables of scores; its `scores` is not used.

    Raises:
        RequestError: there are fewer than two models, rows, labels or patients differ, a table is from another split,
            `reference` is none of the models, or `margin` is not between 0 and 1.
    """
    check_models(models)
    check_margin(margin)
    paths = [model.path if isinstance(model, Bundle) else Path(model) for model in models]
    names = names or short_names(paths)
    reference = None if reference is None else reference_name(reference, paths, names)
    if truth is not None:
        files = [replace(truth, scores=path) for path in paths]
        found = joined(files, settings, settings.eval.split)
        for note in dict.fromkeys(note for one in found for note in one.notes):
            log.warning("%s", note)
        scored = [Candidate(name, (to_study_level(one.table),)) for name, one in zip(names, found, strict=True)]
        return compare(scored, bootstrap_settings(settings.eval), reference, margin)
    opened = [model if is_table(model) else open_model(model) for model in models]
    findings = dict.fromkeys(name for model in opened if isinstance(model, Bundle) for name in model.header.findings)
    dataset = dataset_of(settings.data, settings.eval.split, Findings(tuple(findings)) if findings else CHEXPERT5)
    candidates = [
        Candidate(name, (_table(model, settings, dataset, progress),))
        for name, model in zip(names, opened, strict=True)
    ]
    return compare(candidates, bootstrap_settings(settings.eval), reference, margin)


def reference_name(reference: str, paths: Sequence[Path], names: Sequence[str]) -> str:
    """Return the name of the model that `reference` names: its name in the comparison, or its path.

    Raises:
        RequestError: there is no such model.
    """
    if reference in names:
        return reference
    same = [name for path, name in zip(paths, names, strict=True) if path == Path(reference)]
    if not same:
        raise RequestError(
            f"the reference {reference!r} is none of the models", f"Name one of them: {', '.join(names)}."
        )
    return same[0]


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
    images, _ = predict_split(open_model(model), settings, dataset, settings.eval.split, progress, "compare")
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
        list(DIFFERENCE_COLUMNS),
        [[read(one) for read in DIFFERENCE_COLUMNS.values()] for one in comparison.differences],
    )
