"""``cxr bench``"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cli import console
from cxrtool.cli.help_text import OUTPUT
from cxrtool.cli.options import JsonOption

if TYPE_CHECKING:
    from cxrtool.benchmarks.rows import Row

_PARTS = "predict,train,cold,help,manifest,memory"


def bench(
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Run folder or bundle file. \\[default: a network with random weights]"),
    ] = None,
    parts: Annotated[str, typer.Option("--parts", help="What to measure, separated by commas.")] = _PARTS,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Repetitions of each measurement.")] = 5,
    image_size: Annotated[
        int, typer.Option("--image-size", min=64, max=1024, help="Width and height of the images in pixels.")
    ] = 320,
    batch_size: Annotated[int, typer.Option("--batch-size", min=2, help="Images per training step.")] = 16,
    memory_images: Annotated[
        int,
        typer.Option("--memory-images", min=501, help="Images in the larger of the two folders of the memory test."),
    ] = 10_000,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the figures to this JSON file.", rich_help_panel=OUTPUT)
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Measure speed and memory on this machine, and compare with a plain PyTorch program in the same run.

    Prediction is also shown as a share of what the machine could do at most, by the rate of a large matrix product and
    of memory.

    Takes about ten minutes on two cores. Run nothing else meanwhile.

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
        ["measurement", "cxrtool", "compared", "ratio (min-max)", "compared with"],
        [_cells(row) for row in result.rows],
    )
    console.say("For images/s a ratio above 1 is better; for seconds and memory a ratio below 1.")


def _cells(row: "Row") -> list[object]:
    from statistics import median

    low, high = min(row.ratios), max(row.ratios)
    ratio = f"{median(row.ratios):.2f} ({low:.2f}-{high:.2f})"
    figures = [f"{median(values):.3g} {row.unit}" for values in (row.ours, row.plain)]
    return [row.name, *figures, ratio, row.against]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("bench")(bench)
