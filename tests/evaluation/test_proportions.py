import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from cxrtool.evaluation.proportions import effective_rows, wilson


@given(st.integers(1, 200), st.integers(0, 200), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_scipy(rows: int, counted: int, confidence: float) -> None:
    counted = min(counted, rows)
    expected = binomtest(counted, rows).proportion_ci(confidence, method="wilson")
    assert wilson(counted / rows, rows, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_copies_of_a_row_are_one_row() -> None:
    values = np.random.default_rng(0).random(300) < 0.4
    patients = np.arange(300)
    assert effective_rows(values, patients) == 300
    assert effective_rows(np.repeat(values, 3), np.repeat(patients, 3)) == pytest.approx(300, rel=0.01)
    assert effective_rows(np.random.default_rng(1).permutation(np.repeat(values, 3)), np.repeat(patients, 3)) > 700


def test_without_variation_each_patient_counts_once() -> None:
    assert effective_rows(np.ones(6), ["a", "a", "b", "b", "c", "c"]) == 3
    assert effective_rows([], []) == 0
