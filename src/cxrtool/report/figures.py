"""Report sections and tables with figures of the split, of uncertainty policies and of subgroups."""

from dataclasses import asdict
from typing import Any

from cxrtool.cells import cell, p_text, range_text
from cxrtool.evaluation.assessment import Assessment
from cxrtool.evaluation.difference import MEAN
from cxrtool.evaluation.intervals import Interval
from cxrtool.evaluation.metrics import FEW_CASES
from cxrtool.report.content import ReportContent
from cxrtool.report.methods_text import interval_sentences
from cxrtool.report.parts import Section
from cxrtool.report.references import Citations
from cxrtool.report.table import Cell, Estimate, Number, Table, interval_notes

_RATES = {
    "recall": "sensitivity",
    "specificity": "specificity",
    "precision": "PPV",
    "f1": "F1",
    "balanced_accuracy": "balanced accuracy",
}


def areas_table(assessment: Assessment) -> Table:
    """Return areas under the curves with their intervals, and the numbers of labels, by finding and as means."""
    evaluation, intervals = assessment.evaluation, assessment.intervals
    delong = any("auroc_delong" in one for one in intervals.values())
    names = [*evaluation.labels, "mean"]
    rows: list[list[Cell]] = []
    for finding, row in evaluation.labels.items():
        name = f"{finding} *" if row.few_cases else finding
        cells: list[Cell] = [name, Estimate(row.auroc, intervals[finding].get("auroc"))]
        if delong:
            cells.append(Estimate(row.auroc, intervals[finding].get("auroc_delong")))
        cells.append(Estimate(row.auprc, intervals[finding].get("auprc")))
        rows.append([*cells, row.positives, row.negatives, row.ignored])
    mean: list[Cell] = ["mean", Estimate(evaluation.mean_auroc, intervals["mean"].get("auroc"))]
    if delong:
        mean.append("")
    rows.append([*mean, Estimate(evaluation.mean_auprc, intervals["mean"].get("auprc")), "", "", ""])
    header = ["finding", "AUROC", *(["AUROC (DeLong)"] if delong else []), "AUPRC", "positives", "negatives", "ignored"]
    plain = Table("Areas", header, [[name, *row[1:]] for name, row in zip(names, rows, strict=True)], "areas")
    few = any(row.few_cases for row in evaluation.labels.values())
    mark = (f"* fewer than {FEW_CASES} positives or negatives: too few for reliable figures.",) if few else ()
    return Table("Areas", header, rows, "areas", notes=(*mark, *_notes(header, rows)), plain=plain)


def overview_table(assessment: Assessment) -> Table:
    """Return the few figures of each finding that a reader looks for first."""
    rows: list[list[Cell]] = []
    for finding, row in assessment.evaluation.labels.items():
        one, intervals = row.at_threshold, assessment.intervals[finding]
        rates: list[Cell] = [None, None] if one is None else [Number(one.recall, 2), Number(one.specificity, 2)]
        name = f"{finding} *" if row.few_cases else finding
        rows.append([name, Estimate(row.auroc, intervals.get("auroc"), 3), *rates, row.positives])
    few = any(row.few_cases for row in assessment.evaluation.labels.values())
    mark = (f"* fewer than {FEW_CASES} positives or negatives: too few for reliable figures.",) if few else ()
    header = ["finding", "AUROC", "sensitivity", "specificity", "positives"]
    return Table("Findings", header, rows, "findings", notes=mark)


def rates_table(assessment: Assessment) -> Table | None:
    """Return rates at the thresholds with their intervals, by finding; None without thresholds."""
    rows: list[list[Cell]] = [
        [
            finding,
            Number(row.at_threshold.threshold, 2),
            *(Estimate(getattr(row.at_threshold, name), assessment.intervals[finding].get(name), 3) for name in _RATES),
        ]
        for finding, row in assessment.evaluation.labels.items()
        if row.at_threshold is not None
    ]
    header = ["finding", "threshold", *_RATES.values()]
    return Table("At the thresholds", header, rows, "rates", notes=_notes(header, rows)) if rows else None


def counts_table(assessment: Assessment) -> Table | None:
    """Return the cross tabulation of decisions and labels, by finding; None without thresholds."""
    rows: list[list[Cell]] = []
    for finding, row in assessment.evaluation.labels.items():
        one = row.at_threshold
        if one is not None:
            rows.append([finding, Number(one.threshold, 2), one.tp, one.fp, one.fn, one.tn])
    header = ["finding", "threshold", "true positive", "false positive", "false negative", "true negative"]
    return Table("Decisions and labels", header, rows, "counts") if rows else None


def _notes(header: list[str], rows: list[list[Cell]]) -> tuple[str, ...]:
    named = [
        (f"{row[0]}, {name}", value)
        for row in rows
        for name, value in zip(header, row, strict=True)
        if isinstance(value, Estimate)
    ]
    return interval_notes(named)


def figures_section(assessment: Assessment) -> Section:
    """Return the section with areas and with rates at thresholds, with their intervals."""
    tables = [areas_table(assessment)]
    rates = rates_table(assessment)
    if rates is not None:
        tables.append(rates)
    if assessment.honest is not None:
        rows: list[list[Cell]] = [[finding, *asdict(one).values()] for finding, one in assessment.honest.items()]
        titles = ["finding", "F1", "balanced accuracy", "recall", "specificity"]
        tables.append(
            Table("Corrected for optimism: each row judged by thresholds chosen without it", titles, rows, "honest")
        )
    text = " ".join(interval_sentences(assessment, Citations(shown=False)))
    return Section("figures", "Figures", (text,), tables)


def policies_section(content: ReportContent) -> Section | None:
    """Return the section that compares uncertainty policies; None if the run is not part of a comparison."""
    if content.policies is None:
        return None
    comparisons: dict[str, Any] = content.policies["comparisons"]
    header = ["policy", *(f"{split} {name}" for split in comparisons for name in ("AUROC", "AUPRC"))]
    rows: list[list[Cell]] = []
    for policy in next(iter(comparisons.values()))["candidates"]:
        row: list[Cell] = [policy]
        for comparison in comparisons.values():
            mean = comparison["candidates"][policy]["mean"]
            for figure in ("auroc", "auprc"):
                ends = mean[figure]["interval"]
                interval = Interval(ends["low"], ends["high"], method=ends.get("method"))
                row.append(Estimate(mean[figure]["value"], interval))
        rows.append(row)
    tables = [Table("Means over findings", header, rows, "policies")]
    tables += [_policy_differences(split, comparison) for split, comparison in comparisons.items()]
    notes = dict.fromkeys(note for comparison in comparisons.values() for note in comparison.get("notes", ()))
    texts = (*content.policies["sentences"], *(f"Note: {note}." for note in notes))
    return Section("policies", "Uncertainty policies", texts, tables)


def _policy_differences(split: str, comparison: dict[str, Any]) -> Table:
    """Return the differences of the means; files of earlier versions lack the last column."""
    rows = [
        [
            f"{one['first']} - {one['second']}",
            one["figure"].upper(),
            cell(one["difference"]),
            range_text(Interval(one["interval"]["low"], one["interval"]["high"]), signed=True),
            p_text(one["p_value"]),
            p_text(one["p_holm"]),
            cell(one.get("detectable")),
        ]
        for one in comparison["differences"]
        if one["finding"] == MEAN
    ]
    header = ["pair", "figure", "difference", "interval", "p", "p (Holm)", "detectable with 80 % power"]
    return Table(f"Differences of the means on {split}", header, rows, f"policies_{split}", 2)


def subgroups_table(assessment: Assessment) -> Table | None:
    """Return areas by subgroup and finding; None if there are no subgroups."""
    rows: list[list[Cell]] = [
        [
            item.attribute,
            item.group,
            item.finding,
            item.studies,
            item.metrics.positives,
            item.metrics.negatives,
            Estimate(item.metrics.auroc, item.auroc_interval),
            Estimate(item.metrics.auprc, item.auprc_interval),
            "too few" if item.small else "",
        ]
        for item in assessment.subgroups
    ]
    header = ["by", "group", "finding", "studies", "positives", "negatives", "AUROC", "AUPRC", "note"]
    notes = (f"Too few: fewer than {FEW_CASES} positives or negatives, too few for reliable figures.",)
    return Table("Subgroups", header, rows, "subgroups", 3, notes) if rows else None


def gaps_table(assessment: Assessment) -> Table | None:
    """Return the largest gaps between groups beside those of random groups; None if there are none."""
    rows: list[list[Cell]] = [
        [
            one.attribute,
            one.finding,
            one.figure,
            f"{one.highest} - {one.lowest}",
            Estimate(one.gap, one.interval, signed=True),
            Number(one.chance),
            Number(one.p_value, 3),
            Number(one.p_holm, 3),
        ]
        for one in assessment.gaps
    ]
    header = ["by", "finding", "figure", "groups", "gap", "95 % of random groups", "p", "p (Holm)"]
    return Table("Largest gaps between groups", header, rows, "gaps", 4) if rows else None


def subgroups_section(assessment: Assessment) -> Section | None:
    """Return the section with areas by subgroup and gaps between groups; None if there are no subgroups."""
    table, gaps = subgroups_table(assessment), gaps_table(assessment)
    text = (
        "Groups may differ because their cases differ, and intervals of small groups are wide. The largest gap between "
        "groups is above zero by chance alone: a permutation test compares it with random groups of the same sizes."
    )
    if table is None:
        return None
    return Section("subgroups", "Subgroups", (text, *table.notes), [table, *([] if gaps is None else [gaps])])
