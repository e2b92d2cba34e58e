"""Sigmoid."""

import numpy as np

from cxrtool.engines.device import sigmoid


def test_sigmoid_is_float32_and_keeps_ranks_distinct() -> None:
    logits = np.array([-80, -20, -17, -16.9, 0, 6.3, 6.4, 15], dtype=np.float32)
    probabilities = sigmoid(logits)
    assert probabilities.dtype == np.float32
    assert (np.diff(probabilities) > 0).all()
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits.astype(np.float64))), rtol=2e-6)


def test_sigmoid_does_not_overflow_for_any_logit() -> None:
    logits = np.array([-3e38, -1e4, -100, -95, -89, 89, 1e4, 3e38], dtype=np.float32)
    with np.errstate(over="raise", invalid="raise"):
        probabilities = sigmoid(logits)
    assert (np.diff(probabilities[1:6]) > 0).all(), "small probabilities stay distinct"
    assert (probabilities[:2] == 0).all()
    assert (probabilities[5:] == 1).all()
