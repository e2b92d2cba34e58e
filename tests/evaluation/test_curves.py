"""ROC and precision-recall curves against scikit-learn, and their bands."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve as sk_precision_recall_curve
from sklearn.metrics import roc_curve as sk_roc_curve

from cxrtool.evaluation.curves import curve_bands, precision_recall_curve, roc_curve
from cxrtool.evaluation.intervals import BootstrapSettings
from tests_support import random_table


@given(st.integers(0, 2**31))
def test_curves_equal_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = np.concatenate(([0, 1], rng.integers(0, 2, 30)))
    scores = rng.integers(0, 12, 32) / 12
    fpr, tpr = roc_curve(targets, scores)
    expected_fpr, expected_tpr, _ = sk_roc_curve(targets, scores, drop_intermediate=False)
    np.testing.assert_allclose(fpr, expected_fpr)
    np.testing.assert_allclose(tpr, expected_tpr)
    recall, precision = precision_recall_curve(targets, scores)
    expected_precision, expected_recall, _ = sk_precision_recall_curve(targets, scores)
    np.testing.assert_allclose(recall, expected_recall[-2::-1])
    np.testing.assert_allclose(precision, expected_precision[-2::-1])


def test_bands_contain_their_curve() -> None:
    table = random_table(120, seed=2)
    for band in curve_bands(table, 0, BootstrapSettings(200)):
        assert ((band.low <= band.high) & (band.low >= 0) & (band.high <= 1)).all()
        assert band.x[0] == 0
        assert band.x[-1] == 1
