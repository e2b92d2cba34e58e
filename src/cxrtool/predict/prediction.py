"""Predictions of a model for one radiograph."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path

from cxrtool.data.decoded import ImageWarning
from cxrtool.data.images import shown
from cxrtool.text import printable, shortened


@dataclass(frozen=True)
class ModelIdentity:
    """The model settings that a probability depends on, besides the image.

    Attributes:
        weights_sha256: SHA-256 over names, shapes, types and values of the weights, in hex.
        backend: ``torch``, ``onnx`` or ``openvino``.
        precision: ``fp32``, ``bf16`` or ``int8``.
        image_size: width and height of the network's input in pixels.
    """

    weights_sha256: str
    backend: str
    precision: str
    image_size: int


@dataclass(frozen=True, repr=False)
class FindingResult:
    """The result for one finding in one radiograph.

    Attributes:
        label: name of the finding.
        probability: probability in [0, 1], calibrated if the model is calibrated and `raw` was not set.
        threshold: threshold on the same scale; the finding is positive at or above it.
        raw_probability: probability in [0, 1] from the network, before calibration.
    """

    label: str
    probability: float
    threshold: float
    raw_probability: float

    @property
    def positive(self) -> bool:
        """Whether the probability reaches the threshold."""
        return self.probability >= self.threshold

    @property
    def normalised(self) -> float:
        """The probability on a scale with the threshold at 0.5, in [0, 1], so that findings can be compared.

        Linear below and above the threshold, as torchxrayvision's scores (Cohen et al. 2022, arXiv:2111.00595).
        """
        if self.probability < self.threshold:
            return self.probability / (2 * self.threshold)
        above = 1 - self.threshold
        return 1 - (1 - self.probability) / (2 * above) if above else 0.5

    def __repr__(self) -> str:
        decision = "positive" if self.positive else "negative"
        return f"FindingResult({self.label} {self.probability:.3f}, threshold {self.threshold:.2f}, {decision})"


@dataclass(frozen=True, repr=False)
class Prediction:
    """The results for one radiograph, or the error if it could not be read.

    Attributes:
        path: path of the file; None if the input was not a path.
        findings: one result for each finding of the model, in its order; empty if the input could not be read.
        error: why the input could not be read, else None.
        warnings: warnings about the image, for example that it looks inverted.
        error_code: code of the error, a key of `cxrtool.errors.CODES`, else None.
        name: name used in messages: the path, or for example ``array [512, 640] uint8``.
        model: identity of the model that made the probabilities.
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
        """The path, for callers whose inputs are all files.

        Raises:
            ValueError: the input was not a path.
        """
        if self.path is None:
            raise ValueError(f"{self.name} is not a file path")
        return self.path

    @property
    def given(self) -> str:
        """The input as it was given: its path, or its name where it is no file."""
        return self.name if self.path is None else str(self.path)

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability by finding."""
        return {result.label: result.probability for result in self.findings}

    @property
    def positives(self) -> tuple[str, ...]:
        """Names of the findings at or above their threshold."""
        return tuple(result.label for result in self.findings if result.positive)

    def to_dict(self, model: bool = True) -> dict[str, object]:
        """Return plain values as in a row of ``cxr predict --json``, with the model.

        Args:
            model: include the identity of the model; False suits many rows of one model.

        Returns:
            ``path`` (None if the input was not a path), ``error`` and ``error_code`` (None if the input was read),
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
        """Return a small table for a notebook."""
        title = f"<caption>{escape(shortened(self.name, 80))}</caption>"
        if self.error is not None:
            return f"<table>{title}<tr><td>{escape(printable(self.error))}</td></tr></table>"
        rows = "".join(
            f"<tr><td>{escape(result.label)}</td><td>{result.probability:.3f}</td><td>{result.threshold:.2f}</td>"
            f"<td>{'positive' if result.positive else ''}</td></tr>"
            for result in self.findings
        )
        notes = "".join(
            f'<tr><td colspan="4">Warning: {escape(warning.message)}</td></tr>' for warning in self.warnings
        )
        header = "<tr><th>finding</th><th>probability</th><th>threshold</th><th></th></tr>"
        return f"<table>{title}{header}{rows}{notes}</table>"


def naming(hash_paths: bool) -> Callable[[str], str]:
    """Return how the name of an input is shown: as a digest, or as it is."""
    return path_digest if hash_paths else printable


def path_digest(name: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of the path as it was given."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def without_path(prediction: Prediction, name_of: Callable[[str], str]) -> Prediction:
    """Return the prediction with the path in its error replaced by `name_of` the path."""
    if prediction.error is None:
        return prediction
    return replace(prediction, error=prediction.error.replace(prediction.name, name_of(prediction.given)))
