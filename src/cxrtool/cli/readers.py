"""Tables that show readers beside a model."""

from typing import TYPE_CHECKING

from cxrtool.cells import cell, interval_text, p_text
from cxrtool.cli import console

if TYPE_CHECKING:
    from cxrtool.evaluation.readers import ReaderFigures, ReaderStudy


def show_readers(study: "ReaderStudy") -> None:
    """Print each reader's rates beside the model, the model against the average reader, and a sentence per finding."""
    from cxrtool.evaluation.reader_sentences import FIGURES, sentences_on
    from cxrtool.evaluation.readers import NOTE_ON_AREA

    percent = f"{100 * study.settings.confidence:g} %"
    console.print_table(
        f"readers, and the model's sensitivity at each reader's specificity ({percent} intervals over patients)",
        ["finding", "reader", "sensitivity", "specificity", "model's sensitivity", "difference", "model lies"],
        [_row(row) for row in study.rows],
    )
    if study.averages:
        rows = [
            [
                one.finding,
                FIGURES[one.figure],
                cell(one.model, 3),
                cell(one.readers, 3),
                interval_text(one.analysis.estimate.value, one.interval, 3),
                p_text(one.analysis.estimate.p_value),
            ]
            for one in study.averages
        ]
        console.print_table(
            "the model against the average reader, for other readers and patients too (Obuchowski & Rockette 1995)",
            ["finding", "figure", "model", "average reader", "difference", "p"],
            rows,
        )
        console.say(f"note: {NOTE_ON_AREA}")
    for sentence in sentences_on(study):
        console.say(sentence)


def _row(row: "ReaderFigures") -> list[object]:
    from cxrtool.evaluation.reader_sentences import place_of

    intervals = row.intervals
    return [
        row.finding,
        row.reader,
        interval_text(row.sensitivity, intervals["sensitivity"], 3),
        interval_text(row.specificity, intervals["specificity"], 3),
        cell(row.model_sensitivity, 3),
        interval_text(row.difference, intervals["difference"], 3),
        place_of(row),
    ]
