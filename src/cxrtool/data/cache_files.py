"""Formats of a cache's files, and the job of building or checking one."""

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cxrtool.data.images import shown
from cxrtool.data.manifest import Manifest
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.data.radiograph import Reading, read_pixels
from cxrtool.data.read_ahead import read_ahead
from cxrtool.errors import CxrError, InterruptedWorkError
from cxrtool.progress import ProgressCallback, StopSignal

FORMAT = 1
"""Version of cache.json."""
LOCK_NAME = ".lock"
ROW = np.dtype([("size", "<i8"), ("mtime_ns", "<i8"), ("crc32", "<u4"), ("held", "?")])
"""Per image: size and modification time of its file, checksum of its pixels, and whether it could be read (held)."""
SPACE_ADVICE = "Free some space there, or choose another folder with --cache-dir."
_STAT_CHUNK = 512
_PATHS_AT_ONCE = 10_000


class Sidecar(BaseModel):
    """Content of cache.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    root: str
    split: str
    views: str
    sheet: str
    sheet_sha256: str
    image_size: int
    resize: str
    reader: str
    images: int
    paths_sha256: str
    pixels: str = Field(pattern=r"^pixels-[0-9a-f]{8}\.npy$")
    pixels_bytes: int
    rows: str = Field(pattern=r"^rows-[0-9a-f]{8}\.npy$")
    rows_sha256: str
    created: str


@dataclass(frozen=True)
class CacheJob:
    """Arguments of one call of `open_cache`, and the folder of the cache."""

    folder: Path
    manifest: Manifest
    views: str
    reading: Reading
    progress: ProgressCallback
    stop: StopSignal

    def load(self, row: int) -> NDArray[np.uint8]:
        """Read and preprocess the image of a row, [S, S] uint8."""
        return read_pixels(self.manifest.file(row), self.preprocessing, self.manifest.fence, self.reading.limits)

    def name_of(self, row: int) -> str:
        return shown(self.manifest.file(row))

    @property
    def preprocessing(self) -> Preprocessing:
        return self.reading.preprocessing

    @property
    def pixel_bytes(self) -> int:
        return len(self.manifest) * self.preprocessing.image_size**2


def stop_if_asked(stop: StopSignal, doing: str) -> None:
    number = stop()
    if number is not None:
        raise InterruptedWorkError(f"stopped while {doing}", "Start it again; unfinished work is not saved.", number)


def digest_of_paths(manifest: Manifest) -> str:
    # Paths contain no NUL, because sheets with one are refused.
    digest, between = hashlib.sha256(), ""
    for start in range(0, len(manifest), _PATHS_AT_ONCE):
        text = between + "\0".join(manifest.paths[start : start + _PATHS_AT_ONCE])
        digest.update(text.encode("utf-8", errors="surrogateescape"))
        between = "\0"
    return digest.hexdigest()


def stamps_of(job: CacheJob) -> NDArray[np.int64]:
    """Return size and modification time of each file, [N, 2]; -1 if missing. Threads hide slow network disks."""
    root, paths = f"{job.manifest.root}{os.sep}", job.manifest.paths

    def look(start: int) -> NDArray[np.int64]:
        return np.array([_stamp(root + path) for path in paths[start : start + _STAT_CHUNK]], dtype=np.int64)

    starts = range(0, len(paths), _STAT_CHUNK)
    stamps = np.empty((len(paths), 2), dtype=np.int64)
    for start, chunk in read_ahead(
        starts, look, job.reading.workers, 4 * job.reading.workers, job.reading.timeout, job.name_of
    ):
        if isinstance(chunk, CxrError):
            raise chunk
        stamps[start : start + _STAT_CHUNK] = chunk
    return stamps


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def pixels_header(images: int, image_size: int) -> bytes:
    """Return the .npy header of an array [images, image_size, image_size] uint8."""
    text = io.BytesIO()
    shape = (images, image_size, image_size)
    np.lib.format.write_array_header_1_0(text, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return text.getvalue()
