"""Power of the paired test at the difference that ``cxr power`` calls detectable, by simulation.

``python benchmarks/power.py [SAMPLES]`` prints the table of docs/evaluation.md, with ratios of formulas to variances of
the samples.
"""

import sys
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.delong import compare_areas
from cxrtool.evaluation.metrics import auroc
from cxrtool.evaluation.power import Assumptions, TwoSidedTest, area_covariance, detectable_difference

CASES = [  # AUROC, prevalence, correlation, studies
    (0.85, 0.3, 0.6, 500),
    (0.90, 0.2, 0.6, 500),
    (0.90, 0.2, 0.9, 200),
    (0.88, 0.06, 0.6, 1000),
    (0.88, 0.06, 0.8, 500),
    (0.75, 0.5, 0.3, 200),
    (0.95, 0.1, 0.5, 2000),
]


def scores_of(
    rng: np.random.Generator, areas: tuple[float, float], correlation: float, positive: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return binormal scores of two models, [2, N]."""
    noise = rng.standard_normal((2, len(positive)))
    noise[1] = correlation * noise[0] + np.sqrt(1 - correlation**2) * noise[1]
    gaps = np.array([np.sqrt(2) * NormalDist().inv_cdf(area) for area in areas])
    return noise + gaps[:, None] * positive


def main() -> None:
    """Print the table."""
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    test = TwoSidedTest()
    print("AUROC  prevalence  correlation  studies  detectable  power  level  variance  covariance  Hanley-McNeil")
    for area, prevalence, correlation, studies in CASES:
        rng = np.random.default_rng(0)
        assumed = Assumptions(area, prevalence, correlation)
        difference = detectable_difference(assumed, studies, test)
        assert difference is not None
        positives = round(studies * prevalence)
        positive = np.arange(studies) < positives
        found = {0.0: 0, difference: 0}
        areas = []
        for gain in found:
            for _ in range(samples):
                one, other = scores_of(rng, (area, area + gain), correlation, positive)
                found[gain] += compare_areas(positive, one, other).p_value < test.alpha
                if not gain:
                    areas.append([auroc(positive, one), auroc(positive, other)])
        measured = np.cov(np.array(areas).T)
        counts = positives, studies - positives
        ratios = [
            area_covariance(area, area, 1.0, *counts) / np.mean(np.diag(measured)),
            area_covariance(area, area, correlation, *counts) / measured[0, 1],
            hanley_mcneil(area, *counts) / np.mean(np.diag(measured)),
        ]
        print(
            f"{area:5.2f}  {prevalence:10.2f}  {correlation:11.1f}  {studies:7}  {difference:10.4f}  "
            f"{found[difference] / samples:5.3f}  {found[0.0] / samples:5.3f}  "
            f"{ratios[0]:8.2f}  {ratios[1]:10.2f}  {ratios[2]:13.2f}",
            flush=True,
        )


def hanley_mcneil(area: float, positives: int, negatives: int) -> float:
    """Return Hanley & McNeil's variance (1982, Radiology 143:29, equation 1)."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    rest = (positives - 1) * (one - area**2) + (negatives - 1) * (two - area**2)
    return (area * (1 - area) + rest) / (positives * negatives)


if __name__ == "__main__":
    main()
