"""Tables as text, CSV, Markdown and LaTeX."""

import csv
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from cxrtool.evaluation.intervals import Interval
from cxrtool.report.table import Cell, Estimate, Number, Table, escape_latex, to_csv, to_latex, to_markdown

ROWS: list[list[Cell]] = [
    ["Edema", Estimate(0.81234567, Interval(0.7, 0.9, method="wilson")), Number(0.5, 2), 1234],
    ["Pleural & <co>|_", Estimate(None, None), None, 0],
]
TABLE = Table("Areas of 50 %", ["finding", "AUROC", "threshold", "positives"], ROWS, "areas", notes=("100 % of $5",))


def test_cells_are_shown_as_people_read_them() -> None:
    assert TABLE.shown == [
        ["Edema", "0.8123 (0.7000-0.9000)", "0.50", "1,234"],
        ["Pleural & <co>|_", "–", "–", "0"],
    ]
    signed = Estimate(-0.0123, Interval(-0.02, 0.01), 3, signed=True)
    assert str(signed) == "-0.012 (-0.020 to +0.010)"


def test_csv_has_one_number_in_a_cell_with_all_digits() -> None:
    first, second, third = csv.reader(io.StringIO(to_csv(TABLE)))
    assert first == ["finding", "AUROC", "AUROC low", "AUROC high", "AUROC method", "threshold", "positives"]
    assert second == ["Edema", "0.81234567", "0.7", "0.9", "wilson", "0.5", "1234"]
    assert third == ["Pleural & <co>|_", "", "", "", "", "", "0"]


def test_markdown_is_aligned_and_escaped() -> None:
    assert to_markdown(TABLE).splitlines() == [
        "**Areas of 50 %**",
        "",
        "| finding | AUROC | threshold | positives |",
        "| :--- | ---: | ---: | ---: |",
        "| Edema | 0.8123 (0.7000-0.9000) | 0.50 | 1,234 |",
        "| Pleural & &lt;co>\\|_ | – | – | 0 |",
        "",
        "100 % of $5",
    ]


def test_latex_is_a_booktabs_table_with_caption_and_label() -> None:
    text = to_latex(TABLE)
    assert r"\caption{Areas of 50 \%}\label{tab:areas}" in text
    assert r"\begin{tabular}{@{}lrrr@{}}" in text
    assert r"Edema & 0.8123 (0.7000--0.9000) & 0.50 & 1,234 \\" in text
    assert r"Pleural \& \textless{}co\textgreater{}\textbar{}\_ & -- & -- & 0 \\" in text
    assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule")
    wide = Table("", ["finding", *"abcd"], [["x", *[Estimate(0.5, Interval(0.4, 0.6))] * 4]], "wide")
    assert r"\begin{table*}" in to_latex(wide)
    assert r"\begin{longtable}" in to_latex(Table("", ["a"], [["x"]] * 41, "long"))


def test_every_special_character_is_escaped() -> None:
    assert escape_latex("a\\b{c}$&#%_^~\n\x07d") == (
        r"a\textbackslash{}b\{c\}\$\&\#\%\_\textasciicircum{}\textasciitilde{} d"
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    nasty: list[list[Cell]] = [["\\{}$&#%_^~<>|\"'`", Estimate(-0.1, Interval(-0.2, 0.3), signed=True)], ["ä é – ±", 1]]
    tables = [TABLE, Table("Names: \\{}$&#%_^~", ["a%", "b_"], nasty, "x"), Table("", ["a"], [["x"]] * 90, "long")]
    body = "\n".join(map(to_latex, tables))
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,longtable}\\begin{document}" + body + "\\end{document}",
        encoding="utf-8",
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
