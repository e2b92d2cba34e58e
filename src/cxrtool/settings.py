"""All settings, by section, with their defaults and limits; `cxrtool.resolved_settings` says where they come from.

A setting has one name everywhere: ``train.lr`` in a message, ``train: {lr: ...}`` in YAML and ``CXR_TRAIN__LR`` in
the environment. Values are checked once, here; all other code reads typed attributes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from cxrtool.choices import (
    Backend,
    CalibrationMethod,
    Criterion,
    Device,
    FigureFormat,
    Fit,
    Layer,
    Level,
    MatmulPrecision,
    Method,
    OptimizerName,
    Precision,
    SelectBy,
)
from cxrtool.data_settings import DataSettings as DataSettings
from cxrtool.data_settings import Fraction, Section
from cxrtool.errors import RequestError
from cxrtool.findings import UncertaintyPolicy
from cxrtool.processors import automatic_workers, usable_processors

MOST_WORKERS = 256
_SPLITS = "^(train|valid|test)$"
FINEST_STEP = 1e-4
"""Smallest step of a threshold grid; also enforced on bundles, so that none can request a huge grid."""


@dataclass(frozen=True)
class Limits:
    """Upper limits on an input image, checked before memory is allocated for it.

    Attributes:
        megapixels: largest size that an image's header may state. The default is four times a large digital radiograph.
        file_mib: largest file size in MiB.
    """

    megapixels: int = 64
    file_mib: int = 256

    @property
    def pixels(self) -> int:
        """Largest number of pixels of an image."""
        return self.megapixels * 1_000_000

    @property
    def file_bytes(self) -> int:
        """Largest file size in bytes."""
        return self.file_mib * 2**20


DEFAULT_LIMITS = Limits()


class TrainSettings(Section):
    """How one model is trained. The defaults are those of the original scripts."""

    policy: str = Field(
        default="u-ignore",
        description="What uncertain labels become: u-ignore, u-ones or u-zeros, then exceptions such as Edema=u-ones.",
    )
    init: str = Field(
        default="imagenet",
        description="Initial weights: imagenet, none (random), a .safetensors file, or hf:OWNER/NAME.",
    )
    epochs: int = Field(default=10, ge=1, le=1000, description="Number of passes over the training split.")
    image_size: int = Field(
        default=320, ge=32, le=1024, description="Width and height in pixels to which images are resized."
    )
    fit: Fit = Field(
        default=Fit.STRETCH,
        description="How an image that is not square fills the input: stretch, crop its centre, or pad it with black.",
    )
    batch_size: int = Field(default=32, ge=2, le=4096, description="Images per training step.")
    lr: float = Field(default=1e-4, gt=0, le=1, description="Learning rate of the optimizer.")
    lr_head: float | None = Field(
        default=None, gt=0, le=1, description="Learning rate of the last layer. If not given: that of --lr."
    )
    freeze: int = Field(
        default=0,
        ge=0,
        le=4,
        description="Keep the first convolution and this many of the four dense blocks as they are initialised, for "
        "training on few images; 4 trains the last layer alone.",
    )
    optimizer: OptimizerName = Field(default=OptimizerName.ADAM, description="Algorithm that updates the weights.")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="Weight decay of the optimizer; 0 is none.")
    clip_gradients: float = Field(default=0.0, ge=0, description="Clip gradients to this norm; 0 does not clip.")
    pos_weight: bool = Field(
        default=True, description="Weight the loss of positive labels by negatives / positives of each finding."
    )
    pos_weight_clip: float = Field(default=8.0, ge=1, description="Largest weight that --pos-weight may give.")
    augment: bool = Field(default=True, description="Augment with small rotations, shifts, zooms and exposure changes.")
    patience: int = Field(
        default=0, ge=0, description="Stop after this many epochs without improvement; 0 never stops early."
    )
    select_by: SelectBy = Field(
        default=SelectBy.AUROC, description="Figure on the valid split that chooses the best epoch."
    )
    seed: int = Field(
        default=0, ge=0, le=2**32 - 1, description="Random seed for weights, order of images and augmentation."
    )

    @field_validator("policy")
    @classmethod
    def _policy_parses(cls, text: str) -> str:
        try:
            return str(UncertaintyPolicy.parse(text))
        except RequestError as error:
            raise ValueError(f"{error.message}; {error.advice}") from None

    @field_validator("init")
    @classmethod
    def _names_in_any_case(cls, init: str) -> str:
        return init.lower() if init.lower() in ("imagenet", "none") else init

    @property
    def uncertainty(self) -> UncertaintyPolicy:
        """The parsed policy."""
        return UncertaintyPolicy.parse(self.policy)


class RuntimeSettings(Section):
    """How the machine is used. These settings affect speed, and results only by rounding."""

    device: Device = Field(default=Device.AUTO, description="Where the network runs; auto uses a GPU if there is one.")
    backend: Backend = Field(
        default=Backend.AUTO,
        description="Library that runs the network; auto is torch, but in predict an export beside the bundle.",
    )
    precision: Precision = Field(
        default=Precision.AUTO,
        description="Number format of the network; auto is bf16 where it is faster, but fp32 in eval, tune, calibrate.",
    )
    channels_last: bool = Field(
        default=True, description="Store images with channels last, which most processors prefer."
    )
    workers: int | Literal["auto"] = Field(
        default="auto",
        description="Threads that read and decode images, 1 to 256; auto is one per usable processor, from 2 to 16.",
    )
    threads: int | Literal["auto"] = Field(
        default="auto",
        description="Threads that compute the network on a CPU, 1 to 256; auto is one per core that it may use.",
    )
    batch_size: int = Field(default=16, ge=1, le=4096, description="Images per forward pass.")
    pin_memory: bool = Field(
        default=True, description="Put batches into page-locked memory, from which a GPU copies faster."
    )
    matmul_precision: MatmulPrecision = Field(
        default=MatmulPrecision.HIGHEST, description="Precision of float32 matrix products on a GPU."
    )
    cuda_graphs: bool = Field(
        default=True,
        description="Record a training step on a GPU once and replay it: twice as fast at 32 images.",
    )
    cudnn_benchmark: bool = Field(default=False, description="Let cuDNN time its algorithms and use the fastest.")
    read_timeout: float = Field(
        default=120.0,
        gt=0,
        le=86_400,
        description="Seconds after which reading an image counts as hung: its row is an error, and training stops.",
    )
    strict: bool = Field(default=False, description="Treat an image with a warning as unreadable.")
    max_megapixels: int = Field(
        default=64, ge=1, le=178, description="Refuse images with more megapixels, judged by their header; 178 at most."
    )
    max_file_mib: int = Field(
        default=256, ge=1, le=2048, description="Refuse image files larger than this many MiB, without reading them."
    )
    window: str | None = Field(
        default=None,
        description="DICOM window: 2 for the file's second, or centre/width as 600/1200. If not given: the first.",
    )

    @field_validator("workers", "threads", mode="plain")
    @classmethod
    def _thread_count(cls, value: object) -> int | str:
        if value == "auto":
            return "auto"
        try:
            count = int(value) if isinstance(value, str) else value
        except ValueError:
            count = None
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_WORKERS:
            raise ValueError(f"use auto or a number from 1 to {MOST_WORKERS}")
        return count

    @property
    def reading_threads(self) -> int:
        """Number of threads that read ahead: `workers`, or what ``auto`` resolves to on this machine."""
        return automatic_workers(usable_processors()) if self.workers == "auto" else self.workers

    @property
    def limits(self) -> Limits:
        """Upper limits on input images."""
        return Limits(self.max_megapixels, self.max_file_mib)

    @property
    def for_maps(self) -> "RuntimeSettings":
        """These settings with the torch backend, the only one that computes the gradients that heatmaps need."""
        precision = Precision.AUTO if self.precision is Precision.INT8 else self.precision
        return self.model_copy(update={"backend": Backend.TORCH, "precision": precision})


class EvalSettings(Section):
    """What is evaluated and reported."""

    split: str = Field(default="test", pattern=_SPLITS, description="Split to evaluate: train, valid or test.")
    level: Level = Field(
        default=Level.STUDY, description="Score each study by the maximum over its images, or each image by itself."
    )
    draws: int = Field(default=1000, ge=1, le=100_000, description="Bootstrap resamples of patients for intervals.")
    draw_seed: int = Field(default=0, ge=0, description="Random seed of the bootstrap.")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="Confidence level of the intervals.")
    by: str = Field(
        default="sex,age,projection",
        description="Subgroups to report, separated by commas: sex, age, projection, or columns of the sheet.",
    )
    prevalence: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Prevalence for predictive values. If not given: that of each finding in the split.",
    )


class TuneSettings(Section):
    """How thresholds are chosen."""

    split: str = Field(default="valid", pattern=_SPLITS, description="Split on which thresholds are chosen.")
    criterion: Criterion = Field(
        default=Criterion.F1, description="Figure to maximise, or to reach where it is recall or specificity."
    )
    target: Fraction | None = Field(
        default=None, description="Recall or specificity to reach, where that is the criterion."
    )
    minimum: Fraction = Field(default=0.05, description="Lowest threshold of the grid.")
    maximum: Fraction = Field(default=0.95, description="Highest threshold of the grid.")
    step: float = Field(default=0.01, ge=FINEST_STEP, le=0.5, description="Step of the grid.")
    grid_only: bool = Field(
        default=False,
        description="Try the grid alone, and not the thresholds between observed scores too, which may lie outside.",
    )

    @model_validator(mode="after")
    def _target_fits(self) -> "TuneSettings":
        wants = self.criterion in (Criterion.RECALL, Criterion.SPECIFICITY)
        if wants and self.target is None:
            raise ValueError(f"criterion {self.criterion} needs a target, such as --target 0.9")
        if not wants and self.target is not None:
            raise ValueError(f"criterion {self.criterion} takes no target; use recall or specificity")
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class CalibrateSettings(Section):
    """How probabilities are calibrated."""

    split: str = Field(default="valid", pattern=_SPLITS, description="Split on which the calibration is fitted.")
    method: CalibrationMethod = Field(
        default=CalibrationMethod.PLATT,
        description="What to fit for each finding: temperature is a slope, platt is a slope and an intercept.",
    )


class ExplainSettings(Section):
    """How heatmaps are computed and drawn."""

    alpha: Fraction = Field(default=0.45, description="Opacity of the heatmap over the radiograph.")
    method: Method = Field(default=Method.GRAD_CAM, description="Method that computes the heatmap.")
    smooth: float = Field(
        default=0.08,
        ge=0,
        le=0.5,
        description="Standard deviation of the Gaussian that smooths the map, as a share of its side.",
    )
    layer: Layer | None = Field(
        default=None,
        description="Dense block that a CAM method reads. If not given: the deepest with at least 6 x 6 cells.",
    )
    flip: bool = Field(default=True, description="Average with the map of the mirrored image, at twice the cost.")
    scales: str = Field(
        default="1",
        pattern=r"^\d+(\.\d+)?(,\d+(\.\d+)?)*$",
        description="Average over the image at these relative sizes, separated by commas.",
    )
    stretch: bool = Field(default=False, description="Scale each map to a peak of 1 instead of the probability.")
    contour: bool = Field(default=False, description="Draw a contour at half the peak instead of colours.")
    figure_format: FigureFormat = Field(
        default=FigureFormat.PNG, description="Format of the figures: png for the screen, pdf or svg for print."
    )


class LocalizeSettings(Section):
    """How heatmaps are compared with the true regions."""

    split: str = Field(default="test", pattern=_SPLITS, description="Split to evaluate: train, valid or test.")
    methods: str = Field(
        default=f"{Method.GRAD_CAM},{Method.LAYER_CAM}",
        description="Methods to compare, separated by commas; layer-cam@denseblock2 also names the layer.",
    )
    otsu: bool = Field(default=False, description="Cut maps at Otsu's threshold instead of one chosen on valid.")
    fill_holes: bool = Field(
        default=False, description="Fill holes of the regions that are cut out of maps, as CheXlocalize's code does."
    )
    positives_only: bool = Field(default=False, description="Use only images that the model calls positive.")
    limit: int = Field(default=0, ge=0, description="Use at most this many images; 0 uses all.")
    faithfulness: int = Field(
        default=0,
        ge=0,
        description="Image and finding pairs for the sanity check, insertion and deletion; 0 skips them.",
    )


class Settings(Section):
    """Every setting of every command."""

    model_config = ConfigDict(protected_namespaces=())

    model: Path | None = Field(
        default=None,
        description="Run folder, bundle file or hf:OWNER/NAME. If not given: the newest run in the runs folder.",
    )
    runs: Path = Field(default=Path("runs"), description="Folder in which runs are written and looked up.")
    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    eval: EvalSettings = EvalSettings()
    tune: TuneSettings = TuneSettings()
    calibrate: CalibrateSettings = CalibrateSettings()
    explain: ExplainSettings = ExplainSettings()
    localize: LocalizeSettings = LocalizeSettings()

    @model_validator(mode="after")
    def _policy_fits_findings(self) -> "Settings":
        try:
            self.train.uncertainty.of(self.data.label_names)
        except RequestError as error:
            raise ValueError(f"train.policy: {error.message}; {error.advice}") from None
        return self
