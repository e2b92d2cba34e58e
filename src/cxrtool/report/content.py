"""Content of a report, gathered from a run folder and, if they are available, from the data."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrtool.data.dataset import Dataset
from cxrtool.errors import CxrError, RequestError
from cxrtool.evaluation.assessment import Assessment
from cxrtool.evaluation.readers import ReaderStudy
from cxrtool.evaluation.table import PredictionTable, read_predictions
from cxrtool.findings import Findings
from cxrtool.model.bundle import Bundle
from cxrtool.model.header import BundleHeader
from cxrtool.model.resolve import Model, open_model
from cxrtool.progress import ProgressCallback, ignore_progress
from cxrtool.report.study import Study, study_of_evaluation, study_of_files
from cxrtool.settings import Settings
from cxrtool.tasks.evaluate import assess_table, compare_with_readers, evaluate_model, readers_of
from cxrtool.tasks.gallery import MistakesResult, collect_mistakes
from cxrtool.tasks.policies import COMPARISON_NAME
from cxrtool.tasks.scores import ScoresResult
from cxrtool.training.folder import settings_of_run
from cxrtool.training.state import EpochRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportContent:
    """Everything a report shows.

    Attributes:
        run: the run folder.
        header: header of its bundle; None for scores that came without a model.
        table: predictions of the reported split.
        assessment: figures of `table`.
        tuning_table: the predictions on which thresholds were chosen, None if there is no such file.
        history: a record per epoch; empty for a bundle without its run folder.
        mistakes: None if the images are not available.
        policies: JSON of the policy comparison that the run is part of; None if it is part of none.
        settings: the run's resolved settings, nested; empty if there is no such file.
        dataset: dataset.json of the run; empty if there is no such file.
        study: what a paper says about the evaluation; None leaves out the sections that need it.
        readers: the model beside readers; None without readers.
    """

    run: Path
    header: BundleHeader | None
    table: PredictionTable
    assessment: Assessment
    tuning_table: PredictionTable | None
    history: tuple[EpochRecord, ...]
    mistakes: MistakesResult | None
    policies: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    dataset: Mapping[str, Any]
    study: Study | None = None
    readers: ReaderStudy | None = None


def gather(
    model: Model,
    settings: Settings,
    top: int | None = 4,
    progress: ProgressCallback = ignore_progress,
    command: str = "",
    readers: Sequence[Path] = (),
) -> ReportContent:
    """Collect the content of a report. The model is run if there are no saved predictions and the data are available.

    Args:
        model: an opened bundle in its run folder, or that folder, or the bundle's file.
        settings: split, draws, subgroups and data; without data, those of the run are used if they still exist.
        top: most mistakes to show per finding and kind; None leaves out mistakes.
        progress: called as images are read and pictures are drawn.
        command: the command line that the methods state; empty states none.
        readers: CSV files of readers to show beside the model.

    Raises:
        RequestError: there are neither saved predictions of this model nor data to make them from.
    """
    bundle = open_model(model)
    run, header = bundle.path.parent, bundle.header
    stored = _stored_settings(run)
    settings = _with_data(settings, stored)
    split = settings.eval.split
    files = readers_of(readers, settings.eval.level, Findings(header.findings))
    table, images = _read_own_predictions(run / f"eval_{split}" / "predictions.csv", header), None
    if table is None:
        if not _data_available(settings, split):
            raise RequestError(
                f"{run} has no predictions of its model on {split}, and there are no data to make them from",
                f"Run cxr eval --split {split} first, or give --data.",
            )
        evaluated = evaluate_model(bundle, settings, None, progress, "report")
        table, images = evaluated.table, evaluated.images
        assessment = evaluated.assessment
        study = study_of_evaluation(bundle, evaluated, settings.data, command)
    else:
        assessment = assess_table(table, header, settings.eval)
        study = study_of_files(run, header, table, assessment, command)
    known = table if images is None else images
    return ReportContent(
        run=run,
        header=header,
        table=table,
        assessment=assessment,
        tuning_table=_tuning_table(run, header),
        history=_history(run),
        mistakes=None if top is None else _mistakes(bundle, settings, top, progress, known),
        policies=_policies(run),
        settings=stored,
        dataset=_read_json(run / "dataset.json"),
        study=study,
        readers=compare_with_readers(table, files, settings.eval) if files else None,
    )


def content_of_scores(result: ScoresResult, settings: Settings, command: str = "") -> ReportContent:
    """Return the content of a report on scores that came without a model and images.

    Args:
        result: the evaluation.
        settings: the meaning of blank labels.
        command: the command line that the methods state; empty states none.
    """
    return ReportContent(
        run=result.folder,
        header=None,
        table=result.table,
        assessment=result.assessment,
        tuning_table=None,
        history=(),
        mistakes=None,
        policies=None,
        settings={},
        dataset={},
        study=Study(result.table, result.assessment, blank=settings.data.blank, command=command),
        readers=result.readers,
    )


def _stored_settings(run: Path) -> dict[str, Any]:
    try:
        return settings_of_run(run)
    except RequestError:
        return {}


def _with_data(settings: Settings, stored: Mapping[str, Any]) -> Settings:
    """Return `settings` with the data folder, views and blank labels of the run, unless a data folder is given."""
    own = stored.get("data", {})
    if settings.data.root is not None or not own.get("root"):
        return settings
    fields = settings.data.model_dump() | {key: own[key] for key in ("root", "views", "blank") if key in own}
    return settings.model_copy(update={"data": type(settings.data).model_validate(fields)})


def _data_available(settings: Settings, split: str) -> bool:
    try:
        return split in Dataset(settings.data, (split,)).available
    except CxrError:
        return False


def _read_own_predictions(path: Path, header: BundleHeader) -> PredictionTable | None:
    if not path.is_file():
        return None
    table = read_predictions(path)
    if table.model_sha256 != header.weights_sha256:
        log.warning("%s comes from another model and is not used", path)
        return None
    return table


def _tuning_table(run: Path, header: BundleHeader) -> PredictionTable | None:
    if header.tuning is None:
        return None
    return _read_own_predictions(run / f"tune_{header.tuning.split}" / "predictions.csv", header)


def _history(run: Path) -> tuple[EpochRecord, ...]:
    path = run / "history.json"
    if not path.is_file():
        return ()
    return tuple(EpochRecord(**row) for row in json.loads(path.read_text(encoding="utf-8")))


def _mistakes(
    bundle: Bundle, settings: Settings, top: int, progress: ProgressCallback, known: PredictionTable
) -> MistakesResult | None:
    if not _data_available(settings, settings.eval.split):
        return None
    try:
        return collect_mistakes(bundle, settings, top=top, progress=progress, known=known, command="report")
    except CxrError as error:
        log.warning("the report shows no mistakes: %s", error)
        return None


def _policies(run: Path) -> dict[str, Any] | None:
    found = _read_json(run.parent / COMPARISON_NAME)
    names = {Path(name).name for runs in found.get("runs", {}).values() for name in runs}
    return found if run.name in names else None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
