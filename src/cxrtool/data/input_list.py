"""The whole list of a command's inputs, counted and kept in a file, so that any batch of it can be read again."""

import hashlib
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from cxrtool.errors import WriteError
from cxrtool.files import cannot_write


class InputList:
    """Paths in their order, in batches in a file without a name; memory takes 8 bytes for each batch.

    Attributes:
        batch_size: number of paths in each batch but the last.
        count: number of paths.
        sha256: digest of all paths in order, each followed by a zero byte, in hex.
    """

    def __init__(self, items: Iterable[Path], batch_size: int) -> None:
        self.batch_size = batch_size
        self.count = 0
        self._ends = array("Q", [0])
        digest = hashlib.sha256()
        remaining = iter(items)
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - `__exit__` closes it
            while batch := list(islice(remaining, batch_size)):
                content = b"".join(os.fsencode(item) + b"\0" for item in batch)
                self._file.write(content)
                digest.update(content)
                self._ends.append(self._ends[-1] + len(content))
                self.count += len(batch)
            self._file.flush()
        except OSError as error:
            raise _cannot_keep(error) from error
        self.sha256 = digest.hexdigest()

    def items(self, rows: range) -> Iterator[Path]:
        """Yield the paths of these rows; the first row begins a batch."""
        for number in range(rows.start // self.batch_size, -(-rows.stop // self.batch_size)):
            yield from self._batch(number)[: rows.stop - number * self.batch_size]

    def _batch(self, number: int) -> list[Path]:
        begin, end = self._ends[number : number + 2]
        self._file.seek(begin)
        return [Path(os.fsdecode(name)) for name in self._file.read(end - begin).split(b"\0")[:-1]]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def _cannot_keep(error: OSError) -> WriteError:
    return cannot_write(Path(tempfile.gettempdir()), error)
