"""``cxr calibrate``"""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import console
from cxrtool.cli.help_text import OUTPUT
from cxrtool.cli.inputs import model_to_run, opened_model
from cxrtool.cli.options import CACHE, DATA, ENGINE, JsonOption, settings_options
from cxrtool.resolved_settings import ResolvedSettings


@settings_options(
    "data.root", "model", "calibrate.split", "calibrate.method", *DATA, *CACHE, *ENGINE, "runtime.batch_size"
)
def calibrate(
    resolved: ResolvedSettings,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Use a predictions.csv of this model instead of running it.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Output folder. \\[default: calibrate_<split> beside the model]", rich_help_panel=OUTPUT
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Calibrate probabilities: fit a monotone map on valid and store it in the bundle.

    A finding with fewer than 3 positives or negatives is not changed, and one with fewer than 20 only if it is clearly
    wrong. Ranks and decisions do not change. cxr predict then shows
    calibrated probabilities, or raw ones with --raw.

    \b
    cxr calibrate --data CheXpert-v1.0-small --model runs/my-run
    cxr calibrate --data CheXpert-v1.0-small --method platt
    """
    from cxrtool.tasks.tune import calibrate_model

    chosen = model_to_run(resolved) if predictions is None else nullcontext(opened_model(resolved))
    with chosen as model, console.progress_bar() as progress:
        result = calibrate_model(model, resolved.settings, predictions, out, progress)
    for text in result.calibration.warnings:
        console.warn(text)
    if json_output:
        console.print_json(result.to_dict())
        return
    fitted = result.calibration
    console.print_table(
        f"{fitted.method.capitalize()} scaling, fitted on {fitted.split} ({fitted.rows} studies)",
        ["finding", "slope", "intercept", "Brier raw", "Brier calibrated", "ECE raw", "ECE calibrated"],
        [
            [
                finding,
                scaling.slope,
                scaling.intercept,
                result.before[finding].brier,
                result.after[finding].brier,
                result.before[finding].ece,
                result.after[finding].ece,
            ]
            for finding, scaling in fitted.scalings.items()
        ],
    )
    console.say(f"calibration stored in {result.bundle}; the figures above are for the split on which it was fitted")
    if resolved.settings.data.root is not None:
        console.next_step("eval", "--data", resolved.settings.data.root, "--model", result.bundle, "--split", "test")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("calibrate")(calibrate)
