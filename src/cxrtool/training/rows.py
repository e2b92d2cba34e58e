"""The rows that a run was started with, so that it can go on when rows of unreadable images were taken out."""

import gzip
import io
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrtool.data.images import read
from cxrtool.data.labels import encode_labels
from cxrtool.data.manifest import Manifest
from cxrtool.errors import ImageError, RequestError
from cxrtool.files import write_bytes
from cxrtool.findings import Findings
from cxrtool.training.loss import positive_weights
from cxrtool.training.run import Run, Split

log = logging.getLogger(__name__)

_IDENTITY = ("path", "patient", "study")
_EXAMPLES = 3
_ROWS_AT_ONCE = 10_000
"""Rows written at once: the text of all of CheXpert's would take 100 MB for a moment."""


def write_rows(folder: Path, manifest: Manifest) -> None:
    """Write path, patient, study and raw labels of each row to ``rows-<split>.csv.gz``, which later calls read."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as file:
        for start in range(0, len(manifest), _ROWS_AT_ONCE):
            part = manifest.select(np.arange(start, min(start + _ROWS_AT_ONCE, len(manifest))))
            file.write(_frame(part).to_csv(index=False, header=start == 0).encode())
    write_bytes(_path(folder, manifest.split), packed.getvalue())


def _path(folder: Path, split: str) -> Path:
    return folder / f"rows-{split}.csv.gz"


def _frame(manifest: Manifest) -> pd.DataFrame:
    columns = dict(zip(_IDENTITY, (manifest.paths, manifest.patients, manifest.studies), strict=True))
    labels = {finding: manifest.raw_labels[:, column] for column, finding in enumerate(manifest.findings)}
    return pd.DataFrame(columns | labels)


def match_rows(run: Run, before: dict[str, Any]) -> Run:
    """Return `run` with its rows numbered as when it was started, if only rows of unreadable images went.

    The order of images, augmentation and weights of the loss then stay those of the rows at the start, so that a run
    goes on as if the images had been skipped.

    Args:
        run: a run to continue, with the rows that the sheets have now.
        before: fingerprint of the run when it was started.

    Raises:
        RequestError: other rows were removed, rows were added, or labels or patients have changed.
    """
    names = [f"{split} {what}" for split in ("train", "valid") for what in ("sheet", "images")]
    if any(before.get(key) != value for key, value in run.fingerprint.items() if key not in names):
        return run  # it cannot go on anyway, and the caller names all differences
    train, valid = (_matched(run, split, before) for split in (run.train, run.valid))
    if train is run.train and valid is run.valid:
        return run
    fingerprint = run.fingerprint | {name: before[name] for name in names}
    return replace(run, train=train, valid=valid, pos_weight=_weights_at_start(run), fingerprint=fingerprint)


def _matched(run: Run, split: Split, before: dict[str, Any]) -> Split:
    manifest = split.manifest
    now, name = run.fingerprint, manifest.split
    if all(before.get(f"{name} {what}") == now[f"{name} {what}"] for what in ("sheet", "images")):
        return split
    if not _path(run.folder, name).is_file():  # a run of an earlier version
        return split
    started, current = _read_rows(run.folder, name, manifest.findings), _frame(manifest)
    place = pd.Series(np.arange(len(started)), index=started["path"])
    numbers = place.reindex(current["path"]).to_numpy()
    added = np.isnan(numbers)
    if added.any():
        raise _changed(run, name, current["path"][added], "are new")
    rows: NDArray[np.int64] = numbers.astype(np.int64)
    equal = _equal(started.iloc[rows].reset_index(drop=True), current, manifest.findings)
    if not equal.all():
        raise _changed(run, name, current["path"][~equal], "have another label, patient or study")
    removed = np.setdiff1d(np.arange(len(started)), rows)
    readable = [path for path in started["path"].iloc[removed] if _can_be_read(run, manifest, path)]
    if readable:
        raise _changed(run, name, readable, "were removed although their images can be read")
    examples = ", ".join(started["path"].iloc[removed[:_EXAMPLES]])
    log.warning(
        "%s has changed since the run was started: %s; going on",
        manifest.sheet.name,
        f"{len(removed)} rows of unreadable images are gone ({examples})" if len(removed) else "its rows are the same",
    )
    return replace(split, numbers=rows, total=len(started))


def _read_rows(folder: Path, split: str, findings: Findings) -> pd.DataFrame:
    path = _path(folder, split)
    try:
        text = gzip.decompress(path.read_bytes())
        kinds: dict[str, Any] = dict.fromkeys(_IDENTITY, str) | dict.fromkeys(findings, np.float32)
        frame = pd.read_csv(
            io.BytesIO(text), dtype=kinds, keep_default_na=False, na_values={name: [""] for name in findings}
        )
        return frame[[*_IDENTITY, *findings]]
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise RequestError(f"{path} cannot be read ({error})", "Start a new run with --out.") from None


def _equal(started: pd.DataFrame, current: pd.DataFrame, findings: Findings) -> NDArray[np.bool_]:
    same = np.ones(len(current), dtype=np.bool_)
    for name in _IDENTITY:
        same &= started[name].to_numpy(dtype=object) == current[name].to_numpy(dtype=object)
    labels = [frame[list(findings)].to_numpy(dtype=np.float32) for frame in (started, current)]
    found: NDArray[np.bool_] = same & ((labels[0] == labels[1]) | (np.isnan(labels[0]) & np.isnan(labels[1]))).all(
        axis=1
    )
    return found


def _can_be_read(run: Run, manifest: Manifest, path: str) -> bool:
    try:
        read(manifest.root / path, manifest.fence, run.reading.preprocessing.image_size, limits=run.reading.limits)
    except ImageError:
        return False
    return True


def _changed(run: Run, split: str, paths: Any, what: str) -> RequestError:
    named = [str(path) for path in paths]
    return RequestError(
        f"{run.folder} was started with another {split} sheet: {len(named)} rows {what} "
        f"({', '.join(named[:_EXAMPLES])})",
        "Resume with the same sheet, without rows of unreadable images if you like, or start a new run with --out.",
    )


def _weights_at_start(run: Run) -> NDArray[np.float32] | None:
    if run.pos_weight is None:
        return None
    settings = run.settings
    findings = run.train.manifest.findings
    raw = _read_rows(run.folder, "train", findings)[list(findings)].to_numpy(dtype=np.float32)
    targets, mask = encode_labels(raw, settings.train.uncertainty.of(findings), settings.data.blank)
    weights, _ = positive_weights(targets, mask, settings.train.pos_weight_clip)
    return weights
