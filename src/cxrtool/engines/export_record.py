"""Exported networks beside a bundle: file names, records, and whether an export still matches the bundle.

No runtime is imported here, so looking for an export is fast.
"""

import json
import stat
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from cxrtool.choices import Backend, ExportFormat, Precision
from cxrtool.errors import RequestError
from cxrtool.evaluation.calibration import Scaling
from cxrtool.files import sha256_of_file
from cxrtool.model.bundle import Bundle

FORMAT_OF = {Backend.ONNX: ExportFormat.ONNX, Backend.OPENVINO: ExportFormat.OPENVINO}
_SUFFIXES = {ExportFormat.ONNX: ".onnx", ExportFormat.OPENVINO: ".xml", ExportFormat.TORCH_EXPORT: ".pt2"}
_RUNTIMES = {ExportFormat.ONNX: "onnxruntime", ExportFormat.OPENVINO: "openvino", ExportFormat.TORCH_EXPORT: "torch"}
_WRITERS = {ExportFormat.ONNX: ("onnx", "onnxscript")}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Pixels(_Part):
    """Input of the graph."""

    name: Literal["pixels"] = "pixels"
    dtype: Literal["uint8"] = "uint8"
    shape: tuple[Literal["batch"], int, int, int]
    meaning: str = "grey levels, 0 black, resized to this size; normalisation is part of the graph"


class Check(_Part):
    """Comparison of the written file with torch in float32.

    Attributes:
        largest_difference: largest difference in probability.
        allowed: largest difference at which an export is kept.
        images: number of phantoms used.
    """

    largest_difference: float
    allowed: float
    images: int


class CalibratedOn(_Part):
    """Radiographs that determined the ranges of activations in int8."""

    folder: str
    images: int


class ExportRecord(_Part):
    """Content of the JSON file beside an exported network.

    Attributes:
        files: SHA-256 of each file of the export, by name; the first is the one to open.
        weights_sha256: digest of the weights in the bundle.
        findings: findings in the order of the output columns.
        thresholds: probability at or above which each finding is positive; None if the bundle has none.
        calibration: slope and intercept of each finding: a calibrated probability is sigmoid(slope * logit +
            intercept). Not part of the graph. None if the bundle has none.
        outputs: names of the two outputs, [batch, 5] float32.
        int8: radiographs that it was calibrated on; None in float32.
    """

    format: ExportFormat
    precision: Precision
    files: dict[str, str]
    weights_sha256: str
    findings: tuple[str, ...]
    thresholds: dict[str, float] | None
    calibration: dict[str, Scaling] | None
    image_size: int
    preprocessing: dict[str, Any]
    input: Pixels
    outputs: tuple[Literal["logits"], Literal["probabilities"]] = ("logits", "probabilities")
    check: Check
    int8: CalibratedOn | None
    versions: dict[str, str]
    created: str
    intended_use: str

    @field_validator("files")
    @classmethod
    def _files_lie_beside(cls, files: dict[str, str]) -> dict[str, str]:
        """Refuse file names that would lead out of the folder."""
        for name in files:
            if name in ("", ".", "..") or any(mark in name for mark in "/\\\0"):
                raise ValueError(f"{name!r} is not a file name")
        return files


@dataclass(frozen=True)
class Export:
    """An exported network.

    Attributes:
        path: file to open.
        record: its description.
    """

    path: Path
    record: ExportRecord


def export_name(kind: ExportFormat, precision: Precision) -> str:
    """Return the name of the file to open, such as ``openvino-int8.xml``."""
    return f"{kind}-{precision}{_SUFFIXES[kind]}"


def record_path(path: Path) -> Path:
    """Return the path of the record of the export at `path`."""
    return path.with_suffix(".json")


def read_export(path: Path) -> Export | None:
    """Read the export at `path`; return None if it is missing, or its files do not match its record."""
    try:
        if not _is_regular_file(record_path(path)):
            return None
        record = ExportRecord.model_validate(json.loads(record_path(path).read_text(encoding="utf-8")))
        whole = all(_has_digest(path.parent / name, digest) for name, digest in record.files.items())
    except (OSError, ValueError, RecursionError):  # pydantic's ValidationError is a ValueError
        return None
    return Export(path, record) if whole and path.name in record.files else None


def _has_digest(file: Path, digest: str) -> bool:
    if not _is_regular_file(file):
        return False
    status = file.lstat()
    return _sha256_of(file, (status.st_ino, status.st_size, status.st_mtime_ns)) == digest


@lru_cache(maxsize=16)
def _sha256_of(file: Path, _stamp: tuple[int, int, int]) -> str:
    """Return the file's digest, computed once per version of the file: it is checked before export and on opening."""
    return sha256_of_file(file)


def _is_regular_file(file: Path) -> bool:
    """Whether this is a regular file and not a link, a device or a pipe."""
    return stat.S_ISREG(file.lstat().st_mode)


def find_export(bundle: Bundle, kind: ExportFormat, precision: Precision) -> Export | None:
    """Return the export beside the bundle, even if it was made from other weights; None if there is none."""
    return read_export(bundle.exports / export_name(kind, precision))


def export_for(bundle: Bundle, backend: Backend, precision: Precision) -> Export | str:
    """Return the export that `backend` reads, or a sentence with its path that says why it cannot be used."""
    kind = FORMAT_OF[backend]
    kept = Precision.INT8 if precision is Precision.INT8 else Precision.FP32
    place = bundle.exports / export_name(kind, kept)
    found = read_export(place)
    if found is None:
        return f"{place} is damaged" if place.exists() else f"{place} does not exist"
    return found if is_made_from(found, bundle) else f"{place} was made from other weights"


def is_made_from(export: Export, bundle: Bundle) -> bool:
    """Whether `export` was made from the weights and the preprocessing of this bundle."""
    record, header = export.record, bundle.header
    same = record.preprocessing == json.loads(json.dumps(header.preprocessing))
    return same and record.weights_sha256 == header.weights_sha256 and record.findings == header.findings


def can_run(kind: ExportFormat) -> bool:
    """Whether the library that runs `kind` is installed; nothing is imported."""
    return _is_installed(_RUNTIMES[kind])


def refuse_without_library(kind: ExportFormat, writing: bool = False, int8: bool = False) -> None:
    """Check that the libraries that run `kind`, and if `writing` write it, are installed.

    Raises:
        RequestError: a library is missing; the advice says how to install it.
    """
    for name in _libraries(kind, writing, int8):
        if not _is_installed(name):
            raise RequestError(f"{kind} needs {name}, which is not installed", f"Run pip install 'cxrtool[{kind}]'.")


def installed(kind: ExportFormat, int8: bool = False) -> bool:
    """Whether all libraries that write and run `kind` are installed."""
    return all(_is_installed(name) for name in _libraries(kind, True, int8))


def _libraries(kind: ExportFormat, writing: bool, int8: bool) -> tuple[str, ...]:
    also = _WRITERS.get(kind, ()) if writing else ()
    return (_RUNTIMES[kind], *also, *(("nncf",) if int8 else ()))


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # a module without a spec
        return False


def library_versions(kind: ExportFormat, int8: bool) -> dict[str, str]:
    """Return the versions of the libraries that write `kind`, by name."""
    return {name: version(name) for name in _libraries(kind, True, int8)}
