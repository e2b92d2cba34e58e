"""All settings: command line over ``CXR_*`` environment over a YAML file over defaults.

A setting has one name everywhere: ``train.lr`` in a message, ``train: {lr: ...}`` in YAML and ``CXR_TRAIN__LR`` in
the environment. Values are checked once, here; after that code reads typed attributes.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from cxrtool.choices import (
    Backend,
    Blank,
    CalibrationMethod,
    Criterion,
    Device,
    Layer,
    Level,
    MatmulPrecision,
    Method,
    OptimizerName,
    Precision,
    SelectBy,
    Views,
)
from cxrtool.errors import RequestError
from cxrtool.findings import UncertaintyPolicy

ENV_PREFIX = "CXR_"
Fraction = Annotated[float, Field(ge=0, le=1)]
MOST_WORKERS = 256
FINEST_STEP = 1e-4
"""Of a grid of thresholds; a bundle's own is checked too, so that no stranger's asks for a grid without end."""


def usable_processors() -> int:
    """Processors that this process may run on: of a share of a machine, the share."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def automatic_workers(processors: int) -> int:
    """Reading threads for so many processors: 2, for a disk that is slow to answer, to 16.

    What is not decoding holds Python's lock, so that threads beyond a few give nothing.
    """
    return min(max(processors, 2), 16)


@dataclass(frozen=True)
class Limits:
    """What is refused before memory is taken.

    Attributes:
        megapixels: of an image, by its header; the default is four times a large digital radiograph.
        file_mib: size of a file in MiB.
    """

    megapixels: int = 64
    file_mib: int = 256

    @property
    def pixels(self) -> int:
        """The largest number of pixels."""
        return self.megapixels * 1_000_000

    @property
    def file_bytes(self) -> int:
        """The largest file."""
        return self.file_mib * 2**20


DEFAULT_LIMITS = Limits()


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSettings(_Section):
    """Which rows of the sheets are used, and what a blank label means."""

    root: Path | None = Field(default=None, description="folder in CheXpert's layout")
    views: Views = Field(default=Views.FRONTAL, description="frontal only, or all views")
    blank: Blank = Field(default=Blank.NEGATIVE, description="what a blank label becomes")
    max_missing: Fraction = Field(default=0.01, description="share of rows without an image at which work stops")
    i_know: bool = Field(
        default=False,
        description="go on where test data would choose something or a patient is in two splits; it is recorded",
    )
    allow_outside: bool = Field(
        default=False,
        description="links in the data folder may lead out of it; .. and absolute paths in a sheet may not",
    )
    cache: bool | None = Field(
        default=None, description="keep decoded pixels on disk and read those; so it is where a cache_dir is given"
    )
    cache_dir: Path | None = Field(default=None, description="where pixels are kept; DATA/.cxr-cache unless given")

    @property
    def folder(self) -> Path:
        """The data folder.

        Raises:
            RequestError: none is given.
        """
        if self.root is None:
            raise RequestError("no data is given", "Name the folder with --data.")
        return self.root

    @property
    def uses_cache(self) -> bool:
        """Whether images are read through the pixel cache."""
        return self.cache_dir is not None if self.cache is None else self.cache


class TrainSettings(_Section):
    """The training of one model; the defaults are the seed's."""

    policy: str = Field(default="u-ignore", description="u-ignore, u-ones or u-zeros, then exceptions by finding")
    init: str = Field(default="imagenet", description="imagenet, none, or a .safetensors file")
    epochs: int = Field(default=10, ge=1, le=1000)
    image_size: int = Field(default=320, ge=32, le=1024, description="pixels, both sides")
    batch_size: int = Field(default=32, ge=2, le=4096)
    lr: float = Field(default=1e-4, gt=0, le=1, description="learning rate")
    optimizer: OptimizerName = OptimizerName.ADAM
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    clip_gradients: float = Field(default=0.0, ge=0, description="largest gradient norm; 0 does not clip")
    pos_weight: bool = Field(default=True, description="weight positives by negatives / positives")
    pos_weight_clip: float = Field(default=8.0, ge=1, description="largest such weight")
    augment: bool = Field(default=True, description="small rotations, shifts, zooms and exposure changes")
    patience: int = Field(default=0, ge=0, description="stop after so many epochs without a better one; 0 never")
    select_by: SelectBy = Field(default=SelectBy.AUROC, description="what chooses the best epoch on valid")
    seed: int = Field(default=0, ge=0, le=2**32 - 1)

    @field_validator("policy")
    @classmethod
    def _policy_parses(cls, text: str) -> str:
        try:
            return str(UncertaintyPolicy.parse(text))
        except RequestError as error:
            raise ValueError(f"{error.message}; {error.advice}") from None

    @property
    def uncertainty(self) -> UncertaintyPolicy:
        """The policy, parsed."""
        return UncertaintyPolicy.parse(self.policy)


class RuntimeSettings(_Section):
    """The machine: these move speed, and results by rounding at most."""

    device: Device = Device.AUTO
    backend: Backend = Field(default=Backend.AUTO, description="what runs the network outside training")
    precision: Precision = Field(
        default=Precision.AUTO, description="of the network; eval, tune and calibrate stay in fp32 on auto"
    )
    channels_last: bool = True
    workers: int | Literal["auto"] = Field(
        default="auto",
        description="threads that read and decode ahead, 1 to 256; auto is one for each processor of this process",
    )
    batch_size: int = Field(default=16, ge=1, le=4096, description="images per forward pass outside training")
    pin_memory: bool = Field(default=True, description="page-locked batches for a GPU")
    matmul_precision: MatmulPrecision = MatmulPrecision.HIGHEST
    cudnn_benchmark: bool = False
    read_timeout: float = Field(default=120.0, gt=0, description="seconds after which a read counts as hung")
    strict: bool = Field(default=False, description="an image that is warned of counts as not readable")
    max_megapixels: int = Field(
        default=64, ge=1, le=178, description="larger images are refused by their header; Pillow reads up to 178"
    )
    max_file_mib: int = Field(default=256, ge=1, le=2048, description="larger image files are refused unread")
    window: str | None = Field(
        default=None,
        description="of a DICOM: 2 is the file's second, 600/1200 centre and width; its first unless given",
    )

    @field_validator("workers", mode="plain")
    @classmethod
    def _workers_count(cls, value: object) -> int | str:
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
        """Threads that read ahead: `workers`, or on ``auto`` those that `usable_processors` allow for."""
        return automatic_workers(usable_processors()) if self.workers == "auto" else self.workers

    @property
    def limits(self) -> Limits:
        """What is too large to be read."""
        return Limits(self.max_megapixels, self.max_file_mib)

    @property
    def for_maps(self) -> "RuntimeSettings":
        """The same machine for what needs gradients, which only torch has."""
        precision = Precision.AUTO if self.precision is Precision.INT8 else self.precision
        return self.model_copy(update={"backend": Backend.TORCH, "precision": precision})


class EvalSettings(_Section):
    """What eval reports on."""

    split: str = Field(default="test", pattern="^(train|valid|test)$")
    level: Level = Field(default=Level.STUDY, description="maximum over a study's images, or each image")
    draws: int = Field(default=1000, ge=1, le=100_000, description="bootstrap draws of patients")
    draw_seed: int = Field(default=0, ge=0, description="seed of the draws")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of the intervals")
    by: str = Field(default="sex,age,projection", description="subgroups: sex, age, projection or columns of the sheet")
    prevalence: float | None = Field(
        default=None, gt=0, lt=1, description="for predictive values; each finding's own in the split unless given"
    )


class TuneSettings(_Section):
    """How thresholds are chosen."""

    split: str = Field(default="valid", pattern="^(train|valid|test)$")
    criterion: Criterion = Criterion.F1
    target: Fraction | None = Field(default=None, description="wished recall or specificity, for those criteria")
    minimum: Fraction = 0.05
    maximum: Fraction = 0.95
    step: float = Field(default=0.01, ge=FINEST_STEP, le=0.5)

    @model_validator(mode="after")
    def _target_fits(self) -> "TuneSettings":
        wants = self.criterion in (Criterion.RECALL, Criterion.SPECIFICITY)
        if wants and self.target is None:
            raise ValueError(f"criterion {self.criterion} needs a target; give --target 0.9, say")
        if not wants and self.target is not None:
            raise ValueError(f"criterion {self.criterion} takes no target; use recall or specificity")
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class CalibrateSettings(_Section):
    """How probabilities are calibrated."""

    split: str = Field(default="valid", pattern="^(train|valid|test)$")
    method: CalibrationMethod = Field(
        default=CalibrationMethod.PLATT, description="one slope per finding, or slope and intercept"
    )


class ExplainSettings(_Section):
    """How maps are drawn."""

    alpha: Fraction = Field(default=0.45, description="strength of the heatmap over the radiograph")
    method: Method = Field(default=Method.GRAD_CAM, description="how the map is made")
    smooth: float = Field(
        default=0.08, ge=0, le=0.5, description="width of a Gaussian over the map, a share of its side"
    )
    layer: Layer | None = Field(
        default=None, description="dense block of a CAM; unless given, the deepest with six cells a side"
    )
    flip: bool = Field(default=True, description="average with the map of the mirrored image, at twice the cost")
    scales: str = Field(default="1", pattern=r"^\d+(\.\d+)?(,\d+(\.\d+)?)*$", description="average over these sizes")
    stretch: bool = Field(default=False, description="raise each map's peak to 1 instead of the probability")
    contour: bool = Field(default=False, description="draw a line at half the peak instead of colours")


class LocalizeSettings(_Section):
    """How maps are measured against the truth."""

    split: str = Field(default="test", pattern="^(train|valid|test)$")
    methods: str = Field(
        default=f"{Method.GRAD_CAM},{Method.LAYER_CAM}",
        description="methods separated by commas; layer-cam@denseblock2 names a layer",
    )
    otsu: bool = Field(default=False, description="cut maps by Otsu's threshold instead of one chosen on valid")
    positives_only: bool = Field(default=False, description="only images that the model calls positive")
    limit: int = Field(default=0, ge=0, description="at most so many images; 0 takes all")
    faithfulness: int = Field(default=0, ge=0, description="image and finding pairs for sanity, insertion, deletion")


class Settings(_Section):
    """Every setting of every command."""

    model_config = ConfigDict(protected_namespaces=())

    model: Path | None = Field(default=None, description="run folder or bundle file")
    runs: Path = Field(default=Path("runs"), description="where runs are written and looked for")
    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    eval: EvalSettings = EvalSettings()
    tune: TuneSettings = TuneSettings()
    calibrate: CalibrateSettings = CalibrateSettings()
    explain: ExplainSettings = ExplainSettings()
    localize: LocalizeSettings = LocalizeSettings()


class _Environment(Settings, BaseSettings):
    """The settings as pydantic-settings' own source of ``CXR_*`` variables reads them."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__")


@dataclass(frozen=True)
class ResolvedSettings:
    """Checked settings and where each came from.

    Attributes:
        settings: the values.
        sources: by dotted key: ``command line``, ``environment CXR_...``, the YAML file or ``default``.
    """

    settings: Settings
    sources: Mapping[str, str]

    def to_dict(self) -> dict[str, object]:
        """Nested plain values, ready for YAML and JSON."""
        return self.settings.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The values as a YAML file that ``--config`` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def changed(self, source: str, **values: object) -> "ResolvedSettings":
        """The same settings but for some, checked again.

        Args:
            source: where the new values come from, as `rows` shows it.
            values: by dotted key, as ``**{"train.seed": 1}``.

        Raises:
            RequestError: as `load_settings`.
        """
        merged = load_settings({key: value for key, value, _ in self.rows()} | values, environ={})
        return ResolvedSettings(merged.settings, {**self.sources, **dict.fromkeys(values, source)})

    def rows(self) -> list[tuple[str, object, str]]:
        """(key, value, source) of every setting."""
        return [(key, value, self.sources.get(key, "default")) for key, value in _flatten(self.to_dict())]


AnySettings: TypeAlias = Settings | ResolvedSettings
"""What functions on a whole data set take."""


def resolved(settings: AnySettings) -> ResolvedSettings:
    """`settings` with their sources, which are not known of plain ones."""
    return settings if isinstance(settings, ResolvedSettings) else ResolvedSettings(settings, {})


def load_settings(
    overrides: Mapping[str, object] | None = None,
    config: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    origin: str = "argument",
) -> ResolvedSettings:
    """Merge overrides, environment, file and defaults, in this order, and check the result.

    >>> load_settings({"data.root": "CheXpert-v1.0-small", "train.epochs": 3}).settings.train.epochs
    3

    Args:
        overrides: by dotted key (``train.lr``); None values are not given.
        config: a YAML file.
        environ: the process's environment unless given; ``{}`` takes nothing from it.
        origin: where the overrides come from, as messages and `ResolvedSettings.rows` say it.

    Raises:
        RequestError: an unknown key, a wrong type or a value out of range, with its path and what is allowed.
    """
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    layers = [
        (str(config), dict(_flatten(_read_yaml(Path(config))))) if config else ("", {}),
        ("environment", dict(_flatten(_read_environment(os.environ if environ is None else environ)))),
        (origin, given),
    ]
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for source, layer in layers:
        for key, value in layer.items():
            values[key] = value
            sources[key] = f"environment {_variable(key)}" if source == "environment" else source
    try:
        return ResolvedSettings(Settings(**_nest(values)), sources)
    except ValidationError as error:
        raise _explain_refusal(error, sources) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"cannot read settings {path}: {error.strerror}", "Check --config.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        raise RequestError(f"settings {path} are not YAML: {detail}", "Mend that line.") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise RequestError(f"settings {path} hold no keys", "Write them as 'train: {epochs: 3}'.")
    return content


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    top = {name.upper() for name in Settings.model_fields}
    for name in environ:
        if name.startswith(ENV_PREFIX) and name[len(ENV_PREFIX) :].split("__")[0] not in top:
            near = difflib.get_close_matches(name, [_variable(key) for key in _known_keys()], n=1)
            hint = f"Did you mean {near[0]}?" if near else "See `cxr config` for all names."
            raise RequestError(f"environment variable {name} is no setting", hint)
    source = EnvSettingsSource(_Environment)
    source.env_vars = {name.lower(): value for name, value in environ.items()}
    try:
        return source()
    except SettingsError as error:
        raise RequestError(str(error), "Name one setting a variable, as CXR_TRAIN__EPOCHS=3.") from None


def _variable(key: str) -> str:
    return ENV_PREFIX + key.upper().replace(".", "__")


def _known_keys() -> list[str]:
    return [key for key, _ in _flatten(Settings().model_dump())]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        elif not isinstance(value, Mapping):
            yield f"{prefix}{key}", value


def _nest(values: Mapping[str, object]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            child = node.setdefault(parent, {})
            node = child if isinstance(child, dict) else node.setdefault(parent + ".", {})
        node[leaf] = value
    return tree


def _explain_refusal(error: ValidationError, sources: Mapping[str, str]) -> RequestError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    name = key if key.isprintable() else repr(key)
    origin = sources.get(key) or next((sources[k] for k in sources if k.startswith(f"{key}.")), "")
    where = f" ({origin})" if origin else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys()
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        siblings = [name for name in known if name.rpartition(".")[0] == key.rpartition(".")[0]]
        hint = f"Did you mean {near[0]}? " if near else ""
        return RequestError(f"setting {name}{where} is unknown", f"{hint}Allowed: {', '.join(siblings or known)}.")
    rule = first["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(first["input"], (dict, BaseModel)) else f" = {first['input']!r}"
    return RequestError(f"setting {name}{shown}{where}: {rule}", "`cxr config` prints every setting and its source.")
