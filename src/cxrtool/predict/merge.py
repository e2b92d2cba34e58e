"""Put the parts of a table of predictions together, if they are all of it and of one model."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from cxrtool.errors import RequestError
from cxrtool.files import csv_row, replacing
from cxrtool.predict.parts import PartRecord, csv_record

_CHUNK = 2**20
_AGAIN = "Write that part again with cxr predict, with the same inputs, model and settings as the others."


@dataclass(frozen=True)
class Part:
    """A file with some rows of a table.

    Attributes:
        path: the file.
        record: what it says of itself.
    """

    path: Path
    record: PartRecord


@dataclass(frozen=True)
class Merged:
    """What was put together.

    Attributes:
        out: the table.
        parts: number of parts.
        rows: number of rows.
        failed: number of rows with an error.
        threads: distinct numbers of threads that computed the parts, sorted.
    """

    out: Path
    parts: int
    rows: int
    failed: int
    threads: tuple[int, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the document of ``cxr merge --json``."""
        return {"out": str(self.out), "parts": self.parts, "rows": self.rows, "failed": self.failed}


def merge_parts(paths: Sequence[Path], out: Path) -> Merged:
    """Write the table that one process would have written. Memory does not grow with the number of rows.

    Args:
        paths: CSV parts in any order.
        out: the table.

    Raises:
        RequestError: rows are missing or in two parts; parts are of several models, settings or lists; a file is not a
            part, or was changed.
        WriteError: the table cannot be written.
    """
    found = find_parts(paths)
    if any(out.exists() and out.samefile(part.path) for part in found):
        raise RequestError(f"{out} is one of the parts", "Name another file for the whole table.")
    parts = ordered(found)
    with replacing(out) as partial, partial.open("wb") as file:
        write_rows(parts, file)
    records = [part.record for part in parts]
    threads = tuple(sorted({record.threads for record in records}))
    return Merged(out, len(parts), records[0].total, sum(record.failed for record in records), threads)


def find_parts(paths: Iterable[Path]) -> list[Part]:
    """Return the part at each path.

    Raises:
        RequestError: there is none.
    """
    return [Part(path, csv_record(path)) for path in paths]


def ordered(parts: Sequence[Part]) -> list[Part]:
    """Return parts in the order of their rows, having checked that they are the whole of one table.

    Raises:
        RequestError: they are not.
    """
    if not parts:
        raise RequestError("no part was given", "Name the parts, then the table to write.")
    for part in parts[1:]:
        difference = part.record.like(parts[0].record)
        if difference:
            raise RequestError(f"{part.path} has {difference} than {parts[0].path}", _AGAIN)
    found = sorted(parts, key=lambda part: (part.record.first, part.record.stop))
    for before, after in pairwise(found):
        if before.record.stop > after.record.first:
            _refuse_overlap(before, after)
    total, there = found[0].record.total, 0
    for part in found:
        if part.record.first > there:
            _refuse_gap(there, part.record.first, total)
        there = max(there, part.record.stop)
    if there < total:
        _refuse_gap(there, total, total)
    return found


def _refuse_overlap(before: Part, after: Part) -> None:
    stop = min(before.record.stop, after.record.stop)
    rows = f"rows {after.record.first + 1:,} to {stop:,}"
    raise RequestError(f"{before.path} and {after.path} both hold {rows}", "Leave out one of the two.")


def _refuse_gap(first: int, stop: int, total: int) -> None:
    raise RequestError(f"no part holds rows {first + 1:,} to {stop:,} of {total:,}", "Give every part of the table.")


def write_rows(parts: Sequence[Part], file: BinaryIO) -> None:
    """Write the header and the rows of `parts`, in this order, as the CSV table of ``cxr predict``.

    Raises:
        RequestError: a part is not what its record says.
    """
    header = csv_row(parts[0].record.table.columns).encode()
    file.write(header)
    for part in parts:
        for chunk in _csv_body(part, header):
            file.write(chunk)


def _csv_body(part: Part, header: bytes) -> Iterator[bytes]:
    """Yield the rows of a CSV part in pieces, without its header.

    Raises:
        RequestError: the file is not the one that its record was written for.
    """
    digest = hashlib.sha256()
    try:
        with part.path.open("rb") as file:
            digest.update(file.read(len(header)))
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                yield chunk
    except OSError as error:
        raise RequestError(f"cannot read {part.path}: {error.strerror}", "Check the path.") from None
    if digest.hexdigest() != part.record.csv_sha256:
        raise RequestError(f"{part.path} was changed after it was written, or is not complete", _AGAIN)
