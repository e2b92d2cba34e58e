"""Reading of decoded pixels from disk, with a checksum for each row."""

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
    """A valid cache, open for reading by any number of threads.

    Rows are read with `os.preadv` instead of a memory map: one request per image instead of a page fault every few
    kilobytes, without Python's global lock; and a failing disk raises an error, while a map would crash the process.

    Attributes:
        folder: folder of the cache.
        image_size: S, width and height of the images in pixels.
        rows: [N] records of ``size``, ``mtime_ns``, ``crc32`` and ``held``; ``held`` is False for an image that could
            not be read.
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
    def unreadable_rows(self) -> NDArray[np.int64]:
        """Rows whose image could not be read, [M] int64."""
        return np.flatnonzero(~self.rows["held"]).astype(np.int64)

    def read(self, row: int) -> NDArray[np.uint8] | None:
        """Return the pixels of a row, [S, S] uint8; None if they are missing or damaged and the file must be read.

        Damage is reported once, and the cache is rebuilt when it is next opened.
        """
        if not self.rows["held"][row]:
            return None
        pixels = self.read_verified(row)
        if pixels is None and not self._damaged.is_set():
            self._damaged.set()
            log.warning("the pixels in %s are damaged at row %d; image files are read instead", self.folder, row)
            with suppress(OSError):
                (self.folder / SIDECAR_NAME).unlink()
        return pixels

    def read_verified(self, row: int) -> NDArray[np.uint8] | None:
        """Return the pixels of a row that is in the cache, [S, S] uint8; None if they are damaged."""
        pixels = np.empty((self.image_size, self.image_size), dtype=np.uint8)
        try:
            count = os.preadv(self._descriptor, [pixels.data], self._offset + row * pixels.nbytes)
        except OSError:
            return None
        whole = count == pixels.nbytes and zlib.crc32(pixels.data) == self.rows["crc32"][row]
        return pixels if whole else None
