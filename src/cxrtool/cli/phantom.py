"""``cxr phantom``"""

from pathlib import Path
from typing import Annotated, Any

import typer

from cxrtool.cli import console
from cxrtool.cli.options import JsonOption
from cxrtool.progress import Progress


def phantom(
    out: Annotated[Path, typer.Argument(help="Output folder, new or empty.")],
    patients: Annotated[
        int, typer.Option("--patients", min=10, help="Number of patients in the three splits together.")
    ] = 200,
    image_size: Annotated[
        int, typer.Option("--image-size", min=64, max=1024, help="Width and height of the images in pixels.")
    ] = 320,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed; the same seed draws the same files.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Draw synthetic radiographs in CheXpert's layout, with true labels and a mask per finding.

    \b
    cxr phantom phantoms --patients 200 --image-size 320 --seed 0
    """
    from cxrtool.phantoms.dataset import write_phantom

    with console.progress_bar() as progress:
        summary = write_phantom(
            out, patients, image_size, seed, lambda done, total: progress(Progress("drawing", done, total))
        )
    content: dict[str, Any] = summary.to_dict()
    if json_output:
        console.print_json(content)
        return
    rows = [
        [split, counts["patients"], counts["studies"], counts["images"]] for split, counts in content["splits"].items()
    ]
    console.print_table(str(out), ["split", "patients", "studies", "images"], rows)
    console.next_step("check-data", out)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("phantom")(phantom)
