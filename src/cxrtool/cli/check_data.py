"""``cxr check-data``"""

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import console as display
from cxrtool.cli.options import LIMITS, JsonOption, settings_options
from cxrtool.progress import Progress
from cxrtool.settings import ResolvedSettings


@settings_options("data.allow_outside", *LIMITS)
def check_data(
    resolved: ResolvedSettings,
    data: Annotated[Path, typer.Argument(help="A folder in CheXpert's layout.")],
    full: Annotated[bool, typer.Option("--full", help="Read every image; compare files between splits.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Threads that read images.")] = 2,
    samples: Annotated[
        int, typer.Option("--samples", min=0, help="Draw a contact sheet of so many preprocessed images.")
    ] = 0,
    samples_file: Annotated[Path, typer.Option("--samples-file", help="Where the sheet goes.")] = Path("samples.png"),
    image_size: Annotated[int, typer.Option("--image-size", min=32, max=1024, help="Of the samples.")] = 320,
    json_output: JsonOption = False,
) -> None:
    """Check a data set: sheets, columns, labels, images, and patients shared between splits.

    Ends with 1 when it finds an error, such as a patient in two splits.

    \b
    cxr check-data CheXpert-v1.0-small
    cxr check-data CheXpert-v1.0-small --full --json > report.json
    cxr check-data CheXpert-v1.0-small --samples 12
    """
    from cxrtool.data.checks import check_data as run_checks
    from cxrtool.data.images import Limits

    runtime, outside = resolved.settings.runtime, resolved.settings.data.allow_outside
    limits = Limits(runtime.max_megapixels, runtime.max_file_mib)
    with display.progress_bar() as progress:
        report = run_checks(
            data,
            full,
            workers,
            lambda done, total: progress(Progress("reading", done, total)),
            limits,
            outside,
        )
    if samples:
        from cxrtool.tasks.samples import write_contact_sheet

        write_contact_sheet(data, samples, samples_file, image_size, limits, outside)
        display.hint(f"contact sheet: {samples_file}")
    if json_output:
        display.print_json(report.to_dict())
    else:
        display.show_data_report(report)
    if report.errors:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("check-data")(check_data)
