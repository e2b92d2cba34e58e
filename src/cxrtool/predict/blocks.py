"""Blocks of a list of inputs: what a process elsewhere needs to predict them, and what it gives back.

A block is a row of whole batches, so that the blocks' rows put behind one another are the table of one process.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch import get_num_threads

from cxrtool.errors import CxrError, RequestError
from cxrtool.model.bundle import EXPORTS_NAME, Bundle, open_bundle
from cxrtool.model.hub import BUNDLE_NAME
from cxrtool.predict.classifier import Classifier
from cxrtool.predict.csv_table import TableIdentity, row_of
from cxrtool.predict.prediction import naming, without_path
from cxrtool.settings import RuntimeSettings


@dataclass(frozen=True)
class PredictionTask:
    """Everything but the radiographs that another process, on this machine or another, needs to predict.

    Attributes:
        model: folder of the bundle, as errors name it.
        files: content of the bundle and of the exports beside it, by their place in the folder.
        settings: how each process uses its machine.
        thresholds: replace the bundle's; None keeps those.
        raw: give the network's own probabilities.
        hash_paths: show digests of paths instead of paths.
        folder: folder that relative paths start from.
    """

    model: str
    files: dict[str, bytes]
    settings: RuntimeSettings
    thresholds: dict[str, float] | None
    raw: bool
    hash_paths: bool
    folder: str

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        settings: RuntimeSettings,
        thresholds: dict[str, float] | None = None,
        raw: bool = False,
        hash_paths: bool = False,
    ) -> Self:
        """Return the task of predicting with the model `bundle` and its exports, from this process's folder."""
        exports = bundle.exports
        files = {BUNDLE_NAME: bundle.path.read_bytes()}
        for path in sorted(exports.rglob("*")) if exports.is_dir() else ():
            if path.is_file():
                files[f"{EXPORTS_NAME}/{path.relative_to(exports).as_posix()}"] = path.read_bytes()
        return cls(str(bundle.path.parent), files, settings, thresholds, raw, hash_paths, os.getcwd())


@dataclass(frozen=True)
class Block:
    """The rows of a block.

    Attributes:
        rows: their places in the whole table.
        text: their lines of CSV, in UTF-8.
        failed: number of rows with an error.
        warned: number of rows with a warning.
        table: what the rows depend on.
        threads: threads that computed the network on a CPU.
        how: backend and precision, for people.
        messages: warnings that were logged meanwhile.
    """

    rows: range
    text: bytes
    failed: int
    warned: int
    table: TableIdentity
    threads: int
    how: str
    messages: tuple[str, ...]


class BlockPredictor:
    """Predicts one block after the other with a model that is loaded once."""

    def __init__(self, task: PredictionTask) -> None:
        self._task = task
        self._classifier: Classifier | None = None

    def ready(self) -> None:
        """Return once this process runs."""

    def predict(self, rows: range, paths: Sequence[str]) -> Block:
        """Predict the radiographs at `paths`, which are the `rows` of the whole table.

        Raises:
            CxrError: the model cannot be used here, or memory has run out.
        """
        with _caught_warnings() as messages:
            classifier = self._classifier = self._classifier or _load(self._task)
            task, lines, failed, warned = self._task, [], 0, 0
            name_of = naming(task.hash_paths)
            for found in classifier.predict_many(map(Path, paths)):
                shown = without_path(found, name_of) if task.hash_paths else found
                lines.append(row_of(shown, name_of(found.given), classifier.thresholds))
                failed += found.error is not None
                warned += bool(found.warnings)
        identity = TableIdentity.of(classifier, task.settings, task.raw, task.hash_paths)
        return Block(
            rows=rows,
            text="".join(lines).encode(),
            failed=failed,
            warned=warned,
            table=identity,
            threads=get_num_threads(),
            how=str(classifier.engine.how),
            messages=tuple(messages),
        )


def _load(task: PredictionTask) -> Classifier:
    try:
        os.chdir(task.folder)
    except OSError as error:
        raise RequestError(
            f"the folder {task.folder} cannot be opened on every machine ({error.strerror})",
            "Start from a folder that all machines share, under one name.",
        ) from None
    with tempfile.TemporaryDirectory(prefix="cxr-model-") as temporary:
        for name, content in task.files.items():
            path = Path(temporary, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            bundle = open_bundle(Path(temporary, BUNDLE_NAME))
            return Classifier.load(bundle, task.settings, thresholds=task.thresholds, raw=task.raw)
        except CxrError as error:
            error.message, error.advice = (
                text.replace(temporary, task.model) for text in (error.message, error.advice)
            )
            raise


@contextmanager
def _caught_warnings() -> Iterator[list[str]]:
    """Collect the warnings that cxrtool logs inside the block."""
    messages: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    keep, logger = Keep(logging.WARNING), logging.getLogger("cxrtool")
    logger.addHandler(keep)
    try:
        yield messages
    finally:
        logger.removeHandler(keep)
