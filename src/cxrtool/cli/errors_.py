"""``cxr errors``"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cells import cell
from cxrtool.choices import MistakeKind
from cxrtool.cli import console
from cxrtool.cli.help_text import OUTPUT
from cxrtool.cli.inputs import model_to_run
from cxrtool.cli.options import DATA, RUNTIME, JsonOption, settings_options
from cxrtool.cli.score_options import KeyOption, MapOption, ScoresOption, ThresholdsOption, TruthOption, score_files
from cxrtool.errors import RequestError
from cxrtool.resolved_settings import ResolvedSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cxrtool.evaluation.mistakes import Mistake


@settings_options("data.root", "model", "eval.split", *DATA, *RUNTIME, "runtime.batch_size")
def errors(
    resolved: ResolvedSettings,
    label: Annotated[str | None, typer.Option("--label", help="Finding to list. \\[default: all]")] = None,
    kind: Annotated[MistakeKind, typer.Option("--kind", help="Kind of mistake to list.")] = MistakeKind.BOTH,
    top: Annotated[int, typer.Option("--top", min=1, help="Most mistakes to list per finding and kind.")] = 8,
    scores: ScoresOption = None,
    truth: TruthOption = None,
    key: KeyOption = None,
    map_: MapOption = None,
    thresholds: ThresholdsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Output folder. \\[default: errors_<split> beside the model]", rich_help_panel=OUTPUT
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """List the most confident false positives and false negatives, with a gallery of heatmaps.

    \b
    cxr errors --data CheXpert-v1.0-small --model runs/my-run
    cxr errors --scores theirs.csv --truth groundtruth.csv --thresholds Edema=0.3
    cxr errors --data CheXpert-v1.0-small --label Edema --kind false-negative --top 20
    """
    files = score_files(scores, truth, key, map_)
    if files is not None:
        from cxrtool.tasks.scores import mistakes_in_scores

        mistakes, folder = mistakes_in_scores(files, resolved.settings, thresholds, kind, label, top, out)
        if json_output:
            console.print_json({"mistakes": [asdict(one) for one in mistakes]})
            return
        _show(mistakes, resolved.settings.eval.split)
        console.say(f"files: {folder}/mistakes.csv, mistakes.json")
        return
    if thresholds is not None:
        raise RequestError("--thresholds belongs to --scores", "Store a model's thresholds with cxr tune.")
    from cxrtool.tasks.gallery import collect_mistakes

    with model_to_run(resolved) as model, console.progress_bar() as progress:
        result = collect_mistakes(model, resolved.settings, kind, label, top, out, progress)
    if json_output:
        console.print_json(result.to_dict())
        return
    _show(result.mistakes, resolved.settings.eval.split)
    console.say(f"files: {result.folder}/mistakes.csv, gallery_*.png and {len(result.pictures)} overlays")


def _show(mistakes: "Sequence[Mistake]", split: str) -> None:
    console.print_table(
        f"most confident mistakes on {split}",
        ["finding", "kind", "study", "probability", "threshold"],
        [[one.finding, one.kind, one.study, one.probability, cell(one.threshold, 2)] for one in mistakes],
    )


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("errors")(errors)
