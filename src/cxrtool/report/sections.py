"""The sections of a report: tables and pictures as data."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxrtool.evaluation.assessment import Assessment, interval_text
from cxrtool.evaluation.calibration import reliability
from cxrtool.evaluation.curves import curve_bands, precision_recall_curve, roc_curve
from cxrtool.evaluation.operating import FIXED_RATES, decision_curve
from cxrtool.evaluation.thresholds import threshold_curve, threshold_grid
from cxrtool.files import csv_row
from cxrtool.findings import FINDINGS
from cxrtool.report import plots
from cxrtool.report.content import ReportContent
from cxrtool.report.plots import Chart

LIMITS = (
    "Research software, not a medical device. It must not decide about a patient.",
    "It reads five findings in frontal radiographs. It knows no others, and says nothing of what it was not asked.",
    "Labels of CheXpert's train split were taken from reports by a program; they are often wrong or uncertain.",
    "Figures hold for patients like those of the split they are of. Another hospital's films, devices or prevalence "
    "move them; measure again before use there.",
    "Intervals show chance over patients alone, neither another training run nor another hospital.",
    "Heatmaps show where the network's score comes from, not where the disease is.",
)


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        title: above it.
        header: column names; the first column names the row.
        rows: cells as text.
        name: of the CSV file it downloads as.
        texts: so many columns from the left are words, the others figures.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    name: str
    texts: int = 1

    @property
    def href(self) -> str:
        """The table as a CSV file in a link."""
        text = csv_row(self.header) + "".join(csv_row(row) for row in self.rows)
        return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()


@dataclass(frozen=True)
class Picture:
    """A radiograph with its heatmap."""

    src: str
    alt: str
    caption: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A part of a report, in the order text, tables, charts, pictures."""

    id: str
    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    pictures: Sequence[Picture] = ()


def sections_of(content: ReportContent) -> Iterable[Section | None]:
    yield _figures(content.assessment)
    yield _policies(content)
    yield from _curves(content)
    yield _calibration(content)
    yield _thresholds(content)
    yield _decisions(content)
    yield _subgroups(content.assessment)
    yield _history(content)
    yield _mistakes(content)
    yield _data(content)
    yield _settings(content)
    yield Section("limits", "Limits of use", text=LIMITS)


def text_of(value: object) -> str:
    """A cell as people read it."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _figures(assessment: Assessment) -> Section:
    evaluation, intervals = assessment.evaluation, assessment.intervals
    names = ("f1", "precision", "recall", "specificity", "balanced_accuracy")
    areas = [
        [
            finding,
            interval_text(row.auroc, intervals[finding]["auroc"]),
            interval_text(row.auroc, intervals[finding]["auroc_delong"]),
            interval_text(row.auprc, intervals[finding]["auprc"]),
            text_of(row.positives),
            text_of(row.negatives),
            text_of(row.ignored),
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
        [finding, f"{row.at_threshold.threshold:.2f}"]
        + [interval_text(getattr(row.at_threshold, name), intervals[finding].get(name), 3) for name in names]
        for finding, row in evaluation.labels.items()
        if row.at_threshold is not None
    ]
    if rates:
        titles = ["finding", "threshold", *(name.replace("_", " ") for name in names)]
        tables.append(Table("At the thresholds", titles, rates, "rates"))
    if assessment.honest is not None:
        rows = [[finding, *map(text_of, asdict(one).values())] for finding, one in assessment.honest.items()]
        titles = ["finding", "F1", "balanced accuracy", "recall", "specificity"]
        tables.append(Table("Honest: thresholds chosen without the rows they count", titles, rows, "honest"))
    drawn = assessment.settings.bootstrap
    told = (
        f"Behind each figure its {100 * drawn.confidence:g} % interval: percentiles over {drawn.draws:,} draws of "
        "patients with replacement; DeLong's, where named, takes studies as independent."
    )
    return Section("figures", "Figures", (told,), tables)


def _policies(content: ReportContent) -> Section | None:
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
                one = mean[figure]
                ends = one["interval"]
                row.append(
                    "–"
                    if one["value"] is None or ends["low"] is None
                    else f"{one['value']:.4f} ({ends['low']:.4f}-{ends['high']:.4f})"
                )
        rows.append(row)
    table = Table("Means over findings", header, rows, "policies")
    return Section("policies", "Uncertainty policies", content.policies["sentences"], [table])


def _columns(content: ReportContent) -> Iterable[tuple[int, str, Any, Any]]:
    """Position, name, targets and raw probabilities of the findings that have both classes."""
    table = content.table
    for column, finding in enumerate(FINDINGS):
        counts = table.mask[:, column]
        targets = table.targets[counts, column]
        if len(np.unique(targets)) == 2:
            yield column, finding, targets, table.probabilities[counts, column].astype(np.float64)


def _curves(content: ReportContent) -> Iterable[Section]:
    assessment = content.assessment
    roc, pr = [], []
    for column, finding, targets, scores in _columns(content):
        row = assessment.evaluation.labels[finding]
        roc_band, pr_band = curve_bands(content.table, column, assessment.settings.bootstrap)
        caption = f"area {interval_text(row.auroc, assessment.intervals[finding]['auroc'])}"
        roc.append(plots.roc_chart(finding, *roc_curve(targets, scores), roc_band, caption))
        caption = f"average precision {interval_text(row.auprc, assessment.intervals[finding]['auprc'])}"
        recall, precision = precision_recall_curve(targets, scores)
        pr.append(plots.pr_chart(finding, recall, precision, pr_band, float(np.mean(targets)), caption))
    told = "The band holds the curve's height at each point with the stated confidence, over draws of patients."
    yield Section("roc", "ROC curves", (told,), charts=roc)
    told = "The dotted line is the share of positives: the precision of chance."
    yield Section("pr", "Precision-recall curves", (told,), charts=pr)


def _calibration(content: ReportContent) -> Section:
    scalings = content.header.scalings
    charts = []
    for _, finding, targets, scores in _columns(content):
        calibrated = None if scalings is None else reliability(targets, scalings[finding].apply(scores))
        charts.append(plots.reliability_chart(finding, reliability(targets, scores), calibrated))
    rows = []
    for finding in FINDINGS:
        raw = content.assessment.raw[finding]
        row = [finding, *(text_of(value) for value in (raw.prevalence, raw.mean_probability, raw.brier, raw.ece))]
        if content.assessment.calibrated is not None:
            one = content.assessment.calibrated[finding]
            row += [text_of(value) for value in (one.mean_probability, one.brier, one.ece)]
        rows.append(row)
    header = ["finding", "share of positives", "mean probability", "Brier", "ECE"]
    if content.assessment.calibrated is not None:
        header += ["calibrated mean", "calibrated Brier", "calibrated ECE"]
    told = [
        "ECE is over ten bins of equal width. A dot on the dotted line means what it says; its area shows its rows."
    ]
    stored = content.header.calibration
    told.append(
        "The bundle holds no calibration: probabilities are the network's own, and pos_weight in training raises them."
        if stored is None
        else f"Calibrated by {stored.method.capitalize()} scaling fitted on {stored.split} ({stored.rows} studies)."
    )
    return Section("calibration", "Calibration", told, [Table("Calibration", header, rows, "calibration")], charts)


def _thresholds(content: ReportContent) -> Section:
    chosen = content.header.thresholds or {}
    charts = []
    told = ["Scores of positives are drawn upwards, of negatives downwards, each as a share of its class."]
    if content.tuning_table is not None:
        table, grid = content.tuning_table, threshold_grid(0.01, 0.99, 0.01)
        for column, finding in enumerate(FINDINGS):
            counts = table.mask[:, column]
            curve = threshold_curve(table.targets[counts, column], table.probabilities[counts, column], grid)
            charts.append(plots.threshold_chart(finding, curve, chosen.get(finding)))
        told.insert(0, f"Curves over thresholds are of {table.split}, where the dashed one was chosen.")
    for _, finding, targets, scores in _columns(content):
        positive = targets > 0.5
        charts.append(plots.histogram_chart(finding, scores[positive], scores[~positive], chosen.get(finding)))
    return Section("thresholds", "Thresholds and scores", told, charts=charts)


def _decisions(content: ReportContent) -> Section:
    assessment = content.assessment
    confusion = [
        [finding, *(str(getattr(row.at_threshold, name)) for name in ("tp", "fp", "fn", "tn"))]
        for finding, row in assessment.evaluation.labels.items()
        if row.at_threshold is not None
    ]
    tables = []
    if confusion:
        header = ["finding", "true positive", "false positive", "false negative", "true negative"]
        tables.append(Table("Confusion at the thresholds", header, confusion, "confusion"))
    rates = [f"{rate:.2f}" for rate in FIXED_RATES]
    rows = []
    for finding, one in assessment.operating.items():
        values = one.predictive_values
        rows.append(
            [
                finding,
                *(text_of(one.sensitivity_at[rate]) for rate in rates),
                *(text_of(one.specificity_at[rate]) for rate in rates),
                *(text_of(value) for value in ((values.prevalence, values.ppv, values.npv) if values else (None,) * 3)),
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
    for _, finding, targets, scores in _columns(content):
        used = scores if scalings is None else scalings[finding].apply(scores)
        charts.append(plots.decision_chart(finding, decision_curve(targets, used)))
    told = (
        "PPV and NPV are of the bundle's thresholds at the stated prevalence. Net benefit (Vickers and Elkin 2006) "
        "weighs a false positive by the odds of the threshold probability; it takes probabilities at their word"
        + ("." if scalings is not None else ", and these are not calibrated.")
    )
    return Section("decisions", "Decisions", (told,), tables, charts)


def _subgroups(assessment: Assessment) -> Section | None:
    if not assessment.subgroups:
        return None
    rows = [
        [
            item.attribute,
            item.group,
            item.finding,
            str(item.studies),
            str(item.metrics.positives),
            str(item.metrics.negatives),
            interval_text(item.metrics.auroc, item.auroc_interval),
            interval_text(item.metrics.auprc, item.auprc_interval),
            "too few to speak" if item.small else "",
        ]
        for item in assessment.subgroups
    ]
    header = ["by", "group", "finding", "studies", "positives", "negatives", "AUROC", "AUPRC", "note"]
    told = "A difference between groups may come from their mix of cases; intervals of small groups are wide."
    return Section("subgroups", "Subgroups", (told,), [Table("Subgroups", header, rows, "subgroups", 3)])


def _history(content: ReportContent) -> Section | None:
    if not content.history:
        return None
    epoch = content.header.metrics.get("epoch")
    best = epoch if isinstance(epoch, int) else 0
    rows = [[text_of(value) for value in asdict(record).values()] for record in content.history]
    header = [name.replace("_", " ") for name in asdict(content.history[0])]
    table = Table("Epochs", header, rows, "history")
    return Section("history", "Training history", (), [table], [plots.history_chart(content.history, best)])


def _mistakes(content: ReportContent) -> Section:
    found = content.mistakes
    if found is None:
        return Section("mistakes", "Surest mistakes", ("The images could not be reached; give --data to show them.",))
    rows = [
        [one.finding, one.kind, one.study, str(one.rank), text_of(one.probability), f"{one.threshold:.2f}"]
        for one in found.mistakes
    ]
    header = ["finding", "kind", "study", "rank", "probability", "threshold"]
    pictures = [
        Picture(
            _thumbnail(found.pictures[place]),
            f"Radiograph of {one.study} with the heatmap of {one.finding}, a {one.kind.replace('-', ' ')}",
            (
                f"{one.finding}: {one.kind.replace('-', ' ')}",
                one.study,
                f"probability {one.probability:.3f}, threshold {one.threshold:.2f}",
            ),
        )
        for place, one in enumerate(found.mistakes)
        if place in found.pictures
    ]
    told = "The surest first, with the map of the finding in question, on raw probabilities."
    return Section(
        "mistakes", "Surest mistakes", (told,), [Table("Mistakes", header, rows, "mistakes", 3)], (), pictures
    )


def _thumbnail(path: Path, side: int = 256) -> str:
    from PIL import Image

    with Image.open(path) as picture:
        picture.thumbnail((side, side))
        data = io.BytesIO()
        picture.convert("RGB").save(data, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _data(content: ReportContent) -> Section:
    rows = [
        [
            split,
            digest.sheet,
            f"{digest.images:,}",
            f"{digest.patients:,}",
            f"{digest.studies:,}",
            digest.sheet_sha256[:16],
        ]
        for split, digest in content.header.data.items()
    ]
    table = content.table
    evaluation = content.assessment.evaluation
    reported = [
        f"{table.split} (reported)",
        "",
        f"{evaluation.images:,}",
        f"{content.assessment.patients:,}",
        f"{evaluation.studies:,}",
        table.sheet_sha256[:16],
    ]
    header = ["split", "sheet", "images", "patients", "studies", "sheet SHA-256"]
    tables = [Table("Data", header, [*rows, reported], "data", 2)]
    labels = [
        [split, finding, *(str(counts[name]) for name in ("positives", "negatives", "ignored"))]
        for split, digest in content.dataset.get("splits", {}).items()
        for finding, counts in digest["labels"].items()
    ]
    if labels:
        header = ["split", "finding", "positives", "negatives", "ignored"]
        tables.append(Table("Labels after the policy", header, labels, "labels", 2))
    return Section("data", "Data", (), tables)


def _settings(content: ReportContent) -> Section:
    flat = list(_flatten(content.settings or {"train": content.header.training}))
    versions = [[name, number] for name, number in content.header.versions.items()]
    versions.append(["weights SHA-256", content.header.weights_sha256])
    versions.append(["created", content.header.created])
    return Section(
        "settings",
        "Settings and versions",
        (),
        [
            Table("Settings of the run", ["setting", "value"], flat, "settings", 2),
            Table("Versions", ["what", "version"], versions, "versions", 2),
        ],
    )


def _flatten(tree: Any, prefix: str = "") -> Iterable[list[str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield [f"{prefix}{key}", text_of(value)]
