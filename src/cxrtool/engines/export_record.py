"""Exported networks beside a bundle: their files' names, what is said of each, and whether it is still the bundle's.

Nothing here imports a runtime: looking for an export costs a few stats, and a digest of what is found.
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
_RUNS_WITH = {ExportFormat.ONNX: "onnxruntime", ExportFormat.OPENVINO: "openvino", ExportFormat.TORCH_EXPORT: "torch"}
_ALSO_WRITTEN_WITH = {ExportFormat.ONNX: ("onnx", "onnxscript")}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Pixels(_Part):
    """The graph's input."""

    name: Literal["pixels"] = "pixels"
    dtype: Literal["uint8"] = "uint8"
    shape: tuple[Literal["batch"], int, int, int]
    meaning: str = "grey levels, 0 black, resized to this size; normalisation is part of the graph"


class Check(_Part):
    """How the written file, read again, agreed with torch in float32.

    Attributes:
        largest_difference: in probability.
        allowed: above it, nothing is written.
        images: phantoms that it was checked on.
    """

    largest_difference: float
    allowed: float
    images: int


class CalibratedOn(_Part):
    """The radiographs whose activations gave int8 its ranges."""

    folder: str
    images: int


class ExportRecord(_Part):
    """What lies beside an exported network, as JSON.

    Attributes:
        files: SHA-256 by name of each file of the export, the first to be opened.
        weights_sha256: of the bundle that it was made from.
        findings: in the order of the outputs' columns.
        thresholds: a finding is positive at or above its own, on `probabilities`; None where the bundle has none.
        calibration: a calibrated probability is sigmoid(slope * logit + intercept); by finding, None where the bundle
            has none; not part of the graph.
        outputs: names of the two outputs, [batch, 5] float32.
        int8: what it was calibrated on, None in float32.
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
        """A name is a name and no way out of the folder."""
        for name in files:
            if name in ("", ".", "..") or any(mark in name for mark in "/\\\0"):
                raise ValueError(f"{name!r} is no file's name")
        return files


@dataclass(frozen=True)
class Export:
    """An exported network.

    Attributes:
        path: the file to open.
        record: what is said of it.
    """

    path: Path
    record: ExportRecord


def export_name(kind: ExportFormat, precision: Precision) -> str:
    """The name of the file to open: ``openvino-int8.xml``."""
    return f"{kind}-{precision}{_SUFFIXES[kind]}"


def record_path(path: Path) -> Path:
    """Where the record of the export at `path` lies."""
    return path.with_suffix(".json")


def read_export(path: Path) -> Export | None:
    """The export whose file to open is `path`; None where it, its record or its digest is missing or wrong."""
    try:
        if not _is_plain(record_path(path)):
            return None
        record = ExportRecord.model_validate(json.loads(record_path(path).read_text(encoding="utf-8")))
        whole = all(_is_whole(path.parent / name, digest) for name, digest in record.files.items())
    except (OSError, ValueError, RecursionError):  # pydantic's refusal is a ValueError
        return None
    return Export(path, record) if whole and path.name in record.files else None


def _is_whole(file: Path, digest: str) -> bool:
    if not _is_plain(file):
        return False
    status = file.lstat()
    return _sha256_of(file, (status.st_ino, status.st_size, status.st_mtime_ns)) == digest


@lru_cache(maxsize=16)
def _sha256_of(file: Path, _stamp: tuple[int, int, int]) -> str:
    """The file's digest; taken once until it is written, as who makes an export looks before who opens it."""
    return sha256_of_file(file)


def _is_plain(file: Path) -> bool:
    """A file itself: a link is not followed, and a device or pipe not opened."""
    return stat.S_ISREG(file.lstat().st_mode)


def find_export(bundle: Bundle, kind: ExportFormat, precision: Precision) -> Export | None:
    """The bundle's export, whole, whether or not it still `is_of` it; None where there is none."""
    return read_export(bundle.exports / export_name(kind, precision))


def export_for(bundle: Bundle, backend: Backend, precision: Precision) -> Export | str:
    """The export that `backend` reads; else what keeps it from being read, with its path."""
    kind = FORMAT_OF[backend]
    kept = Precision.INT8 if precision is Precision.INT8 else Precision.FP32
    place = bundle.exports / export_name(kind, kept)
    found = read_export(place)
    if found is None:
        return f"{place} is damaged" if place.exists() else f"{place} is not there"
    return found if is_of(found, bundle) else f"{place} was made from other weights"


def is_of(export: Export, bundle: Bundle) -> bool:
    """Whether `export` was made from the weights and the preprocessing of this bundle."""
    record, header = export.record, bundle.header
    same = record.preprocessing == json.loads(json.dumps(header.preprocessing))
    return same and record.weights_sha256 == header.weights_sha256 and record.findings == header.findings


def can_run(kind: ExportFormat) -> bool:
    """Whether what runs `kind` is installed; nothing is imported."""
    return _is_here(_RUNS_WITH[kind])


def refuse_without_library(kind: ExportFormat, writing: bool = False, int8: bool = False) -> None:
    """Refuse where what runs `kind`, and writes it, is not installed.

    Raises:
        RequestError: with the line that installs it.
    """
    for name in _libraries(kind, writing, int8):
        if not _is_here(name):
            raise RequestError(f"{kind} needs {name}, which is not installed", f"pip install 'cxrtool[{kind}]'")


def installed(kind: ExportFormat, int8: bool = False) -> bool:
    """Whether all that writes and runs `kind` is here."""
    return all(_is_here(name) for name in _libraries(kind, True, int8))


def _libraries(kind: ExportFormat, writing: bool, int8: bool) -> tuple[str, ...]:
    also = _ALSO_WRITTEN_WITH.get(kind, ()) if writing else ()
    return (_RUNS_WITH[kind], *also, *(("nncf",) if int8 else ()))


def _is_here(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # a module without a spec
        return False


def library_versions(kind: ExportFormat, int8: bool) -> dict[str, str]:
    """Version by name of what writes `kind`."""
    return {name: version(name) for name in _libraries(kind, True, int8)}
