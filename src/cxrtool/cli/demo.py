"""``cxr demo``"""

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import console
from cxrtool.cli.eval_ import show_assessment
from cxrtool.cli.localize import show_localization
from cxrtool.cli.options import JsonOption
from cxrtool.cli.signals import graceful_stop


def demo(
    out: Annotated[Path, typer.Argument(help="Output folder, new or empty.")] = Path("cxr-demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of drawings and training.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Run every step on synthetic data: draw it, train, tune, evaluate, localize, predict, explain and report.

    \b
    cxr demo
    cxr demo /tmp/my-demo
    """
    from cxrtool.demo import run_demo

    with graceful_stop() as stop, console.progress_bar() as progress:
        result = run_demo(out, seed, progress, stop)
    if json_output:
        console.print_json(result.to_dict())
        return
    show_assessment(result.assessment)
    show_localization(result.localization)
    console.print_facts("where to look", {what: str(path) for what, path in result.files.items()})
    total = sum(result.seconds.values())
    console.say(f"done in {total:.0f} s: " + ", ".join(f"{k} {v:.0f} s" for k, v in result.seconds.items()))
    console.say("The images are drawings: the figures show that the program works, and say nothing about patients.")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("demo")(demo)
