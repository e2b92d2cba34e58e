"""What several tests build."""

import numpy as np
from numpy.typing import ArrayLike

from cxrtool.choices import Level
from cxrtool.predictions import PredictionTable


def random_table(count: int, seed: int = 0) -> PredictionTable:
    """A study-level table of valid with masked cells and tied probabilities."""
    rng = np.random.default_rng(seed)
    names = tuple(f"patient{n}/study1" for n in range(count))
    targets = rng.integers(0, 2, (count, 5)).astype(np.float32)
    noisy = np.clip(0.3 * targets + 0.7 * rng.random((count, 5)), 0, 1)
    return PredictionTable(
        ids=names,
        patients=tuple(name.split("/")[0] for name in names),
        studies=names,
        images=np.ones(count, dtype=np.int64),
        split="valid",
        level=Level.STUDY,
        sheet_sha256="",
        model_sha256="",
        probabilities=np.round(noisy, 2).astype(np.float32),
        targets=targets,
        mask=rng.random((count, 5)) < 0.9,
    )


def table_of(targets: ArrayLike, probabilities: ArrayLike, split: str = "valid") -> PredictionTable:
    """A study-level table whose five findings are all alike, one patient a row."""
    truth, scores = np.asarray(targets, dtype=np.float32), np.asarray(probabilities, dtype=np.float32)
    names = tuple(f"patient{n}/study1" for n in range(len(truth)))
    return PredictionTable(
        ids=names,
        patients=tuple(name.split("/")[0] for name in names),
        studies=names,
        images=np.ones(len(truth), dtype=np.int64),
        split=split,
        level=Level.STUDY,
        sheet_sha256="",
        model_sha256="",
        probabilities=np.repeat(scores[:, None], 5, axis=1),
        targets=np.repeat(truth[:, None], 5, axis=1),
        mask=np.ones((len(truth), 5), dtype=np.bool_),
    )
