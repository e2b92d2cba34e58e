"""``cxr report``"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cli import console
from cxrtool.cli.help_text import OUTPUT
from cxrtool.cli.inputs import model_to_run
from cxrtool.cli.options import (
    BOOTSTRAP,
    DATA,
    RUNTIME,
    JsonOption,
    PaperOption,
    ReadersOption,
    settings_options,
)
from cxrtool.cli.score_options import KeyOption, MapOption, ScoresOption, TruthOption, score_files
from cxrtool.errors import RequestError
from cxrtool.resolved_settings import ResolvedSettings

if TYPE_CHECKING:
    from cxrtool.tasks.scores import ScoreFiles


@settings_options("data.root", "eval.split", "eval.by", "eval.prevalence", *BOOTSTRAP, *DATA, *RUNTIME, "runs")
def report(
    resolved: ResolvedSettings,
    run: Annotated[Path | None, typer.Argument(help="Run folder. \\[default: the newest run]")] = None,
    card: Annotated[bool, typer.Option("--card", help="Write a model card in Markdown instead of the report.")] = False,
    top: Annotated[int, typer.Option("--top", min=1, help="Most mistakes to show per finding and kind.")] = 4,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Output file. \\[default: report.html or MODEL_CARD.md in the run folder]",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    paper: PaperOption = False,
    scores: ScoresOption = None,
    truth: TruthOption = None,
    key: KeyOption = None,
    map_: MapOption = None,
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
    cxr report runs/my-run --paper
    cxr report --scores theirs.csv --truth groundtruth.csv
    """
    from cxrtool.files import write_text
    from cxrtool.report.card import model_card
    from cxrtool.report.content import gather
    from cxrtool.report.page import write_report
    from cxrtool.report.paper import PAPER_NAME, write_paper

    files = score_files(scores, truth, key, map_)
    if files is not None:
        if run is not None or card:
            raise RequestError("--scores takes no run and no --card", "Leave these out: there is no model.")
        _report_scores(resolved, files, out, readers or [], paper, json_output)
        return
    chosen = resolved if run is None else resolved.changed("command line", model=run)
    with model_to_run(chosen) as model, console.progress_bar() as progress:
        command = console.command_line()
        content = gather(model, resolved.settings, None if card else top, progress, command, readers or ())
    path = out or model.path.parent / ("MODEL_CARD.md" if card else "report.html")
    if card:
        write_text(path, model_card(model.header, content.assessment, content.study))
    else:
        write_report(content, path)
    if paper and content.study is not None:
        write_paper(path.parent / PAPER_NAME, content.study)
    for text in content.assessment.warnings:
        console.warn(text)
    if json_output:
        console.print_json({"report": str(path), "model": str(model.path)})
    else:
        console.say(f"{'model card' if card else 'report'}: {path}")
        if paper:
            console.say(f"for a paper: {path.parent}/paper")


def _report_scores(
    resolved: ResolvedSettings, files: "ScoreFiles", out: Path | None, readers: list[Path], paper: bool, as_json: bool
) -> None:
    from cxrtool.report.content import content_of_scores
    from cxrtool.report.page import write_report
    from cxrtool.report.paper import PAPER_NAME, write_paper
    from cxrtool.tasks.scores import evaluate_scores

    result = evaluate_scores(files, resolved.settings, readers=readers)
    content = content_of_scores(result, resolved.settings, console.command_line())
    path = out or files.scores.parent / "report.html"
    write_report(content, path)
    if paper and content.study is not None:
        write_paper(path.parent / PAPER_NAME, content.study)
    for text in result.assessment.warnings:
        console.warn(text)
    if as_json:
        console.print_json({"report": str(path), "model": None})
    else:
        console.say(f"report: {path}")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("report")(report)
