"""Intervals of rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest

from cxrtool.evaluation.intervals import ONE_PATIENT, Interval
from cxrtool.evaluation.operating import predictive_values
from cxrtool.evaluation.rates import NO_CASE, quotient_interval, rate_interval, threshold_intervals


def flags(hits: int, cases: int) -> NDArray[np.bool_]:
    return np.arange(cases) < hits


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95]))
def test_independent_cases_have_wilsons_interval(counts: tuple[int, int], confidence: float) -> None:
    hits, cases = counts
    found = rate_interval(flags(hits, cases), np.arange(cases), confidence)
    theirs = binomtest(hits, cases).proportion_ci(confidence, method="wilson")
    assert found.low == pytest.approx(theirs.low, abs=1e-12)
    assert found.high == pytest.approx(theirs.high, abs=1e-12)
    assert found.method == "wilson"
    assert found.low <= hits / cases <= found.high  # type: ignore[operator]


@pytest.mark.parametrize("hits", [0, 3, 20])
def test_a_second_case_of_each_patient_that_agrees_adds_nothing(hits: int) -> None:
    once = rate_interval(flags(hits, 20), np.arange(20))
    twice = rate_interval(np.repeat(flags(hits, 20), 2), np.repeat(np.arange(20), 2))
    # The variance between patients is estimated, with 19 degrees of freedom.
    assert twice.low == pytest.approx(once.low, abs=0.01)
    assert twice.high == pytest.approx(once.high, abs=0.01)


def test_all_right_in_thirty_cases_is_no_certainty() -> None:
    found = rate_interval(flags(30, 30), np.arange(30))
    assert found.high == 1
    assert found.low == pytest.approx(0.8865, abs=1e-4)  # 30 / (30 + 1.96^2)


def test_no_case_has_no_interval() -> None:
    assert rate_interval(flags(0, 0), np.arange(0)) == Interval(None, None, reason=NO_CASE)


def test_figures_at_a_threshold_are_shares_of_their_own_cases() -> None:
    positive = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
    called = np.array([1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
    found = threshold_intervals(positive, called, np.arange(12))
    for name, (hits, cases) in {"recall": (4, 5), "specificity": (6, 7), "precision": (4, 5), "npv": (6, 7)}.items():
        theirs = binomtest(hits, cases).proportion_ci(0.95, method="wilson")
        assert (found[name].low, found[name].high) == pytest.approx((theirs.low, theirs.high)), name
    jaccard = binomtest(4, 6).proportion_ci(0.95, method="wilson")
    assert found["f1"].low == pytest.approx(2 * jaccard.low / (1 + jaccard.low))
    assert found["f1"].high == pytest.approx(2 * jaccard.high / (1 + jaccard.high))
    recall, specificity = (binomtest(*counts).proportion_ci(0.95, method="wilson") for counts in ((4, 5), (6, 7)))
    middle = (4 / 5 + 6 / 7) / 2
    reach = ((4 / 5 - recall.low) ** 2 + (6 / 7 - specificity.low) ** 2) ** 0.5 / 2
    assert found["balanced_accuracy"].low == pytest.approx(middle - reach)


def test_one_patient_has_no_interval() -> None:
    found = threshold_intervals(flags(3, 6), flags(4, 6), np.zeros(6, dtype=np.int64))
    assert {one.reason for one in found.values()} == {ONE_PATIENT}


@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.floats(0.01, 0.9))
def test_a_quotient_by_an_exact_rate_has_the_interval_of_its_numerator(top: float, bottom: float, width: float) -> None:
    low, high = top * (1 - width), top + (1 - top) * width
    ends = quotient_interval((top, bottom), (Interval(low, high), Interval(bottom, bottom)))
    assert ends == pytest.approx((low / bottom, high / bottom), rel=1e-6)


def test_predictive_values_at_another_prevalence_hold_the_truth() -> None:
    """The share of 400 samples of 60 + 60 cases whose interval holds the true PPV and NPV at a prevalence of 0.1."""
    rng = np.random.default_rng(3)
    held = np.zeros(2)
    truth = (0.9 * 0.1 / (0.9 * 0.1 + 0.2 * 0.9), 0.8 * 0.9 / (0.8 * 0.9 + 0.1 * 0.1))
    for _ in range(400):
        hits, right = rng.binomial(60, 0.9), rng.binomial(60, 0.8)
        intervals = {
            "recall": rate_interval(flags(hits, 60), np.arange(60)),
            "specificity": rate_interval(flags(right, 60), np.arange(60)),
        }
        found = predictive_values(hits / 60, right / 60, 0.1, intervals)
        for place, one in enumerate((found.ppv_interval, found.npv_interval)):
            assert one.low is not None
            assert one.high is not None
            held[place] += one.low <= truth[place] <= one.high
    assert (held / 400 >= 0.92).all()
    assert (held / 400 <= 0.99).all()
