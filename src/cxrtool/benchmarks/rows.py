"""The figures of a benchmark."""

from dataclasses import asdict, dataclass, field
from statistics import median


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        name: what is measured.
        unit: ``images/s`` (more is better), ``s`` or ``MiB`` (less is better).
        ours: figures of this package, one per repetition.
        plain: figures that these are compared with, one per repetition.
        against: what `plain` was measured on.
    """

    name: str
    unit: str
    ours: tuple[float, ...]
    plain: tuple[float, ...]
    against: str = "plain PyTorch"

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours / plain per repetition: above 1 is better for images/s, below 1 for seconds and memory."""
        return tuple(one / other for one, other in zip(self.ours, self.plain, strict=True))

    def to_dict(self) -> dict[str, object]:
        """Return plain values, with median, minimum and maximum of the ratios."""
        low, middle, high = min(self.ratios), median(self.ratios), max(self.ratios)
        return asdict(self) | {"ratio": {"median": middle, "min": low, "max": high}}


@dataclass(frozen=True)
class Benchmark:
    """All rows and the machine on which they were measured."""

    rows: tuple[Row, ...]
    image_size: int
    machine: dict[str, object] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {"machine": self.machine, "image_size": self.image_size, "rows": [row.to_dict() for row in self.rows]}
