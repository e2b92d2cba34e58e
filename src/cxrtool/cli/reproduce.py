"""``cxr reproduce``"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool import __version__
from cxrtool.cells import cell
from cxrtool.cli import calibrate, console, eval_, train, tune
from cxrtool.cli.options import JsonOption, arguments_for
from cxrtool.cli.signals import graceful_stop
from cxrtool.text import printable, shell_lines

if TYPE_CHECKING:
    from cxrtool.tasks.repeat import Repeated
    from cxrtool.tasks.reproduce import Recipe, Step

_COMMANDS = {"train": train.train, "tune": tune.tune, "calibrate": calibrate.calibrate, "eval": eval_.evaluate}
_WHEELS = re.compile(r"\+(cpu|cu\d+|rocm[\d.]+|xpu)$")
_LONGEST_LINE = 110


def reproduce(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of cxr train.")],
    again: Annotated[
        Path | None,
        typer.Option(
            "--run", metavar="OUT", help="Train, tune and calibrate again into this new folder, and compare the two."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Data folder here. \\[default: that of the run]")] = None,
    json_output: JsonOption = False,
) -> None:
    """Print the commands that made a run, and say what differs here; with --run, follow them and compare.

    The script on stdout installs the recorded versions, trains with the run's settings, and tunes, calibrates and
    evaluates as was done. stderr says which versions, sheets, initial weights, and what of the machine differ here.
    --run says whether the weights are the same to the bit, else how far losses and AUROC differ.

    \b
    cxr reproduce runs/my-run > reproduce.sh
    cxr reproduce runs/my-run --data elsewhere/CheXpert-v1.0-small
    cxr reproduce runs/my-run --run runs/again
    """
    from cxrtool.tasks.reproduce import recipe_of

    recipe = recipe_of(run, data)
    document = recipe.to_dict() | {"commands": commands_of(recipe), "script": script_of(recipe), "repeated": None}
    if not json_output:
        _show_differences(recipe)
    if again is not None:
        from cxrtool.tasks.repeat import repeat_run

        with graceful_stop() as stop, console.progress_bar() as progress:
            repeated = repeat_run(recipe, again, progress, stop)
        document["repeated"] = repeated.to_dict()
        if not json_output:
            _show_repeated(recipe, repeated)
    elif not json_output:
        console.write(script_of(recipe))
    if json_output:
        console.print_json(document)


def script_of(recipe: "Recipe") -> str:
    """Return a shell script that installs the recorded versions and makes the run again."""
    lines = ["#!/bin/sh", *(f"# {printable(text)}".rstrip() for text in _comments(recipe)), ""]
    # Not "set -e": pasted into a terminal, it would close that at the first error.
    commands = [f"{line} &&" for line in (_install(recipe), *commands_of(recipe))]
    return "\n".join([*lines, *commands, *_ending(recipe)]) + "\n"


def _comments(recipe: "Recipe") -> Iterator[str]:
    header, machine = recipe.header, recipe.machine
    yield f"How the run {recipe.run.name} was made; written by cxr reproduce ({__version__})."
    yield ""
    yield f"weights: sha256 {header.weights_sha256}, of epoch {header.metrics.get('epoch')} of {len(recipe.history)}"
    for split, digest in header.data.items():
        rows = f"{digest.images} images of {digest.patients} patients"
        yield f"{split}: {digest.sheet}, sha256 {digest.sheet_sha256}, {rows}"
    digest_of_init = "" if recipe.init_sha256 is None else f", sha256 {recipe.init_sha256}"
    yield f"initial weights: {recipe.init}{digest_of_init}"
    if machine:
        yield f"trained with: {', '.join(f'{name} {value}' for name, value in machine.items())}"
    if recipe.automatic:
        names = " and ".join(f"--{key.rpartition('.')[2]}" for key in recipe.automatic)
        yield f"{names} stood at auto in the run; the commands name what that was there"
    unknown = [name for name, number in header.versions.items() if number == "unknown"]
    if unknown:
        yield f"versions that are not known: {', '.join(unknown)}"
    yield from recipe.notes
    yield "Relative paths start at the folder in which the run was made."


def _install(recipe: "Recipe") -> str:
    known = {name: number for name, number in recipe.header.versions.items() if number != "unknown"}
    # PyTorch's builds for one platform are not on PyPI, but on an index of their own.
    builds = sorted({found[1] for number in known.values() if (found := _WHEELS.search(number))})
    indexes = [f"--extra-index-url https://download.pytorch.org/whl/{build}" for build in builds]
    return _broken(["pip install", *indexes, *(shlex.quote(f"{name}=={number}") for name, number in known.items())])


def commands_of(recipe: "Recipe") -> list[str]:
    """Return the command of each step, quoted for a shell."""
    out = f"{recipe.run.resolve().name}-again"
    return [_line(step, out) for step in recipe.steps]


def _line(step: "Step", out: str) -> str:
    variables, arguments = arguments_for(_COMMANDS[step.command], step.settings)
    parts = [f"{name}={shlex.quote(value)}" for name, value in variables.items()] + [f"cxr {step.command}"]
    for argument in (*arguments, "--out" if step.command == "train" else "--model", out):
        if argument.startswith("--"):
            parts.append(argument)
        else:
            parts[-1] += f" {shlex.quote(argument)}"
    return _broken(parts)


def _broken(parts: list[str]) -> str:
    return "\n".join(shell_lines(parts, _LONGEST_LINE, "  "))


def _ending(recipe: "Recipe") -> list[str]:
    out = shlex.quote(f"{recipe.run.resolve().name}-again")
    return [
        "# The same to the bit if this prints the digest of the weights above:",
        f"cxr info {out} --json | grep weights_sha256",
    ]


def _show_differences(recipe: "Recipe") -> None:
    for note in recipe.notes:
        console.hint(note)
    for one in recipe.differences:
        console.warn(f"{one.what}: {one.recorded} in the run, {one.here} here")
    if not recipe.differences:
        console.hint("nothing that the run records differs here: versions, machine, sheets, initial weights")


def _show_repeated(recipe: "Recipe", result: "Repeated") -> None:
    names = ("train_loss", "valid_loss", "valid_auroc")
    if not result.same_weights:
        console.print_table(
            f"difference of {result.run} from {recipe.run}",
            ["epoch", "train loss", "valid loss", "valid AUROC"],
            [[str(one.epoch), *(_small(getattr(one, name)) for name in names)] for one in result.epochs],
        )
        first, second = result.best_epochs
        if first != second:
            console.say(f"best epoch: {first} in {recipe.run}, {second} in {result.run}")
    if result.threshold is not None:
        console.say(f"thresholds: {_agreement(result.threshold)}")
    if result.calibration is not None:
        console.say(f"calibration: {_agreement(result.calibration)}")
    console.hint(f"the comparison is kept in {result.run}/reproduced.json")
    if result.same_weights:
        console.say(f"weights: the same to the bit (sha256 {result.weights_sha256})")
        return
    largest = ", ".join(f"{name.replace('_', ' ')} {_small(result.largest(name))}" for name in names)
    console.say(f"weights: not the same to the bit; largest difference of an epoch: {largest}")


def _small(value: float | None) -> str:
    return cell(None) if value is None else f"{value:.1e}" if value else "0"


def _agreement(difference: float) -> str:
    return "the same" if difference == 0 else f"differ by at most {difference:.1e}"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("reproduce")(reproduce)
