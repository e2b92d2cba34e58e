"""``cxr eval``"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cells import cell, interval_text, range_text
from cxrtool.cli import console
from cxrtool.cli.help_text import OUTPUT
from cxrtool.cli.inputs import model_to_run
from cxrtool.cli.options import (
    BOOTSTRAP,
    CACHE,
    DATA,
    ENGINE,
    JsonOption,
    PaperOption,
    ReadersOption,
    settings_options,
)
from cxrtool.cli.readers import show_readers
from cxrtool.cli.score_options import KeyOption, MapOption, ScoresOption, ThresholdsOption, TruthOption, score_files
from cxrtool.errors import RequestError
from cxrtool.resolved_settings import ResolvedSettings
from cxrtool.text import counted

_FILES = "predictions.csv, metrics.json, metrics.csv, subgroups.csv, gaps.csv"

if TYPE_CHECKING:
    from cxrtool.evaluation.assessment import Assessment
    from cxrtool.evaluation.fairness import GroupGap
    from cxrtool.evaluation.readers import ReaderStudy
    from cxrtool.tasks.scores import ScoreFiles


@settings_options(
    "data.root",
    "model",
    "eval.split",
    "eval.level",
    "eval.by",
    "eval.prevalence",
    *BOOTSTRAP,
    *DATA,
    *CACHE,
    *ENGINE,
    "runtime.batch_size",
)
def evaluate(
    resolved: ResolvedSettings,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Output folder. \\[default: eval_<split> beside the model]", rich_help_panel=OUTPUT),
    ] = None,
    scores: ScoresOption = None,
    truth: TruthOption = None,
    key: KeyOption = None,
    map_: MapOption = None,
    thresholds: ThresholdsOption = None,
    paper: PaperOption = False,
    readers: ReadersOption = None,
    json_output: JsonOption = False,
) -> None:
    """Evaluate a model, or scores of any program: AUROC and AUPRC per finding, with 95 % intervals over patients.

    Writes predictions.csv, metrics.json, metrics.csv, subgroups.csv and gaps.csv; with --readers, also readers.csv, and
    with --paper the folder paper/.

    \b
    cxr eval --data CheXpert-v1.0-small --model runs/my-run --split test
    cxr eval --data CheXpert-v1.0-small --level image --json
    cxr eval --data CheXpert-v1.0-small --by sex,Hospital --prevalence 0.05
    cxr eval --data CheXpert-v1.0-small --split test --paper
    cxr eval --scores theirs.csv --truth groundtruth.csv
    cxr eval --data CheXpert-v1.0-small --split test --readers bc4.csv bc6.csv bc8.csv
    """
    files = score_files(scores, truth, key, map_)
    if files is not None:
        _evaluate_scores(resolved, files, thresholds, out, readers or [], paper, json_output)
        return
    if thresholds is not None:
        raise RequestError("--thresholds belongs to --scores", "Store a model's thresholds with cxr tune.")
    from cxrtool.tasks.evaluate import describe_evaluation, evaluate_model

    with model_to_run(resolved) as model, console.progress_bar() as progress:
        result = evaluate_model(model, resolved.settings, out, progress, readers=readers or ())
        if paper:
            from cxrtool.report.paper import PAPER_NAME, write_paper
            from cxrtool.report.study import study_of_evaluation

            study = study_of_evaluation(model, result, resolved.settings.data, console.command_line())
            write_paper(result.folder / PAPER_NAME, study)
    for text in (*result.assessment.warnings, *(result.readers.notes if result.readers else ())):
        console.warn(text)
    if json_output:
        console.print_json(
            describe_evaluation(
                result.assessment, model, result.how, result.flow, result.characteristics, result.readers
            )
        )
        return
    show_assessment(result.assessment)
    _show_readers(result.readers)
    files_of_readers = "" if result.readers is None else ", readers.csv"
    console.say(f"files: {result.folder}/{_FILES}{files_of_readers} (by {result.how})")
    if paper:
        console.say(f"for a paper: {result.folder}/paper")


def _evaluate_scores(
    resolved: ResolvedSettings,
    files: "ScoreFiles",
    thresholds: str | None,
    out: Path | None,
    readers: list[Path],
    paper: bool,
    as_json: bool,
) -> None:
    from cxrtool.tasks.scores import evaluate_scores

    result = evaluate_scores(files, resolved.settings, out, thresholds, readers)
    if paper:
        from cxrtool.report.paper import PAPER_NAME, write_paper
        from cxrtool.report.study import Study

        blank, command = resolved.settings.data.blank, console.command_line()
        study = Study(result.table, result.assessment, blank=blank, command=command)
        write_paper(result.folder / PAPER_NAME, study)
    for text in (*result.assessment.warnings, *(result.readers.notes if result.readers else ())):
        console.warn(text)
    if as_json:
        console.print_json(result.to_dict())
        return
    show_assessment(result.assessment)
    _show_readers(result.readers)
    console.say(f"files: {result.folder}/{_FILES}{'' if result.readers is None else ', readers.csv'}")
    if paper:
        console.say(f"for a paper: {result.folder}/paper")


def _show_readers(study: "ReaderStudy | None") -> None:
    if study is not None:
        show_readers(study)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("eval")(evaluate)


def show_assessment(assessment: "Assessment") -> None:
    """Print figures with intervals, figures at the thresholds if there are any, and calibration."""
    from cxrtool.evaluation.metrics import FEW_CASES

    evaluation, intervals = assessment.evaluation, assessment.intervals
    images = "" if evaluation.images == evaluation.studies else f", {counted(evaluation.images, 'image')}"
    title = (
        f"{evaluation.split} split, {evaluation.level} level: "
        f"{counted(evaluation.studies, 'study', 'studies')} of {counted(assessment.patients, 'patient')}{images}"
    )
    rows: list[list[object]] = [
        [
            f"{name}*" if row.few_cases else name,
            interval_text(row.auroc, intervals[name]["auroc"]),
            interval_text(row.auprc, intervals[name]["auprc"]),
            row.positives,
            row.negatives,
            row.ignored,
        ]
        for name, row in evaluation.labels.items()
    ]
    mean = [
        interval_text(value, intervals["mean"][name])
        for name, value in (("auroc", evaluation.mean_auroc), ("auprc", evaluation.mean_auprc))
    ]
    rows.append(["mean", *mean, "", "", ""])
    percent = f"{100 * assessment.settings.bootstrap.confidence:g} %"
    header = ["finding", f"AUROC ({percent})", f"AUPRC ({percent})", "positives", "negatives", "ignored"]
    console.print_table(title, header, rows)
    if any(row.few_cases for row in evaluation.labels.values()):
        console.say(f"* fewer than {FEW_CASES} positives or negatives: too few for reliable figures")
    _show_thresholds(assessment)
    _show_honest(assessment)
    _show_calibration(assessment)
    _show_gaps(assessment)


def _show_thresholds(assessment: "Assessment") -> None:
    columns = ["f1", "precision", "recall", "specificity", "balanced_accuracy"]
    rows = [
        [
            name,
            cell(row.at_threshold.threshold, 3),
            *(interval_text(getattr(row.at_threshold, c), assessment.intervals[name].get(c), 3) for c in columns),
        ]
        for name, row in assessment.evaluation.labels.items()
        if row.at_threshold is not None
    ]
    if rows:
        header = ["finding", "threshold", *(name.replace("_", " ") for name in columns)]
        console.print_table("at the thresholds", header, rows)


def _show_honest(assessment: "Assessment") -> None:
    if assessment.honest is None:
        return
    names = ["f1", "balanced_accuracy", "recall", "specificity"]
    rows = [
        [finding, *(interval_text(getattr(one, name), one.intervals.get(name), 3) for name in names)]
        for finding, one in assessment.honest.items()
    ]
    console.print_table(
        "corrected for optimism: each row judged by thresholds chosen without it (nested resampling)",
        ["finding", *(name.replace("_", " ") for name in names)],
        rows,
    )


def _show_calibration(assessment: "Assessment") -> None:
    if assessment.raw is None:
        return
    shown = {"raw probabilities": assessment.raw}
    if assessment.calibrated == assessment.raw:
        shown = {"raw probabilities, which the bundle's calibration does not change": assessment.raw}
    elif assessment.calibrated is not None:
        where = ", fitted on these rows" if assessment.calibrated_in_sample else ""
        shown[f"calibrated probabilities{where}"] = assessment.calibrated
    digits = {"brier": 3, "ece": 3, "in_the_large": 2, "slope": 2}
    for title, figures in shown.items():
        rows = [
            [
                finding,
                cell(one.prevalence, 3),
                cell(one.mean_probability, 3),
                *(interval_text(getattr(one, name), one.intervals.get(name), digits[name]) for name in digits),
            ]
            for finding, one in figures.items()
        ]
        header = ["finding", "prevalence", "mean", "Brier", "ECE", "in the large (0)", "slope (1)"]
        console.print_table(f"{title}: in the large 0 and slope 1 are calibrated", header, rows)


def _show_gaps(assessment: "Assessment") -> None:
    """Print the largest gap of each attribute and figure; gaps.csv has all."""
    largest: dict[tuple[str, str], GroupGap] = {}
    for one in assessment.gaps:
        key = (one.attribute, one.figure)
        if key not in largest or one.p_value < largest[key].p_value:
            largest[key] = one
    rows = [
        [
            one.attribute,
            one.figure,
            one.finding,
            f"{one.highest} - {one.lowest}",
            f"{one.gap:.3f} ({range_text(one.interval, 3, signed=True)})",
            cell(one.chance, 3),
            cell(one.p_value, 3),
            cell(one.p_holm, 3),
        ]
        for one in largest.values()
    ]
    if rows:
        title = "largest gaps between groups, beside the gap that 95 % of random groups stay below"
        header = ["by", "figure", "finding", "groups", "gap", "by chance", "p", "p (Holm)"]
        console.print_table(title, header, rows, keys=3)
