"""``cxr predict``"""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import console
from cxrtool.cli.help_text import MACHINE, OUTPUT
from cxrtool.cli.inputs import load_classifier
from cxrtool.cli.options import ENGINE, READING, JsonOption, settings_options
from cxrtool.cli.prediction_by_ray import predict_by_ray
from cxrtool.cli.prediction_job import Counts, Job, fail_if_unfinished, with_first_ready
from cxrtool.cli.prediction_sinks import Sink, json_sink, text_sink
from cxrtool.progress import Progress
from cxrtool.resolved_settings import ResolvedSettings
from cxrtool.text import counted


@settings_options("model", *ENGINE, *READING, "runtime.batch_size")
def predict(
    resolved: ResolvedSettings,
    inputs: Annotated[list[str], typer.Argument(help="Images, folders, or - for a list of paths on stdin.")],
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
    resume: Annotated[
        bool,
        typer.Option(
            "--resume-csv",
            "--resume",
            help="Continue the --csv table of the same command after an interruption.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Predict the I-th of N shares of the inputs, as a part for cxr merge.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    parquet: Annotated[
        Path | None,
        typer.Option(
            "--parquet",
            help="Write the --csv table into this folder as Parquet files too.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="[ADDRESS]",
            help="Share the work on a Ray cluster: HOST:PORT, ray://HOST:PORT, or local for this machine. "
            "\\[default: the cluster of RAY_ADDRESS or of this machine, or a new one here]",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(
            "--actors",
            min=1,
            help="Processes on the Ray cluster. \\[default: one per GPU, or as many as --threads allow]",
            rich_help_panel=MACHINE,
        ),
    ] = None,
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
    cxr predict archive -r --csv part-3.csv --shard 3/10
    cxr predict archive -r --csv predictions.csv --ray 10.0.0.1:6379
    find . -name '*.jpg' | cxr predict - --json > predictions.json
    """
    from cxrtool.predict.parts import Shard

    job = Job(
        resolved=resolved,
        inputs=tuple(inputs),
        recursive=recursive,
        thresholds=thresholds,
        raw=raw,
        csv=csv,
        resume=resume,
        shard=None if shard is None else Shard.parse(shard),
        ray=ray,
        actors=actors,
        parquet=parquet,
        hash_paths=hash_paths,
        json_output=json_output,
    )
    job.check()
    if ray is None:
        _predict(job)
    else:
        predict_by_ray(job)


def _predict(job: Job) -> None:
    from cxrtool.data.input_list import InputList
    from cxrtool.predict.csv_table import TableIdentity, open_table
    from cxrtool.predict.parts import PartRecord, record_writer

    counts, runtime, csv = Counts(), job.resolved.settings.runtime, job.csv
    with ExitStack() as stack:
        # Inputs are listed lazily, but a folder without images must be refused before the model is loaded.
        given = job.listed()
        items = with_first_ready(given)
        listed, rows = None, range(0)
        if job.shard is not None:
            listed = stack.enter_context(InputList(items, runtime.batch_size))
            rows = job.shard.rows(listed.count, runtime.batch_size)
            items = listed.items(rows)
        classifier = load_classifier(job.resolved, job.thresholds, job.raw)
        stack.enter_context(fail_if_unfinished(csv))
        # In a terminal, rows are the progress, and a bar would be drawn into them.
        streams = csv is None or job.json_output
        progress = stack.enter_context(console.progress_bar(hidden=streams and sys.stdout.isatty()))
        sinks: list[Sink] = []
        if csv is not None:
            identity = TableIdentity.of(classifier, runtime, job.raw, job.hash_paths)

            def record() -> PartRecord:
                assert listed is not None
                return PartRecord.of(listed, rows, counts.failed, identity, str(job.shard))

            before_rename = None if listed is None else record_writer(csv, record)
            table = stack.enter_context(open_table(csv, items, identity, job.name_of, job.resume, before_rename))
            items, counts.total, counts.failed = table.paths, table.done, table.failed
            sinks.append(table.write)
            if job.resume:
                console.hint(f"continuing after {counts.total:,} rows")
        if job.json_output:
            sinks.append(stack.enter_context(json_sink(classifier, job.name_of)))
        if not sinks:
            sinks.append(stack.enter_context(text_sink(classifier, job.name_of)))
        for found in classifier.predict_many(items):
            prediction = job.shown(found)
            counts.add(prediction)
            for sink in sinks:
                sink(prediction)
            progress(Progress("predict", counts.total, given.total if listed is None else len(rows)))
    job.write_parquet()
    if csv is not None and not job.json_output:
        part = "" if job.shard is None else f"part {job.shard}, "
        how = classifier.engine.how
        console.say(f"{part}{counted(counts.total, 'image')}, {counts.failed:,} of them unreadable: {csv} (by {how})")
    counts.report()


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("predict")(predict)
