"""``cxr report``"""

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import console
from cxrtool.cli.inputs import model_to_run
from cxrtool.cli.many_values import ManyValues
from cxrtool.cli.options import BOOTSTRAP, DATA, RUNTIME, JsonOption, ReadersOption, settings_options
from cxrtool.resolved_settings import ResolvedSettings


@settings_options("data.root", "eval.split", "eval.by", "eval.prevalence", *BOOTSTRAP, *DATA, *RUNTIME, "runs")
def report(
    resolved: ResolvedSettings,
    run: Annotated[Path | None, typer.Argument(help="Run folder. \\[default: the newest run]")] = None,
    card: Annotated[bool, typer.Option("--card", help="Write a model card in Markdown instead of the report.")] = False,
    top: Annotated[int, typer.Option("--top", min=1, help="Most mistakes to show per finding and kind.")] = 4,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Output file. \\[default: report.html or MODEL_CARD.md in the run folder]"),
    ] = None,
    readers: ReadersOption = None,
    json_output: JsonOption = False,
) -> None:
    """Write an HTML report on a model: its performance, with uncertainty, and its mistakes.

    The report is a single file that opens without a network connection.

    \b
    cxr report runs/my-run
    cxr report runs/my-run --data CheXpert-v1.0-small --split test --out report.html
    cxr report runs/my-run --split test --readers bc4.csv bc6.csv bc8.csv
    cxr report runs/my-run --card
    """
    from cxrtool.files import write_text
    from cxrtool.report.card import model_card
    from cxrtool.report.content import gather
    from cxrtool.report.page import write_report

    chosen = resolved if run is None else resolved.changed("command line", model=run)
    with model_to_run(chosen) as model, console.progress_bar() as progress:
        content = gather(model, resolved.settings, None if card else top, progress, readers or ())
    path = out or model.path.parent / ("MODEL_CARD.md" if card else "report.html")
    if card:
        write_text(path, model_card(content.header, content.assessment))
    else:
        write_report(content, path)
    for text in content.assessment.warnings:
        console.warn(text)
    if json_output:
        console.print_json({"report": str(path), "model": str(model.path)})
    else:
        console.say(f"{'model card' if card else 'report'}: {path}")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("report", cls=ManyValues)(report)
