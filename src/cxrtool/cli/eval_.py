"""``cxr eval``"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cells import cell, interval_text
from cxrtool.cli import console
from cxrtool.cli.inputs import model_to_run
from cxrtool.cli.options import BOOTSTRAP, CACHE, DATA, ENGINE, JsonOption, PaperOption, settings_options
from cxrtool.resolved_settings import ResolvedSettings

if TYPE_CHECKING:
    from cxrtool.evaluation.assessment import Assessment
    from cxrtool.evaluation.metrics import Evaluation


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
        Path | None, typer.Option("--out", help="Output folder. \\[default: eval_<split> beside the model]")
    ] = None,
    paper: PaperOption = False,
    json_output: JsonOption = False,
) -> None:
    """Evaluate a model: AUROC and AUPRC per finding, with 95 % intervals over patients.

    Writes predictions.csv, metrics.json, metrics.csv and subgroups.csv, and with --paper the folder paper/.

    \b
    cxr eval --data CheXpert-v1.0-small --model runs/my-run --split test
    cxr eval --data CheXpert-v1.0-small --level image --json
    cxr eval --data CheXpert-v1.0-small --by sex,Hospital --prevalence 0.05
    cxr eval --data CheXpert-v1.0-small --split test --paper
    """
    from cxrtool.tasks.evaluate import describe_evaluation, evaluate_model

    with model_to_run(resolved) as model, console.progress_bar() as progress:
        result = evaluate_model(model, resolved.settings, out, progress)
        if paper:
            from cxrtool.report.paper import PAPER_NAME, write_paper
            from cxrtool.report.study import study_of_evaluation

            study = study_of_evaluation(model, result, resolved.settings.data, console.command_line())
            write_paper(result.folder / PAPER_NAME, study)
    for text in result.assessment.warnings:
        console.warn(text)
    if json_output:
        console.print_json(
            describe_evaluation(result.assessment, model, result.how, result.flow, result.characteristics)
        )
        return
    show_assessment(result.assessment)
    console.say(f"files: {result.folder}/predictions.csv, metrics.json, metrics.csv, subgroups.csv (by {result.how})")
    if paper:
        console.say(f"for a paper: {result.folder}/paper")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("eval")(evaluate)


def show_assessment(assessment: "Assessment") -> None:
    """Print figures with intervals, figures at the thresholds if there are any, and calibration."""
    evaluation, intervals = assessment.evaluation, assessment.intervals
    title = (
        f"{evaluation.split} split, {evaluation.level} level: {evaluation.studies} studies of {assessment.patients} "
        f"patients, {evaluation.images} images"
    )
    rows: list[list[object]] = [
        [
            name,
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
    _show_thresholds(evaluation)
    _show_honest(assessment)
    _show_calibration(assessment)


def _show_thresholds(evaluation: "Evaluation") -> None:
    columns = ["f1", "precision", "recall", "specificity", "balanced_accuracy"]
    rows = [
        [name, cell(row.at_threshold.threshold, 2), *(getattr(row.at_threshold, column) for column in columns)]
        for name, row in evaluation.labels.items()
        if row.at_threshold is not None
    ]
    if rows:
        header = ["finding", "threshold", *(name.replace("_", " ") for name in columns)]
        console.print_table("at the bundle's thresholds", header, rows)


def _show_honest(assessment: "Assessment") -> None:
    if assessment.honest is None:
        return
    rows = [
        [name, row.f1, row.balanced_accuracy, row.recall, row.specificity] for name, row in assessment.honest.items()
    ]
    console.print_table(
        "corrected for optimism: each row judged by thresholds chosen without it (nested resampling)",
        ["finding", "f1", "balanced accuracy", "recall", "specificity"],
        rows,
    )


def _show_calibration(assessment: "Assessment") -> None:
    header = ["finding", "prevalence", "mean probability", "Brier", "ECE"]
    shown = [("raw", assessment.raw)]
    if assessment.calibrated is not None:
        shown.append(("calibrated", assessment.calibrated))
    for kind, figures in shown:
        rows = [[name, one.prevalence, one.mean_probability, one.brier, one.ece] for name, one in figures.items()]
        console.print_table(f"{kind} probabilities (ECE over ten bins of equal width)", header, rows)
