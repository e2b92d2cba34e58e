"""The report as a single HTML file that loads nothing else."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from cxrtool.cells import interval_text
from cxrtool.files import write_text
from cxrtool.model.header import INTENDED_USE, current_versions
from cxrtool.report.content import ReportContent
from cxrtool.report.overview import overview
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
        first=overview(content),
        described=_described(content),
        use=INTENDED_USE,
        version=current_versions()["cxrtool"],
        headline=_headline(content),
        sections=[section for section in sections_of(content) if section is not None],
        svg=lambda chart: Markup(chart.svg),
    )
    write_text(out, page)


def _described(content: ReportContent) -> str:
    if content.header is None:
        return f"Scores with SHA-256 {content.table.model_sha256[:16]}"
    size = content.header.image_preprocessing.image_size
    return f"{content.header.architecture}, {size} px, weights {content.header.weights_sha256[:16]}"


def _headline(content: ReportContent) -> list[tuple[str, str]]:
    evaluation, intervals = content.assessment.evaluation, content.assessment.intervals["mean"]
    facts = [] if content.header is None else [("run", content.header.run)]
    facts += [
        ("mean AUPRC", _non_breaking(interval_text(evaluation.mean_auprc, intervals["auprc"]))),
        ("split", f"{evaluation.split}, {evaluation.level} level"),
        ("studies", f"{evaluation.studies:,} of {content.assessment.patients:,} patients"),
    ]
    if content.header is not None:
        tuning = content.header.tuning
        facts.append(("policy", content.header.policy))
        facts.append(("thresholds", f"{tuning.criterion} on {tuning.split}" if tuning else "not tuned"))
    looks = None if content.study is None else content.study.looks
    return facts if looks is None else [*facts, (f"{looks.split} looked at", _non_breaking(looks.short()))]


def _non_breaking(text: str) -> str:
    """Replace hyphens by non-breaking ones, so that an interval stays on one line."""
    return text.replace("-", "\N{NON-BREAKING HYPHEN}")
