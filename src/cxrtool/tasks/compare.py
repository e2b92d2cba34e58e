"""Several models, or saved tables of theirs, on the same split."""

from collections.abc import Sequence
from pathlib import Path

from cxrtool.errors import RequestError
from cxrtool.evaluation.comparison import Candidate, Comparison, compare
from cxrtool.evaluation.table import PredictionTable, read_predictions, to_study_level
from cxrtool.files import write_csv, write_json
from cxrtool.model.resolve import resolve_model
from cxrtool.predict.split import predict_split
from cxrtool.progress import ProgressCallback, ignore_progress
from cxrtool.settings import Settings
from cxrtool.tasks.evaluate import bootstrap_settings


def compare_models(
    inputs: Sequence[Path], settings: Settings, progress: ProgressCallback = ignore_progress
) -> Comparison:
    """Compare run folders, bundles or predictions.csv files on `settings.eval.split`, at study level.

    Raises:
        RequestError: fewer than two, their rows or labels differ, or a table is of another split.
    """
    if len(inputs) < 2:
        raise RequestError("there is one model to compare", "Name two or more.")
    lacking = [path for path in inputs if not path.exists()]
    if lacking:
        raise RequestError(f"{lacking[0]} does not exist", "Name run folders, bundles or predictions.csv files.")
    candidates = []
    for name, path in zip(_short_names(inputs), inputs, strict=True):
        candidates.append(Candidate(name, (_table(path, settings, progress),)))
    return compare(candidates, bootstrap_settings(settings.eval))


def _table(path: Path, settings: Settings, progress: ProgressCallback) -> PredictionTable:
    if path.suffix.lower() == ".csv":
        return to_study_level(read_predictions(path))
    images, _, _ = predict_split(resolve_model(path, settings.runs), settings, settings.eval.split, progress)
    return to_study_level(images)


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    longest = max(len(path.parts) for path in paths)
    for length in range(1, longest + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write compare_<split>.json, and figures and differences as CSV."""
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
