"""Figures and choices of many draws at once are those of the repeated rows, one draw at a time."""

import numpy as np
import pytest

from cxrtool.choices import Criterion
from cxrtool.evaluation.drawn_curve import DrawnCurve
from cxrtool.evaluation.intervals import BootstrapSettings, PatientDraws
from cxrtool.evaluation.thresholds import ThresholdSearch, threshold_curve, threshold_grid, values_of
from tests_support import random_table

TARGETS = {Criterion.RECALL: 0.8, Criterion.SPECIFICITY: 0.8}


@pytest.mark.parametrize("criterion", list(Criterion))
def test_each_draw_equals_its_repeated_rows(criterion: Criterion) -> None:
    table = random_table(40, seed=3)
    rows = np.flatnonzero(table.mask[:, 2])
    targets, scores = table.targets[rows, 2], table.scores[rows, 2]
    search = ThresholdSearch(criterion, threshold_grid(), TARGETS.get(criterion))
    curve = DrawnCurve(targets, scores, rows, len(table), search)
    weights = PatientDraws(table.patients, BootstrapSettings(20)).chunk(0)
    figures = curve.figures(weights)
    chosen = curve.choose(figures)
    for draw, weight in enumerate(weights.astype(int)):
        repeated = np.repeat(np.arange(len(rows)), weight[rows])
        expected = threshold_curve(targets[repeated], scores[repeated], curve.tried)
        for name in ("f1", "recall", "specificity", "precision"):
            np.testing.assert_allclose(getattr(figures, name)[draw], getattr(expected, name), atol=1e-12)
        choice = search.choose_on(expected)
        assert choice is not None
        assert values_of(expected, criterion)[chosen[draw]] == pytest.approx(choice.value)
    assert curve.tried[curve.chosen] == search.choose(targets, scores).threshold  # type: ignore[union-attr]


def test_a_draw_without_a_class_is_left_out() -> None:
    targets, scores, rows = np.array([0, 1], np.float32), np.array([0.2, 0.7]), np.arange(2)
    search = ThresholdSearch(Criterion.YOUDEN, threshold_grid())
    curve = DrawnCurve(targets, scores, rows, 2, search)
    assert len(curve.figures(np.array([[2, 0], [1, 1], [0, 2]], np.float32)).f1) == 1


def test_many_scores_are_thinned_but_the_grid_and_the_choice_are_kept() -> None:
    rng = np.random.default_rng(0)
    targets = (np.arange(3000) < 900).astype(np.float32)
    search = ThresholdSearch(Criterion.F1, threshold_grid())
    curve = DrawnCurve(targets, rng.random(3000) * (1 + targets) / 2, np.arange(3000), 3000, search)
    assert len(curve.tried) < 700
    assert set(search.grid) <= set(curve.tried)
