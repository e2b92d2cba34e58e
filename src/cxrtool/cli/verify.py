"""``cxr verify``"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cli import console
from cxrtool.cli.inputs import model_to_run, opened_model
from cxrtool.cli.options import ENGINE, JsonOption, settings_options
from cxrtool.resolved_settings import ResolvedSettings

if TYPE_CHECKING:
    from cxrtool.tasks.verify import Verification


@settings_options(*ENGINE)
def verify(
    resolved: ResolvedSettings,
    model: Annotated[
        Path | None,
        typer.Argument(help="Run folder, bundle file or hf:OWNER/NAME. \\[default: the newest run]"),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Store golden images in a bundle that keeps none; its weights stay.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Check that this machine gives a model's probabilities, on the golden images that its bundle keeps.

    The network runs as cxr predict would run it here, on eight synthetic radiographs. Exits with 1 if a probability
    differs from the bundle's by more than 0.0001 in fp32, 0.02 in bf16 or 0.2 in int8; with 2 if the file is damaged.

    \b
    cxr verify runs/my-run
    cxr verify model.safetensors --backend onnx --precision fp32
    cxr verify older.safetensors --record
    """
    from cxrtool.tasks.verify import record_golden, verify_model

    if model is not None:
        resolved = resolved.changed("command line", model=model)
    if record:
        bundle = opened_model(resolved)
        golden = record_golden(bundle)
        if json_output:
            console.print_json({"model": str(bundle.path), "golden": golden.model_dump(mode="json")})
            return
        console.say(f"{len(golden.logits)} golden images ({golden.engine}, {golden.precision}) stored in {bundle.path}")
        console.hint(f"next: cxr verify {bundle.path}, on each machine that will use it")
        return
    with model_to_run(resolved) as bundle:
        result = verify_model(bundle, resolved.settings.runtime)
    if json_output:
        console.print_json(result.to_dict())
    else:
        _show(result)
    if not result.passed:
        raise typer.Exit(1)


def _show(result: "Verification") -> None:
    console.print_table(
        f"{result.model}: {result.how}, on {result.images} golden images",
        ["finding", "largest difference", f"within {result.allowed:g}"],
        [
            [finding, f"{value:.1e}" if value else "0", "no" if finding in result.failed else "yes"]
            for finding, value in result.differences.items()
        ],
    )
    console.say(f"weights: match their digest, sha256 {result.weights_sha256}")
    if not result.same_pixels:
        console.warn(
            "the golden images drawn here differ from the bundle's, so that part of the difference may come from them"
        )
    if result.passed:
        console.say("passed: this machine gives the model's probabilities")
        return
    console.say(f"failed: this machine does not give the model's probabilities of {', '.join(result.failed)}")
    for name, (there, here) in result.versions.items():
        console.hint(f"{name} is {here} here; the model was made with {there}")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("verify")(verify)
