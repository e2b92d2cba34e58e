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
from cxrtool.cli.inputs import input_paths, load_classifier
from cxrtool.cli.options import ENGINE, READING, JsonOption, settings_options
from cxrtool.errors import CxrError, RequestError
from cxrtool.files import to_json
from cxrtool.findings import FINDINGS
from cxrtool.progress import Progress
from cxrtool.settings import ResolvedSettings
from cxrtool.text import printable

if TYPE_CHECKING:
    from cxrtool.predict.classifier import Classifier
    from cxrtool.predict.csv_table import TableIdentity
    from cxrtool.predict.prediction import Prediction

Sink = Callable[["Prediction"], None]


@settings_options("model", *ENGINE, *READING, "runtime.batch_size")
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
    resume_csv: Annotated[
        bool, typer.Option("--resume-csv", help="Go on with the table that a stopped run of the same began.")
    ] = False,
    hash_paths: Annotated[
        bool, typer.Option("--hash-paths", help="Put a digest (SHA-256, 16 digits) where a path would stand.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Read the five findings of radiographs.

    An image that cannot be read gets a row with its error; the others are done, and the exit code is 1. One that
    looks like no frontal radiograph gets a warning, or with --strict an error.

    \b
    cxr predict image.jpg
    cxr predict folder --recursive --csv predictions.csv
    cxr predict archive -r --csv predictions.csv --resume-csv
    find . -name '*.jpg' | cxr predict - --json > predictions.json
    """
    if resume_csv and csv is None:
        raise RequestError("--resume-csv needs --csv", "Name the table to go on with.")
    from cxrtool.predict.csv_table import open_table

    # Inputs are listed as they are needed, but a folder without images is refused before the model is loaded.
    paths = _started(input_paths(inputs, recursive))
    classifier = load_classifier(resolved, thresholds, raw)
    name_of = path_digest if hash_paths else printable_path
    failed = total = warned = 0
    with ExitStack() as stack:
        stack.enter_context(_not_quietly_without(csv))
        progress = stack.enter_context(console.progress_bar())
        sinks: list[Sink] = []
        if csv is not None:
            identity = _identity(classifier, resolved, raw, hash_paths)
            table = stack.enter_context(open_table(csv, paths, identity, name_of, resume_csv))
            paths, total, failed = table.paths, table.done, table.failed
            sinks.append(table.write)
            if resume_csv:
                console.hint(f"{total} rows were there")
        if json_output:
            sinks.append(stack.enter_context(_json_sink(classifier, name_of)))
        if not sinks:
            sinks.append(stack.enter_context(_people_sink(classifier, name_of)))
        for found in classifier.predict_many(paths):
            prediction = without_path(found, name_of) if hash_paths else found
            total += 1
            failed += prediction.error is not None
            warned += bool(prediction.warnings)
            for sink in sinks:
                sink(prediction)
            progress(Progress("predict", total, None))
    if csv is not None and not json_output:
        console.say(f"{total} images, {failed} of them not readable: {csv} (by {classifier.engine.how})")
    if warned:
        console.hint(f"{warned} images have warnings; see their rows")
    if failed:
        console.hint(f"{failed} of {total} images could not be read")
        raise typer.Exit(1)


@contextmanager
def _not_quietly_without(csv: Path | None) -> Iterator[None]:
    """A closed pipe ends quietly, but not where a table was asked for that is not finished."""
    try:
        yield
    except BrokenPipeError:
        if csv is None:
            raise
        raise CxrError(
            f"the reader of the output has gone before {csv} was finished", "Go on with it: --resume-csv."
        ) from None


def _started(paths: Iterator[Path]) -> Iterator[Path]:
    first = next(paths, None)
    return chain([] if first is None else [first], paths)


def printable_path(path: Path) -> str:
    """A path as text without control characters, so that it fits into a line."""
    return printable(str(path))


def path_digest(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of the path as it was given."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def without_path(prediction: "Prediction", name_of: Callable[[Path], str]) -> "Prediction":
    """The same with the path taken out of the error too."""
    if prediction.error is None:
        return prediction
    return replace(prediction, error=prediction.error.replace(prediction.name, name_of(prediction.file)))


def _identity(classifier: "Classifier", resolved: ResolvedSettings, raw: bool, hash_paths: bool) -> "TableIdentity":
    from cxrtool.predict.csv_table import TableIdentity

    runtime, how = resolved.settings.runtime, classifier.engine.how
    return TableIdentity(
        model_sha256=classifier.sha256,
        thresholds=dict(classifier.thresholds),
        backend=str(how.backend),
        precision=str(how.precision),
        raw=raw,
        batch_size=runtime.batch_size,
        strict=runtime.strict,
        window=runtime.window,
        hash_paths=hash_paths,
    )


@contextmanager
def _json_sink(classifier: "Classifier", name_of: Callable[[Path], str]) -> Iterator[Sink]:
    """One document, written piece by piece so that a million images need no more memory than one."""
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
def _people_sink(classifier: "Classifier", name_of: Callable[[Path], str]) -> Iterator[Sink]:
    """Probabilities in columns, a star at each positive finding, and below them what to beware of."""
    width = 46
    console.say(f"{'image':<{width}}" + "".join(f"{_short(finding):>15}" for finding in FINDINGS))

    def write(prediction: "Prediction") -> None:
        name = name_of(prediction.file)
        shown = name if len(name) < width else "…" + name[-(width - 2) :]
        if prediction.error is not None:
            console.say(f"{shown:<{width}}  error: {printable(prediction.error)}")
            return
        cells = [f"{r.probability:.3f}{'*' if r.positive else ' '}" for r in prediction.findings]
        console.say(f"{shown:<{width}}" + "".join(f"{cell:>15}" for cell in cells))
        for warning in prediction.warnings:
            console.say(f"  beware, {warning.code}: {warning.message}")

    yield write
    console.say(
        f"* at or above the finding's threshold. By {classifier.engine.how}. Research software, not a medical device."
    )


def _short(finding: str) -> str:
    return finding.removeprefix("Pleural ")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("predict")(predict)
