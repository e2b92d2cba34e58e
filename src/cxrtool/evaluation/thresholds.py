"""Thresholds: choosing them on a grid, curves over thresholds, and reading them from text or a file."""

import csv
import io
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
from cxrtool.findings import Findings

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
        values: value of the criterion at the threshold, by finding; None where undefined.
        curves: by finding.
        criterion: figure that was maximised or had to be reached.
        target: required recall or specificity; None for other criteria.
        split: name of the split.
        rows: number of rows.
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
        """Return the content of thresholds.json."""
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


def curve_of_counts(tp: Curve, fp: Curve, positives: float, negatives: float, grid: Curve) -> ThresholdCurve:
    """Compute the figures of `threshold_curve` from true and false positives at each threshold, [T] each."""
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
    divisor = denominator.astype(np.float64)
    quotient: Curve = np.divide(numerator, divisor, out=np.full(len(numerator), np.nan), where=divisor > 0)
    return quotient


def tune_thresholds(
    table: PredictionTable,
    criterion: Criterion,
    grid: Curve,
    target: float | None = None,
    test_allowed: bool = False,
    before: Mapping[str, float] | None = None,
) -> TunedThresholds:
    """Choose a threshold per finding; one that has a single class keeps its threshold of `before`, else 0.5.

    F1, balanced accuracy and Youden's J are maximised; of equally good thresholds the lowest is chosen. With a target
    recall the highest threshold that reaches it is chosen, with a target specificity the lowest. `test_allowed` accepts
    the test split.

    Raises:
        RequestError: the rows come from the test split or an unknown one, or a target is missing.
    """
    if not (test_allowed and table.split == "test"):
        _check_split(table.split)
    if criterion in (Criterion.RECALL, Criterion.SPECIFICITY) and target is None:
        raise RequestError(f"criterion {criterion} needs a target", "Give one, such as --target 0.9.")
    thresholds: dict[str, float] = {}
    values: dict[str, float | None] = {}
    curves: dict[str, ThresholdCurve] = {}
    warnings: list[str] = []
    for column, finding in enumerate(table.findings):
        counts = table.mask[:, column]
        targets = table.targets[counts, column]
        curve = threshold_curve(targets, table.scores[counts, column], grid)
        curves[finding] = curve
        if len(np.unique(targets)) < 2:
            thresholds[finding], values[finding] = (before or {}).get(finding, _UNTUNED), None
            origin = "as it was" if finding in (before or {}) else "which was not tuned"
            warnings.append(
                f"{finding} has only one class on {table.split}: its threshold stays {thresholds[finding]:g}, {origin}"
            )
            continue
        chosen, reached = choose_threshold(curve, criterion, target)
        thresholds[finding] = float(grid[chosen])
        values[finding] = float(_values(curve, criterion)[chosen])
        if not reached:
            warnings.append(f"{finding}: no threshold of the grid reaches {criterion} {target}; the nearest is used")
        elif target is None and chosen in (0, len(grid) - 1):
            warnings.append(f"{finding}: the best threshold is at an end of the grid ({grid[chosen]:g})")
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


def _values(curve: ThresholdCurve, criterion: Criterion) -> Curve:
    found: Curve = getattr(curve, criterion.value.replace("-", "_"))
    return found


def choose_threshold(curve: ThresholdCurve, criterion: Criterion, target: float | None) -> tuple[int, bool]:
    """Return the position in the grid that a criterion chooses, and whether it reaches the target."""
    values = _values(curve, criterion)
    if target is None:
        return int(np.nanargmax(values)), True
    enough = np.flatnonzero(values >= target - 1e-12)
    if criterion is Criterion.RECALL:  # falls with the threshold
        return (int(enough[-1]), True) if len(enough) else (0, False)
    return (int(enough[0]), True) if len(enough) else (len(values) - 1, False)


def write_curves_csv(path: Path, tuned: TunedThresholds) -> None:
    """Write all curves as CSV: one row per finding and threshold, with the figures there."""
    names = ["precision", "recall", "specificity", "f1", "balanced_accuracy", "youden"]
    rows = [
        [finding, float(threshold), *(float(getattr(curve, name)[index]) for name in names)]
        for finding, curve in tuned.curves.items()
        for index, threshold in enumerate(curve.thresholds)
    ]
    write_csv(path, ["finding", "threshold", *names], rows)


def parse_thresholds(text: str, findings: Findings) -> dict[str, float]:
    """Read thresholds from text or from a file.

    Args:
        text: a number for each finding in order (``0.46,0.11,0.47,0.34,0.37``); some by name
            (``Edema=0.3,Cardiomegaly=0.2``); or a file: thresholds.json or thresholds.csv of ``cxr tune``, or JSON of
            ``{finding: number}``.
        findings: the findings of the model.

    Returns:
        Thresholds by finding, of the findings that `text` names.

    Raises:
        RequestError: the text is none of these, or a threshold is outside [0, 1].
    """
    path = Path(text)
    is_file = path.suffix.lower() in (".json", ".csv")
    pairs = _pairs_in_file(path) if is_file else _pairs_in_text(text, findings)
    found: dict[str, float] = {}
    for name, number in pairs:
        try:
            value = float(number)
        except (TypeError, ValueError, OverflowError):
            shown = f"{number!r:.40}"
            raise RequestError(f"threshold {shown} of {name} is not a number", "Write it as 0.46.") from None
        if not 0 <= value <= 1:
            raise RequestError(f"threshold {value:g} of {name} is outside [0, 1]", "Write it as 0.46.")
        found[findings.find(name)] = value
    return found


def _pairs_in_text(text: str, findings: Findings) -> list[tuple[str, str]]:
    parts = [part.strip() for part in text.split(",")]
    if all("=" in part for part in parts):
        return [(name, number) for name, _, number in (part.partition("=") for part in parts)]
    if len(parts) != len(findings):
        raise RequestError(
            f"--thresholds has {len(parts)} numbers, but there are {len(findings)} findings",
            f"Give one number for each of {', '.join(findings)}, or some by name (Edema=0.3), or a .json or .csv file.",
        )
    return list(zip(findings, parts, strict=True))


def _pairs_in_file(path: Path) -> list[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            return [(row["finding"], row["threshold"]) for row in csv.DictReader(io.StringIO(text, newline=""))]
        content = json.loads(text)
        content = content.get("thresholds", content)
        return [(str(name), number) for name, number in content.items()]
    except OSError as error:
        raise RequestError(f"cannot read thresholds file {path}: {error.strerror}", "Check the path.") from None
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise RequestError(
            f"thresholds file {path} is not in the format of cxr tune ({error})",
            "Give a thresholds.json or thresholds.csv of cxr tune.",
        ) from None


@dataclass(frozen=True, eq=False)
class ThresholdOrigin:
    """How a bundle's thresholds were chosen.

    Attributes:
        split: name of the split that chose them.
        sheet_sha256: digest of that split's sheet.
        criterion: see `Criterion`.
        target: required recall or specificity; None for other criteria.
        grid: [T], thresholds tried.
    """

    split: str
    sheet_sha256: str
    criterion: Criterion
    target: float | None
    grid: NDArray[np.float64]

    def chosen_on(self, table: PredictionTable) -> bool:
        """Return whether the thresholds were chosen on the sheet that `table` comes from."""
        if self.sheet_sha256 and table.sheet_sha256:
            return self.sheet_sha256 == table.sheet_sha256
        return self.split == table.split
