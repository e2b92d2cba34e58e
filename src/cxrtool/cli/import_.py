"""``cxr import``"""

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.choices import Fit
from cxrtool.cli import console
from cxrtool.cli.options import JsonOption, settings_options
from cxrtool.errors import RequestError
from cxrtool.findings import parse_findings
from cxrtool.resolved_settings import ResolvedSettings


@settings_options("train.policy")
def import_(
    resolved: ResolvedSettings,
    checkpoint: Annotated[Path, typer.Argument(help="Weights: .pt, .pth, .pth.tar, .ckpt or .safetensors.")],
    out: Annotated[Path, typer.Argument(help="Bundle file to write, or a folder for model.safetensors.")],
    findings: Annotated[
        str | None,
        typer.Option(
            "--findings",
            help="Findings in the order of the network's outputs: chexpert5, chexpert14, nih14, xrv18 or names. "
            "\\[default: those that the file names, else the usual five, or torchxrayvision's 18]",
        ),
    ] = None,
    keep: Annotated[
        str | None, typer.Option("--keep", help="Findings to keep, such as chexpert5. \\[default: all]")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size",
            min=32,
            max=1024,
            help="Width and height in pixels of its training images. \\[default: 320; torchxrayvision's 224]",
        ),
    ] = None,
    fit: Annotated[
        Fit | None,
        typer.Option("--fit", help="How its images filled the square. \\[default: stretch; torchxrayvision's crop]"),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option("--prefix", help="Start of the tensors' names, if a file has several networks.")
    ] = None,
    torchxrayvision: Annotated[
        str | None,
        typer.Option(
            "--torchxrayvision",
            help="Name of torchxrayvision's weights (all, nih, pc, chex, rsna, mimic_nb, mimic_ch), whose operating "
            "points become thresholds. \\[default: by the file's name]",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Convert a DenseNet121 that was trained elsewhere into a bundle.

    Weights are found in a state dict, a trainer's checkpoint or a whole pickled network, and nothing in the file is
    run. It does not record the image size and policy of its training, so name them. Thresholds are 0.5 until you run
    cxr tune; those of torchxrayvision's weights are its operating points.

    \b
    cxr import best.pt imported --image-size 320 --policy u-ones
    cxr import epoch=2-chexpert_competition.ckpt imported --findings chexpert14 --keep chexpert5
    cxr import chex-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt xrv-chex
    """
    from cxrtool.model.bundle import BUNDLE_NAME
    from cxrtool.model.foreign import ImportSettings, import_checkpoint

    settings = ImportSettings(
        findings=None if findings is None else parse_findings(findings),
        keep=None if keep is None else parse_findings(keep),
        image_size=image_size,
        fit=fit,
        policy=resolved.settings.train.policy,
        prefix=prefix,
        torchxrayvision=torchxrayvision,
    )
    path = out if out.suffix == ".safetensors" else out / BUNDLE_NAME
    if path.exists():
        raise RequestError(f"{path} already exists", "Name another file or folder.")
    header = import_checkpoint(checkpoint, path, settings)
    if json_output:
        console.print_json({"path": str(path)} | header.model_dump(mode="json"))
        return
    preprocessing = header.image_preprocessing
    console.print_facts(
        f"imported from {checkpoint.name}",
        {
            "findings": ", ".join(header.findings),
            "images": f"{preprocessing.image_size} px, {preprocessing.fit}, {preprocessing.channels} channel"
            f"{'' if preprocessing.channels == 1 else 's'}",
            "thresholds": header.training["thresholds_from"] or "0.5 for each finding, not tuned",
        },
    )
    console.say(f"model: {path}")
    console.next_step("info", path)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("import")(import_)
