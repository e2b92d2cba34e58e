"""``cxr errors``"""

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cells import cell
from cxrtool.choices import MistakeKind
from cxrtool.cli import console
from cxrtool.cli.inputs import model_to_run
from cxrtool.cli.options import DATA, RUNTIME, JsonOption, settings_options
from cxrtool.findings import find_finding
from cxrtool.resolved_settings import ResolvedSettings


@settings_options("data.root", "model", "eval.split", *DATA, *RUNTIME, "runtime.batch_size")
def errors(
    resolved: ResolvedSettings,
    label: Annotated[str | None, typer.Option("--label", help="Finding to list. \\[default: all five]")] = None,
    kind: Annotated[MistakeKind, typer.Option("--kind", help="Kind of mistake to list.")] = MistakeKind.BOTH,
    top: Annotated[int, typer.Option("--top", min=1, help="Most mistakes to list per finding and kind.")] = 8,
    out: Annotated[
        Path | None, typer.Option("--out", help="Output folder. \\[default: errors_<split> beside the model]")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """List the most confident false positives and false negatives, with a gallery of heatmaps.

    \b
    cxr errors --data CheXpert-v1.0-small --model runs/my-run
    cxr errors --data CheXpert-v1.0-small --label Edema --kind false-negative --top 20
    """
    from cxrtool.tasks.gallery import collect_mistakes

    finding = None if label is None else find_finding(label)
    with model_to_run(resolved) as model, console.progress_bar() as progress:
        result = collect_mistakes(model, resolved.settings, kind, finding, top, out, progress)
    if json_output:
        console.print_json(result.to_dict())
        return
    console.print_table(
        f"most confident mistakes on {resolved.settings.eval.split}",
        ["finding", "kind", "study", "probability", "threshold"],
        [[one.finding, one.kind, one.study, one.probability, cell(one.threshold, 2)] for one in result.mistakes],
    )
    console.say(f"files: {result.folder}/mistakes.csv, gallery_*.png and {len(result.pictures)} overlays")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("errors")(errors)
