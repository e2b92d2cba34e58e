"""The parts of a table that is written by several processes at once, in a folder beside it."""

import hashlib
import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cxrtool.data.input_list import InputList
from cxrtool.errors import RequestError
from cxrtool.files import cannot_write, csv_row, write_bytes
from cxrtool.locks import NoLocksError, open_locked
from cxrtool.predict.blocks import Block
from cxrtool.predict.merge import merge_parts
from cxrtool.predict.parts import PartRecord, csv_record, write_record

log = logging.getLogger(__name__)

_BLOCKS = 64
_FEWEST, _MOST = 64, 512
"""Rows of a block: enough that reading ahead pays, few enough that a process that dies loses little."""


def rows_per_block(total: int, batch_size: int) -> int:
    """Return the rows of each block of a table of `total`: whole batches, and enough blocks for many processes.

    The number of processes has no part in it, so that a run can go on with another number.
    """
    return max(1, min(max(total // _BLOCKS, _FEWEST), _MOST) // batch_size) * batch_size


@dataclass(frozen=True)
class TableParts:
    """A folder of parts, one for each block.

    Attributes:
        folder: the folder.
        inputs: the whole list.
    """

    folder: Path
    inputs: InputList

    def blocks(self) -> Iterator[range]:
        """Yield the rows of each block of the table; an empty table is one empty block."""
        total = self.inputs.count
        if not total:
            yield range(0)
        step = rows_per_block(total, self.inputs.batch_size)
        for first in range(0, total, step):
            yield range(first, min(first + step, total))

    def path(self, rows: range) -> Path:
        """Return the path of the part with these rows."""
        return self.folder / f"part-{rows.start:010d}.csv"

    def done(self, rows: range) -> PartRecord | None:
        """Return the record of a part that an earlier run of the same command has finished, else None."""
        try:
            record = csv_record(self.path(rows))
        except RequestError:
            return None
        same = record.rows == rows and record.inputs_sha256 == self.inputs.sha256
        return record if same and self.path(rows).is_file() else None

    def write(self, block: Block, like: PartRecord | None = None) -> PartRecord:
        """Write a finished block and return its record.

        Args:
            block: the block.
            like: record of another part of the table.

        Raises:
            RequestError: the block was not computed as that other part was.
            WriteError: it cannot be written.
        """
        header, path = csv_row(block.table.columns).encode(), self.path(block.rows)
        record = PartRecord.of(self.inputs, block.rows, block.failed, block.table, threads=block.threads)
        # Now rather than when hours were spent on a table that cannot be put together.
        _refuse_another(record, record if like is None else like)
        write_bytes(path, header, block.text)
        write_record(path, record, hashlib.sha256(header + block.text).hexdigest())
        return record

    def put_together(self, out: Path) -> None:
        """Write the whole table to `out` and remove the parts.

        Raises:
            RequestError: a part is missing or was changed.
            WriteError: the table cannot be written.
        """
        merge_parts([self.path(rows) for rows in self.blocks()], out)
        for part in self.folder.glob("part-*"):
            part.unlink()


def _refuse_another(record: PartRecord, first: PartRecord) -> None:
    difference = record.like(first)
    if difference:
        rows = f"rows {record.first + 1:,} to {record.stop:,}"
        raise RequestError(
            f"{rows} were computed with {difference} than rows {first.first + 1:,} to {first.stop:,}",
            "Give --backend and --precision, so that all machines compute alike; without --resume-csv all starts anew.",
        )


@contextmanager
def open_parts(table: Path, inputs: InputList, resume: bool) -> Iterator[TableParts]:
    """Give the parts of `table` inside the block, in a folder beside it that no other process writes meanwhile.

    Args:
        table: the table that they will be.
        inputs: the whole list.
        resume: keep the parts of an interrupted run.

    Raises:
        RequestError: another process writes the table.
        WriteError: the folder cannot be written.
    """
    folder = table.with_name(f".{table.name}.parts")

    def refuse() -> None:
        raise RequestError(f"another process is writing {table}", "Wait for it to finish, or choose another --csv.")

    with ExitStack() as stack:
        try:
            stack.enter_context(open_locked(folder / "lock", refuse))
        except NoLocksError as error:
            log.warning("%s cannot be locked (%s): do not let a second process write it", table, error.strerror)
        except OSError as error:
            raise cannot_write(folder, error) from error
        try:
            if not resume:
                for part in folder.glob("part-*"):
                    part.unlink()
            yield TableParts(folder, inputs)
        finally:
            if not any(folder.glob("part-*")):
                shutil.rmtree(folder, ignore_errors=True)
