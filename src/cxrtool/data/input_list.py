"""The whole list of a command's inputs, counted and kept in a file, so that any batch of it can be read again."""

import hashlib
import os
import pickle
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from cxrtool.data.stored import Item
from cxrtool.errors import WriteError
from cxrtool.files import cannot_write


class InputList:
    """Inputs in their order, in batches on disk; memory takes 8 bytes for each batch.

    The file is written and read by one user's processes of one command only, so that it may hold pickles. It has no
    name in any folder unless `path` is given.

    Attributes:
        batch_size: number of inputs in each batch but the last.
        count: number of inputs.
        sha256: digest of the names of all inputs, in hex: the same list has the same, whatever its form was.
    """

    def __init__(self, items: Iterable[Item], batch_size: int, path: Path | None = None) -> None:
        self.batch_size = batch_size
        self.count = 0
        self._starts = array("Q")
        digest = hashlib.sha256()
        remaining = iter(items)
        try:
            self._file = _open_new(path)
            while batch := list(islice(remaining, batch_size)):
                self._starts.append(self._file.tell())
                pickle.dump(batch, self._file)
                self.count += len(batch)
                for item in batch:
                    digest.update(os.fsencode(str(item)) + b"\0")
            self._file.flush()
        except OSError as error:
            raise _cannot_keep(error, path) from error
        self.sha256 = digest.hexdigest()

    @property
    def starts(self) -> "array[int]":
        """Where each batch begins in the file, in bytes."""
        return self._starts

    def items(self, rows: range) -> Iterator[Item]:
        """Yield the inputs of these rows; the first row begins a batch."""
        for number in range(rows.start // self.batch_size, -(-rows.stop // self.batch_size)):
            yield from read_batch(self._file, self._starts[number])[: rows.stop - number * self.batch_size]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def read_batch(file: BinaryIO, start: int) -> list[Item]:
    """Return the batch that begins at byte `start` of the file of an `InputList`."""
    file.seek(start)
    batch: list[Item] = pickle.load(file)
    return batch


def _open_new(path: Path | None) -> BinaryIO:
    if path is None:
        return tempfile.TemporaryFile()  # type: ignore[return-value]
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b")


def _cannot_keep(error: OSError, path: Path | None) -> WriteError:
    return cannot_write(path or Path(tempfile.gettempdir()), error)
