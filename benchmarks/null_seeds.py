"""P-values of two equally good recipes with several seeds each: how often they fall below .05.

Trainings of a recipe differ in how far the scores of positives lie from those of negatives (1.3 on average, with the
standard deviation of each line). Printed for p-values with and without the spread between seeds.

python benchmarks/null_seeds.py [DATASETS]
"""

import sys

import numpy as np
from null_p import table_of

from cxrtool.evaluation.comparison import compare
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.evaluation.pairing import Candidate

STUDIES, POSITIVES = 200, 60


def p_values(rng: np.random.Generator, seeds: int, spread: float) -> tuple[float, float]:
    """Return the p-value of AUROC with and without the spread between seeds, for one data set."""
    targets = np.zeros(STUDIES)
    targets[rng.permutation(STUDIES)[:POSITIVES]] = 1
    shared = rng.normal(size=STUDIES)
    recipes = []
    for name in ("first", "second"):
        of_recipe = shared + 0.5 * rng.normal(size=STUDIES)
        runs = [of_recipe + 0.5 * rng.normal(size=STUDIES) + rng.normal(1.3, spread) * targets for _ in range(seeds)]
        recipes.append(Candidate(name, tuple(table_of(targets, run, range(STUDIES)) for run in runs)))
    differences = compare(recipes, BootstrapSettings(2)).differences
    found = next(item for item in differences if item.finding == "mean" and item.figure == "auroc")
    return found.p_value or 0.0, found.p_without_seeds or 0.0


def main() -> None:
    """Print a line for each spread and number of seeds."""
    data_sets = int((sys.argv[1:] or ["400"])[0])
    rng = np.random.default_rng(1)
    print(f"{data_sets} data sets of {STUDIES} studies, {POSITIVES} positive; share of p below .05")
    for spread in (0.0, 0.15, 0.4):
        for seeds in (2, 3, 5):
            found = np.array([p_values(rng, seeds, spread) for _ in range(data_sets)])
            with_seeds, without = (found < 0.05).mean(axis=0)
            print(f"spread {spread:4g}, {seeds} seeds: with {with_seeds:.3f}, without {without:.3f}", flush=True)


if __name__ == "__main__":
    main()
