"""Fit a calibration to few positives and judge it on new cases, against leaving the probabilities as they are.

python benchmarks/small_calibration.py [SAMPLES]

Scores are normal in each class, 1.5 standard deviations apart (AUROC 0.86). The network's logit is the true one,
divided by `slope` and moved by `shift`, as pos_weight moves it. Labels are drawn at the prevalence EXPECTED / 200, so
that the number of positives varies. Four ways are compared: Platt's maximum likelihood (with his targets), an intercept
alone, the shrunken fit of `fit_scaling` without the test before it, and `fit_calibration`.
"""

import sys

import numpy as np
from sklearn.linear_model import LogisticRegression

from cxrtool.choices import CalibrationMethod
from cxrtool.evaluation.calibration import (
    FEWEST_OF_A_CLASS,
    Scaling,
    expit,
    fit_calibration,
    fit_scaling,
    logit,
    newton_logistic,
)
from cxrtool.evaluation.table import PredictionTable
from cxrtool.findings import Findings

ROWS, SEPARATION, NEW_CASES = 200, 1.5, 10_000
DISTORTIONS = {"none": (0.0, 1.0), "shift .7": (0.7, 1.0), "shift 2": (2.0, 1.0), "slope .6": (0.0, 0.6)}


def table_of(targets: np.ndarray, probabilities: np.ndarray) -> PredictionTable:
    """Return a table of one finding, a patient in each row."""
    names = tuple(map(str, range(len(targets))))
    one = np.ones(len(targets), dtype=np.int64)
    columns = probabilities[:, None], targets[:, None].astype(np.float32), one[:, None] > 0
    return PredictionTable(names, names, names, one, "valid", "study", "", "", *columns, findings=Findings(("Edema",)))


def platt(targets: np.ndarray, probabilities: np.ndarray) -> Scaling:
    """Fit slope and intercept by maximum likelihood with Platt's targets, as versions before did."""
    positives = targets.sum()
    soft = np.where(targets, (positives + 1) / (positives + 2), 1 / (len(targets) - positives + 2))
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    scores = logit(probabilities)
    weights = np.concatenate((soft, 1 - soft))
    model.fit(np.tile(scores, 2)[:, None], np.repeat([1, 0], len(scores)), sample_weight=weights)
    return Scaling(float(model.coef_[0, 0]), float(model.intercept_[0]))


def intercept_alone(targets: np.ndarray, probabilities: np.ndarray) -> Scaling:
    """Fit an intercept by maximum likelihood, with a slope of 1."""
    scores = logit(probabilities)
    found = newton_logistic(np.ones((len(scores), 1)), targets.astype(float), np.zeros(1), offset=scores)
    return Scaling(1.0, float(found[0]))


def kept(targets: np.ndarray, probabilities: np.ndarray) -> Scaling:
    """Return what `fit_calibration` stores."""
    return fit_calibration(table_of(targets, probabilities), CalibrationMethod.PLATT).scalings["Edema"]


METHODS = {
    "platt": platt,
    "intercept": intercept_alone,
    "shrunken": lambda targets, probabilities: fit_scaling(targets, probabilities, CalibrationMethod.PLATT),
    "kept": kept,
}


def main() -> None:
    """Print, for each design and method: samples in which log loss is worse, its mean change, the largest slope."""
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    rng = np.random.default_rng(0)
    print(f"{'positives':>9} {'distortion':>10} {'best':>7}", *(f"{name:>22}" for name in METHODS))
    for expected in (2, 4, 8, 12, 20, 40):
        odds = np.log(expected / (ROWS - expected))
        for name, (shift, slope) in DISTORTIONS.items():

            def draw(count: int, share: float, odds: float = odds, shift: float = shift, slope: float = slope):
                targets = rng.random(count) < share
                true = SEPARATION * (rng.normal(size=count) + SEPARATION * targets) - SEPARATION**2 / 2 + odds
                return targets, expit(true / slope + shift)

            new_targets, new = draw(NEW_CASES, 0.5)
            weight = np.where(new_targets, expected / ROWS, 1 - expected / ROWS) * 2
            new_logits = logit(new)

            def loss(scaling: Scaling, z=new_logits, y=new_targets, w=weight) -> float:
                z = scaling.slope * z + scaling.intercept
                return float(np.mean(w * (np.logaddexp(0, z) - y * z)))

            raw = loss(Scaling(1.0, 0.0))
            found: dict[str, list[tuple[float, float]]] = {method: [] for method in METHODS}
            while len(found["kept"]) < samples:
                targets, shown = draw(ROWS, expected / ROWS)
                if min(targets.sum(), (~targets).sum()) < 1:
                    continue
                for method, fit in METHODS.items():
                    scaling = fit(targets, shown)
                    found[method].append((loss(scaling) - raw, scaling.slope))
            cells = []
            for values in found.values():
                change, slopes = np.array(values).T
                cells.append(f"{np.mean(change > 1e-12):5.0%} {100 * change.mean():+6.2f} {slopes.max():8.2f}")
            best = loss(Scaling(slope, -slope * shift)) - raw
            print(f"{expected:>9} {name:>10} {100 * best:>7.2f}", *(f"{one:>22}" for one in cells), flush=True)
    print(f"best: change of log loss (x 100) by the true map; fewer than {FEWEST_OF_A_CLASS} positives are not fitted")


if __name__ == "__main__":
    main()
