"""Cache of decoded pixels of a split on disk, so that images are decoded once for all epochs, policies and seeds.

A cache is a folder with three files: ``pixels-<token>.npy`` ([N, S, S] uint8, a row per image), ``rows-<token>.npy``
(size and modification time of each image file, and a checksum of its pixels) and ``cache.json``, which names the two
and describes their source. ``cache.json`` is written last and atomically, so a killed process leaves none that is read.
"""

import hashlib
import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from cxrtool.data.cache_build import build_cache, prepare_folder, sweep_cache
from cxrtool.data.cache_check import find_cache, read_errors
from cxrtool.data.cache_files import LOCK_NAME, CacheJob, stop_if_asked
from cxrtool.data.manifest import Manifest
from cxrtool.data.pixel_cache import SIDECAR_NAME, PixelCache
from cxrtool.data.radiograph import Reading
from cxrtool.errors import CxrError, RequestError
from cxrtool.locks import open_locked
from cxrtool.progress import ProgressCallback, StopSignal, ignore_progress, never_stop
from cxrtool.settings import DataSettings

log = logging.getLogger(__name__)

CACHE_NAME = ".cxr-cache"


@dataclass(frozen=True)
class CacheResult:
    """Result of `open_cache`.

    Attributes:
        cache: the open cache.
        state: ``valid``, ``built``, or ``rebuilt``.
        reason: why it was rebuilt; empty if it was not.
        size: bytes on disk.
        seconds: duration of checking and building.
        unreadable: error message of each image that could not be read.
    """

    cache: PixelCache
    state: str
    reason: str
    size: int
    seconds: float
    unreadable: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Return a dict ready for JSON, as printed by ``cxr cache --json``."""
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
    """Return the folder for the caches of a data set: DATA/.cxr-cache, or its own folder in `data.cache_dir`.

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
    """Open the cache of a manifest's pixels; build it first if there is no valid one.

    A cache is valid if sheet, views, image files (path, size and modification time), image size and reader are the same
    as when it was built, its files are complete, and a few images, read again, have the same pixels. If several
    processes open it at once, one builds it and the others wait.

    Args:
        manifest: usable rows of a split.
        data: folder of the cache, and the views.
        reading: preprocessing, threads and timeout.
        progress: called while it is built.
        stop: called while waiting and building; see `StopSignal`.

    Raises:
        RequestError: the folder is not writable or has too little free space; nothing was built.
        CxrError: writing failed.
        InterruptedWorkError: `stop` returned a signal; nothing is saved.
    """
    began = time.perf_counter()
    folder = caches_folder(data) / f"{manifest.split}-{data.views}-{reading.preprocessing.image_size}px"
    job = CacheJob(folder, manifest, data.views.value, reading, progress, stop)
    try:
        with _lock_when_free(folder, stop):
            found = find_cache(job)
            if isinstance(found, str):
                prepare_folder(job)
                if found:
                    log.warning("%s is rebuilt: %s", folder, found)
                unreadable = build_cache(job)
                opened = find_cache(job)
                if isinstance(opened, str):
                    raise CxrError(f"{folder} is invalid directly after writing: {opened}", "Check the disk.")
                cache, state, reason = opened, "rebuilt" if found else "built", found
            else:
                cache, state, reason = found, "valid", ""
                unreadable = read_errors(job, cache)
    except OSError as error:
        # A read-only data folder may contain a valid cache that cannot be locked.
        shared = find_cache(job)
        if isinstance(shared, str):
            message = f"cannot write the cache {folder}: {error.strerror or error}"
            raise RequestError(message, "Choose another folder with --cache-dir.") from None
        cache, state, reason, unreadable = shared, "valid", "", read_errors(job, shared)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return CacheResult(cache, state, reason, size, time.perf_counter() - began, unreadable)


def remove_caches(data: DataSettings) -> int:
    """Remove all caches of a data set, but no other files; return the number of bytes freed.

    A process that reads a cache can continue, because its file stays available while it is open.

    Raises:
        RequestError: another process is building a cache, or a file cannot be removed.
    """
    place, freed = caches_folder(data), 0
    try:
        for folder in sorted(path.parent for path in place.glob(f"*/{LOCK_NAME}")):
            with _lock_or_refuse(folder):
                freed += sweep_cache(folder)
                for name in (SIDECAR_NAME, LOCK_NAME):
                    (folder / name).unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()
        with suppress(OSError):
            place.rmdir()
    except OSError as error:
        raise RequestError(f"cannot remove {place}: {error.strerror}", "Check permissions.") from None
    return freed


def _lock_when_free(folder: Path, stop: StopSignal) -> TextIO:
    """Lock the folder; wait while another process is building."""
    waited = False

    def wait() -> None:
        nonlocal waited
        if not waited:
            log.warning("another process is building %s; waiting for it", folder)
            waited = True
        stop_if_asked(stop, f"waiting for {folder}")
        time.sleep(0.1)

    return open_locked(folder / LOCK_NAME, wait)


def _lock_or_refuse(folder: Path) -> TextIO:
    def refuse() -> None:
        raise RequestError(f"another process is building {folder}", "Wait for it to finish.")

    return open_locked(folder / LOCK_NAME, refuse)
