"""``cxr predict --ray``: the same table, written by the processes of a Ray cluster."""

import logging
from contextlib import ExitStack

from cxrtool.cli import console
from cxrtool.cli.inputs import model_to_run
from cxrtool.cli.prediction_job import Counts, Job, with_first_ready
from cxrtool.cli.signals import graceful_stop
from cxrtool.progress import Progress
from cxrtool.text import counted

log = logging.getLogger(__name__)


def predict_by_ray(job: Job) -> None:
    """Predict the inputs of a job with a table on the cluster that it names.

    Finished blocks are kept in a folder beside the table until it is complete.

    Raises:
        RequestError: there is no such cluster, or its machines compute in different ways.
        CxrError: the model cannot be used, or a process has died ten times with the same images.
        InterruptedWorkError: a signal arrived; finished blocks are kept.
        WriteError: the table or a part of it cannot be written.
    """
    from cxrtool.data.input_list import InputList
    from cxrtool.evaluation.threshold_files import parse_thresholds
    from cxrtool.predict.blocks import PredictionTask
    from cxrtool.predict.ray_cluster import connected, share_of
    from cxrtool.predict.table_parts import open_parts

    assert job.ray is not None
    assert job.csv is not None
    counts, how, said = Counts(), "", set[str]()
    runtime = job.resolved.settings.runtime
    with ExitStack() as stack:
        listed = stack.enter_context(InputList(with_first_ready(job.listed()), runtime.batch_size))
        bundle = stack.enter_context(model_to_run(job.resolved))
        thresholds = None if job.thresholds is None else parse_thresholds(job.thresholds, bundle.header.labels)
        parts = stack.enter_context(open_parts(job.csv, listed, job.resume))
        missing: list[range] = []
        first = None
        for rows in parts.blocks():
            record = parts.done(rows)
            if record is None:
                missing.append(rows)
            else:
                first = first or record
                counts.total, counts.failed = counts.total + len(rows), counts.failed + record.failed
        if job.resume:
            console.hint(f"continuing after {counts.total:,} rows")
        if missing:
            cluster = stack.enter_context(connected(job.ray))
            share = share_of(cluster.nodes(), runtime, job.actors)
            console.hint(f"on the cluster: {share}")
            task = PredictionTask.of(bundle, share.settings(runtime), thresholds, job.raw, job.hash_paths)
            progress = stack.enter_context(console.progress_bar())
            stop = stack.enter_context(graceful_stop(quiet=True))
            work = ((rows, [str(path) for path in listed.items(rows)]) for rows in missing)
            for block in cluster.predict(task, share, work, stop):
                first = parts.write(block, first)
                for message in block.messages:
                    if message not in said:
                        said.add(message)
                        log.warning("%s", message)
                counts.total += len(block.rows)
                counts.failed, counts.warned = counts.failed + block.failed, counts.warned + block.warned
                how = f" (by {block.how})"
                progress(Progress("predict", counts.total, listed.count))
        parts.put_together(job.csv)
    job.write_parquet()
    console.say(f"{counted(counts.total, 'image')}, {counts.failed:,} of them unreadable: {job.csv}{how}")
    counts.report()
