"""One model, one file: weights and everything needed to use them, as safetensors with a JSON header.

safetensors holds a length, a JSON header and raw numbers, so that reading a stranger's file runs no code. No pickle
is read in this package, but by `cxrtool.model.foreign` as weights alone.
"""

import hashlib
import json
import stat
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
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
FORMAT_VERSION = 2
"""1 had no digest of the header."""
DEFAULT_THRESHOLD = 0.5
_KEY, _DIGEST_KEY = "cxrtool", "cxrtool-sha256"
_LARGEST_HEADER = 16 * 2**20
_TYPES = {torch.float32: "F32", torch.int64: "I64"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tuning(_Part):
    """How thresholds were chosen; `minimum`, `maximum` and `step` are the grid's."""

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
        """As an assessment asks for it."""
        grid = threshold_grid(self.minimum, self.maximum, self.step)
        return ThresholdOrigin(self.split, self.sheet_sha256, self.criterion, self.target, grid)


class StoredScaling(_Part):
    """One finding's map to calibrated probabilities; see `Scaling`."""

    slope: float = Field(gt=0, allow_inf_nan=False)
    intercept: float = Field(allow_inf_nan=False)


class StoredCalibration(_Part):
    """The maps of all findings, and where they were fitted."""

    method: CalibrationMethod
    scalings: dict[str, StoredScaling]
    split: str
    level: str
    rows: int
    sheet_sha256: str

    @field_validator("scalings")
    @classmethod
    def _scalings_fit(cls, scalings: dict[str, StoredScaling]) -> dict[str, StoredScaling]:
        if set(scalings) != set(FINDINGS):
            raise ValueError(f"scalings are for {', '.join(scalings)}")
        return scalings


class StoredLocalization(_Part):
    """How well a method's maps of this model point at findings: the mean over images, by finding."""

    method: str
    truth: str
    split: str
    sheet_sha256: str
    images: dict[str, int]
    hit_rate: dict[str, float]
    iou: dict[str, float]


class SplitDigest(_Part):
    """Which rows a model has seen."""

    sheet: str
    sheet_sha256: str
    images: int
    patients: int
    studies: int


class BundleHeader(_Part):
    """What a bundle says of itself.

    Attributes:
        findings: their order in the network's last layer.
        preprocessing: what `preprocess` and the network do to an image.
        policy: what uncertain labels became in training.
        thresholds: a finding is positive at or above its own, on the raw scale; None before `cxr tune`.
        tuning: how they were chosen.
        calibration: of probabilities; None before `cxr calibrate`.
        localization: how well maps point at findings, by method; empty before `cxr localize`.
        training: the run's resolved settings.
        data: the train and valid sheets, by digest.
        metrics: of the chosen epoch on valid.
        weights_sha256: over names, shapes, types and numbers of all tensors.
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
                raise ValueError(f"thresholds are for {', '.join(thresholds)}")
            if not all(0 <= value <= 1 for value in thresholds.values()):
                raise ValueError("a threshold lies outside [0, 1]")
        return thresholds

    @property
    def image_preprocessing(self) -> Preprocessing:
        """The preprocessing, as `preprocess` takes it."""
        return Preprocessing.from_dict(self.preprocessing)

    @property
    def effective_thresholds(self) -> dict[str, float]:
        """Tuned thresholds, or 0.5 each before tuning, by finding."""
        return self.thresholds or dict.fromkeys(FINDINGS, DEFAULT_THRESHOLD)

    @property
    def scalings(self) -> dict[str, Scaling] | None:
        """The calibration by finding, None before `cxr calibrate`."""
        if self.calibration is None:
            return None
        return {
            finding: Scaling(stored.slope, stored.intercept) for finding, stored in self.calibration.scalings.items()
        }

    def known_localization(self, method: str, finding: str) -> str:
        """A sentence on how often this method's peak lies in the finding; empty where that was not measured."""
        for stored in self.localization:
            if stored.method == method and finding in stored.hit_rate:
                return (
                    f"{finding} by {method}: the peak lay inside the finding in "
                    f"{100 * stored.hit_rate[finding]:.0f} % of {stored.images[finding]} images "
                    f"({stored.truth}, {stored.split})."
                )
        return ""


def save_bundle(path: Path, weights: Mapping[str, Tensor], header: BundleHeader) -> BundleHeader:
    """Write a bundle in one step; give back the header as written, with the weights' digest.

    Raises:
        CxrError: the file cannot be written.
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


def read_header(path: Path) -> BundleHeader:
    """What the bundle says of itself, without reading its weights.

    Raises:
        ModelError: the file is no bundle of ours, or of another finding set or a newer version.
    """
    _check_size(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _no_bundle(path, str(error)) from None
    text = metadata.get(_KEY)
    if text is None:
        raise ModelError(f"{path} holds weights but no cxrtool header", "Use it as a start: cxr train --init FILE.")
    return _parse_header(path, text, metadata.get(_DIGEST_KEY))


def _check_size(path: Path) -> None:
    # Before safetensors reads: a header of a stated terabyte must not be asked for.
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise _no_bundle(path, "it is no regular file")
        size = status.st_size
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ModelError(f"model {path}: {error.strerror}", "Give a run folder or a bundle file.") from None
    if len(start) < 8:
        raise _no_bundle(path, "it is empty or cut")
    (length,) = struct.unpack("<Q", start)
    if length > min(_LARGEST_HEADER, size - 8):
        raise _no_bundle(path, "it does not begin as safetensors does, or is cut")


def _no_bundle(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"model {path} is not a bundle: {' '.join(reason.split())}",
        "Give a model.safetensors that cxr train wrote; pickles (.pt, .pth) are never read.",
    )


def _parse_header(path: Path, text: str, digest: str | None) -> BundleHeader:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also of a number of more than 4,300 digits
        raise _no_bundle(path, f"its header is not JSON ({error})") from None
    newer = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(newer, int) and newer > FORMAT_VERSION:
        raise ModelError(
            f"model {path} has bundle version {newer}; this cxrtool reads up to {FORMAT_VERSION}",
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
        raise _no_bundle(path, f"header key {where or '(all)'}: {first['msg']}") from None
    except CxrError as error:
        raise _no_bundle(path, f"header key preprocessing: {error.message}") from None
    if header.findings != FINDINGS:
        raise ModelError(
            f"model {path} reads {', '.join(header.findings)}; this cxrtool reads {', '.join(FINDINGS)}",
            "Use a bundle with these five findings in this order.",
        )
    return header


def load_bundle(path: Path) -> tuple[ChestNet, BundleHeader]:
    """Read a bundle: the network in eval mode on the CPU, without gradients, and its header.

    Raises:
        ModelError: as `read_header`; or tensors are missing, extra, of another shape or not finite; or their digest
            is not the header's.
    """
    header = read_header(path)
    with torch.device("meta"):  # shapes only: a random start would cost half a second and be overwritten
        network = ChestNet(header.image_preprocessing)
    weights = read_weights(path, network)
    if digest_of_weights(weights) != header.weights_sha256:
        raise ModelError(
            f"model {path} is damaged: its weights do not match their digest", "Copy it again.", code="model-damaged"
        )
    refuse_broken(weights, f"model {path}")
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False), header


def refuse_broken(weights: Mapping[str, Tensor], origin: str) -> None:
    """Refuse weights that would make every probability NaN.

    Raises:
        ModelError: one is not finite, or a variance is negative; the message begins with `origin`.
    """
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{origin} has weights that are not finite ({name})", "Train it again.")
        if name.endswith("running_var") and (tensor < 0).any():
            raise ModelError(f"{origin} has a negative variance ({name})", "Train it again.")


def read_weights(path: Path, network: ChestNet) -> dict[str, Tensor]:
    """The tensors of a bundle, after their names, shapes and types are found to be `network`'s.

    Raises:
        ModelError: they are not.
    """
    own = network.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            odd = sorted(names ^ set(own))
            if odd:
                raise ModelError(
                    f"model {path} is no DenseNet121 of ours: tensor {odd[0]!r} is "
                    f"{'extra' if odd[0] in names else 'missing'}",
                    "Train with this cxrtool, or use it as a start: cxr train --init FILE.",
                )
            for name, tensor in own.items():
                shape = tuple(file.get_slice(name).get_shape())
                if file.get_slice(name).get_dtype() != _TYPES[tensor.dtype]:
                    raise _no_bundle(path, f"tensor {name!r} is not of type {_TYPES[tensor.dtype]}")
                if shape != tuple(tensor.shape):
                    raise ModelError(
                        f"model {path}: tensor {name!r} has shape {shape}, not {tuple(tensor.shape)}",
                        "It reads another number of findings or is another network.",
                    )
            return {name: file.get_tensor(name) for name in sorted(own)}
    except (SafetensorError, OSError) as error:
        raise _no_bundle(path, str(error)) from None


def change_header(path: Path, **changes: object) -> BundleHeader:
    """Write other header fields into the bundle at `path`, in one step; its weights stay as they are."""
    network, header = load_bundle(path)
    return save_bundle(path, network.state_dict(), header.model_copy(update=changes))


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and numbers, in the order of the names; in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        contiguous = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {contiguous.dtype} {tuple(contiguous.shape)};".encode())
        digest.update(contiguous.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def current_versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    names = ("cxrtool", "torch", "torchvision", "numpy", "pillow", "safetensors")
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def now() -> str:
    """The time in UTC, ISO 8601, to the microsecond so that runs of one second have an order."""
    return datetime.now(UTC).isoformat()
