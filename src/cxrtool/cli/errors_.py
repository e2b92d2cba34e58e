"""``cxr errors``"""

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cells import cell
from cxrtool.choices import MistakeKind
from cxrtool.cli import console
from cxrtool.cli.inputs import chosen_model
from cxrtool.cli.options import DATA, RUNTIME, JsonOption, settings_options
from cxrtool.findings import find_finding
from cxrtool.settings import ResolvedSettings


@settings_options("data.root", "model", "eval.split", *DATA, *RUNTIME, "runtime.batch_size")
def errors(
    resolved: ResolvedSettings,
    label: Annotated[str | None, typer.Option("--label", help="Only this finding. \\[default: all five]")] = None,
    kind: Annotated[MistakeKind, typer.Option("--kind", help="Which way it was wrong.")] = MistakeKind.BOTH,
    top: Annotated[int, typer.Option("--top", min=1, help="At most so many of each finding and kind.")] = 8,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder. \\[default: errors_<split> beside the model]")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """The surest mistakes: false positives and false negatives, as a table and a gallery of where the model looked.

    \b
    cxr errors --data CheXpert-v1.0-small --model runs/my-run
    cxr errors --data CheXpert-v1.0-small --label Edema --kind false-negative --top 20
    """
    from cxrtool.tasks.gallery import collect_mistakes

    finding = None if label is None else find_finding(label)
    model = chosen_model(resolved)
    with console.progress_bar() as progress:
        result = collect_mistakes(model, resolved.settings, kind, finding, top, out, progress)
    if json_output:
        console.print_json(result.to_dict())
        return
    console.print_table(
        f"surest mistakes on {resolved.settings.eval.split}",
        ["finding", "kind", "study", "probability", "threshold"],
        [[one.finding, one.kind, one.study, one.probability, cell(one.threshold, 2)] for one in result.mistakes],
    )
    console.say(f"files: {result.folder}/mistakes.csv, gallery_*.png and {len(result.pictures)} overlays")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("errors")(errors)
