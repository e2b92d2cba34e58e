"""The report as a single HTML file that loads nothing else."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from cxrtool.cells import interval_text
from cxrtool.files import write_text
from cxrtool.report.content import ReportContent
from cxrtool.report.sections import sections_of


def write_report(content: ReportContent, out: Path) -> None:
    """Write the page to `out`, which is replaced as a whole."""
    environment = Environment(
        loader=PackageLoader("cxrtool.report"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        title=f"{content.header.run}: {content.assessment.evaluation.split}",
        header=content.header,
        headline=_headline(content),
        warnings=[*content.assessment.warnings, *_ledger_warnings(content)],
        sections=[section for section in sections_of(content) if section is not None],
        svg=lambda chart: Markup(chart.svg),
    )
    write_text(out, page)


def _headline(content: ReportContent) -> list[tuple[str, str]]:
    evaluation, intervals = content.assessment.evaluation, content.assessment.intervals["mean"]
    facts = [
        ("mean AUROC", _non_breaking(interval_text(evaluation.mean_auroc, intervals["auroc"]))),
        ("mean AUPRC", _non_breaking(interval_text(evaluation.mean_auprc, intervals["auprc"]))),
        ("split", f"{evaluation.split}, {evaluation.level} level"),
        ("studies", f"{evaluation.studies:,} of {content.assessment.patients:,} patients"),
        ("policy", content.header.policy),
        (
            "thresholds",
            f"{content.header.tuning.criterion} on {content.header.tuning.split}"
            if content.header.tuning
            else "not tuned",
        ),
    ]
    looks = None if content.study is None else content.study.looks
    return facts if looks is None else [*facts, (f"{looks.split} looked at", _non_breaking(looks.short()))]


def _ledger_warnings(content: ReportContent) -> list[str]:
    looks = None if content.study is None else content.study.looks
    warning = None if looks is None else looks.warning()
    return [] if warning is None else [warning]


def _non_breaking(text: str) -> str:
    """Replace hyphens by non-breaking ones, so that an interval stays on one line."""
    return text.replace("-", "\N{NON-BREAKING HYPHEN}")
