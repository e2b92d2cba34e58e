"""Coverage of the intervals of thresholds, of the honest figure and of calibration figures, in repeated samples.

python benchmarks/stability.py [SAMPLES] [DRAWS]

Scores are normal in each class, `d` standard deviations apart, and shown as calibrated probabilities. The best
threshold of the population follows from the normal distribution. Beside each interval stands the percentile interval of
thresholds chosen again, on the grid alone, on each draw of patients, which versions before reported.
"""

import sys
from collections.abc import Callable

import numpy as np
from scipy.special import expit, ndtr, ndtri

from cxrtool.choices import Criterion
from cxrtool.evaluation.calibration_figures import binned_figures, calibration_figures
from cxrtool.evaluation.honest import honest_rates
from cxrtool.evaluation.intervals import BootstrapSettings, Interval, PatientDraws, percentile_interval
from cxrtool.evaluation.stability import threshold_stability
from cxrtool.evaluation.table import PredictionTable
from cxrtool.evaluation.thresholds import ThresholdSearch, threshold_grid
from cxrtool.findings import Findings

Draw = Callable[[int], tuple[np.ndarray, np.ndarray]]
DESIGNS = ((200, 0.04, 1.5), (200, 0.1, 1.5), (200, 0.3, 1.5), (1000, 0.1, 2.5))
CRITERIA = (
    (Criterion.YOUDEN, None),
    (Criterion.F1, None),
    (Criterion.RECALL, 0.9),
    (Criterion.SPECIFICITY, 0.9),
)


def table_of(targets: np.ndarray, probabilities: np.ndarray) -> PredictionTable:
    """Return a table of one finding, a patient in each row."""
    names = tuple(map(str, range(len(targets))))
    one = np.ones(len(targets), dtype=np.int64)
    columns = probabilities[:, None], targets[:, None].astype(np.float32), one[:, None] > 0
    return PredictionTable(names, names, names, one, "valid", "study", "", "", *columns, findings=Findings(("Edema",)))


def drawer(rng: np.random.Generator, prevalence: float, distance: float) -> Draw:
    """Return a function that draws labels and calibrated probabilities."""
    odds = np.log(prevalence / (1 - prevalence))

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        targets = rng.random(count) < prevalence
        values = rng.normal(size=count) + distance * targets
        return targets, expit(distance * values - distance**2 / 2 + odds)

    return draw


def best_threshold(criterion: Criterion, target: float | None, prevalence: float, distance: float) -> float:
    """Return the population's best threshold, as a probability."""
    values = np.linspace(-5, distance + 5, 100_001)
    tpr, fpr = ndtr(distance - values), ndtr(-values)
    if criterion is Criterion.RECALL:
        best = distance - ndtri(target)
    elif criterion is Criterion.SPECIFICITY:
        best = ndtri(target)
    elif criterion is Criterion.YOUDEN:
        best = values[np.argmax(tpr - fpr)]
    else:
        best = values[np.argmax(2 * prevalence * tpr / (prevalence * (1 + tpr) + (1 - prevalence) * fpr))]
    return float(expit(distance * best - distance**2 / 2 + np.log(prevalence / (1 - prevalence))))


def chosen_again(table: PredictionTable, search: ThresholdSearch, settings: BootstrapSettings) -> Interval:
    """Return the percentile interval of thresholds chosen on draws of patients."""
    found = []
    for weights in np.concatenate(list(PatientDraws(table.patients, settings).chunks())).astype(int):
        rows = np.repeat(np.arange(len(table)), weights)
        choice = search.choose(table.targets[rows, 0], table.scores[rows, 0])
        found.append(np.nan if choice is None else choice.threshold)
    return percentile_interval(np.array(found), settings.confidence)


def holds(interval: Interval, value: float) -> bool:
    """Return whether the interval contains the value."""
    return interval.low is not None and interval.high is not None and interval.low <= value <= interval.high


def main() -> None:
    """Print coverages."""
    samples, draws = (int(text) for text in (sys.argv[1:] + ["200", "200"][len(sys.argv) - 1 :])[:2])
    settings = BootstrapSettings(draws)
    for count, prevalence, distance in DESIGNS:
        draw = drawer(np.random.default_rng(1), prevalence, distance)
        tables = []
        while len(tables) < samples:
            targets, shown = draw(count)
            if 2 <= targets.sum() <= count - 2:
                tables.append(table_of(targets, shown))
        new_targets, new = draw(400_000)
        print(f"{count} rows, prevalence {prevalence}, distance {distance}", flush=True)
        for criterion, target in CRITERIA:
            search = ThresholdSearch(criterion, threshold_grid(), target)
            before = ThresholdSearch(criterion, threshold_grid(), target, grid_only=True)
            truth = best_threshold(criterion, target, prevalence, distance)
            ours, again, width, own, mean_rate = [], [], [], [], []
            for table in tables:
                interval = threshold_stability(table, search, settings)["Edema"]
                ours.append(holds(interval, truth))
                width.append((interval.high or 0) - (interval.low or 0))
                again.append(holds(chosen_again(table, before, settings), truth))
                rates = honest_rates(table, search, settings, repeats=10)["Edema"]
                threshold = search.choose(table.targets[:, 0], table.scores[:, 0]).threshold
                real = np.mean(new[new_targets] >= threshold), np.mean(new[~new_targets] < threshold)
                own.append([holds(rates.intervals[name], one) for name, one in zip(RATES, real, strict=True)])
                mean_rate.append([real, [rates.intervals[name] for name in RATES]])
            expected = np.mean([pair[0] for pair in mean_rate], axis=0)
            average = np.mean(
                [[holds(*one) for one in zip(pair[1], expected, strict=True)] for pair in mean_rate], axis=0
            )
            print(
                f"  {criterion} {target or ''}: holds {np.mean(ours):.2f} (mean width {np.mean(width):.2f}), chosen "
                f"again on draws {np.mean(again):.2f}; honest recall, specificity: of the stored threshold "
                f"{np.round(np.mean(own, axis=0), 2)}, on average {np.round(average, 2)}",
                flush=True,
            )
        big = binned_figures(new_targets, new)
        truths = {"slope": 1.0, "intercept": 0.0, "in_the_large": 0.0} | {
            name: big[name] for name in ("brier", "reliability", "resolution", "uncertainty", "ece")
        }
        held: dict[str, list[bool]] = {name: [] for name in truths}
        for table in tables:
            intervals = calibration_figures(table, None, settings)["Edema"].intervals
            for name, value in truths.items():
                held[name].append(holds(intervals[name], value))
        print("  calibration:", ", ".join(f"{name} {np.mean(values):.2f}" for name, values in held.items()), flush=True)


RATES = ("recall", "specificity")

if __name__ == "__main__":
    main()
