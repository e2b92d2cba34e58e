"""``cxr report``"""

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import console
from cxrtool.cli.inputs import chosen_model
from cxrtool.cli.options import BOOTSTRAP, DATA, RUNTIME, JsonOption, settings_options
from cxrtool.settings import ResolvedSettings, load_settings


@settings_options("data.root", "eval.split", "eval.by", "eval.prevalence", *BOOTSTRAP, *DATA, *RUNTIME, "runs")
def report(
    resolved: ResolvedSettings,
    run: Annotated[Path | None, typer.Argument(help="Run folder. \\[default: the newest run]")] = None,
    card: Annotated[bool, typer.Option("--card", help="Write a model card in Markdown instead.")] = False,
    top: Annotated[int, typer.Option("--top", min=1, help="Mistakes shown of each finding and kind.")] = 4,
    out: Annotated[
        Path | None, typer.Option("--out", help="File. \\[default: report.html or MODEL_CARD.md in the run]")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """One HTML file that shows how good a model is and how sure that is; it opens from disk, without a network.

    \b
    cxr report runs/my-run
    cxr report runs/my-run --data CheXpert-v1.0-small --split test --out report.html
    cxr report runs/my-run --card
    """
    from cxrtool.files import write_text
    from cxrtool.report.card import model_card
    from cxrtool.report.content import gather
    from cxrtool.report.page import write_report

    given = {"model": run, "runs": resolved.settings.runs}
    chosen = resolved if run is None else load_settings(given, environ={}, origin="command line")
    model = chosen_model(chosen)
    path = out or model.parent / ("MODEL_CARD.md" if card else "report.html")
    with console.progress_bar() as progress:
        content = gather(model, resolved.settings, None if card else top, progress)
    if card:
        write_text(path, model_card(content.header, content.assessment))
    else:
        write_report(content, path)
    for text in content.assessment.warnings:
        console.warn(text)
    if json_output:
        console.print_json({"report": str(path), "model": str(model)})
    else:
        console.say(f"{'model card' if card else 'report'}: {path}")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("report")(report)
