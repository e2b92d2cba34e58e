"""``cxr check-data``"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cells import UNDEFINED
from cxrtool.cli import console
from cxrtool.cli.help_text import OUTPUT
from cxrtool.cli.options import LIMITS, SHEETS, JsonOption, settings_options
from cxrtool.progress import Progress
from cxrtool.resolved_settings import ResolvedSettings

if TYPE_CHECKING:
    from cxrtool.data.checks import DataReport


@settings_options(
    *SHEETS,
    "data.findings",
    "data.views",
    "data.blank",
    "data.max_missing",
    "data.skip_unreadable",
    "data.allow_outside",
    *LIMITS,
)
def check_data(
    resolved: ResolvedSettings,
    data: Annotated[Path, typer.Argument(help="Data folder in CheXpert's layout.")],
    full: Annotated[
        bool, typer.Option("--full", help="Read every image, and look for identical files in two splits.")
    ] = False,
    duplicates: Annotated[
        bool,
        typer.Option(
            "--duplicates", help="As --full, and look for pictures in two splits that were saved in another way."
        ),
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Threads that read images.")] = 2,
    samples: Annotated[
        int,
        typer.Option(
            "--samples",
            min=0,
            help="Write a contact sheet of this many preprocessed images; 0 writes none.",
            rich_help_panel=OUTPUT,
        ),
    ] = 0,
    samples_file: Annotated[
        Path, typer.Option("--samples-file", help="File of the contact sheet.", rich_help_panel=OUTPUT)
    ] = Path("samples.png"),
    image_size: Annotated[
        int,
        typer.Option(
            "--image-size",
            min=32,
            max=1024,
            help="Width and height of the network's input in pixels: smaller images give a warning.",
        ),
    ] = 320,
    json_output: JsonOption = False,
) -> None:
    """Check a data set: sheets, columns, labels, images, and patients shared between splits.

    Exits with 1 if it finds an error: whatever would stop train, eval or tune, or make their figures wrong, such as a
    patient in two splits.

    \b
    cxr check-data CheXpert-v1.0-small
    cxr check-data CheXpert-v1.0-small --full --json > report.json
    cxr check-data CheXpert-v1.0-small --duplicates
    cxr check-data CheXpert-v1.0-small --samples 12
    """
    from cxrtool.data.checks import check_data as run_checks
    from cxrtool.data.dataset import Dataset

    settings = resolved.changed("command line", **{"data.root": data}).settings
    dataset, limits = Dataset(settings.data, undivided="test"), settings.runtime.limits
    with console.progress_bar() as progress:
        report = run_checks(
            dataset,
            full,
            workers,
            lambda done, total: progress(Progress("reading", done, total)),
            limits,
            duplicates,
            image_size,
        )
    if samples:
        from cxrtool.tasks.samples import write_contact_sheet

        write_contact_sheet(dataset, samples, samples_file, image_size, limits)
        console.hint(f"contact sheet: {samples_file}")
    if json_output:
        console.print_json(report.to_dict())
    else:
        show_data_report(report)
    if report.errors:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("check-data")(check_data)


def show_data_report(report: "DataReport") -> None:
    """Print tables for each split, then warnings and errors."""
    for split, found in report.splits.items():
        facts: dict[str, object] = {
            "rows": found.rows,
            "frontal": found.frontal,
            "lateral": found.lateral,
            "unknown view": found.unknown_view,
            "patients": found.patients,
            "studies": found.studies,
            "AP / PA": _counts(found.projections),
            "sex": _counts(found.sexes),
            "age (min, median, max)": UNDEFINED if found.age is None else "{:g}, {:g}, {:g}".format(*found.age),
            "missing images": found.missing,
            "unreadable images": f"{len(found.unreadable):,} of {found.images_read:,} checked",
            "image sizes": _counts(found.sizes),
            "image modes": _counts(found.modes),
        }
        console.print_facts(f"{split} ({found.sheet})", facts)
        console.print_table(
            f"{split} labels, over all rows",
            ["finding", "1", "0", "-1", "blank"],
            [[name, c.positive, c.negative, c.uncertain, c.blank] for name, c in found.labels.items()],
        )
        for example in found.missing_examples:
            console.say(f"  missing: {example}")
        for example in found.unreadable[:5]:
            console.say(f"  unreadable: {example}")
    for text in report.warnings:
        console.say(f"warning: {text}")
    for text in report.errors:
        console.say(f"error: {text}")
    if not report.errors:
        console.say("no errors found" + ("" if report.full else "; --full reads every image"))


def _counts(values: Mapping[str, int], most: int = 4) -> str:
    shown = [f"{name or 'blank'}: {count:,}" for name, count in list(values.items())[:most]]
    return ", ".join(shown) + (f", {len(values) - most} more" if len(values) > most else "")
