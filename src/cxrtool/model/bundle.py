"""One model, one file: weights and everything needed to use them, as safetensors with a JSON header.

A safetensors file contains a length, a JSON header and raw numbers, so reading an untrusted file runs no code. Pickles
are read only in `cxrtool.model.foreign`, for weights only.
"""

import hashlib
import io
import json
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from cxrtool.choices import Blank, CalibrationMethod, Criterion
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.errors import CxrError, ModelError
from cxrtool.evaluation.calibration import Scaling
from cxrtool.evaluation.thresholds import ThresholdOrigin, threshold_grid
from cxrtool.files import to_json, write_bytes
from cxrtool.findings import FINDINGS
from cxrtool.model.densenet import ChestNet
from cxrtool.settings import FINEST_STEP

BUNDLE_NAME = "model.safetensors"
EXPORTS_NAME = "export"
"""Folder beside a bundle with its exports."""
FORMAT_VERSION = 2
"""Version 1 had no digest of the header."""
DEFAULT_THRESHOLD = 0.5
_KEY, _DIGEST_KEY = "cxrtool", "cxrtool-sha256"
_LARGEST_HEADER = 16 * 2**20
_LARGEST_FILE = 64 * 2**20
"""More than the largest header and the weights; a larger file is not a bundle and is not read further."""
_TYPES = {torch.float32: "F32", torch.int64: "I64"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tuning(_Part):
    """How thresholds were chosen; `minimum`, `maximum` and `step` define the grid."""

    criterion: Criterion
    target: float | None = None
    minimum: float = Field(default=0.05, ge=0, le=1)
    maximum: float = Field(default=0.95, ge=0, le=1)
    step: float = Field(default=0.01, ge=FINEST_STEP, le=0.5)
    split: str
    level: str
    rows: int
    sheet_sha256: str

    @property
    def origin(self) -> ThresholdOrigin:
        """The same as a `ThresholdOrigin`."""
        grid = threshold_grid(self.minimum, self.maximum, self.step)
        return ThresholdOrigin(self.split, self.sheet_sha256, self.criterion, self.target, grid)


class StoredCalibration(_Part):
    """Calibration of all findings, and the data it was fitted on."""

    method: CalibrationMethod
    scalings: dict[str, Scaling]
    split: str
    level: str
    rows: int
    sheet_sha256: str

    @field_validator("scalings")
    @classmethod
    def _scalings_fit(cls, scalings: dict[str, Scaling]) -> dict[str, Scaling]:
        if set(scalings) != set(FINDINGS):
            raise ValueError(f"scalings are for {', '.join(scalings)}, not for the five findings")
        return scalings


class StoredLocalization(_Part):
    """How well a method's heatmaps of this model locate findings: the mean over images, by finding."""

    method: str
    truth: str
    split: str
    sheet_sha256: str
    images: dict[str, int]
    hit_rate: dict[str, float]
    iou: dict[str, float]


class SplitDigest(_Part):
    """Description of a split that a model was trained or validated on."""

    sheet: str
    sheet_sha256: str
    images: int
    patients: int
    studies: int


class BundleHeader(_Part):
    """Header of a bundle.

    Attributes:
        findings: findings in the order of the network's outputs.
        preprocessing: parameters of `preprocess` and of the network's normalisation.
        policy: uncertainty policy of the training.
        thresholds: raw probability at or above which each finding is positive; None before `cxr tune`.
        tuning: how the thresholds were chosen.
        calibration: calibration of probabilities; None before `cxr calibrate`.
        localization: how well heatmaps locate findings, by method; empty before `cxr localize`.
        training: resolved settings of the run.
        data: train and valid sheets with their digests.
        metrics: metrics of the chosen epoch on valid.
        weights_sha256: digest of names, shapes, types and numbers of all tensors.
    """

    format_version: int = Field(default=FORMAT_VERSION, ge=1)
    architecture: Literal["densenet121"] = "densenet121"
    findings: tuple[str, ...]
    preprocessing: dict[str, Any]
    policy: str
    blank: Blank
    views: str
    thresholds: dict[str, float] | None = None
    tuning: Tuning | None = None
    calibration: StoredCalibration | None = None
    localization: tuple[StoredLocalization, ...] = ()
    training: dict[str, Any]
    data: dict[str, SplitDigest]
    pos_weight: dict[str, float] | None
    metrics: dict[str, Any]
    versions: dict[str, str]
    run: str
    created: str
    weights_sha256: str = ""
    intended_use: str = Field(default="Research software, not a medical device.")

    @field_validator("thresholds")
    @classmethod
    def _thresholds_fit(cls, thresholds: dict[str, float] | None) -> dict[str, float] | None:
        if thresholds is not None:
            if set(thresholds) != set(FINDINGS):
                raise ValueError(f"thresholds are for {', '.join(thresholds)}, not for the five findings")
            if not all(0 <= value <= 1 for value in thresholds.values()):
                raise ValueError("a threshold is outside [0, 1]")
        return thresholds

    @property
    def image_preprocessing(self) -> Preprocessing:
        """Preprocessing of the model's images."""
        return Preprocessing.from_dict(self.preprocessing)

    @property
    def effective_thresholds(self) -> dict[str, float]:
        """Thresholds by finding: the tuned ones, or 0.5 before tuning."""
        return self.thresholds or dict.fromkeys(FINDINGS, DEFAULT_THRESHOLD)

    @property
    def scalings(self) -> dict[str, Scaling] | None:
        """Calibration by finding; None before `cxr calibrate`."""
        return None if self.calibration is None else self.calibration.scalings

    def known_localization(self, method: str, finding: str) -> str:
        """Return a sentence on how often this method's peak lies in the finding; empty if it was not measured."""
        for stored in self.localization:
            if stored.method == method and finding in stored.hit_rate:
                return (
                    f"{finding} by {method}: the peak lay inside the finding in "
                    f"{100 * stored.hit_rate[finding]:.0f} % of {stored.images[finding]} images "
                    f"({stored.truth}, {stored.split})."
                )
        return ""


def save_bundle(path: Path, weights: Mapping[str, Tensor], header: BundleHeader) -> BundleHeader:
    """Write a bundle atomically; return the header as written, with the digest of the weights.

    Raises:
        WriteError: the file cannot be written.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(weights.items())}
    signed = header.model_copy(
        update={"weights_sha256": digest_of_weights(contiguous), "format_version": FORMAT_VERSION}
    )
    text = to_json(signed.model_dump(mode="json"))
    write_bytes(path, save(contiguous, metadata={_KEY: text, _DIGEST_KEY: _digest_of_text(text)}))
    return signed


def _digest_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle; header and weights come from one read of the file.

    Attributes:
        path: the file.
        sha256: digest of the file.
        header: header of the bundle.
        network: network with its weights, in eval mode, without gradients, on the CPU. Copy it before changing it.
        exports: folder in which exports of the network are searched.
    """

    path: Path
    sha256: str
    header: BundleHeader
    network: ChestNet
    exports: Path
    _stamp: tuple[int, int, int]


def open_bundle(path: Path) -> Bundle:
    """Read a bundle, in one read of its file.

    Raises:
        ModelError: the file is not a bundle, has other findings or a newer version; tensors are missing, unexpected,
            of another shape or not finite; or a digest does not match.
    """
    with _open(path) as file:
        status = os.fstat(file.fileno())
        content = file.read(_LARGEST_FILE)
    metadata, tensors = _read_start(path, io.BytesIO(content), status.st_size)
    header = _header_of(path, metadata)
    with torch.device("meta"):  # shapes only: initialising weights would take half a second
        network = ChestNet(header.image_preprocessing)
    _check_tensors(path, tensors, network)
    weights = _load_tensors(path, content)
    if digest_of_weights(weights) != header.weights_sha256:
        raise ModelError(
            f"model {path} is damaged: its weights do not match their digest", "Copy it again.", code="model-damaged"
        )
    refuse_broken(weights, f"model {path}")
    network.load_state_dict(weights, assign=True)
    return Bundle(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        header=header,
        network=network.eval().requires_grad_(False),
        exports=path.parent / EXPORTS_NAME,
        _stamp=_stamp_of(status),
    )


def read_header(path: Path) -> BundleHeader:
    """Read the header of a bundle without its weights.

    Raises:
        ModelError: the file is not a bundle, has other findings or a newer version.
    """
    with _open(path) as file:
        metadata, _ = _read_start(path, file, os.fstat(file.fileno()).st_size)
    return _header_of(path, metadata)


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """Open the file for reading.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would block
            raise _not_a_bundle(path, "it is not a regular file")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ModelError(f"model {path}: {error.strerror}", "Give a run folder or a bundle file.") from None


def _read_start(path: Path, file: BinaryIO, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the header of a safetensors file of `size` bytes: its metadata, and the description of each tensor.

    Raises:
        ModelError: it is not a safetensors file, or is incomplete.
    """
    start = file.read(8)
    if len(start) < 8:
        raise _not_a_bundle(path, "it is empty or incomplete")
    (length,) = struct.unpack("<Q", start)
    if length > min(_LARGEST_HEADER, size - 8):  # never allocate a stated terabyte
        raise _not_a_bundle(path, "it is not a safetensors file, or is incomplete")
    try:
        tensors = json.loads(file.read(length))
        metadata = tensors.pop("__metadata__", {})
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        texts = all(isinstance(text, str) for text in metadata.values())
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise _not_a_bundle(path, "its safetensors header is not valid") from None
    if not texts or end != size - 8 - length:
        raise _not_a_bundle(path, "its size does not match its safetensors header: it is incomplete or damaged")
    return metadata, tensors


def _header_of(path: Path, metadata: Mapping[str, str]) -> BundleHeader:
    text = metadata.get(_KEY)
    if text is None:
        raise ModelError(
            f"{path} has weights but no cxrtool header", "Use it as initial weights: cxr train --init FILE."
        )
    return _parse_header(path, text, metadata.get(_DIGEST_KEY))


def _stamp_of(status: os.stat_result) -> tuple[int, int, int]:
    """Return inode, size and modification time, which change when a file is replaced or written."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def _not_a_bundle(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"model {path} is not a bundle: {' '.join(reason.split())}",
        "Give a model.safetensors written by cxr train; convert .pt and .pth files with cxr import.",
    )


def _parse_header(path: Path, text: str, digest: str | None) -> BundleHeader:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also for integers of more than 4,300 digits
        raise _not_a_bundle(path, f"its header is not JSON ({error})") from None
    newer = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(newer, int) and newer > FORMAT_VERSION:
        raise ModelError(
            f"model {path} has bundle version {newer}; this version of cxrtool reads up to {FORMAT_VERSION}",
            "Upgrade: pip install -U cxrtool.",
        )
    if digest != _digest_of_text(text) and not (digest is None and newer == 1):
        raise ModelError(
            f"model {path} is damaged: its header does not match its digest", "Copy it again.", code="model-damaged"
        )
    try:
        header = BundleHeader.model_validate(content)
        _ = header.image_preprocessing
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _not_a_bundle(path, f"header key {where or '(all)'}: {first['msg']}") from None
    except CxrError as error:
        raise _not_a_bundle(path, f"header key preprocessing: {error.message}") from None
    if header.findings != FINDINGS:
        raise ModelError(
            f"model {path} predicts {', '.join(header.findings)}; cxrtool supports {', '.join(FINDINGS)}",
            "Use a bundle with these five findings in this order.",
        )
    return header


def refuse_broken(weights: Mapping[str, Tensor], origin: str) -> None:
    """Refuse weights that would make every probability NaN.

    Raises:
        ModelError: a weight is not finite, or a variance is negative; the message begins with `origin`.
    """
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{origin} has weights that are not finite ({name})", "Train it again.")
        if name.endswith("running_var") and (tensor < 0).any():
            raise ModelError(f"{origin} has a negative variance ({name})", "Train it again.")


def _check_tensors(path: Path, tensors: Mapping[str, Any], network: ChestNet) -> None:
    """Check that tensors have the names, types and shapes of `network`.

    Raises:
        ModelError: one does not.
    """
    own = network.state_dict()
    odd = sorted(set(tensors) ^ set(own))
    if odd:
        raise ModelError(
            f"model {path} is not a DenseNet121 of cxrtool: tensor {odd[0]!r} is "
            f"{'unexpected' if odd[0] in tensors else 'missing'}",
            "Train with cxrtool, or use it as initial weights: cxr train --init FILE.",
        )
    for name, tensor in own.items():
        dtype, shape = tensors[name].get("dtype"), tensors[name].get("shape")
        if dtype != _TYPES[tensor.dtype]:
            raise _not_a_bundle(path, f"tensor {name!r} is not of type {_TYPES[tensor.dtype]}")
        if shape != list(tensor.shape):
            found = tuple(shape) if isinstance(shape, list) else shape
            raise ModelError(
                f"model {path}: tensor {name!r} has shape {found}, not {tuple(tensor.shape)}",
                "The model has another number of findings or another architecture; use one trained with cxrtool.",
            )


def _load_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return load(content)
    except (SafetensorError, ValueError) as error:
        raise _not_a_bundle(path, str(error)) from None


def change_header(bundle: Bundle, **changes: object) -> BundleHeader:
    """Change header fields of the bundle's file, atomically, and keep its weights.

    If the file has changed since it was opened, it is read again, so that fields stored by other commands are kept.

    Raises:
        ModelError: the file now has other weights, or is not a bundle.
        WriteError: the file cannot be written.
    """
    current = bundle if _is_unchanged(bundle) else open_bundle(bundle.path)
    if current.header.weights_sha256 != bundle.header.weights_sha256:
        raise ModelError(f"model {bundle.path} was replaced by another model while in use", "Run the command again.")
    return save_bundle(bundle.path, current.network.state_dict(), current.header.model_copy(update=changes))


def _is_unchanged(bundle: Bundle) -> bool:
    try:
        return _stamp_of(bundle.path.stat()) == bundle._stamp
    except OSError:
        return False  # reading it again reports the error


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and numbers, sorted by name, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        contiguous = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {contiguous.dtype} {tuple(contiguous.shape)};".encode())
        digest.update(contiguous.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def current_versions() -> dict[str, str]:
    """Return the versions of the packages that results depend on."""
    names = ("cxrtool", "torch", "torchvision", "numpy", "pillow", "safetensors")
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # cxrtool runs from a checkout without being installed
        return "unknown"


def now() -> str:
    """Return the time in UTC, ISO 8601, with microseconds, so that runs within one second can be ordered."""
    return datetime.now(UTC).isoformat()
