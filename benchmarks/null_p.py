"""P-values of two equally good models: how often they fall below a level, and how far they are from uniform.

Each data set has two correlated models of the same true AUROC (binormal scores). Where patients have two or three
studies, these share 60 % of the variance of labels and scores. Columns: the share of p-values below .05 and .005, and
Kolmogorov and Smirnov's p for a uniform distribution, of the bootstrap (counted), of DeLong's or Obuchowski's test as
published (normal distribution), and of the p-value that ``cxr compare`` reports.

python benchmarks/null_p.py [DATASETS] [DRAWS] [AUROC]
"""

import sys
import time
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kstest

from cxrtool.choices import Level
from cxrtool.evaluation.delong import compare_areas
from cxrtool.evaluation.drawn_areas import bootstrap_areas
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.evaluation.paired_test import counted_p_value
from cxrtool.evaluation.table import PredictionTable
from cxrtool.findings import Findings

DESIGNS = ((200, 8), (200, 40), (500, 29), (1000, 100))
CORRELATION = 0.5
OF_PATIENT = 0.6
NAMES = ("bootstrap", "DeLong/Obuchowski", "reported")

Array = NDArray[np.float64]


class Sampler:
    """Draws labels and scores of two models.

    Args:
        studies: number of studies.
        positives: number of positive studies.
        clustered: whether patients have two or three studies instead of one.
        auroc: true AUROC of both models.
        seed: random seed.
    """

    def __init__(self, studies: int, positives: int, clustered: bool, auroc: float, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._positives = positives
        self._shift = np.sqrt(2) * NormalDist().inv_cdf(auroc)
        sizes = self._rng.integers(2, 4, studies) if clustered else np.ones(studies, dtype=np.int64)
        self.patients = np.repeat(np.arange(studies), sizes)[:studies]

    def _noise(self) -> Array:
        own = self._rng.normal(size=len(self.patients))
        of_patient = self._rng.normal(size=self.patients[-1] + 1)[self.patients]
        if self.patients[-1] + 1 == len(self.patients):
            return own
        return np.asarray(np.sqrt(OF_PATIENT) * of_patient + np.sqrt(1 - OF_PATIENT) * own)

    def sample(self) -> tuple[Array, list[Array]]:
        """Return targets [N] and the scores [N] of two models."""
        targets = np.zeros(len(self.patients))
        targets[np.argsort(self._noise())[: self._positives]] = 1
        shared = np.sqrt(CORRELATION) * self._noise()
        own = np.sqrt(1 - CORRELATION)
        return targets, [shared + own * self._noise() + self._shift * targets for _ in range(2)]


def table_of(targets: Array, scores: Array, patients: Sequence[int]) -> PredictionTable:
    """Return a table of one finding."""
    names = tuple(map(str, range(len(targets))))
    return PredictionTable(
        ids=names,
        patients=tuple(f"{patient:06}" for patient in patients),
        studies=names,
        images=np.ones(len(names), dtype=np.int64),
        split="test",
        level=Level.STUDY,
        sheet_sha256="",
        model_sha256="",
        scores=scores[:, None],
        targets=targets[:, None].astype(np.float32),
        mask=np.ones((len(names), 1), dtype=np.bool_),
        findings=Findings(("finding",)),
        are_probabilities=False,
    )


def p_values(sampler: Sampler, draws: int) -> tuple[float, float, float]:
    """Return the three p-values of one data set."""
    targets, scores = sampler.sample()
    tables = [table_of(targets, one, sampler.patients) for one in scores]
    drawn = [one["finding"]["auroc"] for one in bootstrap_areas(tables, BootstrapSettings(draws))]
    test = compare_areas(targets, *scores, sampler.patients)
    return counted_p_value(drawn[0] - drawn[1]), test.normal_p_value, test.p_value


def main() -> None:
    """Print a line for each design and p-value."""
    given = sys.argv[1:]
    data_sets, draws, auroc = (*map(int, given[:2]), *(500, 1000)[len(given[:2]) :], float((given + ["0.8"] * 3)[2]))
    print(f"{data_sets} data sets, {draws} draws, true AUROC {auroc:g}")
    print(
        f"{'studies':>7} {'positives':>9} {'per patient':>11}  {'p-value':<18} {'< .05':>6} {'< .005':>6} {'KS p':>6}"
    )
    for studies, positives in DESIGNS:
        for clustered in (False, True):
            began = time.perf_counter()
            sampler = Sampler(studies, positives, clustered, auroc, seed=studies + positives)
            found = np.array([p_values(sampler, draws) for _ in range(data_sets)])
            for name, values in zip(NAMES, found.T, strict=True):
                uniform = kstest(values, "uniform").pvalue
                print(
                    f"{studies:7} {positives:9} {'2 to 3' if clustered else '1':>11}  {name:<18} "
                    f"{(values < 0.05).mean():6.3f} {(values < 0.005).mean():6.3f} {uniform:6.3f}"
                )
            print(f"{'':29}  ({time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
