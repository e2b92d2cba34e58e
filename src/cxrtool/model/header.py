"""What a bundle records about its model."""

from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cxrtool.choices import Blank, CalibrationMethod, Criterion
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.evaluation.calibration import CalibrationOrigin, Scaling
from cxrtool.evaluation.thresholds import ThresholdOrigin, threshold_grid
from cxrtool.findings import Findings
from cxrtool.settings import FINEST_STEP

FORMAT_VERSION = 3
"""Version 1 had no digest of the header, version 2 no golden images."""

DEFAULT_THRESHOLD = 0.5
INTENDED_USE = "Research software, not a medical device."
MOST_FINDINGS, LONGEST_NAME = 256, 100
"""Upper limits on the findings in a header, which may come from a stranger."""
MOST_GOLDEN = 64
"""Upper limit on the golden images of a header."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tuning(_Part):
    """How thresholds were chosen; `minimum`, `maximum` and `step` define the grid.

    Attributes:
        grid_only: whether only the grid was tried; True for bundles of versions that tried nothing else.
    """

    criterion: Criterion
    target: float | None = None
    minimum: float = Field(default=0.05, ge=0, le=1)
    maximum: float = Field(default=0.95, ge=0, le=1)
    step: float = Field(default=0.01, ge=FINEST_STEP, le=0.5)
    grid_only: bool = True
    split: str
    level: str
    rows: int
    sheet_sha256: str

    @property
    def origin(self) -> ThresholdOrigin:
        """The same as a `ThresholdOrigin`."""
        grid = threshold_grid(self.minimum, self.maximum, self.step)
        return ThresholdOrigin(self.split, self.sheet_sha256, self.criterion, self.target, grid, self.grid_only)


class StoredCalibration(_Part):
    """Calibration of all findings, and the data it was fitted on."""

    method: CalibrationMethod
    scalings: dict[str, Scaling]
    split: str
    level: str
    rows: int
    sheet_sha256: str

    @property
    def origin(self) -> CalibrationOrigin:
        """The same as a `CalibrationOrigin`."""
        return CalibrationOrigin(self.split, self.sheet_sha256)


class StoredLocalization(_Part):
    """How well a method's heatmaps of this model locate findings: the mean over images, by finding."""

    method: str
    truth: str
    split: str
    sheet_sha256: str
    images: dict[str, int]
    hit_rate: dict[str, float]
    iou: dict[str, float]


class StoredGolden(_Part):
    """What the network gave for the images of `check_images`, by which another machine sees whether it gives the same.

    Attributes:
        pixels_sha256: digest of the images' pixels.
        logits: [N][F], to 9 significant digits, which tell any two float32 numbers apart.
        engine: library that ran the network.
        precision: its number format.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    pixels_sha256: str
    logits: tuple[tuple[float, ...], ...] = Field(min_length=1, max_length=MOST_GOLDEN)
    engine: Literal["torch"] = "torch"
    precision: Literal["fp32"] = "fp32"


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
        golden: what the network gave for the golden images; None in bundles of versions that stored none.
        training: resolved settings of the run.
        data: train and valid sheets with their digests.
        metrics: metrics of the chosen epoch on valid.
        synthetic: whether the training data were drawn by `cxr phantom`.
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
    golden: StoredGolden | None = None
    training: dict[str, Any]
    data: dict[str, SplitDigest]
    pos_weight: dict[str, float] | None
    metrics: dict[str, Any]
    versions: dict[str, str]
    run: str
    created: str
    synthetic: bool = False
    weights_sha256: str = ""
    intended_use: str = Field(default=INTENDED_USE)

    @field_validator("findings")
    @classmethod
    def _findings_fit(cls, findings: tuple[str, ...]) -> tuple[str, ...]:
        if len(findings) > MOST_FINDINGS or any(len(name) > LONGEST_NAME for name in findings):
            raise ValueError(f"there are more than {MOST_FINDINGS} findings, or a name is longer than {LONGEST_NAME}")
        return Findings(findings).names

    @field_validator("thresholds")
    @classmethod
    def _thresholds_fit(cls, thresholds: dict[str, float] | None) -> dict[str, float] | None:
        if not all(0 <= value <= 1 for value in (thresholds or {}).values()):
            raise ValueError("a threshold is outside [0, 1]")
        return thresholds

    @model_validator(mode="after")
    def _all_findings_have_values(self) -> Self:
        scalings = None if self.calibration is None else self.calibration.scalings
        for name, values in (("thresholds", self.thresholds), ("scalings", scalings)):
            if values is not None and set(values) != set(self.findings):
                raise ValueError(f"{name} are for {', '.join(values)}, not for the findings of the model")
        if self.golden is not None and any(len(row) != len(self.findings) for row in self.golden.logits):
            raise ValueError(f"golden.logits does not have {len(self.findings)} numbers for each image")
        return self

    @property
    def labels(self) -> Findings:
        """The findings of the model."""
        return Findings(self.findings)

    @property
    def image_preprocessing(self) -> Preprocessing:
        """Preprocessing of the model's images."""
        return Preprocessing.from_dict(self.preprocessing)

    @property
    def effective_thresholds(self) -> dict[str, float]:
        """Thresholds by finding: the tuned ones, or 0.5 before tuning."""
        return self.thresholds or dict.fromkeys(self.findings, DEFAULT_THRESHOLD)

    @property
    def scalings(self) -> dict[str, Scaling] | None:
        """Calibration by finding; None before `cxr calibrate`."""
        return None if self.calibration is None else self.calibration.scalings

    def hit_rate(self, method: str, finding: str) -> float | None:
        """Return how often this method's peak lies in the finding, in [0, 1]; None if it was not measured."""
        stored = self._localized(method, finding)
        return None if stored is None else stored.hit_rate[finding]

    def known_localization(self, method: str, finding: str) -> str:
        """Return a sentence on how often this method's peak lies in the finding; empty if it was not measured."""
        stored = self._localized(method, finding)
        if stored is None:
            return ""
        return (
            f"{finding} by {method}: the peak lay inside the finding in {100 * stored.hit_rate[finding]:.0f} % of "
            f"{stored.images[finding]} images ({stored.truth}, {stored.split})."
        )

    def _localized(self, method: str, finding: str) -> StoredLocalization | None:
        measured = (one for one in self.localization if one.method == method and finding in one.hit_rate)
        return next(measured, None)


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
