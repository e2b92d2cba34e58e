"""``cxr tune``"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cells import cell, range_text
from cxrtool.cli import console
from cxrtool.cli.help_text import OUTPUT
from cxrtool.cli.inputs import model_to_run, opened_model
from cxrtool.cli.options import BOOTSTRAP, CACHE, DATA, ENGINE, JsonOption, settings_options
from cxrtool.cli.score_options import KeyOption, MapOption, ScoresOption, TruthOption, score_files
from cxrtool.errors import RequestError
from cxrtool.resolved_settings import ResolvedSettings

if TYPE_CHECKING:
    from cxrtool.model.bundle import Bundle
    from cxrtool.tasks.tune import TuneResult


@settings_options(
    "data.root",
    "model",
    "tune.split",
    "tune.criterion",
    "tune.target",
    "tune.minimum",
    "tune.maximum",
    "tune.step",
    "tune.grid_only",
    *BOOTSTRAP,
    *DATA,
    *CACHE,
    *ENGINE,
    "runtime.batch_size",
)
def tune(
    resolved: ResolvedSettings,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions", help="Tune from a predictions.csv of eval. Without --model, no bundle is changed."
        ),
    ] = None,
    scores: ScoresOption = None,
    truth: TruthOption = None,
    key: KeyOption = None,
    map_: MapOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Output folder. \\[default: tune_<split> beside the model]", rich_help_panel=OUTPUT),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Choose a threshold per finding on valid and store the thresholds in the bundle.

    Tries the grid and the thresholds between observed scores; --grid-only tries the grid alone. A finding that has one
    class there keeps its threshold. Exits with 1 if no finding could be tuned.

    \b
    cxr tune --data CheXpert-v1.0-small --model runs/my-run
    cxr tune --data CheXpert-v1.0-small --criterion recall --target 0.9
    cxr tune --scores theirs.csv --truth valid.csv
    cxr tune --predictions runs/my-run/eval_valid/predictions.csv --min 0.1 --max 0.9 --step 0.05
    """
    from cxrtool.tasks.tune import tune_model, tune_scores

    files = score_files(scores, truth, key, map_)
    if files is not None:
        if predictions is not None:
            raise RequestError("--scores cannot be combined with --predictions", "Leave out one of them.")
        _show(tune_scores(files, resolved.settings, out), json_output)
        return
    if predictions is None:
        chosen: AbstractContextManager[Bundle | None] = model_to_run(resolved)
    else:
        chosen = nullcontext(None if resolved.settings.model is None else opened_model(resolved))
    with chosen as model, console.progress_bar() as progress:
        result = tune_model(model, resolved.settings, predictions, out, progress)
    _show(result, json_output)
    data = resolved.settings.data.root
    if result.bundle is not None and data is not None and not json_output:
        console.next_step("eval", "--data", data, "--model", result.bundle, "--split", "test")


def _show(result: "TuneResult", as_json: bool) -> None:
    for text in result.tuned.warnings:
        console.warn(text)
    if as_json:
        console.print_json(result.to_dict())
        return
    show_tuned(result)
    console.say(f"thresholds stored in {result.bundle}" if result.bundle else "no bundle was changed")
    console.say(f"files: {result.folder}/thresholds.json, thresholds.csv, curves.csv")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("tune")(tune)


def show_tuned(result: "TuneResult") -> None:
    """Print the chosen thresholds, and the interval in which the best one of the population lies."""
    tuned = result.tuned
    rows = []
    for name, threshold in tuned.thresholds.items():
        rows.append([name, cell(threshold, 3), tuned.values[name], range_text(result.stability[name], 3)])
    header = ["finding", "threshold", str(tuned.criterion), "best threshold lies in"]
    console.print_table(f"thresholds by {tuned.criterion} on {tuned.split}", header, rows)
