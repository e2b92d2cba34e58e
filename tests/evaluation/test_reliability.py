import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.isotonic import IsotonicRegression

from cxrtool.evaluation.reliability import ROWS_PER_BIN, reliability_curve


@given(st.integers(0, 10**6), st.integers(1, 400), st.integers(1, 3))
def test_the_curve_rises_over_bins_of_at_least_twenty_rows(seed: int, count: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.round(rng.random(count), digits)
    targets = rng.random(count) < values
    bins = reliability_curve(targets, values)
    assert sum(part.rows for part in bins) == count
    assert sum(part.positives for part in bins) == targets.sum()
    assert min(part.rows for part in bins) >= min(count, ROWS_PER_BIN)
    shares = [part.positive_share for part in bins]
    assert shares == sorted(set(shares))
    assert all(one.high < two.low for one, two in itertools.pairwise(bins)), "equal values share a bin"


def test_pooling_is_isotonic_regression() -> None:
    """With one distinct probability in each bin of twenty rows, pooled shares are scikit-learn's isotonic fit."""
    rng = np.random.default_rng(2)
    values = np.repeat(np.linspace(0.1, 0.9, 10), 20)
    targets = rng.random(200) < 0.5
    fitted = IsotonicRegression().fit_transform(values, targets.astype(float))
    found = reliability_curve(targets, values)
    np.testing.assert_allclose(
        np.repeat([part.positive_share for part in found], [part.rows for part in found]), fitted
    )


def test_the_band_is_wilsons_interval() -> None:
    part = reliability_curve(np.arange(30) < 9, np.full(30, 0.4))[0]
    expected = binomtest(9, 30).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose([part.share_low, part.share_high], [expected.low, expected.high])


def test_rows_of_one_patient_widen_the_band() -> None:
    targets = np.repeat(np.arange(20) < 6, 3)
    alike = reliability_curve(targets, np.full(60, 0.4), [str(row // 3) for row in range(60)])[0]
    apart = reliability_curve(targets, np.full(60, 0.4))[0]
    single = reliability_curve(np.arange(20) < 6, np.full(20, 0.4))[0]
    assert alike.share_high - alike.share_low > 1.5 * (apart.share_high - apart.share_low)
    np.testing.assert_allclose(alike.share_high, single.share_high, atol=0.02)


def test_no_rows_give_no_curve() -> None:
    assert reliability_curve([], []) == ()
