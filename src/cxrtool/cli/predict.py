"""``cxr predict``"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cli import display
from cxrtool.cli.inputs import input_paths, load_classifier
from cxrtool.cli.options import ENGINE, JsonOption, settings_options
from cxrtool.files import csv_row, replacing, to_json
from cxrtool.findings import FINDINGS
from cxrtool.progress import Progress
from cxrtool.settings import ResolvedSettings

if TYPE_CHECKING:
    from cxrtool.inference.classifier import Classifier, Prediction

Sink = Callable[["Prediction"], None]


@settings_options("model", *ENGINE, "runtime.batch_size")
def predict(
    resolved: ResolvedSettings,
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders, or - for a list of paths on stdin.")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look in folders of folders too.")] = False,
    thresholds: Annotated[
        str | None,
        typer.Option("--thresholds", help="0.46,0.11,0.47,0.34,0.37 or a file. \\[default: the bundle's]"),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The network's own probabilities, though the bundle is calibrated.")
    ] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write a table with one row per image.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Read the five findings of radiographs.

    An image that cannot be read gets a row with its error; the others are done, and the exit code is 1.

    \b
    cxr predict image.jpg
    cxr predict folder --recursive --csv predictions.csv
    find . -name '*.jpg' | cxr predict - --json > predictions.json
    """
    # Inputs are listed as they are needed, but a folder without images is refused before the model is loaded.
    paths = _started(input_paths(inputs, recursive))
    classifier = load_classifier(resolved, thresholds, raw)
    failed = total = 0
    with ExitStack() as stack:
        progress = stack.enter_context(display.progress_bar())
        sinks = [stack.enter_context(sink) for sink in _sinks(classifier, csv, json_output)]
        for prediction in classifier.predict_many(paths):
            total += 1
            failed += prediction.error is not None
            for sink in sinks:
                sink(prediction)
            progress(Progress("predict", total, None))
    if csv is not None and not json_output:
        display.say(f"{total} images, {failed} of them not readable: {csv}")
    if failed:
        display.hint(f"{failed} of {total} images could not be read")
        raise typer.Exit(1)


def _started(paths: Iterator[Path]) -> Iterator[Path]:
    first = next(paths, None)
    return chain([] if first is None else [first], paths)


def _sinks(classifier: "Classifier", csv: Path | None, json_output: bool) -> list[AbstractContextManager[Sink]]:
    sinks: list[AbstractContextManager[Sink]] = []
    if csv is not None:
        sinks.append(_csv_sink(csv))
    if json_output:
        sinks.append(_json_sink(classifier))
    if not sinks:
        sinks.append(_people_sink())
    return sinks


@contextmanager
def _csv_sink(path: Path) -> Iterator[Sink]:
    """Rows are written as they come and appear under `path` when all are there."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_row(["path", *FINDINGS, "positive", "error"]))

        def write(prediction: "Prediction") -> None:
            numbers = [prediction.probabilities.get(finding) for finding in FINDINGS]
            row = [str(prediction.path), *numbers, ";".join(prediction.positives), prediction.error]
            file.write(csv_row(row))

        yield write


@contextmanager
def _json_sink(classifier: "Classifier") -> Iterator[Sink]:
    """One document, written piece by piece so that a million images need no more memory than one."""
    model = {
        "path": str(classifier.path),
        "sha256": classifier.sha256,
        "policy": classifier.header.policy,
        "image_size": classifier.header.image_preprocessing.image_size,
        **classifier.engine.how.to_dict(),
        "calibrated": classifier.scalings is not None,
    }
    sys.stdout.write(f'{{\n"model": {to_json(model).strip()},\n"predictions": [')
    separator = "\n"

    def write(prediction: "Prediction") -> None:
        nonlocal separator
        sys.stdout.write(separator + to_json(prediction.to_dict()).strip())
        separator = ",\n"

    yield write
    sys.stdout.write("\n]}\n")


@contextmanager
def _people_sink() -> Iterator[Sink]:
    """Probabilities in columns, a star at each positive finding."""
    width = 46
    display.say(f"{'image':<{width}}" + "".join(f"{_short(finding):>15}" for finding in FINDINGS))

    def write(prediction: "Prediction") -> None:
        name = display.printable(str(prediction.path))
        shown = name if len(name) < width else "…" + name[-(width - 2) :]
        if prediction.error is not None:
            display.say(f"{shown:<{width}}  error: {prediction.error}")
            return
        cells = [f"{r.probability:.3f}{'*' if r.positive else ' '}" for r in prediction.findings]
        display.say(f"{shown:<{width}}" + "".join(f"{cell:>15}" for cell in cells))

    yield write
    display.say("* at or above the finding's threshold. Research software, not a medical device.")


def _short(finding: str) -> str:
    return finding.removeprefix("Pleural ")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("predict")(predict)
