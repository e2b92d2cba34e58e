"""``cxr predict``"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cli import console
from cxrtool.cli.help_text import OUTPUT
from cxrtool.cli.inputs import InputPaths, load_classifier
from cxrtool.cli.options import ENGINE, READING, JsonOption, settings_options
from cxrtool.cli.prediction_rows import RowText
from cxrtool.errors import CxrError, RequestError
from cxrtool.files import to_json
from cxrtool.progress import Progress
from cxrtool.resolved_settings import ResolvedSettings
from cxrtool.text import counted, printable

if TYPE_CHECKING:
    from cxrtool.predict.classifier import Classifier
    from cxrtool.predict.prediction import Prediction

Sink = Callable[["Prediction"], None]


@settings_options("model", *ENGINE, *READING, "runtime.batch_size")
def predict(
    resolved: ResolvedSettings,
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders, or - for a list of paths on stdin.")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Search subfolders too.")] = False,
    thresholds: Annotated[
        str | None,
        typer.Option(
            "--thresholds",
            help="Five thresholds (0.46,0.11,0.47,0.34,0.37) or a file with them. \\[default: the bundle's]",
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Show the network's own probabilities even if the bundle is calibrated.")
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", help="Write a table with one row per image to this file.", rich_help_panel=OUTPUT),
    ] = None,
    resume_csv: Annotated[
        bool,
        typer.Option(
            "--resume-csv",
            help="Continue the --csv table of the same command after an interruption.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    hash_paths: Annotated[
        bool,
        typer.Option(
            "--hash-paths",
            help="Show 16 digits of the SHA-256 of each path instead of the path.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Predict the five findings for radiographs.

    An image that cannot be read gets a row with its error; the others are still predicted, and the exit code is 1. An
    image that does not look like a frontal radiograph gets a warning, or an error with --strict.

    \b
    cxr predict image.jpg
    cxr predict folder --recursive --csv predictions.csv
    cxr predict archive -r --csv predictions.csv --resume-csv
    find . -name '*.jpg' | cxr predict - --json > predictions.json
    """
    if resume_csv and csv is None:
        raise RequestError("--resume-csv needs --csv", "Name the table to continue with --csv.")
    from cxrtool.predict.csv_table import TableIdentity, open_table

    # Inputs are listed lazily, but a folder without images must be refused before the model is loaded.
    given = InputPaths(inputs, recursive)
    paths = _with_first_ready(given)
    classifier = load_classifier(resolved, thresholds, raw)
    name_of = path_digest if hash_paths else printable_path
    failed = total = warned = 0
    with ExitStack() as stack:
        stack.enter_context(_fail_if_unfinished(csv))
        # In a terminal, rows are the progress, and a bar would be drawn into them.
        streams = csv is None or json_output
        progress = stack.enter_context(console.progress_bar(hidden=streams and sys.stdout.isatty()))
        sinks: list[Sink] = []
        if csv is not None:
            identity = TableIdentity.of(classifier, resolved.settings.runtime, raw, hash_paths)
            table = stack.enter_context(open_table(csv, paths, identity, name_of, resume_csv))
            paths, total, failed = table.paths, table.done, table.failed
            sinks.append(table.write)
            if resume_csv:
                console.hint(f"continuing after {total} rows")
        if json_output:
            sinks.append(stack.enter_context(_json_sink(classifier, name_of)))
        if not sinks:
            sinks.append(stack.enter_context(_text_sink(classifier, name_of)))
        for found in classifier.predict_many(paths):
            prediction = without_path(found, name_of) if hash_paths else found
            total += 1
            failed += prediction.error is not None
            warned += bool(prediction.warnings)
            for sink in sinks:
                sink(prediction)
            progress(Progress("predict", total, given.total))
    if csv is not None and not json_output:
        console.say(f"{counted(total, 'image')}, {failed} of them unreadable: {csv} (by {classifier.engine.how})")
    if warned:
        console.hint(f"{counted(warned, 'image has a warning', 'images have warnings')}; see the rows")
    if failed:
        console.hint(f"{failed} of {counted(total, 'image')} could not be read")
        raise typer.Exit(1)


@contextmanager
def _fail_if_unfinished(csv: Path | None) -> Iterator[None]:
    """Turn a closed pipe, which otherwise ends quietly, into an error if it leaves the table `csv` unfinished."""
    try:
        yield
    except BrokenPipeError:
        if csv is None:
            raise
        raise CxrError(f"the output was closed before {csv} was finished", "Continue with --resume-csv.") from None


def _with_first_ready(paths: Iterator[Path]) -> Iterator[Path]:
    first = next(paths, None)
    return chain([] if first is None else [first], paths)


def printable_path(path: Path) -> str:
    """Return the path as text with control characters escaped, so that it fits on one line."""
    return printable(str(path))


def path_digest(path: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 of the path as it was given."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def without_path(prediction: "Prediction", name_of: Callable[[Path], str]) -> "Prediction":
    """Return the prediction with the path in its error replaced by `name_of` the path."""
    if prediction.error is None:
        return prediction
    return replace(prediction, error=prediction.error.replace(prediction.name, name_of(prediction.file)))


@contextmanager
def _json_sink(classifier: "Classifier", name_of: Callable[[Path], str]) -> Iterator[Sink]:
    """Write one JSON document row by row, so that memory does not grow with the number of images."""
    model = {
        "path": str(classifier.path),
        "sha256": classifier.sha256,
        "weights_sha256": classifier.header.weights_sha256,
        "policy": classifier.header.policy,
        "image_size": classifier.header.image_preprocessing.image_size,
        **classifier.engine.how.to_dict(),
        "calibrated": classifier.scalings is not None,
    }
    sys.stdout.write(f'{{\n"model": {to_json(model).strip()},\n"predictions": [')
    separator = "\n"

    def write(prediction: "Prediction") -> None:
        nonlocal separator
        row = prediction.to_dict(model=False) | {"path": name_of(prediction.file)}
        sys.stdout.write(separator + to_json(row).strip())
        separator = ",\n"

    yield write
    sys.stdout.write("\n]}\n")


@contextmanager
def _text_sink(classifier: "Classifier", name_of: Callable[[Path], str]) -> Iterator[Sink]:
    """Print probabilities in columns with a star at each positive finding, and warnings below each image."""
    rows = RowText.fitting(classifier.findings, console.result_width())
    console.say(rows.header)

    def write(prediction: "Prediction") -> None:
        for line in rows.lines(name_of(prediction.file), prediction):
            console.say(line)

    yield write
    for line in rows.wrapped(f"* at or above the finding's threshold (by {classifier.engine.how})"):
        console.say(line)
    console.say("Research software, not a medical device.")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("predict")(predict)
