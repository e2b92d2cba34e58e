"""Building of a cache: every image is read once and its pixels are written."""

import hashlib
import io
import os
import secrets
import shutil
import time
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.cache_files import (
    FORMAT,
    ROW,
    SPACE_ADVICE,
    CacheJob,
    Sidecar,
    digest_of_paths,
    pixels_header,
    stamps_of,
    stop_if_asked,
)
from cxrtool.data.images import reader
from cxrtool.data.pixel_cache import SIDECAR_NAME
from cxrtool.data.read_ahead import read_ahead
from cxrtool.errors import CxrError, RequestError
from cxrtool.files import write_bytes, write_text
from cxrtool.progress import Progress

_CACHE_FILES = ("pixels-*.npy", "rows-*.npy", ".*.partial")
_SYNC_BYTES = 512 * 2**20


def prepare_folder(job: CacheJob) -> None:
    """Remove files of invalid caches, and check the free space.

    Raises:
        RequestError: there is too little free space.
    """
    (job.folder / SIDECAR_NAME).unlink(missing_ok=True)
    sweep_cache(job.folder)
    free = shutil.disk_usage(job.folder).free
    needed = job.pixel_bytes + len(job.manifest) * ROW.itemsize
    if free < needed:
        raise RequestError(
            f"the cache of {len(job.manifest):,} images at {job.preprocessing.image_size} px takes "
            f"{needed / 1e9:.1f} GB, but {job.folder} has {free / 1e9:.1f} GB free",
            SPACE_ADVICE,
        )


def sweep_cache(folder: Path) -> int:
    """Remove pixels, rows and temporary files of killed processes; return the number of bytes freed."""
    freed = 0
    for path in [path for pattern in _CACHE_FILES for path in folder.glob(pattern)]:
        freed += path.stat().st_size
        path.unlink()
    return freed


def build_cache(job: CacheJob) -> tuple[str, ...]:
    """Read every image and write the three files; return the errors of images that cannot be read."""
    token = secrets.token_hex(4)
    names = f"pixels-{token}.npy", f"rows-{token}.npy"
    # Before the images are read, so that a file that changes in the meantime makes the cache invalid.
    rows = np.zeros(len(job.manifest), dtype=ROW)
    stamps = stamps_of(job)
    rows["size"], rows["mtime_ns"] = stamps[:, 0], stamps[:, 1]
    path = job.folder / names[0]
    try:
        with path.open("xb", buffering=0) as file:
            file.write(pixels_header(len(rows), job.preprocessing.image_size))
            unreadable = _write_pixels(job, file, rows)
            os.fsync(file.fileno())
        packed = io.BytesIO()
        np.save(packed, rows)
        write_bytes(job.folder / names[1], packed.getvalue())
        sidecar = Sidecar(
            format=FORMAT,
            root=str(job.manifest.root),
            split=job.manifest.split,
            views=job.views,
            sheet=job.manifest.sheet.name,
            sheet_sha256=job.manifest.sheet_sha256,
            image_size=job.preprocessing.image_size,
            resize=job.preprocessing.resizing,
            reader=reader(),
            images=len(rows),
            paths_sha256=digest_of_paths(job.manifest),
            pixels=names[0],
            pixels_bytes=path.stat().st_size,
            rows=names[1],
            rows_sha256=hashlib.sha256(packed.getvalue()).hexdigest(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_text(job.folder / SIDECAR_NAME, sidecar.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise CxrError(f"cannot write the cache {path}: {error.strerror or error}", SPACE_ADVICE) from None
    finally:
        if not (job.folder / SIDECAR_NAME).exists():
            sweep_cache(job.folder)
    return unreadable


def _write_pixels(job: CacheJob, file: BinaryIO, rows: NDArray[Any]) -> tuple[str, ...]:
    # Not a memory map: on a full disk a write raises an error, while a map crashes the process.
    unreadable, unsynced, began, shown = [], 0, time.perf_counter(), 0.0
    nothing = np.zeros((job.preprocessing.image_size,) * 2, dtype=np.uint8)
    phase, total = f"cache {job.manifest.split}", len(rows)
    ahead = max(64, 4 * job.reading.workers)
    results = read_ahead(range(total), job.load, job.reading.workers, ahead, job.reading.timeout, job.name_of)
    try:
        for row, result in results:
            pixels = nothing if isinstance(result, CxrError) else np.ascontiguousarray(result)
            if isinstance(result, CxrError):
                unreadable.append(result.message)
            else:
                rows["crc32"][row], rows["held"][row] = zlib.crc32(pixels.data), True
            _write_all(file, pixels.data)
            unsynced += pixels.nbytes
            if unsynced >= _SYNC_BYTES:  # so that the last sync does not wait for gigabytes
                os.fsync(file.fileno())
                unsynced = 0
            elapsed = time.perf_counter() - began
            if elapsed - shown > 0.1 or row + 1 == total:
                shown = elapsed
                job.progress(Progress(phase, row + 1, total, f"{(row + 1) / elapsed:.0f} images/s"))
            stop_if_asked(job.stop, f"building {job.folder}")
    finally:
        results.close()
    return tuple(unreadable)


def _write_all(file: BinaryIO, content: memoryview) -> None:
    """Write all of `content`; one write to a raw file may be partial when the disk becomes full."""
    content = content.cast("B")
    while content:
        content = content[file.write(content) :]
