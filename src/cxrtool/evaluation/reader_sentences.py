"""What a model's place among readers is, in sentences that keep points and intervals apart."""

from collections.abc import Sequence

from cxrtool.cells import UNDEFINED, p_text, range_text
from cxrtool.evaluation.readers import AREA, MAJORITY, SENSITIVITY, AverageReader, ReaderFigures, ReaderStudy

FIGURES = {SENSITIVITY: "sensitivity at the readers' specificity", AREA: "area (favours the model)"}
"""Names of the figures of a multi-reader analysis in tables."""


def sentences_on(study: ReaderStudy) -> tuple[str, ...]:
    """Return a sentence for each finding: above how many readers by points, and by intervals."""
    findings = dict.fromkeys(row.finding for row in study.rows)
    return tuple(_on(finding, study.of(finding), study) for finding in findings)


def _on(finding: str, rows: Sequence[ReaderFigures], study: ReaderStudy) -> str:
    judged = [row for row in rows if row.reader != MAJORITY and row.difference is not None]
    if not judged:
        return f"{finding}: a class is missing, so the model cannot be compared with readers."
    readers = f"{len(judged)} reader{'s' if len(judged) > 1 else ''}"
    by_points = sum(bool(row.above_by_point) for row in judged)
    by_intervals = sum(bool(row.above_by_interval) for row in judged)
    text = f"{finding}: above {by_points} of {readers} by points, {by_intervals} of {len(judged)} by intervals"
    below = sum(bool(row.below_by_interval) for row in judged)
    if below:
        text += f" (below {below} of {len(judged)} by intervals)"
    text += "".join(_on_vote(row) for row in rows if row.reader == MAJORITY and row.difference is not None)
    text += "".join(_on_average(one) for one in study.averages if one.finding == finding and one.figure == SENSITIVITY)
    return text + "."


def _on_vote(row: ReaderFigures) -> str:
    if row.above_by_interval or row.below_by_interval:
        return f"; {'above' if row.above_by_interval else 'below'} the majority vote by its interval"
    if not row.difference:
        return "; level with the majority vote by points"
    return f"; {'above' if row.difference > 0 else 'below'} the majority vote by points, not by its interval"


def _on_average(one: AverageReader) -> str:
    estimate = one.analysis.estimate
    if one.interval.low is None:
        return ""
    p = p_text(estimate.p_value)
    return (
        f"; sensitivity {estimate.value:+.3f} ({range_text(one.interval, 3, signed=True)}, "
        f"p {p if p.startswith('<') else f'= {p}'}) against the average reader"
    )


def place_of(row: ReaderFigures) -> str:
    """Return where the model lies beside a reader: ``above`` or ``below`` by its interval, else ``... by point``."""
    if row.difference is None:
        return UNDEFINED
    side = "above" if row.difference > 0 else "below"
    if row.above_by_interval or row.below_by_interval:
        return side
    return f"{side} by point" if row.difference else "level"
