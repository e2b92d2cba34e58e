"""A model card (Mitchell et al. 2019, arXiv:1810.03993) in Markdown."""

from collections.abc import Iterable, Sequence

from cxrtool.cells import cell, interval_text
from cxrtool.evaluation.assessment import Assessment
from cxrtool.model.header import BundleHeader
from cxrtool.report.sections import LIMITS


def model_card(header: BundleHeader, assessment: Assessment) -> str:
    """Return the model card of a bundle, with the figures of `assessment`."""
    evaluation, intervals = assessment.evaluation, assessment.intervals
    figures = [
        [
            f"{finding} *" if row.few_cases else finding,
            interval_text(row.auroc, intervals[finding]["auroc"]),
            interval_text(row.auprc, intervals[finding]["auprc"]),
            cell(row.positives),
            cell(row.negatives),
        ]
        for finding, row in evaluation.labels.items()
    ]
    mean = [interval_text(getattr(evaluation, f"mean_{name}"), intervals["mean"][name]) for name in ("auroc", "auprc")]
    drawn = assessment.settings.bootstrap
    tuned, fitted = header.tuning, header.calibration
    lines = [
        f"# Model card: {_escape(header.run)}",
        "",
        f"{header.intended_use}",
        "",
        "## Model",
        "",
        *_table(
            ["item", "value"],
            [
                ["architecture", header.architecture],
                ["findings", ", ".join(header.findings)],
                ["input", f"{header.views} chest radiographs, {header.image_preprocessing.image_size} px"],
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
        f"{evaluation.studies:,} studies of {assessment.patients:,} patients, {evaluation.level} level; "
        f"{100 * drawn.confidence:g} % intervals over {drawn.draws:,} draws of patients.",
        "",
        *_table(["finding", "AUROC", "AUPRC", "positives", "negatives"], [*figures, ["mean", *mean, "", ""]]),
        "",
        "## Thresholds",
        "",
        "Not tuned: 0.5 for each finding."
        if tuned is None
        else f"Chosen by {tuned.criterion} on {tuned.split} ({tuned.rows:,} rows), for raw probabilities.",
        "",
        *_thresholds(header, assessment),
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
                for finding, one in (assessment.calibrated or assessment.raw).items()
            ],
        ),
        "",
        "## Intended use and limits",
        "",
        *(f"- {text}" for text in LIMITS),
        *(f"- {_escape(text)}" for text in assessment.warnings),
        "",
    ]
    return "\n".join(lines)


def _thresholds(header: BundleHeader, assessment: Assessment) -> Iterable[str]:
    rows = []
    for finding in assessment.evaluation.labels:
        row = assessment.evaluation.labels[finding].at_threshold
        rates = [None] * 3 if row is None else [row.f1, row.recall, row.specificity]
        rows.append([finding, cell(header.effective_thresholds[finding], 2), *map(cell, rates)])
    return _table(["finding", "threshold", "F1", "recall", "specificity"], rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(_escape(text) for text in line)} |" for line in lines]


def _escape(text: str) -> str:
    """Escape text for Markdown: the name of a run or sheet may hold bars, tags or line breaks."""
    clean = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return clean.replace("<", "&lt;").replace("`", "\\`")
