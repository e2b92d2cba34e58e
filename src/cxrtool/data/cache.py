"""Decoded pixels of a split on disk, so that a second epoch, policy or seed decodes nothing.

A cache is a folder of three files: ``pixels-<token>.npy`` ([N, S, S] uint8, a row per image), ``rows-<token>.npy``
(what each file was when it was read, and a checksum of its pixels) and ``cache.json``, which names the two and says
what they were made from. ``cache.json`` is written last and in one step: what it does not name is not trusted,
whatever was killed when.
"""

import hashlib
import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from cxrtool.data.cache_build import build_cache, make_room, sweep_cache
from cxrtool.data.cache_check import errors_of, find_cache
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
    job = CacheJob(folder, manifest, data.views.value, reading, progress, stop)
    try:
        with _lock_when_free(folder, stop):
            found = find_cache(job)
            if isinstance(found, str):
                make_room(job)
                if found:
                    log.warning("%s is built anew: %s", folder, found)
                unreadable = build_cache(job)
                opened = find_cache(job)
                if isinstance(opened, str):
                    raise CxrError(f"{folder} does not hold what was written: {opened}", "Check the disk.")
                cache, state, reason = opened, "rebuilt" if found else "built", found
            else:
                cache, state, reason = found, "valid", ""
                unreadable = errors_of(job, cache)
    except OSError as error:
        # A data folder of somebody else's may hold a cache that is good and cannot be locked.
        shared = find_cache(job)
        if isinstance(shared, str):
            told = f"cannot write the cache {folder}: {error.strerror or error}"
            raise RequestError(told, "Name another place with --cache-dir.") from None
        cache, state, reason, unreadable = shared, "valid", "", errors_of(job, shared)
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
        raise RequestError(f"cannot remove {place}: {error.strerror}", "Check the folder's rights.") from None
    return freed


def _lock_when_free(folder: Path, stop: StopSignal) -> TextIO:
    """The folder's lock, waited for while another process builds."""
    waited = False

    def wait() -> None:
        nonlocal waited
        if not waited:
            log.warning("another process builds %s: waiting for it", folder)
            waited = True
        stop_if_asked(stop, f"waiting for {folder}")
        time.sleep(0.1)

    return open_locked(folder / LOCK_NAME, wait)


def _lock_or_refuse(folder: Path) -> TextIO:
    def refuse() -> None:
        raise RequestError(f"another process builds {folder}", "Wait for it.")

    return open_locked(folder / LOCK_NAME, refuse)
