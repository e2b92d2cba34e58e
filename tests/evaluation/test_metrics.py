from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn import metrics as sk

from cxrtool.choices import Level
from cxrtool.errors import CxrError
from cxrtool.evaluation.metrics import auroc, average_precision, confusion, evaluate
from cxrtool.evaluation.table import PredictionTable
from cxrtool.evaluation.thresholds import threshold_curve, threshold_grid
from cxrtool.findings import FINDINGS

# Few distinct scores, so that ties are frequent.
SCORES = hnp.arrays(np.float64, st.integers(2, 60), elements=st.integers(0, 12).map(lambda n: n / 12))


def labels_for(scores: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 2, len(scores))


@given(SCORES, st.integers(0, 10**6))
def test_auroc_and_average_precision_equal_scikit_learn(scores: NDArray[np.float64], seed: int) -> None:
    labels = labels_for(scores, seed)
    assume(0 < labels.sum() < len(labels))
    assert auroc(labels, scores) == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(labels, scores) == pytest.approx(sk.average_precision_score(labels, scores), abs=1e-12)


@given(SCORES, st.integers(0, 10**6))
def test_auroc_of_negated_scores_is_one_minus_auroc(scores: NDArray[np.float64], seed: int) -> None:
    labels = labels_for(scores, seed)
    assume(0 < labels.sum() < len(labels))
    assert auroc(labels, -scores) == pytest.approx(1 - auroc(labels, scores), abs=1e-12)


@given(SCORES, st.integers(0, 10**6))
def test_areas_do_not_depend_on_scale_or_order(scores: NDArray[np.float64], seed: int) -> None:
    labels = labels_for(scores, seed)
    assume(0 < labels.sum() < len(labels))
    order = np.random.default_rng(seed).permutation(len(scores))
    for metric in (auroc, average_precision):
        value = metric(labels, scores)
        assert metric(labels, np.exp(3 * scores)) == pytest.approx(value, abs=1e-12)
        assert metric(labels[order], scores[order]) == pytest.approx(value, abs=1e-12)


def test_auroc_by_hand() -> None:
    # Pairs (positive, negative): 0.9>0.5, 0.9>0.1, 0.5=0.5 counts half, 0.5>0.1: 3.5 of 4.
    assert auroc([1, 1, 0, 0], [0.9, 0.5, 0.5, 0.1]) == 3.5 / 4


def test_decisions_compare_float32_probabilities_with_the_threshold_as_typed() -> None:
    grid = threshold_grid()
    scores = grid.astype(np.float32)  # next to each threshold, above it or below it
    assert 0 < (scores.astype(np.float64) >= grid).sum() < len(grid)
    labels = np.arange(len(grid)) % 2
    curve = threshold_curve(labels.astype(np.float32), scores, grid)
    for place, threshold in enumerate(grid.tolist()):
        called = [score >= threshold for score in scores.tolist()]
        counts = confusion(labels, scores, threshold)
        assert (counts.tp, counts.fp) == (sum(np.array(called) & (labels == 1)), sum(np.array(called) & (labels == 0)))
        assert counts.recall == curve.recall[place]
        assert counts.specificity == curve.specificity[place]


def test_one_class_is_undefined_and_nan_is_refused() -> None:
    assert np.isnan(auroc([1, 1], [0.1, 0.2]))
    assert np.isnan(average_precision([0, 0], [0.1, 0.2]))
    with pytest.raises(CxrError, match="row 1"):
        auroc([0, 1], [0.1, np.nan])


@given(SCORES, st.integers(0, 10**6), st.integers(0, 12).map(lambda n: n / 12))
def test_figures_at_a_threshold_equal_scikit_learn(scores: NDArray[np.float64], seed: int, threshold: float) -> None:
    labels = labels_for(scores, seed)
    called = scores >= threshold
    counts = confusion(labels, scores, threshold)
    tn, fp, fn, tp = sk.confusion_matrix(labels, called, labels=[0, 1]).ravel()
    assert (counts.tn, counts.fp, counts.fn, counts.tp) == (tn, fp, fn, tp)
    for mine, theirs in [
        (counts.f1, sk.f1_score(labels, called, zero_division=np.nan)),
        (counts.precision, sk.precision_score(labels, called, zero_division=np.nan)),
        (counts.recall, sk.recall_score(labels, called, zero_division=np.nan)),
        (counts.specificity, sk.recall_score(1 - labels, ~called, zero_division=np.nan)),
    ]:
        assert mine == pytest.approx(theirs, abs=1e-12, nan_ok=True)
    if 0 < labels.sum() < len(labels):
        assert counts.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(labels, called), abs=1e-12)


def table_of(targets: NDArray[np.float32], probabilities: NDArray[np.float64]) -> PredictionTable:
    names = tuple(f"patient{n}/study1" for n in range(len(targets)))
    return PredictionTable(
        ids=names,
        patients=names,
        studies=names,
        images=np.full(len(targets), 2, dtype=np.int64),
        split="test",
        level=Level.STUDY,
        sheet_sha256="",
        model_sha256="",
        scores=probabilities,
        targets=targets,
        mask=np.ones(targets.shape, dtype=bool),
    )


def test_a_finding_with_one_class_is_null_and_left_out_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (40, 5)).astype(np.float32)
    targets[:, 1] = 0
    table = table_of(targets, rng.random((40, 5)))
    masked = table.mask.copy()
    masked[:, 2] = False
    masked[5:, 3] = False
    evaluation = evaluate(replace(table, mask=masked), dict.fromkeys(FINDINGS, 0.5))
    content = evaluation.to_dict()
    labels = content["labels"]
    assert isinstance(labels, dict)
    assert labels["Cardiomegaly"]["auroc"] is None
    assert labels["Cardiomegaly"]["recall"] is None
    assert labels["Consolidation"]["ignored"] == 40
    assert labels["Edema"]["ignored"] == 35
    assert labels["Edema"]["positives"] == targets[:5, 3].sum()
    assert labels["Edema"]["negatives"] == 5 - targets[:5, 3].sum()
    defined = [row["auroc"] for row in labels.values() if row["auroc"] is not None]
    assert content["mean"]["auroc"] == pytest.approx(np.mean(defined))  # type: ignore[index]
    assert len(evaluation.warnings) == 5 - len(defined)
    assert "Cardiomegaly has no positive" in evaluation.warnings[0]
    assert content["images"] == 80
    assert content["studies"] == 40


def test_a_single_study_gives_null_everywhere() -> None:
    evaluation = evaluate(table_of(np.ones((1, 5), np.float32), np.full((1, 5), 0.5)))
    assert evaluation.mean_auroc is None
    assert len(evaluation.warnings) == 5
