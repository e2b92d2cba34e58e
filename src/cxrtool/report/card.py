"""A model card (Mitchell et al. 2019, arXiv:1810.03993) in Markdown."""

from collections.abc import Iterable, Sequence

from cxrtool.cells import cell
from cxrtool.evaluation.assessment import Assessment
from cxrtool.model.header import BundleHeader
from cxrtool.report.figures import areas_table, counts_table, rates_table
from cxrtool.report.methods_text import interval_sentences
from cxrtool.report.parts import SYNTHETIC
from cxrtool.report.population import characteristics_table, describe_flow
from cxrtool.report.references import Citations
from cxrtool.report.sections import LIMITS
from cxrtool.report.study import Study
from cxrtool.report.table import Cell, Table, escape_markdown, markdown_rows


def model_card(header: BundleHeader, assessment: Assessment, study: Study | None = None) -> str:
    """Return the model card of a bundle, with the figures of `assessment`, and who was analysed if `study` says so."""
    evaluation = assessment.evaluation
    rates, counts = rates_table(assessment), counts_table(assessment)
    tuned, fitted, preprocessing = header.tuning, header.calibration, header.image_preprocessing
    lines = [
        f"# Model card: {escape_markdown(header.run)}",
        "",
        *([SYNTHETIC, ""] if header.synthetic else []),
        f"{header.intended_use}",
        "",
        "## Model",
        "",
        *_table(
            ["item", "value"],
            [
                ["architecture", header.architecture],
                ["findings", ", ".join(header.findings)],
                [
                    "input",
                    f"{header.views} chest radiographs, {preprocessing.image_size} px ({preprocessing.fit})",
                ],
                ["uncertain labels", header.policy],
                ["blank labels", header.blank.value],
                ["created", header.created],
                ["weights SHA-256", header.weights_sha256],
                ["versions", ", ".join(f"{name} {number}" for name, number in header.versions.items())],
            ],
        ),
        "",
        "## Data",
        "",
        *_table(
            ["split", "sheet", "images", "patients", "studies", "sheet SHA-256"],
            [
                [split, one.sheet, cell(one.images), cell(one.patients), cell(one.studies), one.sheet_sha256[:16]]
                for split, one in header.data.items()
            ],
        ),
        "",
        f"## Figures on {evaluation.split}",
        "",
        f"{evaluation.studies:,} studies of {assessment.patients:,} patients, {evaluation.level} level.",
        "",
        " ".join(interval_sentences(assessment, Citations(shown=False))),
        "",
        *markdown_rows(areas_table(assessment)),
        *_participants(study),
        "",
        "## Thresholds",
        "",
        "Not tuned: 0.5 for each finding."
        if tuned is None
        else f"Chosen by {tuned.criterion} on {tuned.split} ({tuned.rows:,} rows), for raw probabilities.",
        "",
        *_table(
            ["finding", "threshold"],
            [[finding, cell(value, 2)] for finding, value in header.effective_thresholds.items()],
        ),
        *(
            []
            if rates is None or counts is None
            else [
                "",
                f"Decisions against labels on {evaluation.split}, and rates with their intervals:",
                "",
                *markdown_rows(counts),
                "",
                *markdown_rows(rates),
            ]
        ),
        "",
        "## Calibration",
        "",
        "None: probabilities are those of the network."
        if fitted is None
        else f"{fitted.method.capitalize()} scaling, fitted on {fitted.split} ({fitted.rows:,} rows).",
        "",
        *_table(
            ["finding", "share of positives", "mean probability", "Brier", "ECE (ten equal bins)"],
            [
                [finding, *(cell(value) for value in (one.prevalence, one.mean_probability, one.brier, one.ece))]
                for finding, one in (assessment.calibrated or assessment.raw or {}).items()
            ],
        ),
        "",
        "## Intended use and limits",
        "",
        *(f"- {text}" for text in LIMITS),
        *(f"- {escape_markdown(text)}" for text in _warnings(assessment, study)),
        "",
    ]
    return "\n".join(lines)


def _participants(study: Study | None) -> list[str]:
    if study is None:
        return []
    lines = [] if not study.flows else ["", f"Rows by split: {escape_markdown(describe_flow(study.flows))}."]
    table = characteristics_table(study.characteristics, study.used_blank)
    if table is not None:
        lines += ["", *markdown_rows(table), "", *table.notes]
    return lines if study.looks is None else [*lines, "", study.looks.sentence()]


def _warnings(assessment: Assessment, study: Study | None) -> list[str]:
    warning = None if study is None or study.looks is None else study.looks.warning()
    return [*assessment.warnings, *([] if warning is None else [warning])]


def _table(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> list[str]:
    return markdown_rows(Table("", header, list(rows), "", texts=len(header)))
