"""DeLong's interval against the figures of the paper."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.evaluation.delong import delong, structural_components
from cxrtool.evaluation.metrics import auroc

OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1
3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0
2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1
3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0
3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1
3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""
"""Albumin, total protein, Krebs-Goplerud score and outcome: the data of DeLong et al. 1988, as SAS prints them."""


@pytest.mark.parametrize(
    ("column", "area", "error", "low", "high"),
    [(0, 0.7366, 0.0927, 0.5549, 0.9182), (1, 0.6478, 0.1000, 0.4518, 0.8439), (2, 0.7258, 0.1028, 0.5243, 0.9273)],
)
def test_delong_matches_the_paper(column: int, area: float, error: float, low: float, high: float) -> None:
    data = np.array(OVARIAN.split(), dtype=float).reshape(-1, 4)
    scores = 10 - data[:, 2] if column == 2 else data[:, column]
    found = delong(data[:, 3], scores)
    assert found.auroc == pytest.approx(area, abs=5e-5)
    assert found.standard_error == pytest.approx(error, abs=5e-5)
    assert found.interval.low == pytest.approx(low, abs=5e-5)
    assert found.interval.high == pytest.approx(high, abs=5e-5)


@given(st.integers(0, 2**31))
def test_components_average_to_the_auroc(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = np.concatenate(([0, 1], rng.integers(0, 2, 40)))
    scores = rng.integers(0, 8, 42)
    above, below = structural_components(targets, scores)
    assert above.mean() == pytest.approx(auroc(targets, scores))
    assert below.mean() == pytest.approx(auroc(targets, scores))


def test_delong_of_one_study_is_empty() -> None:
    assert delong([1], [0.3]).interval.low is None
