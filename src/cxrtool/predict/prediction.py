"""What a model reads in one radiograph."""

from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

from cxrtool.data.decoded import ImageWarning
from cxrtool.data.images import shown
from cxrtool.text import printable, shortened


@dataclass(frozen=True)
class ModelIdentity:
    """What a probability depends on besides its image.

    Attributes:
        weights_sha256: digest over names, shapes, types and numbers of the weights, in hex.
        backend: ``torch``, ``onnx`` or ``openvino``.
        precision: ``fp32``, ``bf16`` or ``int8``.
        image_size: pixels of both sides of the network's input.
    """

    weights_sha256: str
    backend: str
    precision: str
    image_size: int


@dataclass(frozen=True, repr=False)
class FindingResult:
    """One finding of one radiograph.

    Attributes:
        label: the finding's name.
        probability: in [0, 1], calibrated where the model is and raw ones were not asked for.
        threshold: positive at or above it; on the same scale.
        raw_probability: the network's own.
    """

    label: str
    probability: float
    threshold: float
    raw_probability: float

    @property
    def positive(self) -> bool:
        """Whether the probability reaches the threshold."""
        return self.probability >= self.threshold

    def __repr__(self) -> str:
        decision = "positive" if self.positive else "negative"
        return f"FindingResult({self.label} {self.probability:.3f}, threshold {self.threshold:.2f}, {decision})"


@dataclass(frozen=True, repr=False)
class Prediction:
    """What the model reads in one radiograph.

    Attributes:
        path: its file; None where it came as bytes, an array or in another way.
        findings: five results in the order of the model's findings; none when the input could not be read.
        error: why it could not be read, else None.
        warnings: what to beware of in the image, as that it looks inverted.
        error_code: the same for programs, one of `cxrtool.errors.CODES`, else None.
        name: what messages call the input: its path, or for example ``array [512, 640] uint8``.
        model: what made the probabilities.
    """

    path: Path | None
    findings: tuple[FindingResult, ...]
    error: str | None = None
    warnings: tuple[ImageWarning, ...] = ()
    error_code: str | None = None
    name: str = ""
    model: ModelIdentity | None = None

    def __post_init__(self) -> None:
        if not self.name and self.path is not None:
            object.__setattr__(self, "name", shown(self.path))

    @property
    def file(self) -> Path:
        """The path, for who predicts files alone.

        Raises:
            ValueError: the input was no file.
        """
        if self.path is None:
            raise ValueError(f"{self.name} is no file")
        return self.path

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability by finding."""
        return {result.label: result.probability for result in self.findings}

    @property
    def positives(self) -> tuple[str, ...]:
        """The findings at or above their threshold."""
        return tuple(result.label for result in self.findings if result.positive)

    def to_dict(self, model: bool = True) -> dict[str, object]:
        """Plain values: a row of ``cxr predict --json``, and the model.

        Args:
            model: leave out what made the probabilities, where many rows share it.

        Returns:
            ``path`` (None where the input was no file), ``error`` and ``error_code`` (None where it was read),
            ``warnings``, ``findings`` and ``model``.
        """
        row: dict[str, object] = {
            "path": None if self.path is None else str(self.path),
            "error": self.error,
            "error_code": self.error_code,
            "warnings": [{"code": warning.code, "message": warning.message} for warning in self.warnings],
            "findings": [
                {
                    "label": result.label,
                    "probability": result.probability,
                    "threshold": result.threshold,
                    "positive": result.positive,
                    "raw_probability": result.raw_probability,
                }
                for result in self.findings
            ],
        }
        if model:
            row["model"] = None if self.model is None else asdict(self.model)
        return row

    def __repr__(self) -> str:
        name = shortened(self.name, 28)
        if self.error is not None:
            return f"Prediction({name!r}, error {self.error_code or 'failed'})"
        return f"Prediction({name!r}, positive: {', '.join(self.positives) or 'none'})"

    def _repr_html_(self) -> str:
        """A small table, as a notebook shows it."""
        title = f"<caption>{escape(shortened(self.name, 80))}</caption>"
        if self.error is not None:
            return f"<table>{title}<tr><td>{escape(printable(self.error))}</td></tr></table>"
        rows = "".join(
            f"<tr><td>{escape(result.label)}</td><td>{result.probability:.3f}</td><td>{result.threshold:.2f}</td>"
            f"<td>{'positive' if result.positive else ''}</td></tr>"
            for result in self.findings
        )
        notes = "".join(f'<tr><td colspan="4">Beware: {escape(warning.message)}</td></tr>' for warning in self.warnings)
        header = "<tr><th>finding</th><th>probability</th><th>threshold</th><th></th></tr>"
        return f"<table>{title}{header}{rows}{notes}</table>"
