"""How often intervals of readers against a model contain the truth, by simulation.

``python benchmarks/readers.py [SAMPLES]`` prints both tables of docs/evaluation.md. Model and readers see binormal
evidence, correlated within classes; a reader's threshold and skill are drawn from a population of readers.
"""

import sys
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Level
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.evaluation.reader_study import study_readers
from cxrtool.evaluation.readers import Readings
from cxrtool.evaluation.table import PredictionTable
from cxrtool.findings import Findings

NORMAL = NormalDist()
DRAWS = 300


@dataclass(frozen=True)
class Reader:
    """A reader's skill (distance between classes) and threshold."""

    skill: float
    threshold: float

    @property
    def sensitivity(self) -> float:
        """True sensitivity."""
        return 1 - NORMAL.cdf(self.threshold - self.skill)

    def truth_against(self, area: float) -> float:
        """Return the model's true sensitivity at this reader's specificity, less the reader's."""
        return 1 - NORMAL.cdf(self.threshold - np.sqrt(2) * NORMAL.inv_cdf(area)) - self.sensitivity


def of_rates(sensitivity: float, specificity: float) -> Reader:
    """Return the reader with these true rates."""
    threshold = NORMAL.inv_cdf(specificity)
    return Reader(threshold - NORMAL.inv_cdf(1 - sensitivity), threshold)


def sample(
    rng: np.random.Generator, area: float, readers: list[Reader], positives: int, negatives: int
) -> tuple[PredictionTable, list[Readings]]:
    """Return one sample of studies: half of a reader's variance within a class is shared with the model and others."""
    count = positives + negatives
    positive = np.arange(count) < positives
    shared = rng.standard_normal(count)

    def evidence(skill: float) -> NDArray[np.float64]:
        return (shared + rng.standard_normal(count)) / np.sqrt(2) + skill * positive

    names = tuple(f"patient{n}/study1" for n in range(count))
    table = PredictionTable(
        ids=names,
        patients=names,
        studies=names,
        images=np.ones(count, dtype=np.int64),
        split="test",
        level=Level.STUDY,
        sheet_sha256="",
        model_sha256="",
        scores=evidence(np.sqrt(2) * NORMAL.inv_cdf(area))[:, None],
        targets=positive[:, None].astype(np.float32),
        mask=np.ones((count, 1), dtype=np.bool_),
        findings=Findings(("Edema",)),
        are_probabilities=False,
    )
    known = np.ones((count, 1), dtype=np.bool_)
    called = [(evidence(one.skill) > one.threshold)[:, None] for one in readers]
    return table, [Readings(str(n), one, known) for n, one in enumerate(called)]


def one_reader(samples: int) -> None:
    """Print the coverage of the paired difference with one reader."""
    print("positives  negatives  sensitivity  specificity  covered  width  by draws")
    for area, sensitivity, specificity, positives, negatives in [
        (0.9, 0.6, 0.9, 10, 190),
        (0.9, 0.7, 0.9, 30, 470),
        (0.95, 0.9, 0.8, 30, 170),
        (0.9, 0.7, 0.9, 80, 420),
        (0.9, 0.9, 0.8, 80, 420),
        (0.88, 0.8, 0.8, 150, 350),
    ]:
        rng, reader = np.random.default_rng(0), of_rates(sensitivity, specificity)
        truth, covered, widths, drawn = reader.truth_against(area), 0, 0.0, 0
        for _ in range(samples):
            table, readings = sample(rng, area, [reader], positives, negatives)
            interval = study_readers(table, readings, BootstrapSettings(DRAWS)).rows[0].intervals["difference"]
            assert interval.low is not None
            assert interval.high is not None
            covered += interval.low <= truth <= interval.high
            widths += interval.high - interval.low
            drawn += interval.method == "percentile"
        print(
            f"{positives:9}  {negatives:9}  {sensitivity:11.2f}  {specificity:11.2f}  {covered / samples:7.3f}  "
            f"{widths / samples:5.3f}  {drawn / samples:8.2f}",
            flush=True,
        )


def average_reader(samples: int) -> None:
    """Print the coverage of the difference from the average reader of a population."""
    print("readers  positives  negatives  covered  width")
    rng = np.random.default_rng(1)
    area = 0.88

    def draw() -> Reader:
        return Reader(rng.normal(1.6, 0.3), rng.normal(1.2, 0.4))

    truth = float(np.mean([draw().truth_against(area) for _ in range(100_000)]))
    for readers, positives, negatives in [(3, 30, 470), (3, 100, 400), (5, 100, 400), (10, 100, 400)]:
        covered, widths = 0, 0.0
        for _ in range(samples):
            table, readings = sample(rng, area, [draw() for _ in range(readers)], positives, negatives)
            interval = study_readers(table, readings, BootstrapSettings(DRAWS)).averages[0].interval
            assert interval.low is not None
            assert interval.high is not None
            covered += interval.low <= truth <= interval.high
            widths += interval.high - interval.low
        print(
            f"{readers:7}  {positives:9}  {negatives:9}  {covered / samples:7.3f}  {widths / samples:5.3f}", flush=True
        )


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    one_reader(count)
    average_reader(count)
