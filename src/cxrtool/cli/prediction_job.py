"""What ``cxr predict`` was asked for, and what it counts and says while it works."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cxrtool.cli import console
from cxrtool.cli.inputs import InputPaths
from cxrtool.errors import CxrError, RequestError
from cxrtool.resolved_settings import ResolvedSettings
from cxrtool.text import counted

if TYPE_CHECKING:
    from cxrtool.predict.parts import Shard
    from cxrtool.predict.prediction import Prediction


@dataclass(frozen=True)
class Job:
    """The options of ``cxr predict``, checked.

    Attributes:
        resolved: settings.
        inputs: radiographs, folders, lists, or ``-``.
        recursive: search subfolders too.
        thresholds: numbers or a file that replace the bundle's thresholds; None keeps those.
        raw: show the network's own probabilities.
        csv: table to write.
        resume: continue after an interruption.
        shard: share of the inputs to predict; None predicts all.
        ray: address of a Ray cluster, `local` or `auto`; None works in this process.
        actors: number of processes on the cluster; None fills it.
        parquet: folder for the table as Parquet files, too.
        hash_paths: show digests of paths instead of paths.
        json_output: print one JSON document.
    """

    resolved: ResolvedSettings
    inputs: tuple[str, ...]
    recursive: bool
    thresholds: str | None
    raw: bool
    csv: Path | None
    resume: bool
    shard: "Shard | None"
    ray: str | None
    actors: int | None
    parquet: Path | None
    hash_paths: bool
    json_output: bool

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            RequestError: they do not.
        """
        needing = {"--resume-csv": self.resume, "--shard": self.shard, "--parquet": self.parquet, "--ray": self.ray}
        for option, value in needing.items():
            if value and self.csv is None:
                raise RequestError(f"{option} needs --csv", "Name the table to write with --csv.")
        if self.actors is not None and self.ray is None:
            raise RequestError("--actors needs --ray", "Add --ray, or leave out --actors.")
        apart = {"--json": self.json_output, "--shard": self.shard}
        for option, value in apart.items():
            if value and self.ray is not None:
                raise RequestError(f"{option} does not go with --ray", f"Leave out {option}.")
        if self.shard is not None and self.parquet is not None:
            raise RequestError("--parquet does not go with --shard", "Give --parquet to cxr merge.")

    def write_parquet(self) -> None:
        """Write the finished table as Parquet files, if that was asked for."""
        if self.csv is not None and self.parquet is not None:
            from cxrtool.predict.parquet import write_parquet

            write_parquet(self.csv, self.parquet)

    @property
    def name_of(self) -> Callable[[str], str]:
        """How the name of an input is shown."""
        from cxrtool.predict.prediction import naming

        return naming(self.hash_paths)

    def listed(self) -> InputPaths:
        """The inputs, listed as they are needed."""
        return InputPaths(self.inputs, self.recursive)

    def shown(self, prediction: "Prediction") -> "Prediction":
        """Return a prediction whose error does not hold the path if that is not to be shown."""
        from cxrtool.predict.prediction import without_path

        return without_path(prediction, self.name_of) if self.hash_paths else prediction


@dataclass
class Counts:
    """Numbers of rows: all, those with an error, those with a warning."""

    total: int = 0
    failed: int = 0
    warned: int = 0

    def add(self, prediction: "Prediction") -> None:
        """Count a row."""
        self.total += 1
        self.failed += prediction.error is not None
        self.warned += bool(prediction.warnings)

    def report(self) -> None:
        """Say on stderr how many rows have warnings or errors.

        Raises:
            Exit: with code 1, if a row has an error.
        """
        if self.warned:
            console.hint(f"{counted(self.warned, 'image has a warning', 'images have warnings')}; see the rows")
        if self.failed:
            console.hint(f"{self.failed:,} of {counted(self.total, 'image')} could not be read")
            raise typer.Exit(1)


@contextmanager
def fail_if_unfinished(csv: Path | None) -> Iterator[None]:
    """Turn a closed pipe, which otherwise ends quietly, into an error if it leaves the table `csv` unfinished."""
    try:
        yield
    except BrokenPipeError:
        if csv is None:
            raise
        raise CxrError(f"the output was closed before {csv} was finished", "Continue with --resume-csv.") from None


def with_first_ready(items: Iterator[Path]) -> Iterator[Path]:
    """Return the same items, the first of which has been listed."""
    first = next(items, None)
    return chain([] if first is None else [first], items)
