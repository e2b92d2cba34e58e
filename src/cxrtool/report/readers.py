"""Readers in a report: their points on the curves, and a section of tables."""

from cxrtool.cells import cell, interval_text, p_text
from cxrtool.evaluation.intervals import Interval
from cxrtool.evaluation.reader_sentences import FIGURES, place_of, sentences_on
from cxrtool.evaluation.readers import MAJORITY, NOTE_ON_AREA, ReaderFigures, ReaderStudy
from cxrtool.report.parts import Section, Table
from cxrtool.report.plots import Mark


def roc_marks(study: ReaderStudy | None, finding: str) -> tuple[Mark, ...]:
    """Return the readers' points on a ROC chart, with the intervals of specificity and sensitivity."""
    return tuple(
        Mark(row.reader, 1 - row.specificity, row.sensitivity, _mirrored(x), _ends(y), row.reader == MAJORITY)
        for row in (() if study is None else study.of(finding))
        if row.sensitivity is not None and row.specificity is not None
        for x, y in [(row.intervals["specificity"], row.intervals["sensitivity"])]
    )


def pr_marks(study: ReaderStudy | None, finding: str) -> tuple[Mark, ...]:
    """Return the readers' points on a precision-recall chart, with the intervals of recall and precision."""
    return tuple(
        Mark(row.reader, row.sensitivity, row.precision, _ends(x), _ends(y), row.reader == MAJORITY)
        for row in (() if study is None else study.of(finding))
        if row.sensitivity is not None and row.precision is not None
        for x, y in [(row.intervals["sensitivity"], row.intervals["precision"])]
    )


def _mirrored(interval: Interval) -> tuple[float, float] | None:
    ends = _ends(interval)
    return None if ends is None else (1 - ends[1], 1 - ends[0])


def _ends(interval: Interval) -> tuple[float, float] | None:
    return None if interval.low is None or interval.high is None else (interval.low, interval.high)


def readers_section(study: ReaderStudy | None) -> Section | None:
    """Return the section that compares the model with readers; None without readers."""
    if study is None:
        return None
    percent = f"{100 * study.settings.confidence:g} %"
    header = ["finding", "reader", f"sensitivity ({percent})", f"specificity ({percent})", f"precision ({percent})"]
    header += ["model's sensitivity there", f"difference ({percent})", "model lies"]
    tables = [
        Table(
            "Each reader, and the model at the reader's specificity", header, list(map(_row, study.rows)), "readers", 2
        )
    ]
    text = [
        *sentences_on(study),
        "By points: the reader lies below the model's ROC curve, whose thresholds are joined by straight lines. By "
        "intervals: the whole interval of the difference is above zero; in each draw of patients the model's threshold "
        "is chosen again to match the reader's specificity. Intervals are not corrected for the number of readers.",
        *(f"{note[0].upper()}{note[1:]}." for note in study.notes),
    ]
    if study.averages:
        rows = [
            [
                one.finding,
                FIGURES[one.figure],
                cell(one.model, 3),
                cell(one.readers, 3),
                interval_text(one.analysis.estimate.value, one.interval, 3),
                p_text(one.analysis.estimate.p_value),
                cell(one.studies),
            ]
            for one in study.averages
        ]
        header = ["finding", "figure", "model", "average reader", f"difference ({percent})", "p", "studies"]
        tables.append(Table("The average reader", header, rows, "average_reader", 2))
        text.append(
            "The average reader: intervals and p-values hold for other readers and other patients (Obuchowski and "
            f"Rockette 1995, degrees of freedom by Hillis 2007). {NOTE_ON_AREA[0].upper()}{NOTE_ON_AREA[1:]}."
        )
    return Section("readers", "Readers", text, tables)


def _row(row: ReaderFigures) -> list[str]:
    intervals = row.intervals
    return [
        row.finding,
        row.reader,
        interval_text(row.sensitivity, intervals["sensitivity"], 3),
        interval_text(row.specificity, intervals["specificity"], 3),
        interval_text(row.precision, intervals["precision"], 3),
        cell(row.model_sensitivity, 3),
        interval_text(row.difference, intervals["difference"], 3),
        place_of(row),
    ]
