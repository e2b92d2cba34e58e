"""Parts of a table of predictions: which rows a process writes, and what a part says of itself.

A part begins where a batch begins, because the last digit of a row can depend on the images in its batch. So parts put
behind one another are the table that one process writes, to the byte.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import get_num_threads

from cxrtool.data.input_list import InputList
from cxrtool.errors import RequestError
from cxrtool.files import sha256_of_file, write_json
from cxrtool.predict.csv_table import TableIdentity

_ADVICE = "Give parts that cxr predict wrote with --shard."


@dataclass(frozen=True)
class Shard:
    """One of `count` shares of a list, numbered from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``3/10``.

        Raises:
            RequestError: it is not of that form, or not from 1/N to N/N.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise RequestError(f"--shard {text} is not from 1/N to N/N", "Count from 1, as in --shard 3/10.")
        return cls(int(found[1]), int(found[2]))

    def rows(self, total: int, batch_size: int) -> range:
        """Return the rows of this share, whole batches of a list of `total`; no row if there are too few batches."""
        batches = -(-total // batch_size)
        first, stop = (number * batches // self.count * batch_size for number in (self.index - 1, self.index))
        return range(min(first, total), min(stop, total))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class PartRecord(BaseModel):
    """What a part says of itself, kept beside its CSV file (``FILE.part.json``).

    Attributes:
        kind: marks the record.
        first: first row of the part in the whole table, from 0.
        stop: the row behind its last.
        total: number of rows of the whole table.
        failed: number of rows in the part with an error.
        inputs_sha256: digest of the names of all inputs, see `cxrtool.data.input_list`.
        threads: threads that computed the network on a CPU.
        table: model and settings that the rows depend on.
        shard: share that was asked for, such as ``3/10``.
        csv_sha256: digest of the CSV file; empty before it is complete.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    kind: Literal["cxrtool part 1"] = "cxrtool part 1"
    first: int = Field(ge=0)
    stop: int = Field(ge=0)
    total: int = Field(ge=0)
    failed: int = Field(ge=0)
    inputs_sha256: str
    threads: int
    table: TableIdentity
    shard: str = ""
    csv_sha256: str = ""

    @classmethod
    def of(
        cls,
        inputs: InputList,
        rows: range,
        failed: int,
        table: TableIdentity,
        shard: str = "",
        threads: int | None = None,
    ) -> Self:
        """Return the record of a part, computed by this process unless the number of `threads` is given."""
        return cls(
            first=rows.start,
            stop=rows.stop,
            total=inputs.count,
            failed=failed,
            inputs_sha256=inputs.sha256,
            threads=get_num_threads() if threads is None else threads,
            table=table,
            shard=shard,
        )

    @model_validator(mode="after")
    def _rows_are_rows(self) -> Self:
        if not self.first <= self.stop <= self.total:
            raise ValueError(f"rows {self.first} to {self.stop} of {self.total}")
        return self

    @property
    def rows(self) -> range:
        """The rows of the part in the whole table."""
        return range(self.first, self.stop)

    def like(self, other: "PartRecord") -> str:
        """Return what differs from a part of the same table in words, such as ``another model sha256``; else ``""``."""
        ours, theirs = self.table, other.table
        changed = [name for name in vars(ours) if getattr(ours, name) != getattr(theirs, name)]
        if self.inputs_sha256 != other.inputs_sha256 or self.total != other.total:
            changed.append("list of inputs")
        return f"another {', '.join(changed).replace('_', ' ')}" if changed else ""


def read_record(text: str | bytes, path: Path) -> PartRecord:
    """Read the record of the part at `path`.

    Raises:
        RequestError: it is not a record of this version.
    """
    try:
        return PartRecord.model_validate(json.loads(text))
    except (ValueError, ValidationError):
        raise RequestError(f"{path} has a record that cannot be read, or is of another version", _ADVICE) from None


def record_path(csv: Path) -> Path:
    """Return where the record of a CSV part stands."""
    return csv.with_name(f"{csv.name}.part.json")


def record_writer(csv: Path, record: Callable[[], PartRecord]) -> Callable[[Path], None]:
    """Return a function that writes the record of the part `csv`, given the path of its complete rows."""

    def write(partial: Path) -> None:
        write_record(csv, record(), sha256_of_file(partial))

    return write


def write_record(csv: Path, record: PartRecord, csv_sha256: str) -> None:
    """Write the record of the part `csv`, whose content has this digest."""
    full = record.model_copy(update={"csv_sha256": csv_sha256})
    write_json(record_path(csv), full.model_dump(mode="json"))


def csv_record(csv: Path) -> PartRecord:
    """Return the record of a CSV part.

    Raises:
        RequestError: there is none, or it is not one of this version.
    """
    try:
        return read_record(record_path(csv).read_bytes(), csv)
    except OSError as error:
        raise RequestError(
            f"{csv} has no {record_path(csv).name} beside it ({error.strerror}), which says what part it is", _ADVICE
        ) from None
