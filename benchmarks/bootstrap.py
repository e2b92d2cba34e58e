"""Compare the bootstrap over patients with a plain one, which repeats the drawn rows and calls scikit-learn.

python benchmarks/bootstrap.py [STUDIES] [DRAWS]
"""

import sys
import time

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrtool.choices import Level
from cxrtool.evaluation.assessment import AssessmentSettings, assess
from cxrtool.evaluation.drawn_areas import bootstrap_areas
from cxrtool.evaluation.intervals import BootstrapSettings, PatientDraws
from cxrtool.evaluation.table import PredictionTable
from cxrtool.findings import FINDINGS

PLAIN_DRAWS = 5


def synthetic_table(studies: int) -> PredictionTable:
    """Return a table with two studies per patient and a true AUROC of 0.76."""
    rng = np.random.default_rng(0)
    targets = (rng.random((studies, 5)) < 0.3).astype(np.float32)
    probabilities = 1 / (1 + np.exp(-(rng.normal(size=(studies, 5)) + targets)))
    names = tuple(map(str, range(studies)))
    return PredictionTable(
        ids=names,
        patients=tuple(str(row // 2) for row in range(studies)),
        studies=names,
        images=np.ones(studies, dtype=np.int64),
        split="test",
        level=Level.STUDY,
        sheet_sha256="",
        model_sha256="",
        scores=probabilities,
        targets=targets,
        mask=np.ones((studies, 5), dtype=np.bool_),
        attributes={
            "sex": tuple(rng.choice(["Female", "Male"], studies)),
            "age": tuple(map(str, rng.integers(20, 90, studies))),
            "projection": tuple(rng.choice(["AP", "PA"], studies)),
        },
    )


def plain_seconds_per_draw(table: PredictionTable) -> float:
    """Return seconds per draw of the plain bootstrap, for AUROC and AUPRC of the five findings."""
    weights = PatientDraws(table.patients, BootstrapSettings(PLAIN_DRAWS)).chunk(0).astype(int)
    began = time.perf_counter()
    for weight in weights:
        rows = np.repeat(np.arange(len(table)), weight)
        for column in range(len(FINDINGS)):
            truth, score = table.targets[rows, column], table.scores[rows, column]
            roc_auc_score(truth, score)
            average_precision_score(truth, score)
    return (time.perf_counter() - began) / PLAIN_DRAWS


def main() -> None:
    """Print both times and their ratio."""
    studies, draws = (int(text) for text in (sys.argv[1:] + ["20000", "1000"][len(sys.argv) - 1 :])[:2])
    table = synthetic_table(studies)
    began = time.perf_counter()
    bootstrap_areas([table], BootstrapSettings(draws))
    ours = time.perf_counter() - began
    began = time.perf_counter()
    assess(table, AssessmentSettings(BootstrapSettings(draws)), dict.fromkeys(FINDINGS, 0.5))
    everything = time.perf_counter() - began
    plain = plain_seconds_per_draw(table) * draws
    print(f"{draws} draws, 5 findings, {studies} studies: {ours:.1f} s; all figures, {everything:.1f} s")
    print(f"plain bootstrap, AUROC and AUPRC only: {plain:.1f} s ({PLAIN_DRAWS} draws timed); ratio {plain / ours:.1f}")


if __name__ == "__main__":
    main()
