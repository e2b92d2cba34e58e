"""``cxr eval``"""

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import console as display
from cxrtool.cli.models import chosen_model
from cxrtool.cli.options import BOOTSTRAP, CACHE, DATA, ENGINE, JsonOption, settings_options
from cxrtool.settings import ResolvedSettings


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
        Path | None, typer.Option("--out", help="Folder. \\[default: eval_<split> beside the model]")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """AUROC and AUPRC per finding, with 95 % intervals over patients.

    Writes predictions.csv, metrics.json, metrics.csv and subgroups.csv.

    \b
    cxr eval --data CheXpert-v1.0-small --model runs/my-run --split test
    cxr eval --data CheXpert-v1.0-small --level image --json
    cxr eval --data CheXpert-v1.0-small --by sex,Hospital --prevalence 0.05
    """
    from cxrtool.tasks.evaluate import describe_evaluation, evaluate_model

    model = chosen_model(resolved)
    with display.progress_bar() as progress:
        result = evaluate_model(model, resolved.settings, out, progress)
    for text in result.assessment.warnings:
        display.warn(text)
    if json_output:
        display.print_json(describe_evaluation(result.assessment, model, result.header, result.how))
        return
    display.show_assessment(result.assessment)
    display.say(f"files: {result.folder}/predictions.csv, metrics.json, metrics.csv, subgroups.csv (by {result.how})")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("eval")(evaluate)
