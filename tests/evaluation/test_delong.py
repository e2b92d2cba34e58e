"""DeLong's interval against the figures of the paper."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.evaluation.delong import compare_areas, delong, influence, paired_difference, structural_components
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


def test_the_paired_test_of_the_paper() -> None:
    # SAS, proc logistic, example "Comparing Receiver Operating Characteristic Curves", contrasts with K-G.
    data = np.array(OVARIAN.split(), dtype=float).reshape(-1, 4)
    scores = [data[:, 0], data[:, 1], 10 - data[:, 2]]
    for column, difference, error, p in ((0, 0.0108, 0.0954, 0.9101), (1, -0.0780, 0.1046, 0.4561)):
        found = compare_areas(data[:, 3], scores[column], scores[2])
        assert found.value == pytest.approx(difference, abs=6e-5)
        assert found.standard_error == pytest.approx(error, abs=6e-5)
        assert found.normal_p_value == pytest.approx(p, abs=6e-4)


def obuchowski_by_hand(
    targets: np.ndarray, first: np.ndarray, second: np.ndarray, patients: np.ndarray
) -> tuple[float, float]:
    """Return difference and variance by the sums of the paper, pair by pair."""
    positive, negative = np.flatnonzero(targets == 1), np.flatnonzero(targets == 0)
    many, few = len(positive), len(negative)

    def win(scores: np.ndarray, row: int, other: int) -> float:
        return 1.0 if scores[row] > scores[other] else 0.5 if scores[row] == scores[other] else 0.0

    areas, above, below = [], [], []
    for scores in (first, second):
        areas.append(sum(win(scores, i, j) for i in positive for j in negative) / many / few)
        above.append({i: sum(win(scores, i, j) for j in negative) / few for i in positive})
        below.append({j: sum(win(scores, i, j) for i in positive) / many for j in negative})
    clusters = sorted(set(patients))
    with_positive = len(set(patients[positive]))
    with_negative = len(set(patients[negative]))
    covariance = np.zeros((2, 2))
    for a in range(2):
        for b in range(2):
            s10 = s01 = s11 = s11_swapped = 0.0
            for cluster in clusters:
                x = [sum(above[k][i] - areas[k] for i in positive if patients[i] == cluster) for k in range(2)]
                y = [sum(below[k][j] - areas[k] for j in negative if patients[j] == cluster) for k in range(2)]
                s10 += x[a] * x[b]
                s01 += y[a] * y[b]
                s11 += x[a] * y[b]
                s11_swapped += y[a] * x[b]
            s10 *= with_positive / (with_positive - 1) / many
            s01 *= with_negative / (with_negative - 1) / few
            factor = len(clusters) / (len(clusters) - 1)
            covariance[a, b] = s10 / many + s01 / few + factor * (s11 + s11_swapped) / many / few
    return areas[0] - areas[1], covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]


@pytest.mark.parametrize("seed", range(4))
def test_clusters_match_the_sums_of_the_paper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = np.concatenate(([0, 0, 1, 1], rng.integers(0, 2, 40)))
    first, second = targets + rng.integers(0, 5, 44), targets + rng.integers(0, 4, 44)
    patients = rng.integers(0, 20, 44)
    difference, variance = obuchowski_by_hand(targets, first, second, patients)
    found = compare_areas(targets, first, second, patients)
    assert found.value == pytest.approx(difference)
    assert found.standard_error == pytest.approx(np.sqrt(variance))


@given(st.integers(0, 2**31))
def test_with_one_row_per_patient_the_variance_is_delong_s(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = np.concatenate(([0, 0, 1, 1], rng.integers(0, 2, 40)))
    first, second = targets + rng.normal(size=44), targets + rng.normal(size=44)
    (above, below), (others_above, others_below) = (structural_components(targets, s) for s in (first, second))
    variance = sum(part.var(ddof=1) / len(part) for part in (above - others_above, below - others_below))
    assert compare_areas(targets, first, second).standard_error == pytest.approx(np.sqrt(variance))


def test_the_mean_of_a_finding_repeated_is_that_finding() -> None:
    rng = np.random.default_rng(5)
    targets = rng.integers(0, 2, 60)
    patients = np.arange(60) // 2
    one, other = (influence(targets, targets + rng.normal(size=60), patients, 30) for _ in range(2))
    once, thrice = paired_difference([one], [other]), paired_difference([one] * 3, [other] * 3)
    assert thrice.value == pytest.approx(once.value)
    assert thrice.standard_error == pytest.approx(once.standard_error)
    assert thrice.guarded_error == pytest.approx(once.guarded_error)


@pytest.mark.parametrize("clustered", [False, True])
def test_the_paired_test_holds_its_level_with_eight_positives(clustered: bool) -> None:
    rng = np.random.default_rng(7)
    patients = np.arange(200) // 2 if clustered else np.arange(200)
    targets = np.zeros(200)
    p_values = []
    for _ in range(600):
        targets[:] = 0
        targets[rng.permutation(200)[:8]] = 1
        shared = rng.normal(size=200)
        scores = [shared + rng.normal(size=200) + 1.2 * targets for _ in range(2)]
        p_values.append(compare_areas(targets, *scores, patients).p_value)
    # 5 % of 600 is 30; 48 or more come by chance once in 500.
    assert 8 < sum(p < 0.05 for p in p_values) < 48


def test_degenerate_differences_have_a_cautious_error() -> None:
    targets = np.repeat([1, 0], [8, 192])
    perfect, constant = targets.astype(float), np.zeros(200)
    assert compare_areas(targets, perfect, perfect).p_value == 1
    found = compare_areas(targets, perfect, constant)
    assert found.value == 0.5
    # Two guessing models: 1/6 of 1/8 + 1/192.
    assert found.standard_error == pytest.approx(np.sqrt((1 / 8 + 1 / 192) / 6))
    single = np.repeat([1, 0], [1, 199])
    rng = np.random.default_rng(0)
    assert compare_areas(single, rng.normal(size=200), rng.normal(size=200)).standard_error > np.sqrt(1 / 6)
    assert np.isnan(compare_areas(np.zeros(5), np.arange(5), np.arange(5)).p_value)
    assert np.isnan(compare_areas([1, 0], [1, 2], [2, 1], ["a", "a"]).p_value)
