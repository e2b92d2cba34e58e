"""Thresholds chosen on a grid, the curve that chose them, and thresholds given as text or file."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Criterion
from cxrtool.errors import RequestError
from cxrtool.evaluation.ranking import rank_by_score
from cxrtool.evaluation.table import UNKNOWN_SPLIT, PredictionTable
from cxrtool.files import write_csv
from cxrtool.findings import FINDINGS, find_finding

Curve = NDArray[np.float64]
_UNTUNED = 0.5


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """Figures of one finding at each threshold of a grid, [T] float64 each; NaN where undefined."""

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
        values: the criterion's value there, None where undefined.
        curves: by finding.
        criterion: what was maximised or reached.
        target: the recall or specificity wished.
        split: where the rows come from.
        rows: how many.
        warnings: findings that could not be tuned, targets not reached, thresholds at an end of the grid.
    """

    thresholds: Mapping[str, float]
    values: Mapping[str, float | None]
    curves: Mapping[str, ThresholdCurve]
    criterion: Criterion
    target: float | None
    split: str
    rows: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """As thresholds.json keeps it."""
        return {
            "thresholds": dict(self.thresholds),
            "values": dict(self.values),
            "criterion": self.criterion.value,
            "target": self.target,
            "split": self.split,
            "rows": self.rows,
            "warnings": list(self.warnings),
        }


def threshold_grid(minimum: float = 0.05, maximum: float = 0.95, step: float = 0.01) -> Curve:
    """``minimum, minimum + step, ...`` up to `maximum`, rounded so that 0.3 is the 0.3 that people type.

    Raises:
        RequestError: it does not lie in [0, 1], or step is not above 0.
    """
    if not (0 <= minimum <= maximum <= 1 and step > 0):
        raise RequestError(
            f"grid {minimum:g} to {maximum:g} step {step:g} is empty or outside [0, 1]",
            "Use 0.05, 0.95, 0.01.",
        )
    count = int(np.floor((maximum - minimum) / step + 1e-9)) + 1
    return np.round(minimum + step * np.arange(count), 10)


def threshold_curve(targets: NDArray[np.float32], probabilities: NDArray[np.float32], grid: Curve) -> ThresholdCurve:
    """Figures at each threshold of `grid` for decisions ``probability >= threshold``.

    Args:
        targets: [N] of 0 and 1.
        probabilities: [N] in [0, 1].
        grid: [T], rising.
    """
    ranking = rank_by_score(targets, probabilities)
    positives = float(ranking.positive.sum())
    tp, fp = ranking.counts_at(grid)
    return curve_of_counts(tp, fp, positives, len(ranking.positive) - positives, grid)


def curve_of_counts(tp: Curve, fp: Curve, positives: float, negatives: float, grid: Curve) -> ThresholdCurve:
    """The same figures from true and false positives at each threshold, [T] each."""
    recall = _divide(tp, np.full(len(grid), positives))
    specificity = _divide(negatives - fp, np.full(len(grid), negatives))
    return ThresholdCurve(
        thresholds=grid,
        precision=_divide(tp, tp + fp),
        recall=recall,
        specificity=specificity,
        f1=_divide(2 * tp, tp + fp + positives),
        balanced_accuracy=(recall + specificity) / 2,
        youden=recall + specificity - 1,
    )


def _divide(numerator: Curve, denominator: NDArray[np.generic]) -> Curve:
    below = denominator.astype(np.float64)
    quotient: Curve = np.divide(numerator, below, out=np.full(len(numerator), np.nan), where=below > 0)
    return quotient


def tune_thresholds(
    table: PredictionTable,
    criterion: Criterion,
    grid: Curve,
    target: float | None = None,
    test_allowed: bool = False,
) -> TunedThresholds:
    """Choose a threshold per finding.

    F1, balanced accuracy and Youden's J are maximised, the lowest of equal thresholds taken. For a wished recall it
    is the highest threshold that reaches it, for a wished specificity the lowest. `test_allowed` tunes on the test
    split all the same.

    Raises:
        RequestError: the rows come from the test split or nobody knows where from, or a target is missing.
    """
    if not (test_allowed and table.split == "test"):
        _refuse_split(table.split)
    if criterion in (Criterion.RECALL, Criterion.SPECIFICITY) and target is None:
        raise RequestError(f"criterion {criterion} needs a target", "Give --target 0.9, say.")
    thresholds: dict[str, float] = {}
    values: dict[str, float | None] = {}
    curves: dict[str, ThresholdCurve] = {}
    warnings: list[str] = []
    for column, finding in enumerate(FINDINGS):
        counts = table.mask[:, column]
        targets = table.targets[counts, column]
        curve = threshold_curve(targets, table.probabilities[counts, column], grid)
        curves[finding] = curve
        if len(np.unique(targets)) < 2:
            thresholds[finding], values[finding] = _UNTUNED, None
            warnings.append(f"{finding} has one class only on {table.split}: its threshold stays {_UNTUNED}")
            continue
        chosen, reached = choose_threshold(curve, criterion, target)
        thresholds[finding] = float(grid[chosen])
        values[finding] = float(_values(curve, criterion)[chosen])
        if not reached:
            warnings.append(f"{finding} reaches {criterion} {target} at no threshold of the grid; the nearest is taken")
        elif target is None and chosen in (0, len(grid) - 1):
            warnings.append(f"{finding}: the best threshold lies at the end of the grid ({grid[chosen]:g})")
    return TunedThresholds(
        thresholds=thresholds,
        values=values,
        curves=curves,
        criterion=criterion,
        target=target,
        split=table.split,
        rows=len(table.ids),
        warnings=tuple(warnings),
    )


def _refuse_split(split: str) -> None:
    if split == "test":
        raise RequestError(
            "these predictions are of the test split: thresholds tuned on it would make its figures too good",
            "Tune on valid, or say --i-know: it is then recorded in the bundle and every output.",
        )
    if split == UNKNOWN_SPLIT:
        raise RequestError(
            "these predictions do not say which split they are of", "Add a column 'split' that says valid."
        )


def _values(curve: ThresholdCurve, criterion: Criterion) -> Curve:
    found: Curve = getattr(curve, criterion.value.replace("-", "_"))
    return found


def choose_threshold(curve: ThresholdCurve, criterion: Criterion, target: float | None) -> tuple[int, bool]:
    """The position in the grid that a criterion chooses, and whether a wished rate is reached there."""
    values = _values(curve, criterion)
    if target is None:
        return int(np.nanargmax(values)), True
    enough = np.flatnonzero(values >= target - 1e-12)
    if criterion is Criterion.RECALL:  # falls with the threshold
        return (int(enough[-1]), True) if len(enough) else (0, False)
    return (int(enough[0]), True) if len(enough) else (len(values) - 1, False)


def write_curves_csv(path: Path, tuned: TunedThresholds) -> None:
    """Write every curve: finding, threshold and its figures, a row per threshold."""
    names = ["precision", "recall", "specificity", "f1", "balanced_accuracy", "youden"]
    rows = [
        [finding, float(threshold), *(float(getattr(curve, name)[index]) for name in names)]
        for finding, curve in tuned.curves.items()
        for index, threshold in enumerate(curve.thresholds)
    ]
    write_csv(path, ["finding", "threshold", *names], rows)


def parse_thresholds(text: str) -> dict[str, float]:
    """Thresholds as a user gives them.

    Args:
        text: five numbers in the order of `FINDINGS` (``0.46,0.11,0.47,0.34,0.37``); some by name
            (``Edema=0.3,Cardiomegaly=0.2``); or a file: thresholds.json or thresholds.csv of ``cxr tune``, or JSON of
            ``{finding: number}``.

    Raises:
        RequestError: it is none of these, or a threshold lies outside [0, 1].
    """
    path = Path(text)
    is_file = path.suffix.lower() in (".json", ".csv")
    pairs = _pairs_in_file(path) if is_file else _pairs_in_text(text)
    found: dict[str, float] = {}
    for name, number in pairs:
        try:
            value = float(number)
        except (TypeError, ValueError, OverflowError):
            shown = f"{number!r:.40}"
            raise RequestError(f"threshold {shown} of {name} is no number", "Write it as 0.46.") from None
        if not 0 <= value <= 1:
            raise RequestError(f"threshold {value:g} of {name} lies outside [0, 1]", "Write it as 0.46.")
        found[find_finding(name)] = value
    return found


def _pairs_in_text(text: str) -> list[tuple[str, str]]:
    parts = [part.strip() for part in text.split(",")]
    if all("=" in part for part in parts):
        return [(name, number) for name, _, number in (part.partition("=") for part in parts)]
    if len(parts) != len(FINDINGS):
        raise RequestError(
            f"--thresholds has {len(parts)} numbers; there are {len(FINDINGS)} findings",
            f"Give one each for {', '.join(FINDINGS)}, or Edema=0.3, or a .json or .csv file.",
        )
    return list(zip(FINDINGS, parts, strict=True))


def _pairs_in_file(path: Path) -> list[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            return [(row["finding"], row["threshold"]) for row in csv.DictReader(text.splitlines())]
        content = json.loads(text)
        content = content.get("thresholds", content)
        return [(str(name), number) for name, number in content.items()]
    except OSError as error:
        raise RequestError(f"cannot read thresholds {path}: {error.strerror}", "Check the path.") from None
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise RequestError(
            f"thresholds {path} are not as cxr tune writes them ({error})", "Give thresholds.json or .csv."
        ) from None


@dataclass(frozen=True, eq=False)
class ThresholdOrigin:
    """How a bundle's thresholds were chosen.

    Attributes:
        split: on which split.
        sheet_sha256: of its sheet.
        criterion: see `Criterion`.
        target: of a wished rate.
        grid: [T], the thresholds tried.
    """

    split: str
    sheet_sha256: str
    criterion: Criterion
    target: float | None
    grid: NDArray[np.float64]

    def is_of(self, table: PredictionTable) -> bool:
        """Whether they were chosen on the very rows of `table`'s sheet."""
        if self.sheet_sha256 and table.sheet_sha256:
            return self.sheet_sha256 == table.sheet_sha256
        return self.split == table.split
