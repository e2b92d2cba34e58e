"""The sections of a report, in their order."""

from collections.abc import Iterable

from cxrtool.report.charts import calibration_section, curve_sections, decisions_section, thresholds_section
from cxrtool.report.content import ReportContent
from cxrtool.report.figures import figures_section, policies_section, subgroups_section
from cxrtool.report.parts import Section
from cxrtool.report.provenance import data_section, history_section, mistakes_section, settings_section

LIMITS = (
    "Research software, not a medical device. It must not decide about a patient.",
    "It reads five findings in frontal radiographs. It knows no others, and says nothing of what it was not asked.",
    "Labels of CheXpert's train split were taken from reports by a program; they are often wrong or uncertain.",
    "Figures hold for patients like those of the split they are of. Another hospital's films, devices or prevalence "
    "move them; measure again before use there.",
    "Intervals show chance over patients alone, neither another training run nor another hospital.",
    "Heatmaps show where the network's score comes from, not where the disease is.",
)


def sections_of(content: ReportContent) -> Iterable[Section | None]:
    """Every section, None where a run has nothing to say in it."""
    yield figures_section(content.assessment)
    yield policies_section(content)
    yield from curve_sections(content)
    yield calibration_section(content)
    yield thresholds_section(content)
    yield decisions_section(content)
    yield subgroups_section(content.assessment)
    yield history_section(content)
    yield mistakes_section(content)
    yield data_section(content)
    yield settings_section(content)
    yield Section("limits", "Limits of use", text=LIMITS)
