from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from cxrtool.choices import Criterion
from cxrtool.errors import RequestError
from cxrtool.evaluation.thresholds import (
    ThresholdSearch,
    curve_of_counts,
    threshold_curve,
    threshold_grid,
    tune_thresholds,
    values_of,
)
from cxrtool.findings import FINDINGS
from tests_support import random_table, table_of

GRID = threshold_grid()


def test_grid_values_equal_typed_numbers() -> None:
    assert len(GRID) == 91
    assert GRID.tolist() == [round(0.05 + n / 100, 2) for n in range(91)]
    assert 0.3 in GRID.tolist()
    for wrong in ((0.9, 0.1, 0.01), (0, 1.2, 0.1), (0, 1, 0)):
        with pytest.raises(RequestError):
            threshold_grid(*wrong)


@given(st.integers(0, 10**6), st.integers(5, 80))
def test_the_curve_equals_scikit_learn_at_every_threshold(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count).astype(np.float32)
    scores = np.round(rng.random(count), 2)
    curve = threshold_curve(labels, scores, GRID)
    for index in range(0, len(GRID), 15):
        called = scores.astype(float) >= GRID[index]
        assert curve.f1[index] == pytest.approx(sk.f1_score(labels, called, zero_division=np.nan), nan_ok=True)
        assert curve.recall[index] == pytest.approx(sk.recall_score(labels, called, zero_division=np.nan), nan_ok=True)
        expected = sk.precision_score(labels, called, zero_division=np.nan)
        assert curve.precision[index] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("criterion", [Criterion.F1, Criterion.BALANCED_ACCURACY, Criterion.YOUDEN])
def test_the_chosen_threshold_is_the_lowest_best(criterion: Criterion) -> None:
    table = random_table(60)
    tuned = tune_thresholds(table, ThresholdSearch(criterion, GRID, grid_only=True))
    for column, finding in enumerate(FINDINGS):
        counts = table.mask[:, column]
        labels, scores = table.targets[counts, column], table.scores[counts, column].astype(float)
        score = {
            Criterion.F1: lambda y, c: sk.f1_score(y, c),
            Criterion.BALANCED_ACCURACY: sk.balanced_accuracy_score,
            Criterion.YOUDEN: lambda y, c: 2 * sk.balanced_accuracy_score(y, c) - 1,
        }[criterion]
        values = np.array([score(labels, scores >= threshold) for threshold in GRID])
        best = GRID[np.flatnonzero(values >= values.max() - 1e-12)[0]]
        assert tuned.thresholds[finding] == best
        assert tuned.values[finding] == pytest.approx(values.max())


def test_a_target_recall_or_specificity_is_reached_at_the_nearest_threshold() -> None:
    table = random_table(80)
    for criterion, higher_is_stricter in ((Criterion.RECALL, False), (Criterion.SPECIFICITY, True)):
        tuned = tune_thresholds(table, ThresholdSearch(criterion, GRID, 0.8, grid_only=True))
        for finding in FINDINGS:
            values = getattr(tuned.curves[finding], criterion.value)
            enough = GRID[values >= 0.8]
            assert tuned.thresholds[finding] == (enough.min() if higher_is_stricter else enough.max())
    with pytest.raises(RequestError, match="target"):
        ThresholdSearch(Criterion.RECALL, GRID)


def test_rows_of_the_test_split_are_refused() -> None:
    with pytest.raises(RequestError, match="test split"):
        tune_thresholds(replace(random_table(10), split="test"), ThresholdSearch(Criterion.F1, GRID))
    with pytest.raises(RequestError, match="do not name the split"):
        tune_thresholds(replace(random_table(10), split="unknown"), ThresholdSearch(Criterion.F1, GRID))


def test_a_finding_with_one_class_keeps_the_default_threshold_with_a_warning() -> None:
    table = random_table(20)
    targets = table.targets.copy()
    targets[:, 0] = 0
    tuned = tune_thresholds(replace(table, targets=targets), ThresholdSearch(Criterion.F1, GRID))
    assert tuned.thresholds["Atelectasis"] == 0.5
    assert "Atelectasis has only one class" in tuned.warnings[0]
    again = tune_thresholds(
        replace(table, targets=targets), ThresholdSearch(Criterion.F1, GRID), before={"Atelectasis": 0.37}
    )
    assert again.thresholds == {**tuned.thresholds, "Atelectasis": 0.37}
    assert "its threshold stays 0.37, as it was" in again.warnings[0]


@st.composite
def rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels of both classes and scores, some tied, some outside the grid."""
    digits = draw(st.integers(1, 6))
    scores = draw(st.lists(st.floats(0, 1), min_size=2, max_size=40))
    labels = draw(st.lists(st.integers(0, 1), min_size=len(scores) - 2, max_size=len(scores) - 2))
    return np.array([0, 1, *labels], np.float32), np.round(scores, digits)


@given(rows(), st.sampled_from([Criterion.F1, Criterion.BALANCED_ACCURACY, Criterion.YOUDEN]))
def test_no_threshold_at_all_is_better_than_the_chosen_one(
    sample: tuple[np.ndarray, np.ndarray], criterion: Criterion
) -> None:
    labels, scores = sample
    choice = ThresholdSearch(criterion, GRID).choose(labels, scores)
    assert choice is not None
    every = np.unique(np.concatenate((GRID, scores, np.nextafter(scores, 2))))
    values = values_of(threshold_curve(labels, scores, every), criterion)
    assert choice.value == pytest.approx(np.nanmax(values), abs=1e-12)
    at = values_of(threshold_curve(labels, scores, np.array([choice.threshold])), criterion)
    assert choice.value == at[0]
    of_grid = ThresholdSearch(criterion, GRID, grid_only=True).choose(labels, scores)
    assert of_grid is not None
    assert of_grid.threshold in GRID
    if of_grid.value >= choice.value - 1e-12:
        assert choice.threshold == of_grid.threshold, "of equally good thresholds, those of the grid come first"


@given(rows(), st.sampled_from([Criterion.RECALL, Criterion.SPECIFICITY]), st.sampled_from([0.5, 0.8, 0.9]))
def test_a_target_is_reached_with_the_best_of_the_other_rate(
    sample: tuple[np.ndarray, np.ndarray], criterion: Criterion, target: float
) -> None:
    labels, scores = sample
    choice = ThresholdSearch(criterion, GRID, target).choose(labels, scores)
    assert choice is not None
    every = np.unique(np.concatenate((GRID, scores)))
    curve = threshold_curve(labels, scores, every)
    reached = values_of(curve, criterion) >= target - 1e-12
    assert choice.reached == reached.any()
    if reached.any():
        other = Criterion.SPECIFICITY if criterion is Criterion.RECALL else Criterion.RECALL
        chosen = threshold_curve(labels, scores, np.array([choice.threshold]))
        assert values_of(chosen, other)[0] == pytest.approx(values_of(curve, other)[reached].max())


def test_candidates_lie_between_scores() -> None:
    search = ThresholdSearch(Criterion.F1, np.array([0.5]))
    np.testing.assert_allclose(search.candidates(np.array([0.2, 0.8, 0.2, 0.4])), [0.2, 0.3, 0.5, 0.6])
    neighbours = np.array([0.3, np.nextafter(0.3, 1)])  # their middle is rounded to one of them
    assert search.candidates(neighbours).tolist() == [*neighbours, 0.5]


def test_of_several_equally_good_thresholds_between_scores_the_lowest_is_chosen() -> None:
    # At 0.015 and at 0.035 balanced accuracy is 3/4; the grid begins at 0.05, where it is 1/2.
    choice = ThresholdSearch(Criterion.BALANCED_ACCURACY, GRID).choose(
        np.array([0, 1, 0, 1], np.float32), np.array([0.01, 0.02, 0.03, 0.04])
    )
    assert choice is not None
    assert (choice.threshold, choice.value) == (pytest.approx(0.015), 0.75)


def test_a_rare_finding_with_small_probabilities_is_tuned_below_the_grid() -> None:
    """At a prevalence of .02 calibrated probabilities rarely reach .05, where F1 on the grid is close to 0."""
    rng = np.random.default_rng(3)
    labels = (rng.random(2000) < 0.02).astype(np.float32)
    logits = rng.normal(size=2000) * 0.6 + 0.9 * labels - 5.5
    table = table_of(labels, 1 / (1 + np.exp(-logits)))
    best = tune_thresholds(table, ThresholdSearch(Criterion.F1, GRID))
    of_grid = tune_thresholds(table, ThresholdSearch(Criterion.F1, GRID, grid_only=True))
    assert best.thresholds["Edema"] < GRID[0] <= of_grid.thresholds["Edema"]
    assert (best.values["Edema"] or 0) > (of_grid.values["Edema"] or 0) + 0.05
    assert best.warnings == ()
    assert "lowest that was tried (0.05)" in of_grid.warnings[0]


def test_a_criterion_that_is_undefined_everywhere_chooses_nothing() -> None:
    zeros = np.zeros(len(GRID))
    curve = curve_of_counts(zeros, zeros, 0.0, 0.0, GRID)
    for criterion in Criterion:
        target = 0.9 if criterion in (Criterion.RECALL, Criterion.SPECIFICITY) else None
        search = ThresholdSearch(criterion, GRID, target)
        assert search.choose_on(curve) is None
        assert search.choose(np.zeros(3, np.float32), np.array([0.1, 0.2, 0.3])) is None
        assert search.choose(np.zeros(0, np.float32), np.zeros(0)) is None
