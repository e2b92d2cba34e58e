"""Check that the cache in a folder still matches its radiographs."""

import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from cxrtool.data.cache_files import FORMAT, CacheJob, Sidecar, digest_of_paths, pixels_header, stamps_of
from cxrtool.data.images import reader
from cxrtool.data.pixel_cache import SIDECAR_NAME, PixelCache
from cxrtool.data.read_ahead import read_ahead
from cxrtool.errors import CxrError
from cxrtool.files import sha256_of_file

_SPOT_CHECKS = 8


def find_cache(job: CacheJob) -> PixelCache | str:
    """Return the cache in the folder, or the reason why it is invalid; the reason is empty if there is no cache."""
    try:
        sidecar = Sidecar.model_validate_json((job.folder / SIDECAR_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, ValidationError):
        return f"{SIDECAR_NAME} cannot be read"
    manifest = job.manifest
    expected = {
        "format": (FORMAT, "it has another version"),
        "views": (job.views, "other views are requested"),
        "image_size": (job.preprocessing.image_size, "another image size is requested"),
        "resize": (job.preprocessing.resizing, "the preprocessing has changed"),
        "reader": (reader(), f"the image reader has changed to {reader()}"),
        "sheet_sha256": (manifest.sheet_sha256, f"{manifest.sheet.name} has changed"),
        "images": (len(manifest), f"it has {sidecar.images} images, not {len(manifest)}"),
        "paths_sha256": (digest_of_paths(manifest), "its images are different or in another order"),
        "pixels_bytes": (_size(job.folder / sidecar.pixels), "its pixels are incomplete or missing"),
    }
    for name, (value, reason) in expected.items():
        if getattr(sidecar, name) != value:
            return reason
    rows = _read_rows(job.folder / sidecar.rows, sidecar.rows_sha256)
    if rows is None:
        return f"{sidecar.rows} is damaged or missing"
    return _changed_files(rows, job) or _open_pixels(job, sidecar, rows)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _read_rows(path: Path, sha256: str) -> NDArray[Any] | None:
    try:
        if sha256_of_file(path) != sha256:
            return None
        rows: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return rows


def _changed_files(rows: NDArray[Any], job: CacheJob) -> str:
    stamps = stamps_of(job)
    changed = np.flatnonzero((rows["size"] != stamps[:, 0]) | (rows["mtime_ns"] != stamps[:, 1]))
    if not len(changed):
        return ""
    return f"{len(changed)} of {len(rows)} files have changed; the first is {job.manifest.paths[changed[0]]}"


def _open_pixels(job: CacheJob, sidecar: Sidecar, rows: NDArray[Any]) -> PixelCache | str:
    size, path = job.preprocessing.image_size, job.folder / sidecar.pixels
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        return f"{path.name} cannot be opened ({error.strerror})"
    cache = PixelCache(job.folder, size, rows, descriptor, len(pixels_header(len(rows), size)))
    weakref.finalize(cache, os.close, descriptor)
    return _spot_check(job, cache) or cache


def _spot_check(job: CacheJob, cache: PixelCache) -> str:
    """Read a few images again; return how they differ from the cache, or an empty text."""
    held = np.flatnonzero(cache.rows["held"])
    if len(held):
        for row in np.unique(held[np.linspace(0, len(held) - 1, _SPOT_CHECKS).astype(int)]).tolist():
            pixels = cache.read_verified(row)
            if pixels is None or not np.array_equal(pixels, job.load(row)):
                return f"{job.manifest.paths[row]} has other pixels when read again"
    readable = len(cache.unreadable_rows) - len(read_errors(job, cache))
    return f"{readable} images that could not be read before can be read now" if readable else ""


def read_errors(job: CacheJob, cache: PixelCache) -> tuple[str, ...]:
    """Read the images that are missing in the cache again; return their error messages."""
    results = read_ahead(
        cache.unreadable_rows.tolist(), job.load, job.reading.workers, timeout=job.reading.timeout, name_of=job.name_of
    )
    return tuple(result.message for _, result in results if isinstance(result, CxrError))
