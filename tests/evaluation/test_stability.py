from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, norm

from cxrtool.choices import Criterion
from cxrtool.evaluation.drawn_curve import ONE_CLASS
from cxrtool.evaluation.intervals import ONE_PATIENT, BootstrapSettings
from cxrtool.evaluation.stability import threshold_stability
from cxrtool.evaluation.thresholds import ThresholdSearch, threshold_grid
from cxrtool.findings import Findings
from tests_support import table_of

GRID = threshold_grid()
SETTINGS = BootstrapSettings(100)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def stability_of(
    targets: np.ndarray, scores: np.ndarray, search: ThresholdSearch, **more: object
) -> tuple[float, float]:
    table = replace(table_of(targets, scores).with_findings(Findings(("Edema",))), **more)
    found = threshold_stability(table, search, SETTINGS)["Edema"]
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def test_a_threshold_is_stable_with_much_data_and_not_with_little() -> None:
    rng = np.random.default_rng(0)
    for search in (ThresholdSearch(Criterion.YOUDEN, GRID), ThresholdSearch(Criterion.SPECIFICITY, GRID, 0.9)):
        widths = []
        for count in (4000, 60):
            targets = rng.integers(0, 2, count)
            low, high = stability_of(targets, sigmoid(1.5 * targets - 0.7 + rng.normal(size=count)), search)
            widths.append(high - low)
        assert widths[0] < 0.6 * widths[1]


def test_the_order_statistics_are_those_of_the_binomial() -> None:
    """Of 40 positives, the score below which a tenth lie in truth is between two of them with 95 % confidence."""
    scores = np.arange(1, 61) / 100
    targets = np.arange(60) < 40
    low, high = stability_of(targets, scores, ThresholdSearch(Criterion.RECALL, GRID, 0.9))
    # P(fewer than `first` of 40 lie below) <= 2.5 % and P(at least `last`) <= 2.5 %, for the tightest of both.
    first = max(rank for rank in range(41) if binom.cdf(rank - 1, 40, 0.1) <= 0.025)
    last = min(rank for rank in range(1, 41) if binom.sf(rank - 1, 40, 0.1) <= 0.025)
    assert (low, high) == (scores[first - 1] if first else 0.0, scores[last - 1])


def test_too_few_positives_leave_an_end_open() -> None:
    targets = np.arange(30) < 5
    low, high = stability_of(targets, np.arange(1, 31) / 40, ThresholdSearch(Criterion.RECALL, GRID, 0.9))
    assert low == 0.0
    assert high > 0.025


def test_rows_of_one_patient_widen_the_interval_of_a_quantile() -> None:
    rng = np.random.default_rng(1)
    scores = np.repeat(rng.random(200), 4)
    search = ThresholdSearch(Criterion.SPECIFICITY, GRID, 0.8)
    targets = np.append(np.zeros(800), 1)
    scores = np.append(scores, 0.99)
    alone = stability_of(targets, scores, search)
    together = stability_of(targets, scores, search, patients=tuple(str(row // 4) for row in range(801)))
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])


@pytest.mark.parametrize(
    ("criterion", "target", "separation", "prevalence"),
    [
        (Criterion.YOUDEN, None, 1.5, 0.3),
        (Criterion.YOUDEN, None, 2.5, 0.05),  # where draws of patients hold it in 65 %
        (Criterion.F1, None, 1.5, 0.2),
        (Criterion.RECALL, 0.9, 1.5, 0.2),
        (Criterion.SPECIFICITY, 0.9, 1.5, 0.2),
    ],
)
def test_the_interval_holds_the_best_threshold_of_the_population(
    criterion: Criterion, target: float | None, separation: float, prevalence: float
) -> None:
    """Scores are normal in each class; the best threshold follows from the normal distribution."""
    grid = np.linspace(-4, 8, 24001)
    tpr, fpr = norm.sf(grid - separation), norm.sf(grid)
    best = {
        Criterion.YOUDEN: grid[np.argmax(tpr - fpr)],
        Criterion.F1: grid[np.argmax(2 * prevalence * tpr / (prevalence * (1 + tpr) + (1 - prevalence) * fpr))],
        Criterion.RECALL: separation + norm.ppf(0.1),
        Criterion.SPECIFICITY: norm.ppf(0.9),
    }[criterion]
    rng, held, runs = np.random.default_rng(2), 0, 60
    for _ in range(runs):
        targets = np.arange(160) < round(160 * prevalence)
        scores = sigmoid(rng.normal(size=160) + separation * targets)
        low, high = stability_of(targets, scores, ThresholdSearch(criterion, GRID, target))
        held += low <= sigmoid(best) <= high
    assert held >= 0.87 * runs  # 0.95, less three standard deviations


def test_undefined_stability_has_a_reason() -> None:
    search = ThresholdSearch(Criterion.YOUDEN, GRID)
    table = table_of([0, 0, 0], [0.1, 0.2, 0.3])
    assert threshold_stability(table, search, SETTINGS)["Edema"].reason == ONE_CLASS
    table = replace(table_of([0, 1, 0], [0.1, 0.2, 0.3]), patients=("a",) * 3)
    assert threshold_stability(table, search, SETTINGS)["Edema"].reason == ONE_PATIENT
