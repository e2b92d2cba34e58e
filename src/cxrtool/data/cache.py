"""Decoded pixels of a split on disk, so that a second epoch, policy or seed decodes nothing.

A cache is a folder of three files: ``pixels-<token>.npy`` ([N, S, S] uint8, a row per image), ``rows-<token>.npy``
(what each file was when it was read, and a checksum of its pixels) and ``cache.json``, which names the two and says
what they were made from. ``cache.json`` is written last and in one step: what it does not name is not trusted,
whatever was killed when.
"""

import fcntl
import hashlib
import io
import logging
import os
import secrets
import shutil
import time
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxrtool.data.images import reader, shown
from cxrtool.data.manifest import Manifest
from cxrtool.data.pixel_cache import SIDECAR_NAME, PixelCache
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.data.radiograph import Reading, read_pixels
from cxrtool.data.read_ahead import read_ahead
from cxrtool.errors import CxrError, InterruptedWorkError, RequestError
from cxrtool.files import sha256_of_file, write_bytes, write_text
from cxrtool.progress import Progress, ProgressCallback, StopSignal, ignore_progress, never_stop
from cxrtool.settings import DataSettings

log = logging.getLogger(__name__)

CACHE_NAME = ".cxr-cache"
_FORMAT = 1
_LOCK = ".lock"
_OURS = ("pixels-*.npy", "rows-*.npy", ".*.partial")
_ROW = np.dtype([("size", "<i8"), ("mtime_ns", "<i8"), ("crc32", "<u4"), ("held", "?")])
_SPOT_CHECKS = 8
_SYNC_BYTES = 512 * 2**20
_STAT_CHUNK = 512
_ELSEWHERE = "Free space there, or name another place with --cache-dir."


class _Sidecar(BaseModel):
    """cache.json."""

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
class CacheResult:
    """What `open_cache` found or made.

    Attributes:
        cache: ready to read.
        state: ``valid``, ``built``, or ``rebuilt``.
        reason: why it was rebuilt, else empty.
        size: bytes on disk.
        seconds: of checking and building.
        unreadable: what is wrong with each image that is not held.
    """

    cache: PixelCache
    state: str
    reason: str
    size: int
    seconds: float
    unreadable: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """As ``cxr cache --json`` prints it."""
        made = self.state != "valid"
        return {
            "folder": str(self.cache.folder),
            "state": self.state,
            "reason": self.reason or None,
            "images": len(self.cache),
            "image_size": self.cache.image_size,
            "bytes": self.size,
            "seconds": self.seconds,
            "images_per_second": len(self.cache) / self.seconds if made else None,
            "unreadable": list(self.unreadable),
        }


def caches_folder(data: DataSettings) -> Path:
    """Where the caches of a data set lie: DATA/.cxr-cache, or a folder of its own in `data.cache_dir`.

    Raises:
        RequestError: no data folder is given.
    """
    if data.cache_dir is None:
        return data.folder / CACHE_NAME
    real = data.folder.resolve()
    return data.cache_dir / f"{real.name}-{hashlib.sha256(os.fsencode(real)).hexdigest()[:8]}"


def open_cache(
    manifest: Manifest,
    data: DataSettings,
    reading: Reading,
    progress: ProgressCallback = ignore_progress,
    stop: StopSignal = never_stop,
) -> CacheResult:
    """The cache of a manifest's pixels, built first where there is none that fits.

    It fits when sheet, views, files (path, size and time of change), image size and reader are those it was made from,
    the files are whole, and a few rows, read again, give the same pixels. Of several processes that open it at once
    one builds and the others wait.

    Args:
        manifest: the usable rows of a split.
        data: where the cache lies, and the views.
        reading: preprocessing, threads and timeout.
        progress: called while it is built.
        stop: asked while waiting and building.

    Raises:
        RequestError: the place cannot be written, or has too little free space; nothing was begun.
        CxrError: writing failed.
        InterruptedWorkError: `stop` gave a signal; nothing is kept.
    """
    began = time.perf_counter()
    folder = caches_folder(data) / f"{manifest.split}-{data.views}-{reading.preprocessing.image_size}px"
    job = _Job(folder, manifest, data.views.value, reading, progress, stop)
    try:
        with _locked(folder, stop):
            found = _find(job)
            if isinstance(found, str):
                _make_room(job)
                if found:
                    log.warning("%s is built anew: %s", folder, found)
                unreadable = _build(job)
                opened = _find(job)
                if isinstance(opened, str):
                    raise CxrError(f"{folder} does not hold what was written: {opened}", "Check the disk.")
                cache, state, reason = opened, "rebuilt" if found else "built", found
            else:
                cache, state, reason = found, "valid", ""
                unreadable = _errors(job, cache)
    except OSError as error:
        # A data folder of somebody else's may hold a cache that is good and cannot be locked.
        shared = _find(job)
        if isinstance(shared, str):
            told = f"cannot write the cache {folder}: {error.strerror or error}"
            raise RequestError(told, "Name another place with --cache-dir.") from None
        cache, state, reason, unreadable = shared, "valid", "", _errors(job, shared)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return CacheResult(cache, state, reason, size, time.perf_counter() - began, unreadable)


def remove_caches(data: DataSettings) -> int:
    """Remove every cache of a data set, and nothing else that may lie there; the bytes that were freed.

    A process that reads one goes on: its file lasts as long as it is open.

    Raises:
        RequestError: another process builds one, or it cannot be removed.
    """
    place, freed = caches_folder(data), 0
    try:
        for folder in sorted(path.parent for path in place.glob(f"*/{_LOCK}")):
            with _locked(folder, lambda: None, wait=False):
                freed += _sweep(folder)
                for name in (SIDECAR_NAME, _LOCK):
                    (folder / name).unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()
        with suppress(OSError):
            place.rmdir()
    except OSError as error:
        raise RequestError(f"cannot remove {place}: {error.strerror}", "Check the folder's rights.") from None
    return freed


@dataclass(frozen=True)
class _Job:
    """What one call of `open_cache` is about."""

    folder: Path
    manifest: Manifest
    views: str
    reading: Reading
    progress: ProgressCallback
    stop: StopSignal

    def load(self, row: int) -> NDArray[np.uint8]:
        return read_pixels(self.manifest.file(row), self.preprocessing, self.manifest.fence, self.reading.limits)

    def name_of(self, row: int) -> str:
        return shown(self.manifest.file(row))

    @property
    def preprocessing(self) -> Preprocessing:
        return self.reading.preprocessing

    @property
    def pixel_bytes(self) -> int:
        return len(self.manifest) * self.preprocessing.image_size**2


@contextmanager
def _locked(folder: Path, stop: StopSignal, wait: bool = True) -> Iterator[None]:
    """Hold the folder's lock; the kernel frees it when a process ends, however it ends."""
    path, told = folder / _LOCK, False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise RequestError(f"another process builds {folder}", "Wait for it.") from None
                if not told:
                    log.warning("another process builds %s: waiting for it", folder)
                    told = True
                _stop_if_asked(stop, f"waiting for {folder}")
                time.sleep(0.1)
                continue
            # `remove_caches` may have taken the file away between the two calls.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield
                return


def _stop_if_asked(stop: StopSignal, doing: str) -> None:
    number = stop()
    if number is not None:
        raise InterruptedWorkError(f"stopped while {doing}", "Start it again; nothing is kept of it.", number)


def _find(job: _Job) -> PixelCache | str:
    """The cache in the folder, or why it does not fit; an empty reason where there is none."""
    try:
        sidecar = _Sidecar.model_validate_json((job.folder / SIDECAR_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, ValidationError):
        return f"{SIDECAR_NAME} cannot be read"
    manifest = job.manifest
    expected = {
        "format": (_FORMAT, "it is of another version"),
        "views": (job.views, "other views are wished"),
        "image_size": (job.preprocessing.image_size, "another image size is wished"),
        "resize": (job.preprocessing.resize, "the preprocessing has changed"),
        "reader": (reader(), f"images are read otherwise now ({reader()})"),
        "sheet_sha256": (manifest.sheet_sha256, f"{manifest.sheet.name} has changed"),
        "images": (len(manifest), f"{sidecar.images} images were there and {len(manifest)} are now"),
        "paths_sha256": (_paths_sha256(manifest), "its images are others or in another order"),
        "pixels_bytes": (_size(job.folder / sidecar.pixels), "its pixels are cut, or gone"),
    }
    for name, (value, reason) in expected.items():
        if getattr(sidecar, name) != value:
            return reason
    rows = _read_rows(job.folder / sidecar.rows, sidecar.rows_sha256)
    if rows is None:
        return f"{sidecar.rows} is damaged or gone"
    return _changed_files(rows, job) or _open_pixels(job, sidecar, rows)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _paths_sha256(manifest: Manifest) -> str:
    # No path holds a NUL: the sheet would have been refused.
    return hashlib.sha256("\0".join(map(str, manifest.paths)).encode("utf-8", errors="surrogateescape")).hexdigest()


def _read_rows(path: Path, sha256: str) -> NDArray[Any] | None:
    try:
        if sha256_of_file(path) != sha256:
            return None
        rows: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return rows


def _stamps(job: _Job) -> NDArray[np.int64]:
    """Size and time of change of each file, [N, 2]; -1 where it is gone. By threads: a network's disk answers late."""
    root, paths = f"{job.manifest.root}{os.sep}", job.manifest.paths

    def look(start: int) -> list[tuple[int, int]]:
        return [_stamp(root + str(path)) for path in paths[start : start + _STAT_CHUNK]]

    starts = range(0, len(paths), _STAT_CHUNK)
    found: list[tuple[int, int]] = []
    for _, chunk in read_ahead(
        starts, look, job.reading.workers, 4 * job.reading.workers, job.reading.timeout, job.name_of
    ):
        if isinstance(chunk, CxrError):
            raise chunk
        found += chunk
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _changed_files(rows: NDArray[Any], job: _Job) -> str:
    stamps = _stamps(job)
    changed = np.flatnonzero((rows["size"] != stamps[:, 0]) | (rows["mtime_ns"] != stamps[:, 1]))
    if not len(changed):
        return ""
    return f"{len(changed)} of {len(rows)} files have changed, {job.manifest.paths[changed[0]]} first"


def _open_pixels(job: _Job, sidecar: _Sidecar, rows: NDArray[Any]) -> PixelCache | str:
    size, path = job.preprocessing.image_size, job.folder / sidecar.pixels
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        return f"{path.name} cannot be opened ({error.strerror})"
    cache = PixelCache(job.folder, size, rows, descriptor, len(_header(len(rows), size)))
    weakref.finalize(cache, os.close, descriptor)
    return _spot_check(job, cache) or cache


def _spot_check(job: _Job, cache: PixelCache) -> str:
    """Why rows read again differ; an empty text where they do not."""
    held = np.flatnonzero(cache.rows["held"])
    if len(held):
        for row in np.unique(held[np.linspace(0, len(held) - 1, _SPOT_CHECKS).astype(int)]).tolist():
            pixels = cache._intact(row)
            if pixels is None or not np.array_equal(pixels, job.load(row)):
                return f"{job.manifest.paths[row]}, read again, gives other pixels"
    readable = len(cache.not_held) - len(_errors(job, cache))
    return f"{readable} images can be read that could not" if readable else ""


def _errors(job: _Job, cache: PixelCache) -> tuple[str, ...]:
    """What is wrong with each image that is not held, read again."""
    results = read_ahead(
        cache.not_held.tolist(), job.load, job.reading.workers, timeout=job.reading.timeout, name_of=job.name_of
    )
    return tuple(result.message for _, result in results if isinstance(result, CxrError))


def _make_room(job: _Job) -> None:
    """Take away what is not trusted, then refuse a disk that is too full."""
    (job.folder / SIDECAR_NAME).unlink(missing_ok=True)
    _sweep(job.folder)
    free = shutil.disk_usage(job.folder).free
    needed = job.pixel_bytes + len(job.manifest) * _ROW.itemsize
    if free < needed:
        raise RequestError(
            f"the cache of {len(job.manifest):,} images at {job.preprocessing.image_size} px takes "
            f"{needed / 1e9:.1f} GB, and {job.folder} has {free / 1e9:.1f} GB free",
            _ELSEWHERE,
        )


def _sweep(folder: Path) -> int:
    """Remove pixels, rows and what killed builds left; the bytes that were freed."""
    freed = 0
    for path in [path for pattern in _OURS for path in folder.glob(pattern)]:
        freed += path.stat().st_size
        path.unlink()
    return freed


def _header(images: int, image_size: int) -> bytes:
    """The .npy header of [images, image_size, image_size] uint8."""
    text = io.BytesIO()
    shape = (images, image_size, image_size)
    np.lib.format.write_array_header_1_0(text, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return text.getvalue()


def _build(job: _Job) -> tuple[str, ...]:
    """Read every image and write the three files; what is wrong with those that cannot be read."""
    token = secrets.token_hex(4)
    names = f"pixels-{token}.npy", f"rows-{token}.npy"
    # Before the images are read: a file that changes meanwhile has another stamp when the cache is next opened.
    rows = np.zeros(len(job.manifest), dtype=_ROW)
    stamps = _stamps(job)
    rows["size"], rows["mtime_ns"] = stamps[:, 0], stamps[:, 1]
    path = job.folder / names[0]
    try:
        with path.open("xb", buffering=0) as file:
            file.write(_header(len(rows), job.preprocessing.image_size))
            unreadable = _write_pixels(job, file, rows)
            os.fsync(file.fileno())
        packed = io.BytesIO()
        np.save(packed, rows)
        write_bytes(job.folder / names[1], packed.getvalue())
        sidecar = _Sidecar(
            format=_FORMAT,
            root=str(job.manifest.root),
            split=job.manifest.split,
            views=job.views,
            sheet=job.manifest.sheet.name,
            sheet_sha256=job.manifest.sheet_sha256,
            image_size=job.preprocessing.image_size,
            resize=job.preprocessing.resize,
            reader=reader(),
            images=len(rows),
            paths_sha256=_paths_sha256(job.manifest),
            pixels=names[0],
            pixels_bytes=path.stat().st_size,
            rows=names[1],
            rows_sha256=hashlib.sha256(packed.getvalue()).hexdigest(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_text(job.folder / SIDECAR_NAME, sidecar.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise CxrError(f"cannot write the cache {path}: {error.strerror or error}", _ELSEWHERE) from None
    finally:
        if not (job.folder / SIDECAR_NAME).exists():
            _sweep(job.folder)
    return unreadable


def _write_pixels(job: _Job, file: BinaryIO, rows: NDArray[Any]) -> tuple[str, ...]:
    # Written, not put through a memory map: on a full disk a write raises an error, a map ends the process.
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
            _stop_if_asked(job.stop, f"building {job.folder}")
    finally:
        results.close()
    return tuple(unreadable)


def _write_all(file: BinaryIO, content: memoryview) -> None:
    """A raw file may take less than it is given, when the disk has just become full."""
    content = content.cast("B")
    while content:
        content = content[file.write(content) :]
