"""Thresholds: choosing them on a grid and among observed scores, and curves over thresholds."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Criterion
from cxrtool.errors import RequestError
from cxrtool.evaluation.ranking import rank_by_score
from cxrtool.evaluation.table import UNKNOWN_SPLIT, PredictionTable, same_sheet

Curve = NDArray[np.float64]
Counted = float | NDArray[np.float64]
_UNTUNED = 0.5
_EQUAL = 1e-12  # figures that differ by less are equal


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """Figures of one finding at each of T thresholds, [T] float64 each; NaN where undefined."""

    thresholds: Curve
    precision: Curve
    recall: Curve
    specificity: Curve
    f1: Curve
    balanced_accuracy: Curve
    youden: Curve


@dataclass(frozen=True)
class TunedThresholds:
    """Thresholds by finding and how they were chosen.

    Attributes:
        thresholds: by finding.
        values: value of the criterion at the threshold, by finding; None where undefined.
        curves: by finding.
        criterion: figure that was maximised or had to be reached.
        target: required recall or specificity; None for other criteria.
        grid_only: whether only the grid was tried, and not the observed scores.
        split: name of the split.
        rows: number of rows.
        warnings: findings that could not be tuned, targets not reached, thresholds at an end of those tried.
    """

    thresholds: Mapping[str, float]
    values: Mapping[str, float | None]
    curves: Mapping[str, ThresholdCurve]
    criterion: Criterion
    target: float | None
    grid_only: bool
    split: str
    rows: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the content of thresholds.json."""
        return {
            "thresholds": dict(self.thresholds),
            "values": dict(self.values),
            "criterion": self.criterion.value,
            "target": self.target,
            "grid_only": self.grid_only,
            "split": self.split,
            "rows": self.rows,
            "warnings": list(self.warnings),
        }


def threshold_grid(minimum: float = 0.05, maximum: float = 0.95, step: float = 0.01) -> Curve:
    """Return ``minimum, minimum + step, ...`` up to `maximum`, rounded so that 0.3 equals the number 0.3 as typed.

    Raises:
        RequestError: the grid is empty or not within [0, 1], or `step` is not above 0.
    """
    if not (0 <= minimum <= maximum <= 1 and step > 0):
        raise RequestError(
            f"the grid from {minimum:g} to {maximum:g} in steps of {step:g} is empty or not within [0, 1]",
            "Use --min 0.05 --max 0.95 --step 0.01, for example.",
        )
    count = int(np.floor((maximum - minimum) / step + 1e-9)) + 1
    return np.round(minimum + step * np.arange(count), 10)


def threshold_curve(targets: NDArray[np.float32], probabilities: NDArray[np.float64], grid: Curve) -> ThresholdCurve:
    """Compute figures of the decisions ``probability >= threshold`` at each threshold of `grid`.

    Args:
        targets: [N] of 0 and 1.
        probabilities: [N] in [0, 1].
        grid: [T], rising.
    """
    ranking = rank_by_score(targets, probabilities)
    positives = float(ranking.positive.sum())
    tp, fp = ranking.counts_at(grid)
    return curve_of_counts(tp, fp, positives, len(ranking.positive) - positives, grid)


def curve_of_counts(tp: Curve, fp: Curve, positives: Counted, negatives: Counted, grid: Curve) -> ThresholdCurve:
    """Compute the figures of `threshold_curve` from counts at each threshold.

    Args:
        tp: true positives, [T], or [B, T] of several draws.
        fp: false positives, likewise.
        positives: number of positives, or [B, 1].
        negatives: number of negatives, likewise.
        grid: [T], thresholds.
    """
    recall = _divide(tp, positives)
    specificity = _divide(negatives - fp, negatives)
    return ThresholdCurve(
        thresholds=grid,
        precision=_divide(tp, tp + fp),
        recall=recall,
        specificity=specificity,
        f1=_divide(2 * tp, tp + fp + positives),
        balanced_accuracy=(recall + specificity) / 2,
        youden=recall + specificity - 1,
    )


def _divide(numerator: Curve, denominator: Counted) -> Curve:
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: Curve = np.where(np.asarray(denominator) > 0, numerator / denominator, np.nan)
    return quotient


@dataclass(frozen=True)
class Choice:
    """A threshold chosen by a criterion.

    Attributes:
        threshold: in [0, 1].
        value: value of the criterion there.
        reached: whether it reaches the target; True without one.
        at_end: whether no lower, or no higher, threshold was tried.
    """

    threshold: float
    value: float
    reached: bool
    at_end: bool


@dataclass(frozen=True, eq=False)
class ThresholdSearch:
    """How a threshold is chosen.

    F1, balanced accuracy and Youden's J are maximised. With a target recall, of the thresholds that reach it the one
    with the largest specificity is chosen, and the reverse. Of equally good thresholds, values of the grid come before
    values between scores; of several of these the lowest is chosen, or with a target recall the highest.

    Attributes:
        criterion: figure to maximise or to reach.
        grid: [T], rising, thresholds tried in any case.
        target: required recall or specificity; None for other criteria.
        grid_only: try nothing else. Otherwise also the middle between each two neighbouring scores, and the lowest
            score, so that every division of the rows is tried: for a rare finding with small probabilities, the best
            may lie below the whole grid. The middle is used because the score itself would be a decision by the last
            digit.

    Raises:
        RequestError: a target is missing.
    """

    criterion: Criterion
    grid: Curve
    target: float | None = None
    grid_only: bool = False

    def __post_init__(self) -> None:
        if self.criterion in (Criterion.RECALL, Criterion.SPECIFICITY) and self.target is None:
            raise RequestError(f"criterion {self.criterion} needs a target", "Give one, such as --target 0.9.")

    def candidates(self, scores: NDArray[np.float64]) -> Curve:
        """Return the thresholds to try on rows with these scores [N], rising and distinct."""
        if self.grid_only or not len(scores):
            return self.grid
        distinct = np.unique(scores)
        middle = (distinct[:-1] + distinct[1:]) / 2
        middle = np.where(middle > distinct[:-1], middle, distinct[1:])  # rounded down, it would be the lower score
        return np.unique(np.concatenate((self.grid, distinct[:1], middle)))

    def choose(self, targets: NDArray[np.float32], scores: NDArray[np.float64]) -> Choice | None:
        """Return the threshold chosen on these rows [N]; None if they are of one class."""
        if len(np.unique(targets)) < 2:
            return None
        return self.choose_on(threshold_curve(targets, scores, self.candidates(scores)))

    def choose_on(self, curve: ThresholdCurve) -> Choice | None:
        """Return the threshold chosen on a curve over candidates; None if the criterion is undefined everywhere."""
        values = values_of(curve, self.criterion)
        if np.isnan(values).all():
            return None
        position, reached = self._position(curve, values)
        at_end = position in (0, len(values) - 1)
        return Choice(float(curve.thresholds[position]), float(values[position]), reached, at_end)

    def _position(self, curve: ThresholdCurve, values: Curve) -> tuple[int, bool]:
        rising, best = values, np.ones(len(values), dtype=np.bool_)
        if self.target is not None:
            best = values >= self.target - _EQUAL
            if not best.any():  # recall is largest at the lowest threshold, specificity at the highest
                return (0 if self.criterion is Criterion.RECALL else len(values) - 1), False
            rising = curve.specificity if self.criterion is Criterion.RECALL else curve.recall
        largest = np.nanmax(rising[best])
        equal = np.flatnonzero(best & (rising >= largest - _EQUAL))
        on_grid = equal[np.isin(curve.thresholds[equal], self.grid)]
        preferred = on_grid if len(on_grid) else equal
        return int(preferred[-1 if self.criterion is Criterion.RECALL else 0]), True


def tune_thresholds(
    table: PredictionTable,
    search: ThresholdSearch,
    test_allowed: bool = False,
    before: Mapping[str, float] | None = None,
) -> TunedThresholds:
    """Choose a threshold per finding; one that has a single class keeps its threshold of `before`, else 0.5.

    Args:
        table: predictions and labels.
        search: how thresholds are chosen.
        test_allowed: accept the test split.
        before: thresholds that the bundle has, by finding.

    Raises:
        RequestError: the rows come from the test split or an unknown one.
    """
    if not (test_allowed and table.split == "test"):
        _check_split(table.split)
    thresholds: dict[str, float] = {}
    values: dict[str, float | None] = {}
    curves: dict[str, ThresholdCurve] = {}
    warnings: list[str] = []
    for column, finding in enumerate(table.findings):
        counts = table.mask[:, column]
        targets, scores = table.targets[counts, column], table.scores[counts, column]
        curves[finding] = threshold_curve(targets, scores, search.grid)
        choice = search.choose(targets, scores)
        if choice is None:
            thresholds[finding], values[finding] = (before or {}).get(finding, _UNTUNED), None
            origin = "as it was" if finding in (before or {}) else "which was not tuned"
            warnings.append(
                f"{finding} has only one class on {table.split}: its threshold stays {thresholds[finding]:g}, {origin}"
            )
            continue
        thresholds[finding], values[finding] = choice.threshold, choice.value
        if not choice.reached:
            warnings.append(
                f"{finding}: no threshold tried reaches {search.criterion} {search.target}; the nearest is used"
            )
        elif search.target is None and choice.at_end:
            warnings.append(f"{finding}: the best threshold is the {_end(choice, search.grid)}")
    return TunedThresholds(
        thresholds=thresholds,
        values=values,
        curves=curves,
        criterion=search.criterion,
        target=search.target,
        grid_only=search.grid_only,
        split=table.split,
        rows=len(table.ids),
        warnings=tuple(warnings),
    )


def _end(choice: Choice, grid: Curve) -> str:
    end = "lowest" if choice.threshold <= grid[0] else "highest"
    return f"{end} that was tried ({choice.threshold:.3g})"


def _check_split(split: str) -> None:
    if split == "test":
        raise RequestError(
            "these predictions are from the test split: thresholds tuned on it would make its figures too good",
            "Tune on valid, or use --i-know, which is recorded in the bundle and in every output.",
        )
    if split == UNKNOWN_SPLIT:
        raise RequestError(
            "these predictions do not name the split they come from", "Add a column 'split' with the value valid."
        )


def values_of(curve: ThresholdCurve, criterion: Criterion) -> Curve:
    """Return the figure that a criterion maximises or has to reach, at each threshold."""
    found: Curve = getattr(curve, criterion.value.replace("-", "_"))
    return found


@dataclass(frozen=True, eq=False)
class ThresholdOrigin:
    """How a bundle's thresholds were chosen.

    Attributes:
        split: name of the split that chose them.
        sheet_sha256: digest of that split's sheet.
        criterion: see `Criterion`.
        target: required recall or specificity; None for other criteria.
        grid: [T], thresholds tried.
        grid_only: whether nothing else was tried, as in bundles of older versions.
    """

    split: str
    sheet_sha256: str
    criterion: Criterion
    target: float | None
    grid: NDArray[np.float64]
    grid_only: bool = True

    @property
    def search(self) -> ThresholdSearch:
        """How the thresholds were chosen."""
        return ThresholdSearch(self.criterion, self.grid, self.target, self.grid_only)

    def chosen_on(self, table: PredictionTable) -> bool:
        """Return whether the thresholds were chosen on the sheet that `table` comes from."""
        return same_sheet(self.split, self.sheet_sha256, table)
