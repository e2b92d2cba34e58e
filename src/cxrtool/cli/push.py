"""``cxr push``"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import console
from cxrtool.cli.help_text import OUTPUT
from cxrtool.cli.inputs import model_to_run
from cxrtool.cli.options import DATA, RUNTIME, settings_options
from cxrtool.errors import RequestError
from cxrtool.resolved_settings import ResolvedSettings


@settings_options("model", "data.root", "eval.split", *DATA, *RUNTIME, "runs")
def push(
    resolved: ResolvedSettings,
    repository: Annotated[str | None, typer.Argument(help="Repository on the hub: OWNER/NAME.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Write the repository to this folder and send nothing.", rich_help_panel=OUTPUT),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Publish a model on the Hugging Face hub: the bundle, config.json, and a model card with its figures.

    Needs the extra hub and a login (hf auth login). No image, path or row of your data is sent; the card holds counts
    and figures. With --folder nothing is sent.

    \b
    cxr push my-hospital/chest-findings --model runs/my-run
    cxr push --model runs/my-run --folder repository
    """
    from cxrtool.model.hub import upload
    from cxrtool.report.content import gather
    from cxrtool.report.hub import write_repository

    if (repository is None) == (folder is None):
        raise RequestError("give either OWNER/NAME or --folder", "Name the repository, or a folder to look at first.")
    with model_to_run(resolved) as model, console.progress_bar() as progress:
        content = gather(model, resolved.settings, None, progress, console.command_line())
        if folder is not None:
            write_repository(content, model, folder)
            console.say(f"repository: {folder}")
            return
        assert repository is not None
        with tempfile.TemporaryDirectory() as place:
            write_repository(content, model, Path(place) / "repository")
            address = upload(Path(place) / "repository", repository, private)
    console.say(f"model: {address}")
    console.next_step("info", f"hf:{repository}")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(push)
