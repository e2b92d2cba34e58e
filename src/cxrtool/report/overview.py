"""The first screen of a report: what was measured on what, the verdict, the findings, and what to beware of."""

from dataclasses import dataclass
from pathlib import Path

from cxrtool.cells import cell, interval_text
from cxrtool.data.manifest import is_phantom
from cxrtool.evaluation.metrics import Evaluation
from cxrtool.report.content import ReportContent
from cxrtool.report.figures import overview_table
from cxrtool.report.parts import SYNTHETIC
from cxrtool.report.table import Table
from cxrtool.text import counted

_ALWAYS = (
    "Figures hold for patients like those of this split; measure again before use elsewhere.",
    "Intervals cover chance in the choice of patients, not another training run or another hospital.",
)
_MOST_SHOWN = 4


@dataclass(frozen=True)
class Overview:
    """What a reader sees first.

    Attributes:
        title: the model and the data.
        synthetic: a sentence if the data are drawings, else empty.
        verdict: one or two sentences.
        table: a row for each finding.
        beware: the most important warnings.
        more: the other warnings.
    """

    title: str
    synthetic: str
    verdict: str
    table: Table
    beware: tuple[str, ...]
    more: tuple[str, ...]


def overview(content: ReportContent) -> Overview:
    """Return the first screen of a report."""
    given = content.assessment.warnings
    groups = [text for text in given if text.startswith("subgroups")]  # the longest and the least surprising
    warnings = (*(text for text in given if text not in groups), *_looked_often(content), *groups)
    return Overview(
        title=title_of(content),
        synthetic=SYNTHETIC if is_synthetic(content) else "",
        verdict=verdict(content.assessment.evaluation, content),
        table=overview_table(content.assessment),
        beware=(*warnings[: len(warnings) - len(groups)][:_MOST_SHOWN], *_ALWAYS),
        more=warnings[min(_MOST_SHOWN, len(warnings) - len(groups)) :],
    )


def title_of(content: ReportContent) -> str:
    """Name the model and the data: ``DenseNet121, 320 px, u-ignore: test split of CheXpert-v1.0-small``."""
    split = f"{content.assessment.evaluation.split} split"
    data = Path(str(content.settings.get("data", {}).get("root") or "")).name
    on = f"{split} of {data}" if data else split
    if content.header is None:
        return f"Scores of another program: {on}"
    size = content.header.image_preprocessing.image_size
    return f"DenseNet121, {size} px, {content.header.policy}: {on}"


def is_synthetic(content: ReportContent) -> bool:
    """Whether the model was trained on drawings, or the run's data folder holds drawings."""
    root = content.settings.get("data", {}).get("root")
    return (content.header is not None and content.header.synthetic) or (root is not None and is_phantom(Path(root)))


def verdict(evaluation: Evaluation, content: ReportContent) -> str:
    """Say how good the model is: the mean AUROC, the best and the worst finding, and what the thresholds do."""
    assessment = content.assessment
    known = {name: row.auroc for name, row in evaluation.labels.items() if row.auroc is not None}
    size = f"{counted(evaluation.studies, 'study', 'studies')} of {counted(assessment.patients, 'patient')}"
    if not known:
        return f"No finding has studies of both classes among {size}, so no area under a curve is defined."
    interval = assessment.intervals["mean"].get("auroc")
    area = interval_text(evaluation.mean_auroc, interval, 3)
    said = f"Mean AUROC {area} over {counted(len(known), 'finding')} in {size}."
    if len(known) > 1:
        best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        said += f" Best: {best} ({cell(known[best], 3)}); weakest: {worst} ({cell(known[worst], 3)})."
    decided = [row.at_threshold for row in evaluation.labels.values() if row.at_threshold is not None]
    found, cleared = (sum(getattr(one, name) for one in decided) for name in ("tp", "tn"))
    positives, negatives = found + sum(one.fn for one in decided), cleared + sum(one.fp for one in decided)
    if positives and negatives:
        said += (
            f" At its thresholds it finds {found:,} of {positives:,} positive labels and clears {cleared:,} of "
            f"{negatives:,} negative ones."
        )
    return said


def _looked_often(content: ReportContent) -> tuple[str, ...]:
    looks = None if content.study is None else content.study.looks
    warning = None if looks is None else looks.warning()
    return () if warning is None else (warning,)
