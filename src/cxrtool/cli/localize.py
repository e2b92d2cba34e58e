"""``cxr localize``"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cells import cell, interval_text
from cxrtool.cli import console
from cxrtool.cli.help_text import OUTPUT
from cxrtool.cli.inputs import opened_model
from cxrtool.cli.options import BOOTSTRAP, DATA, MAPS, RUNTIME, JsonOption, settings_options
from cxrtool.resolved_settings import ResolvedSettings

if TYPE_CHECKING:
    from cxrtool.tasks.localize import LocalizeResult


@settings_options(
    "data.root",
    "model",
    "localize.split",
    "localize.methods",
    *MAPS,
    "localize.otsu",
    "localize.fill_holes",
    "localize.positives_only",
    "localize.limit",
    "localize.faithfulness",
    *BOOTSTRAP,
    *DATA,
    *RUNTIME,
    "runtime.batch_size",
)
def localize(
    resolved: ResolvedSettings,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks", help="Folder of masks, or a JSON file of CheXlocalize. \\[default: masks in the data folder]"
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option("--boxes", help="CSV file of boxes with the columns image, label, x, y, w, h, in pixels."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Output folder. \\[default: localize_<split> beside the model]", rich_help_panel=OUTPUT
        ),
    ] = None,
    maps_out: Annotated[
        Path | None,
        typer.Option(
            "--maps-out",
            help="Write the maps of the first method into this folder in CheXlocalize's layout.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Measure how well heatmaps point at the finding.

    Reports hit rate and overlap per finding, with intervals over patients. The figures are stored in the bundle, and
    cxr explain prints them under every picture of the same method.

    \b
    cxr localize --data phantoms --model runs/my-run
    cxr localize --data CheXpert --masks gt_segmentations_test.json --methods grad-cam,layer-cam@denseblock3
    cxr localize --data nih --boxes BBox_List_2017.csv --faithfulness 20
    """
    from cxrtool.tasks.localize import localize_model

    model = opened_model(resolved)
    with console.progress_bar() as progress:
        result = localize_model(model, resolved.settings, masks, boxes, out, maps_out, progress)
    for text in result.warnings:
        console.warn(text)
    if json_output:
        console.print_json(result.to_dict())
        return
    show_localization(result)
    console.say(f"files: {result.folder}/localization.json, localization.csv; figures stored in {model.path}")


def show_localization(result: "LocalizeResult") -> None:
    """Print hit rates and overlaps by method and finding, and what was measured of faithfulness."""
    from cxrtool.evaluation.localization import mean_of

    for title, method in result.methods.items():
        rows: list[list[object]] = [
            [
                finding,
                one.images,
                interval_text(one.hit_rate, one.hit_interval, 3),
                interval_text(one.iou, one.iou_interval, 3),
                "Otsu" if one.map_threshold is None else cell(one.map_threshold, 2),
                one.border,
            ]
            for finding, one in method.figures.items()
        ]
        rows.append(["mean", "", mean_of(method.figures, "hit_rate"), mean_of(method.figures, "iou"), "", ""])
        header = ["finding", "images", "hit rate", "mean IoU", "map cut at", "mass at the border"]
        console.print_table(f"{title} on {result.split}, against {result.truth}", header, rows)
    if any(method.sanity for method in result.methods.values()):
        steps = list(next(iter(result.methods.values())).sanity)
        console.print_table(
            "faithfulness: similarity to maps of a network randomised down to each layer (must fall); areas",
            ["method", *steps, "insertion", "deletion", "images/s"],
            [
                [title, *one.sanity.values(), one.insertion, one.deletion, cell(one.images_per_second, 1)]
                for title, one in result.methods.items()
            ],
        )


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("localize")(localize)
