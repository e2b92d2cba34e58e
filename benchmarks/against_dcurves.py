"""Compare decision curves with those of the package dcurves (pip install dcurves).

python benchmarks/against_dcurves.py
"""

import numpy as np
import pandas as pd
from dcurves import dca

from cxrtool.evaluation.operating import decision_curve


def main() -> None:
    """Print the largest difference of net benefit over thresholds, in several samples."""
    for seed, (count, prevalence) in enumerate(((50, 0.3), (500, 0.1), (5000, 0.02))):
        rng = np.random.default_rng(seed)
        targets = rng.random(count) < prevalence
        probabilities = 1 / (1 + np.exp(-(rng.normal(size=count) + 1.5 * targets - 2)))
        ours = decision_curve(targets, probabilities)
        frame = pd.DataFrame({"outcome": targets.astype(int), "model": probabilities})
        theirs = dca(data=frame, outcome="outcome", modelnames=["model"], thresholds=ours.thresholds)
        for name, curve in (("model", ours.model), ("all", ours.everyone)):
            other = theirs[theirs["model"] == name].sort_values("threshold")["net_benefit"].to_numpy()
            print(f"{count} rows, {name}: largest difference {np.abs(other - curve).max():.1e}")


if __name__ == "__main__":
    main()
