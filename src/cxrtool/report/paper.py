"""Files for a paper: tables as CSV, Markdown and LaTeX, figures for print, the methods and the checklists."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cxrtool.evaluation.comparison import Comparison
from cxrtool.evaluation.difference import MEAN
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.files import write_text
from cxrtool.report.checklists import checklist_tables
from cxrtool.report.figures import areas_table, counts_table, rates_table, subgroups_table
from cxrtool.report.methods_text import methods_of, methods_of_comparison
from cxrtool.report.population import characteristics_table, flow_size, flow_table, paint_flow
from cxrtool.report.print_figures import DOUBLE, figures_of, write_formats, write_print_figure
from cxrtool.report.study import Study
from cxrtool.report.table import Cell, Estimate, Table, to_csv, to_latex, to_markdown

PAPER_NAME = "paper"
"""Folder of these files."""


def write_paper(folder: Path, study: Study) -> list[Path]:
    """Write tables, figures, methods.md and the checklists of an evaluation.

    Returns:
        The files. Figures are 183 mm wide, and 89 mm wide where the name says so.

    Raises:
        WriteError: a file cannot be written.
    """
    paths = [path for table in paper_tables(study) for path in write_table(folder, table)]
    for table in checklist_tables(study):
        paths.append(_write(folder / f"{table.name}.md", to_markdown(table)))
    paths.append(_write(folder / "methods.md", methods_of(study).to_markdown()))
    scalings = None if study.header is None else study.header.scalings
    for figure in figures_of(study.table, study.assessment, scalings):
        paths += write_print_figure(folder, figure)
    if study.flows:
        size = flow_size(study.flows, DOUBLE / 25.4)
        paths += write_formats(folder / "flow", lambda drawn: paint_flow(drawn.add_subplot(), study.flows), size)
    return paths


def paper_tables(study: Study) -> Iterator[Table]:
    """Yield the tables of an evaluation, without those of which nothing is known."""
    confidence = f"{100 * study.assessment.settings.bootstrap.confidence:g} % intervals"
    split = study.assessment.evaluation.split
    captions = (
        (areas_table(study.assessment), f"Areas under the curves on the {split} split, with {confidence}"),
        (rates_table(study.assessment), f"Figures at the thresholds on the {split} split, with {confidence}"),
        (counts_table(study.assessment), f"Decisions against labels on the {split} split"),
        (subgroups_table(study.assessment), f"Areas by subgroup on the {split} split, with {confidence}"),
        (characteristics_table(study.characteristics, study.used_blank), "Characteristics of the splits"),
        (flow_table(study.flows), "From the rows of the sheets to those analysed"),
    )
    for table, caption in captions:
        if table is not None:
            yield replace(table, title=caption)


def write_comparison_paper(
    folder: Path, comparison: Comparison, settings: BootstrapSettings, command: str = ""
) -> list[Path]:
    """Write tables of figures and differences, and methods.md, of a comparison."""
    paths = [path for table in comparison_tables(comparison, settings) for path in write_table(folder, table)]
    methods = methods_of_comparison(comparison, settings, command)
    return [*paths, _write(folder / "methods.md", methods.to_markdown())]


def comparison_tables(comparison: Comparison, settings: BootstrapSettings) -> Iterator[Table]:
    """Yield the tables of a comparison: figures by model and finding, and differences of all pairs."""
    confidence = f"{100 * settings.confidence:g} % intervals"
    rows: list[list[Cell]] = [
        [name, finding, *(Estimate(row[figure].value, row[figure].interval) for figure in ("auroc", "auprc"))]
        for name, by_finding in comparison.figures.items()
        for finding, row in by_finding.items()
    ]
    title = f"Areas under the curves by model on the {comparison.split} split, with {confidence}"
    yield Table(title, ["model", "finding", "AUROC", "AUPRC"], rows, "figures", 2)
    differences: list[list[Cell]] = [
        [
            f"{one.first} - {one.second}",
            one.finding,
            one.figure.upper(),
            Estimate(one.value, one.interval, signed=True),
            one.p_value,
            one.p_holm,
        ]
        for one in sorted(comparison.differences, key=lambda one: one.finding != MEAN)
    ]
    title = f"Paired differences on the {comparison.split} split, with {confidence}"
    header = ["models", "finding", "figure", "difference", "p", "p (Holm)"]
    yield Table(title, header, differences, "differences", 3)


def write_table(folder: Path, table: Table) -> list[Path]:
    """Write ``table_NAME.csv``, ``.md`` and ``.tex``."""
    stem = f"table_{table.name}"
    return [
        _write(folder / f"{stem}.csv", to_csv(table)),
        _write(folder / f"{stem}.md", to_markdown(table)),
        _write(folder / f"{stem}.tex", to_latex(table)),
    ]


def _write(path: Path, text: str) -> Path:
    write_text(path, text)
    return path
