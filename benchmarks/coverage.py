"""Simulate how often intervals contain the truth, over designs with few cases or high figures.

    python benchmarks/coverage.py --samples 1500

Scores are binormal with a stated true AUROC. For each design it prints the share of samples whose interval contains the
truth, the mean width, and which method `cxr eval` would use; likewise for average precision, whose truth is that of the
population, and for rates. With --per-patient 2, each patient has that many studies with correlated scores.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.area_intervals import auprc_interval, auroc_interval, logit_interval, newcombe
from cxrtool.evaluation.delong import delong
from cxrtool.evaluation.intervals import Interval, percentile_interval
from cxrtool.evaluation.metrics import auroc, average_precision
from cxrtool.evaluation.rates import rate_interval

AREAS = (
    (200, 8, 0.85),
    (200, 8, 0.95),
    (200, 8, 0.99),
    (200, 40, 0.85),
    (200, 40, 0.99),
    (500, 29, 0.93),
    (1000, 8, 0.95),
    (200, 3, 0.90),
    (200, 100, 0.85),
    (1000, 300, 0.90),
)
"""Studies, positives and true AUROC."""
RATES = ((30, 0.95), (30, 0.99), (60, 0.90), (100, 0.80), (300, 0.95))
"""Cases and true rate."""
DRAWS = 500
ALIKE = 0.6
"""Correlation of the scores of one patient's studies."""
NORMAL = NormalDist()


@dataclass
class Tally:
    """Number of intervals that contain the truth, and their widths."""

    hits: int = 0
    width: float = 0.0
    count: int = 0
    methods: Counter[str] = field(default_factory=Counter)

    def add(self, interval: Interval, truth: float) -> None:
        self.count += 1
        self.methods[interval.method or "none"] += 1
        if interval.low is not None and interval.high is not None:
            self.hits += interval.low <= truth <= interval.high
            self.width += interval.high - interval.low

    def __str__(self) -> str:
        return f"{self.hits / self.count:.3f} ({self.width / self.count:.3f})"


def true_precision(studies: int, positives: int, shift: float) -> float:
    """Return the population's average precision at this share of positives, by integration over thresholds."""
    grid = np.linspace(-8, 8 + shift, 40_001)
    above = np.array([1 - NORMAL.cdf(x - shift) for x in grid])
    false = np.array([1 - NORMAL.cdf(x) for x in grid])
    hits, alarms = above * positives, false * (studies - positives)
    precision = np.where(hits + alarms > 0, hits / np.maximum(hits + alarms, 1e-300), 1.0)
    return float(np.sum(-np.diff(above) * (precision[1:] + precision[:-1]) / 2))


def drawn_areas(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], patients: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return AUROC and average precision of draws of patients, [B] each, for scores without ties."""
    count = int(patients.max()) + 1
    weights = rng.multinomial(count, np.full(count, 1 / count), DRAWS)[:, patients].astype(np.float64)
    order = np.argsort(-scores)
    drawn, here = weights[:, order], positive[order]
    hits, called = np.cumsum(drawn * here, axis=1), np.cumsum(drawn, axis=1)
    total, negatives = hits[:, -1], called[:, -1] - hits[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        area = (drawn * ~here * hits).sum(axis=1) / (total * negatives)
        precision = (drawn * here * hits / np.maximum(called, 1)).sum(axis=1) / total
    undefined = (total == 0) | (negatives == 0)
    return np.where(undefined, np.nan, area), np.where(undefined, np.nan, precision)


def simulate_areas(studies: int, positives: int, area: float, samples: int, per_patient: int) -> None:
    shift = np.sqrt(2) * NORMAL.inv_cdf(area)
    precision = true_precision(studies, positives, float(shift))
    rng = np.random.default_rng(studies + positives)
    tallies = {name: Tally() for name in ("AUROC percentile", "DeLong", "Newcombe 5", "used")}
    tallies |= {name: Tally() for name in ("AUPRC percentile", "logit", "AUPRC used")}
    positive = np.arange(studies) < positives
    patients = np.arange(studies) // per_patient
    for _ in range(samples):
        shared = rng.normal(size=int(patients.max()) + 1)[patients]
        alike = ALIKE if per_patient > 1 else 0.0
        scores = np.sqrt(alike) * shared + np.sqrt(1 - alike) * rng.normal(size=studies) + shift * positive
        areas, precisions = drawn_areas(positive, scores, patients, rng)
        tallies["AUROC percentile"].add(percentile_interval(areas), area)
        tallies["DeLong"].add(delong(positive, scores).interval, area)
        ends = newcombe(auroc(positive, scores), positives, studies - positives)
        tallies["Newcombe 5"].add(Interval(*ends), area)
        tallies["used"].add(auroc_interval(positive, scores, patients, areas), area)
        tallies["AUPRC percentile"].add(percentile_interval(precisions), precision)
        value = min(average_precision(positive, scores), 1 - 0.5 / (positives + 1))
        ends = logit_interval(value, 1 / np.sqrt(positives * value * (1 - value)))
        tallies["logit"].add(Interval(*ends), precision)
        tallies["AUPRC used"].add(auprc_interval(positive, scores, patients, precisions), precision)
    ratio = tallies["used"].width / tallies["AUROC percentile"].width
    name = tallies["used"].methods.most_common(1)[0][0]
    cells = [f"{studies}/{positives}/{area:g}", *map(str, list(tallies.values())[:4]), name, f"{ratio:.2f}"]
    ratio = tallies["AUPRC used"].width / tallies["AUPRC percentile"].width
    name = tallies["AUPRC used"].methods.most_common(1)[0][0]
    cells += [f"{precision:.3f}", *map(str, list(tallies.values())[4:]), name, f"{ratio:.2f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


def simulate_rates(cases: int, rate: float, samples: int, per_patient: int) -> None:
    rng = np.random.default_rng(cases)
    wilson, percentile = Tally(), Tally()
    patients = np.arange(cases) // per_patient
    alike = ALIKE if per_patient > 1 else 0.0
    cut = NORMAL.inv_cdf(rate)
    for _ in range(samples):
        shared = rng.normal(size=int(patients.max()) + 1)[patients]
        outcomes = np.sqrt(alike) * shared + np.sqrt(1 - alike) * rng.normal(size=cases) < cut
        count = int(patients.max()) + 1
        weights = rng.multinomial(count, np.full(count, 1 / count), DRAWS)[:, patients]
        percentile.add(percentile_interval((weights * outcomes).sum(axis=1) / weights.sum(axis=1)), rate)
        wilson.add(rate_interval(outcomes, patients), rate)
    print(f"| {cases} | {rate:g} | {percentile} | {wilson} | {wilson.width / percentile.width:.2f} |", flush=True)


def table(header: str, run: Callable[[], None]) -> None:
    names = header.split(", ")
    print(f"\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1500, help="samples per design")
    parser.add_argument("--per-patient", type=int, default=1, help="studies per patient")
    given = parser.parse_args()
    print(f"{given.samples} samples per design, {given.per_patient} studies per patient: coverage (mean width)")
    columns = "used, method, width"
    header = f"design, percentile, DeLong, Newcombe 5, {columns}, AUPRC, percentile, logit, {columns}"

    def areas() -> None:
        for design in AREAS:
            simulate_areas(*design, given.samples, given.per_patient)

    def rates() -> None:
        for design in RATES:
            simulate_rates(*design, given.samples, given.per_patient)

    table(header, areas)
    table("cases, rate, percentile, Wilson, width", rates)


if __name__ == "__main__":
    main()
