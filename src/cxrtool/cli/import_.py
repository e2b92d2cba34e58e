"""``cxr import``"""

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import console
from cxrtool.cli.options import JsonOption, settings_options
from cxrtool.errors import RequestError
from cxrtool.findings import parse_findings
from cxrtool.resolved_settings import ResolvedSettings


@settings_options("train.image_size", "train.policy")
def import_(
    resolved: ResolvedSettings,
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint written by torch.save (.pt, .pth).")],
    out: Annotated[Path, typer.Argument(help="Bundle file to write, or a folder for model.safetensors.")],
    findings: Annotated[
        str,
        typer.Option(
            "--findings",
            help="Findings in the order of the checkpoint's outputs: chexpert5, chexpert14, nih14 or names.",
        ),
    ] = "chexpert5",
    json_output: JsonOption = False,
) -> None:
    """Convert a DenseNet121 that was trained elsewhere into a bundle.

    Only weights are read: a checkpoint that contains code is refused and never run. It does not record the image
    size and policy of its training, so name them. Thresholds are 0.5 until you run cxr tune.

    \b
    cxr import best.pt imported
    cxr import best.pt imported --image-size 320 --policy u-ones
    cxr import best.pt imported --findings "Edema,Atelectasis,Cardiomegaly,Consolidation,Pleural Effusion"
    """
    from cxrtool.model.bundle import BUNDLE_NAME
    from cxrtool.model.foreign import ImportSettings, import_checkpoint

    train = resolved.settings.train
    settings = ImportSettings(parse_findings(findings), train.image_size, train.policy)
    path = out if out.suffix == ".safetensors" else out / BUNDLE_NAME
    if path.exists():
        raise RequestError(f"{path} already exists", "Name another file or folder.")
    header = import_checkpoint(checkpoint, path, settings)
    if json_output:
        console.print_json({"path": str(path)} | header.model_dump(mode="json"))
        return
    console.say(f"model: {path}")
    console.hint(f"next: cxr tune --data DATA --model {out}")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("import")(import_)
