"""``cxr export``"""

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.choices import ExportFormat, Precision
from cxrtool.cli import console
from cxrtool.cli.help_text import OUTPUT
from cxrtool.cli.inputs import opened_model
from cxrtool.cli.options import JsonOption
from cxrtool.resolved_settings import load_settings


def export(
    kind: Annotated[ExportFormat, typer.Option("--format", help="File format to write.")],
    model: Annotated[Path | None, typer.Argument(help="Run folder or bundle file. \\[default: the newest run]")] = None,
    precision: Annotated[
        Precision, typer.Option("--precision", help="Number format: fp32, or int8 with openvino.")
    ] = Precision.FP32,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of radiographs on which int8 is calibrated.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Output folder. \\[default: export beside the bundle]", rich_help_panel=OUTPUT),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Export the network for other runtimes: grey pixels in, logits and probabilities out.

    The exported network must agree with torch on drawn radiographs. A JSON record is written beside it.

    \b
    cxr export runs/my-run --format onnx
    cxr export runs/my-run --format openvino --precision int8 --images CheXpert-v1.0-small/train
    """
    from cxrtool.engines.export import ExportSettings, export_model

    resolved = load_settings({"model": model}, origin="command line")
    bundle = opened_model(resolved)
    runtime = resolved.settings.runtime
    limits = runtime.limits
    with console.progress_bar() as progress:
        settings = ExportSettings(kind, precision, images, out, runtime.reading_threads, limits)
        made = export_model(bundle, settings, progress)
    record = made.record
    if json_output:
        console.print_json({"path": str(made.path)} | record.model_dump(mode="json"))
        return
    check = record.check
    console.print_facts(
        str(made.path),
        {
            "files": ", ".join(record.files) + f", {made.path.with_suffix('.json').name}",
            "input": f"{record.input.name}: uint8 [batch, 1, {record.image_size}, {record.image_size}], grey",
            "outputs": f"{' and '.join(record.outputs)}: float32 [batch, {len(record.findings)}]",
            "findings": ", ".join(record.findings),
            "thresholds": "those of the bundle" if record.thresholds else "none (see cxr tune)",
            "largest difference": f"{check.largest_difference:.2g} in probability, on {check.images} drawn radiographs",
            "calibrated on": f"{record.int8.images} radiographs from {record.int8.folder}" if record.int8 else None,
            "use": record.intended_use,
        },
    )


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("export")(export)
