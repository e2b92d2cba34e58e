"""Sigmoid."""

import numpy as np

from cxrtool.engines.device import sigmoid


def test_sigmoid_is_float32_and_keeps_ranks_distinct() -> None:
    logits = np.array([-80, -20, -17, -16.9, 0, 6.3, 6.4, 15], dtype=np.float32)
    probabilities = sigmoid(logits)
    assert probabilities.dtype == np.float32
    assert (np.diff(probabilities) > 0).all()
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits.astype(np.float64))), rtol=2e-6)
