"""``cxr bench``"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cli import console
from cxrtool.cli.options import JsonOption

if TYPE_CHECKING:
    from cxrtool.benchmarks.measure import Row

_PARTS = "predict,train,cold,help,manifest,memory"


def bench(
    model: Annotated[
        Path | None, typer.Option("--model", help="Run folder or bundle file. \\[default: a random start, as fast]")
    ] = None,
    parts: Annotated[str, typer.Option("--parts", help="What to measure, separated by commas.")] = _PARTS,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Turns of each figure.")] = 5,
    image_size: Annotated[int, typer.Option("--image-size", min=64, max=1024, help="Pixels, both sides.")] = 320,
    batch_size: Annotated[int, typer.Option("--batch-size", min=2, help="Of training.")] = 16,
    memory_images: Annotated[int, typer.Option("--memory-images", min=501, help="Of the larger folder.")] = 10_000,
    out: Annotated[Path | None, typer.Option("--out", help="Write the figures as JSON.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Measure this machine: folder, epoch and prompt, each against the plain way in the same run.

    About ten minutes on two cores with nothing else running.

    \b
    cxr bench
    cxr bench --parts predict,cold --repeats 3 --out bench.json
    """
    from cxrtool.benchmarks.measure import BenchmarkSettings, run_benchmark
    from cxrtool.files import write_json
    from cxrtool.model.resolve import resolve_model

    settings = BenchmarkSettings(
        parts=tuple(part.strip() for part in parts.split(",") if part.strip()),
        repeats=repeats,
        image_size=image_size,
        batch_size=batch_size,
        model=None if model is None else resolve_model(model, Path()),
        memory_images=memory_images,
    )
    with console.progress_bar() as progress:
        result = run_benchmark(settings, progress)
    if out is not None:
        write_json(out, result.to_dict())
    if json_output:
        console.print_json(result.to_dict())
        return
    console.print_table(
        f"this machine at {image_size} px ({result.machine['processor']}, {result.machine['threads']} threads)",
        ["what", "ours", "compared", "ratio (min-max)", "against"],
        [_cells(row) for row in result.rows],
    )
    console.say("images/s: a ratio above 1 is faster; seconds and memory: below 1 is less.")


def _cells(row: "Row") -> list[object]:
    from statistics import median

    low, high = min(row.ratios), max(row.ratios)
    ratio = f"{median(row.ratios):.2f} ({low:.2f}-{high:.2f})"
    figures = [f"{median(values):.3g} {row.unit}" for values in (row.ours, row.plain)]
    return [row.name, *figures, ratio, row.against]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("bench")(bench)
