"""Report sections with charts: curves, calibration, thresholds and decisions."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from cxrtool.cells import cell, interval_text
from cxrtool.evaluation.calibration import reliability
from cxrtool.evaluation.curves import curve_bands, precision_recall_curve, roc_curve
from cxrtool.evaluation.operating import FIXED_RATES, decision_curve
from cxrtool.evaluation.thresholds import threshold_curve, threshold_grid
from cxrtool.report import plots
from cxrtool.report.content import ReportContent
from cxrtool.report.figures import counts_table
from cxrtool.report.parts import Section, Table


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
        roc.append(plots.roc_chart(finding, *roc_curve(targets, scores), roc_band, caption))
        caption = f"average precision {interval_text(row.auprc, assessment.intervals[finding]['auprc'])}"
        recall, precision = precision_recall_curve(targets, scores)
        pr.append(plots.pr_chart(finding, recall, precision, pr_band, float(np.mean(targets)), caption))
    confidence = f"{100 * assessment.settings.bootstrap.confidence:g} %"
    text = f"The band is the pointwise {confidence} interval of the curve's height over draws of patients."
    yield Section("roc", "ROC curves", (text,), charts=roc)
    text = "The dotted line is the share of positives, which is the precision of a random guess."
    yield Section("pr", "Precision-recall curves", (text,), charts=pr)


def calibration_section(content: ReportContent) -> Section:
    """Return the section with reliability, Brier score and calibration error, raw and calibrated."""
    scalings = content.header.scalings
    charts = []
    for _, finding, targets, scores in _findings_with_both_classes(content):
        calibrated = None if scalings is None else reliability(targets, scalings[finding].apply(scores))
        charts.append(plots.reliability_chart(finding, reliability(targets, scores), calibrated))
    rows = []
    for finding in content.table.findings:
        raw = content.assessment.raw[finding]
        row = [finding, *(cell(value) for value in (raw.prevalence, raw.mean_probability, raw.brier, raw.ece))]
        if content.assessment.calibrated is not None:
            one = content.assessment.calibrated[finding]
            row += [cell(value) for value in (one.mean_probability, one.brier, one.ece)]
        rows.append(row)
    header = ["finding", "share of positives", "mean probability", "Brier", "ECE"]
    if content.assessment.calibrated is not None:
        header += ["calibrated mean", "calibrated Brier", "calibrated ECE"]
    text = [
        "ECE is the expected calibration error over ten bins of equal width. Dots on the dotted line are calibrated; "
        "the area of a dot shows its number of rows."
    ]
    stored = content.header.calibration
    text.append(
        "The bundle has no calibration: probabilities are those of the network, which pos_weight in training raises."
        if stored is None
        else f"Calibrated by {stored.method.capitalize()} scaling, fitted on {stored.split} ({stored.rows} studies)."
    )
    return Section("calibration", "Calibration", text, [Table("Calibration", header, rows, "calibration")], charts)


def thresholds_section(content: ReportContent) -> Section:
    """Return the section with rates over thresholds and the distribution of probabilities by class."""
    chosen = content.header.thresholds or {}
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
    rows = []
    for finding, one in assessment.operating.items():
        values = one.predictive_values
        rows.append(
            [
                finding,
                *(cell(one.sensitivity_at[rate]) for rate in rates),
                *(cell(one.specificity_at[rate]) for rate in rates),
                *(cell(value) for value in ((values.prevalence, values.ppv, values.npv) if values else (None,) * 3)),
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
    scalings = content.header.scalings
    charts = []
    for _, finding, targets, scores in _findings_with_both_classes(content):
        used = scores if scalings is None else scalings[finding].apply(scores)
        charts.append(plots.decision_chart(finding, decision_curve(targets, used)))
    text = (
        "PPV and NPV hold at the bundle's thresholds and the prevalence shown. Net benefit (Vickers and Elkin 2006) "
        "weighs a false positive by the odds of the threshold probability; it assumes calibrated probabilities"
        + ("." if scalings is not None else ", but these are not calibrated.")
    )
    return Section("decisions", "Decisions", (text,), tables, charts)
