"""Reading decoded pixels back from disk, checked row by row."""

import logging
import os
import threading
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)
SIDECAR_NAME = "cache.json"


@dataclass(frozen=True, eq=False)
class PixelCache:
    """A cache that fits its manifest, open for reading by any number of threads.

    Rows are read by `os.preadv` and not through a memory map: one request per image instead of a page fault every few
    kilobytes, without Python's lock, and a disk that fails raises an error where a map would end the process.

    Attributes:
        folder: where it lies.
        image_size: S.
        rows: [N] records of ``size``, ``mtime_ns``, ``crc32`` and ``held``; an image that could not be read is not
            held.
    """

    folder: Path
    image_size: int
    rows: NDArray[Any]
    _descriptor: int
    _offset: int
    _damaged: threading.Event = field(default_factory=threading.Event)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def not_held(self) -> NDArray[np.int64]:
        """The rows whose image could not be read, [M]."""
        return np.flatnonzero(~self.rows["held"]).astype(np.int64)

    def read(self, row: int) -> NDArray[np.uint8] | None:
        """The pixels of a row, [S, S] uint8; None where its file must be read, as its pixels are not held or damaged.

        Damage is told once, and the cache built anew when it is next opened.
        """
        if not self.rows["held"][row]:
            return None
        pixels = self.intact(row)
        if pixels is None and not self._damaged.is_set():
            self._damaged.set()
            log.warning("the pixels in %s are damaged at row %d: files are read instead", self.folder, row)
            with suppress(OSError):
                (self.folder / SIDECAR_NAME).unlink()
        return pixels

    def intact(self, row: int) -> NDArray[np.uint8] | None:
        """The pixels of a row that is held, [S, S] uint8; None where they are damaged."""
        pixels = np.empty((self.image_size, self.image_size), dtype=np.uint8)
        try:
            count = os.preadv(self._descriptor, [pixels.data], self._offset + row * pixels.nbytes)
        except OSError:
            return None
        whole = count == pixels.nbytes and zlib.crc32(pixels.data) == self.rows["crc32"][row]
        return pixels if whole else None
