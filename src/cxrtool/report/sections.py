"""The order of a report's sections, and the limits of use."""

from collections.abc import Iterable

from cxrtool.report.charts import calibration_section, curve_sections, decisions_section, thresholds_section
from cxrtool.report.checklists import checklists_section
from cxrtool.report.content import ReportContent
from cxrtool.report.figures import figures_section, policies_section, subgroups_section
from cxrtool.report.parts import Section
from cxrtool.report.provenance import (
    data_section,
    history_section,
    methods_section,
    mistakes_section,
    participants_section,
    settings_section,
)
from cxrtool.report.readers import readers_section

LIMITS = (
    "Research software, not a medical device. It must not be used to decide about a patient.",
    "It detects five findings in frontal radiographs, and says nothing about any other disease.",
    "Labels of CheXpert's train split were extracted from reports by a program; many are wrong or uncertain.",
    "Figures hold for patients like those of the reported split. Other hospitals have other patients, devices and "
    "prevalences; measure again before use there.",
    "Intervals cover chance in the choice of patients only, not that of another training run or another hospital.",
    "Heatmaps show where the network's score comes from, not where the disease is.",
)


def sections_of(content: ReportContent) -> Iterable[Section | None]:
    """Yield the sections in order, None for those without content."""
    yield figures_section(content.assessment)
    if content.study is not None:
        yield participants_section(content.study)
    yield policies_section(content)
    yield from curve_sections(content)
    yield readers_section(content.readers)
    yield calibration_section(content)
    yield thresholds_section(content)
    yield decisions_section(content)
    yield subgroups_section(content.assessment)
    yield history_section(content)
    yield mistakes_section(content)
    yield data_section(content)
    yield settings_section(content)
    if content.study is not None:
        yield methods_section(content.study)
        yield checklists_section(content.study)
    yield Section("limits", "Limits of use", text=LIMITS)
