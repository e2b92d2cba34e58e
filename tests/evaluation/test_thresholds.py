import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from cxrtool.choices import Criterion
from cxrtool.errors import RequestError
from cxrtool.evaluation.thresholds import parse_thresholds, threshold_curve, threshold_grid, tune_thresholds
from cxrtool.findings import CHEXPERT5, FINDINGS
from tests_support import random_table

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
    tuned = tune_thresholds(table, criterion, GRID)
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
        tuned = tune_thresholds(table, criterion, GRID, 0.8)
        for finding in FINDINGS:
            values = getattr(tuned.curves[finding], criterion.value)
            enough = GRID[values >= 0.8]
            assert tuned.thresholds[finding] == (enough.min() if higher_is_stricter else enough.max())
    with pytest.raises(RequestError, match="target"):
        tune_thresholds(table, Criterion.RECALL, GRID)


def test_rows_of_the_test_split_are_refused() -> None:
    with pytest.raises(RequestError, match="test split"):
        tune_thresholds(replace(random_table(10), split="test"), Criterion.F1, GRID)
    with pytest.raises(RequestError, match="do not name the split"):
        tune_thresholds(replace(random_table(10), split="unknown"), Criterion.F1, GRID)


def test_a_finding_with_one_class_keeps_the_default_threshold_with_a_warning() -> None:
    table = random_table(20)
    targets = table.targets.copy()
    targets[:, 0] = 0
    tuned = tune_thresholds(replace(table, targets=targets), Criterion.F1, GRID)
    assert tuned.thresholds["Atelectasis"] == 0.5
    assert "Atelectasis has only one class" in tuned.warnings[0]
    again = tune_thresholds(replace(table, targets=targets), Criterion.F1, GRID, before={"Atelectasis": 0.37})
    assert again.thresholds == {**tuned.thresholds, "Atelectasis": 0.37}
    assert "its threshold stays 0.37, as it was" in again.warnings[0]


def test_thresholds_as_text_and_as_files(tmp_path: Path) -> None:
    values = {"Atelectasis": 0.46, "Cardiomegaly": 0.11, "Consolidation": 0.47, "Edema": 0.34, "Pleural Effusion": 0.37}
    assert parse_thresholds("0.46,0.11,0.47,0.34,0.37", CHEXPERT5) == values
    assert parse_thresholds("edema=0.3, Pleural Effusion = 0.2", CHEXPERT5) == {"Edema": 0.3, "Pleural Effusion": 0.2}
    (tmp_path / "t.json").write_text(json.dumps({"thresholds": values}))
    assert parse_thresholds(str(tmp_path / "t.json"), CHEXPERT5) == values
    (tmp_path / "t.csv").write_text("finding,threshold\n" + "".join(f"{k},{v}\n" for k, v in values.items()))
    assert parse_thresholds(str(tmp_path / "t.csv"), CHEXPERT5) == values


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("0.1,0.2", "2 numbers"),
        ("0.1,0.2,x,0.4,0.5", "'x'"),
        ("0.1,0.2,1.5,0.4,0.5", "1.5"),
        ("Oedema=0.3", "Oedema"),
        ("no.json", "no.json"),
    ],
)
def test_wrong_thresholds_are_refused(text: str, word: str) -> None:
    with pytest.raises(RequestError, match=word):
        parse_thresholds(text, CHEXPERT5)
