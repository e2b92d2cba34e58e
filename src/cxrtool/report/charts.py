"""Report sections with charts: curves, calibration, thresholds and decisions."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from cxrtool.cells import interval_text
from cxrtool.evaluation.curves import curve_bands, precision_recall_curve, roc_curve
from cxrtool.evaluation.intervals import Interval
from cxrtool.evaluation.operating import FIXED_RATES
from cxrtool.evaluation.thresholds import threshold_curve, threshold_grid
from cxrtool.model.header import StoredCalibration
from cxrtool.report import plots
from cxrtool.report.content import ReportContent
from cxrtool.report.figures import counts_table
from cxrtool.report.parts import Section, Table
from cxrtool.report.readers import pr_marks, roc_marks
from cxrtool.report.table import Cell, Estimate, Number

_CALIBRATION = {"brier": "Brier", "ece": "ECE", "in_the_large": "in the large", "slope": "slope"}
"""Figures shown with their intervals."""


def _findings_with_both_classes(content: ReportContent) -> Iterable[tuple[int, str, Any, Any]]:
    """Yield position, name, targets and raw probabilities of each finding that has both classes."""
    table = content.table
    for column, finding in enumerate(table.findings):
        counts = table.mask[:, column]
        targets = table.targets[counts, column]
        if len(np.unique(targets)) == 2:
            yield column, finding, targets, table.scores[counts, column]


def curve_sections(content: ReportContent) -> Iterable[Section]:
    """Yield the sections of ROC and precision-recall curves, with their bands."""
    assessment = content.assessment
    roc, pr = [], []
    for column, finding, targets, scores in _findings_with_both_classes(content):
        row = assessment.evaluation.labels[finding]
        roc_band, pr_band = curve_bands(content.table, column, assessment.settings.bootstrap)
        caption = f"area {interval_text(row.auroc, assessment.intervals[finding]['auroc'])}"
        roc.append(
            plots.roc_chart(
                finding, *roc_curve(targets, scores), roc_band, caption, roc_marks(content.readers, finding)
            )
        )
        caption = f"average precision {interval_text(row.auprc, assessment.intervals[finding]['auprc'])}"
        recall, precision = precision_recall_curve(targets, scores)
        marks = pr_marks(content.readers, finding)
        pr.append(plots.pr_chart(finding, recall, precision, pr_band, float(np.mean(targets)), caption, marks))
    confidence = f"{100 * assessment.settings.bootstrap.confidence:g} %"
    text = f"The band is the pointwise {confidence} interval of the curve's height over draws of patients."
    if content.readers is not None:
        text += " Readers are points, with the intervals of both rates; a star is their majority vote."
    yield Section("roc", "ROC curves", (text,), charts=roc)
    text = "The dotted line is the share of positives, which is the precision of a random guess."
    yield Section("pr", "Precision-recall curves", (text,), charts=pr)


def calibration_section(content: ReportContent) -> Section | None:
    """Return the section with reliability, Brier score and calibration error; None for scores of ranks only."""
    assessment = content.assessment
    if assessment.raw is None:
        return None
    kinds = {"raw": assessment.raw} | ({} if assessment.calibrated is None else {"calibrated": assessment.calibrated})
    charts = [
        plots.reliability_chart(
            finding,
            assessment.raw[finding].curve,
            None if assessment.calibrated is None else assessment.calibrated[finding].curve,
        )
        for _, finding, _, _ in _findings_with_both_classes(content)
    ]
    percent = f"{100 * assessment.settings.bootstrap.confidence:g} %"
    rows: list[list[Cell]] = []
    bins: list[list[Cell]] = []
    for kind, figures in kinds.items():
        for finding, one in figures.items():
            cells = [Estimate(getattr(one, name), one.intervals.get(name), 3) for name in _CALIBRATION]
            rows.append([finding, kind, Number(one.prevalence), Number(one.mean_probability), *cells])
            bins += [
                [
                    *(finding, kind, Number(part.low), Number(part.high), part.rows, part.positives),
                    Number(part.mean_probability),
                    Estimate(part.positive_share, Interval(part.share_low, part.share_high)),
                ]
                for part in one.curve
            ]
    header = ["finding", "probabilities", "share of positives", "mean probability"]
    header += [f"{name} ({percent})" for name in _CALIBRATION.values()]
    columns = ["finding", "probabilities", "from", "to", "rows", "positives", "mean", f"share ({percent})"]
    text = [
        "A point on the dotted line is calibrated. Each holds the rows between two probabilities, at least twenty, and "
        f"neighbours whose shares fall are pooled; the band is the {percent} interval of the share at each point. "
        "'In the large' is the log-odds to add to all probabilities, 0 if calibrated; a slope below 1 means too "
        "extreme. ECE is the expected calibration error over ten bins of equal width, which is above 0 by chance."
    ]
    if assessment.calibrated_in_sample:
        text.append("The calibration was fitted on these rows, so figures of calibrated probabilities are too good.")
    if content.header is not None:
        text.append(_calibrated_by(content.header.calibration))
    tables = [
        Table("Calibration", header, rows, "calibration", texts=2),
        Table("Points of the reliability curves", columns, bins, "reliability", texts=2),
    ]
    return Section("calibration", "Calibration", text, tables, charts)


def _calibrated_by(stored: StoredCalibration | None) -> str:
    if stored is None:
        return "The bundle has no calibration: probabilities are the network's, which pos_weight in training raises."
    return f"Calibrated by {stored.method.capitalize()} scaling, fitted on {stored.split} ({stored.rows} studies)."


def thresholds_section(content: ReportContent) -> Section:
    """Return the section with rates over thresholds and the distribution of probabilities by class."""
    chosen = {} if content.header is None else content.header.thresholds or {}
    charts = []
    text = ["Histograms show positives upwards and negatives downwards, each as shares of their class."]
    if content.tuning_table is not None:
        table, grid = content.tuning_table, threshold_grid(0.01, 0.99, 0.01)
        for column, finding in enumerate(table.findings):
            counts = table.mask[:, column]
            curve = threshold_curve(table.targets[counts, column], table.scores[counts, column], grid)
            charts.append(plots.threshold_chart(finding, curve, chosen.get(finding)))
        text.insert(0, f"Curves over thresholds show {table.split}, where the dashed threshold was chosen.")
    for _, finding, targets, scores in _findings_with_both_classes(content):
        positive = targets > 0.5
        charts.append(plots.histogram_chart(finding, scores[positive], scores[~positive], chosen.get(finding)))
    return Section("thresholds", "Thresholds and probabilities", text, charts=charts)


def decisions_section(content: ReportContent) -> Section:
    """Return the section with confusion counts, operating points and net benefit."""
    assessment = content.assessment
    counts = counts_table(assessment)
    tables = [] if counts is None else [counts]
    rates = [f"{rate:.2f}" for rate in FIXED_RATES]
    rows: list[list[Cell]] = []
    for finding, one in assessment.operating.items():
        values = one.predictive_values
        rows.append(
            [
                finding,
                *(Number(one.sensitivity_at[rate]) for rate in rates),
                *(Number(one.specificity_at[rate]) for rate in rates),
                Number(values.prevalence if values else None),
                Estimate(values.ppv, values.ppv_interval, 3) if values else None,
                Estimate(values.npv, values.npv_interval, 3) if values else None,
            ]
        )
    header = [
        "finding",
        *(f"sens. at spec. {rate}" for rate in rates),
        *(f"spec. at sens. {rate}" for rate in rates),
        "prevalence",
        "PPV",
        "NPV",
    ]
    tables.append(Table("Operating points", header, rows, "operating_points"))
    curves = assessment.decision_curves
    if curves is None:
        return Section("decisions", "Decisions", (), tables)
    charts = [
        plots.decision_chart(finding, curves[finding]) for _, finding, _, _ in _findings_with_both_classes(content)
    ]
    calibrated = content.header is not None and content.header.scalings is not None
    text = (
        "PPV and NPV hold at the thresholds and the prevalence shown. Net benefit (Vickers and Elkin 2006) weighs a "
        "false positive by the odds of the threshold probability; it assumes calibrated probabilities"
        + ("." if calibrated else ", but these are not calibrated here.")
    )
    return Section("decisions", "Decisions", (text,), tables, charts)
