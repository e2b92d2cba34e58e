from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.errors import RequestError
from cxrtool.evaluation.comparison import Candidate, align, compare, holm, p_value
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.evaluation.metrics import auroc
from cxrtool.findings import FINDINGS
from tests_support import random_table, table_of

DRAWS = BootstrapSettings(300)


def test_holm_on_a_worked_example() -> None:
    # Four p-values, multiplied by 4, 3, 2, 1 in rising order, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_between_raw_and_bonferroni(p_values: list[float]) -> None:
    for raw, corrected in zip(p_values, holm(p_values), strict=True):
        assert raw - 1e-12 <= corrected <= min(1.0, raw * len(p_values)) + 1e-12


def test_smallest_and_largest_p_values() -> None:
    assert p_value(np.zeros(99)) == 1
    assert p_value(np.ones(99)) == pytest.approx(2 / 100)
    assert np.isnan(p_value(np.array([np.nan])))


def test_a_model_does_not_differ_from_itself() -> None:
    table = random_table(80)
    result = compare([Candidate("a", (table,)), Candidate("b", (table,))], DRAWS)
    assert all(item.value == 0 and item.p_value == 1 for item in result.differences)
    assert "No difference" in result.sentence()


def test_a_better_model_is_found_and_pairing_narrows_its_interval() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 300)
    shared = rng.normal(size=300)
    good, worse = shared + 1.6 * targets, shared + 0.9 * targets
    tables = [table_of(targets, 1 / (1 + np.exp(-score))) for score in (good, worse)]
    result = compare([Candidate("good", (tables[0],)), Candidate("worse", (tables[1],))], DRAWS)
    mean = next(item for item in result.differences if item.finding == "mean" and item.figure == "auroc")
    assert mean.value == pytest.approx(auroc(targets, good) - auroc(targets, worse), abs=1e-6)
    assert mean.beyond_chance
    assert "good beats worse" in result.sentence()
    alone = [result.figures[name]["mean"]["auroc"].interval for name in ("good", "worse")]
    unpaired = np.hypot(*[(one.high or 0) - (one.low or 0) for one in alone])
    assert (mean.interval.high or 0) - (mean.interval.low or 0) < 0.6 * unpaired


def test_the_error_rate_without_a_difference_is_near_5_percent() -> None:
    rng = np.random.default_rng(3)
    false_alarms = 0
    for run in range(120):
        targets = rng.integers(0, 2, 120)
        tables = [table_of(targets, 1 / (1 + np.exp(-(targets + rng.normal(size=120))))) for _ in range(2)]
        result = compare([Candidate("a", (tables[0],)), Candidate("b", (tables[1],))], BootstrapSettings(200, run))
        mean = next(item for item in result.differences if item.finding == "mean" and item.figure == "auroc")
        false_alarms += mean.beyond_chance
    assert false_alarms <= 14  # 5 % of 120 is 6; 14 or more would come by chance once in 300


def test_rows_in_another_order_are_matched_by_name() -> None:
    table = random_table(40)
    shuffled = table.select(np.random.default_rng(0).permutation(40))
    result = compare([Candidate("a", (table,)), Candidate("b", (shuffled,))], DRAWS)
    assert all(item.value == pytest.approx(0, abs=1e-12) for item in result.differences)


@pytest.mark.parametrize("change", ["rows", "label", "split"])
def test_tables_with_different_rows_or_labels_are_refused(change: str) -> None:
    table = random_table(20)
    other = {
        "rows": table.select(np.arange(19)),
        "label": replace(table, targets=1 - table.targets),
        "split": replace(table, split="test"),
    }[change]
    with pytest.raises(RequestError):
        align(other, table, "b")


def test_seeds_are_averaged_and_their_deviation_is_reported() -> None:
    table = random_table(60, seed=1)
    tables = (table, replace(table, scores=random_table(60, seed=2).scores))
    areas = [[auroc(one.targets[rows, n], one.scores[rows, n]) for n, rows in enumerate(one.mask.T)] for one in tables]
    figures = compare([Candidate("a", tables), Candidate("b", (table,))], DRAWS).figures
    of_edema = [of_one[FINDINGS.index("Edema")] for of_one in areas]
    assert figures["a"]["Edema"]["auroc"].value == pytest.approx(np.mean(of_edema))
    assert figures["a"]["Edema"]["auroc"].seed_deviation == pytest.approx(np.std(of_edema, ddof=1))
    assert figures["a"]["mean"]["auroc"].seed_deviation == pytest.approx(np.std(np.mean(areas, axis=1), ddof=1))
    assert figures["b"]["mean"]["auroc"].seed_deviation is None
