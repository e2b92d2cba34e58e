"""P-values, Holm's correction, intervals and detectable differences."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cxrtool.evaluation.paired_test import Estimate, at_floor, counted_p_value, holm, satterthwaite


def test_holm_on_a_worked_example() -> None:
    # Four p-values, multiplied by 4, 3, 2, 1 in rising order, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_between_raw_and_bonferroni(p_values: list[float]) -> None:
    for raw, corrected in zip(p_values, holm(p_values), strict=True):
        assert raw - 1e-12 <= corrected <= min(1.0, raw * len(p_values)) + 1e-12


def test_smallest_and_largest_p_values() -> None:
    assert counted_p_value(np.zeros(99)) == 1
    assert counted_p_value(np.ones(99)) == pytest.approx(2 / 100)
    assert np.isnan(counted_p_value(np.array([np.nan])))
    assert at_floor(np.array([0.1, np.nan, 0.2]))
    assert not at_floor(np.array([0.1, 0.0]))
    assert not at_floor(np.array([np.nan]))


def test_p_values_and_intervals_are_those_of_student_and_of_the_normal_distribution() -> None:
    normal, student = Estimate(0.3, 0.1), Estimate(0.3, 0.1, 7)
    assert normal.p_value == pytest.approx(2 * stats.norm.sf(3))
    assert student.p_value == pytest.approx(2 * stats.t.sf(3, 7))
    assert student.normal_p_value == pytest.approx(normal.p_value)
    interval = student.interval(0.95, "delong")
    assert (interval.low, interval.high) == pytest.approx(stats.t.interval(0.95, 7, 0.3, 0.1))
    guarded = Estimate(0.3, 0.1, 7, 0.105)
    assert guarded.p_value == pytest.approx(2 * stats.norm.sf(0.3 / 0.105))
    assert guarded.interval(0.95, "").low == pytest.approx(0.3 - 1.959964 * 0.105)
    assert Estimate(0.3, 0.1, 7, 0.2).p_value == pytest.approx(student.p_value)
    assert Estimate(0.0, 0.0).p_value == 1
    assert math.isnan(Estimate(0.1, math.nan).p_value)
    assert math.isnan(Estimate(0.1, math.nan).detectable(3))


@given(st.floats(-0.9, 0.9), st.floats(0.01, 0.3), st.floats(2, 200), st.floats(1, 3))
def test_p_below_5_percent_if_and_only_if_the_interval_excludes_zero(
    value: float, error: float, freedom: float, inflation: float
) -> None:
    estimate = Estimate(value, error, freedom, error * inflation)
    interval = estimate.interval(0.95, "delong")
    assert interval.low is not None
    assert interval.high is not None
    if abs(estimate.p_value - 0.05) > 1e-6:
        assert (estimate.p_value < 0.05) == (interval.low > 0 or interval.high < 0)


@pytest.mark.parametrize("comparisons", [1, 10])
def test_a_detectable_difference_is_found_in_80_percent_of_trials(comparisons: int) -> None:
    rng = np.random.default_rng(0)
    true = Estimate(0.0, 0.01).detectable(comparisons)
    found = [Estimate(value, 0.01).p_value < 0.05 / comparisons for value in rng.normal(true, 0.01, 4000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.02)
    # 2.8 standard errors is the rule of thumb for one comparison.
    assert Estimate(0.0, 0.01).detectable(1) == pytest.approx(0.028, abs=1e-4)


def test_seeds_add_their_variance_as_welch_has_it() -> None:
    first, second = np.array([0.90, 0.92, 0.91]), np.array([0.88, 0.87, 0.90, 0.89])
    without_patients = Estimate(first.mean() - second.mean(), 0.0).with_seeds(first, second)
    assert without_patients.p_value == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue)
    both = Estimate(0.025, 0.01, 50).with_seeds(first, second)
    assert both.standard_error**2 == pytest.approx(0.01**2 + without_patients.standard_error**2)
    assert satterthwaite([(1.0, math.inf)]) == math.inf
