"""Report sections with figures of the split, of uncertainty policies and of subgroups."""

from dataclasses import asdict
from typing import Any

from cxrtool.cells import cell, interval_text, p_text, range_text
from cxrtool.evaluation.assessment import Assessment
from cxrtool.evaluation.difference import MEAN
from cxrtool.evaluation.intervals import Interval
from cxrtool.evaluation.metrics import FEW_CASES
from cxrtool.report.content import ReportContent
from cxrtool.report.parts import Section, Table


def figures_section(assessment: Assessment) -> Section:
    """Return the section with areas and with rates at thresholds, with their intervals."""
    evaluation, intervals = assessment.evaluation, assessment.intervals
    names = ("f1", "precision", "recall", "specificity", "balanced_accuracy")
    areas = [
        [
            f"{finding} *" if row.few_cases else finding,
            interval_text(row.auroc, intervals[finding]["auroc"]),
            interval_text(row.auroc, intervals[finding]["auroc_delong"]),
            interval_text(row.auprc, intervals[finding]["auprc"]),
            cell(row.positives),
            cell(row.negatives),
            cell(row.ignored),
        ]
        for finding, row in evaluation.labels.items()
    ]
    mean = intervals["mean"]
    areas.append(
        [
            "mean",
            interval_text(evaluation.mean_auroc, mean["auroc"]),
            "",
            interval_text(evaluation.mean_auprc, mean["auprc"]),
            *[""] * 3,
        ]
    )
    header = ["finding", "AUROC", "AUROC (DeLong)", "AUPRC", "positives", "negatives", "ignored"]
    tables = [Table("Areas", header, areas, "areas")]
    rates = [
        [finding, cell(row.at_threshold.threshold, 2)]
        + [interval_text(getattr(row.at_threshold, name), intervals[finding].get(name), 3) for name in names]
        for finding, row in evaluation.labels.items()
        if row.at_threshold is not None
    ]
    if rates:
        titles = ["finding", "threshold", *(name.replace("_", " ") for name in names)]
        tables.append(Table("At the thresholds", titles, rates, "rates"))
    if assessment.honest is not None:
        rows = [[finding, *map(cell, asdict(one).values())] for finding, one in assessment.honest.items()]
        titles = ["finding", "F1", "balanced accuracy", "recall", "specificity"]
        tables.append(
            Table("Corrected for optimism: each row judged by thresholds chosen without it", titles, rows, "honest")
        )
    drawn = assessment.settings.bootstrap
    text = [
        f"Each figure is followed by its {100 * drawn.confidence:g} % interval. Those of areas are percentiles over "
        f"{drawn.draws:,} draws of patients with replacement where these hold, else Newcombe's for AUROC and a logit "
        "interval for AUPRC; those of rates are Wilson's, with fewer cases where patients have several. DeLong's "
        "interval takes studies as independent."
    ]
    if any(row.few_cases for row in evaluation.labels.values()):
        text.append(f"* fewer than {FEW_CASES} positives or negatives: too few for reliable figures.")
    return Section("figures", "Figures", text, tables)


def policies_section(content: ReportContent) -> Section | None:
    """Return the section that compares uncertainty policies; None if the run is not part of a comparison."""
    if content.policies is None:
        return None
    comparisons: dict[str, Any] = content.policies["comparisons"]
    header = ["policy", *(f"{split} {name}" for split in comparisons for name in ("AUROC", "AUPRC"))]
    rows = []
    for policy in next(iter(comparisons.values()))["candidates"]:
        row = [policy]
        for comparison in comparisons.values():
            mean = comparison["candidates"][policy]["mean"]
            for figure in ("auroc", "auprc"):
                ends = mean[figure]["interval"]
                row.append(interval_text(mean[figure]["value"], Interval(ends["low"], ends["high"])))
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


def subgroups_section(assessment: Assessment) -> Section | None:
    """Return the section with areas by subgroup; None if there are no subgroups."""
    if not assessment.subgroups:
        return None
    rows = [
        [
            item.attribute,
            item.group,
            item.finding,
            cell(item.studies),
            cell(item.metrics.positives),
            cell(item.metrics.negatives),
            interval_text(item.metrics.auroc, item.auroc_interval),
            interval_text(item.metrics.auprc, item.auprc_interval),
            "too few for reliable figures" if item.small else "",
        ]
        for item in assessment.subgroups
    ]
    header = ["by", "group", "finding", "studies", "positives", "negatives", "AUROC", "AUPRC", "note"]
    text = (
        "Groups may differ because their cases differ, and intervals of small groups are wide. The largest gap between "
        "groups is above zero by chance alone: a permutation test compares it with random groups of the same sizes."
    )
    tables = [Table("Subgroups", header, rows, "subgroups", 3)]
    gaps = [
        [
            one.attribute,
            one.finding,
            one.figure,
            f"{one.highest} - {one.lowest}",
            f"{one.gap:.4f} ({range_text(one.interval, signed=True)})",
            cell(one.chance),
            cell(one.p_value, 3),
            cell(one.p_holm, 3),
        ]
        for one in assessment.gaps
    ]
    if gaps:
        names = ["by", "finding", "figure", "groups", "gap", "95 % of random groups", "p", "p (Holm)"]
        tables.append(Table("Largest gaps between groups", names, gaps, "gaps", 4))
    return Section("subgroups", "Subgroups", (text,), tables)
