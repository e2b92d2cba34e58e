"""Files for a paper, of ``cxr eval``, ``compare`` and ``report``."""

import csv
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Call
from cxrtool.evaluation.assessment import AssessmentSettings, assess
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.findings import FINDINGS
from cxrtool.report.print_figures import figures_of, write_print_figure
from tests_support import random_table

MM = 72 / 25.4
"""Points in a millimetre."""


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Figures of a table in which one finding has no positives."""
    table = random_table(60)
    table.targets[:, 2] = 0
    folder = tmp_path_factory.mktemp("figures")
    assessment = assess(table, AssessmentSettings(BootstrapSettings(20)), dict.fromkeys(FINDINGS, 0.5))
    for figure in figures_of(table, assessment, None):
        assert [title for title, _ in figure.panels] == [name for name in FINDINGS if name != "Consolidation"]
        if figure.name == "roc":
            write_print_figure(folder, figure)
    return folder


def test_figures_have_the_widths_of_journals_and_embedded_fonts(figures: Path) -> None:
    for name, width in (("roc", 183), ("roc_89mm", 89)):
        pdf = (figures / f"{name}.pdf").read_bytes()
        (box,) = re.findall(rb"/MediaBox \[\s*0 0 ([\d.]+) ", pdf)
        assert float(box) == pytest.approx(width * MM, abs=0.1)
        assert b"/FontFile2" in pdf  # TrueType
        assert b"/Type3" not in pdf
        with Image.open(figures / f"{name}.png") as picture:
            assert picture.width == pytest.approx(width / 25.4 * 600, abs=1)
        assert f'width="{width * MM:.3f}'[:12] in (figures / f"{name}.svg").read_text()


def test_figures_are_not_blank_and_the_same_each_time(figures: Path, tmp_path: Path) -> None:
    with Image.open(figures / "roc.png") as picture:
        assert 0.01 < np.mean(np.asarray(picture.convert("L")) < 250) < 0.7
    again = random_table(60)
    again.targets[:, 2] = 0
    assessment = assess(again, AssessmentSettings(BootstrapSettings(20)), dict.fromkeys(FINDINGS, 0.5))
    (roc, *_) = figures_of(again, assessment, None)
    for path in write_print_figure(tmp_path, roc):
        assert zlib.crc32(path.read_bytes()) == zlib.crc32((figures / path.name).read_bytes()), path.name


def test_eval_writes_tables_figures_methods_and_checklists(
    call: Call, phantoms: Path, run: Path, tmp_path: Path
) -> None:
    done = call("eval", "--data", phantoms, "--model", run, "--out", "e", "--draws", 25, "--draw-seed", 7, "--paper")
    assert done.code == 0, done.stderr
    paper, metrics = tmp_path / "e" / "paper", json.loads((tmp_path / "e" / "metrics.json").read_text())
    for name in ("areas", "rates", "counts", "subgroups", "characteristics", "flow"):
        assert all((paper / f"table_{name}.{suffix}").is_file() for suffix in ("csv", "md", "tex")), name
    for name in ("roc", "pr", "decision", "flow", "roc_89mm"):
        assert all((paper / f"{name}.{suffix}").stat().st_size > 1000 for suffix in ("svg", "pdf", "png")), name
    for row in rows_of(paper / "table_areas.csv")[:-1]:
        expected = metrics["labels"][row["finding"]]
        assert row["AUROC"] == ("" if expected["auroc"] is None else str(expected["auroc"]))
        low = expected["intervals"]["auroc"]["low"]
        assert row["AUROC low"] == ("" if low is None else str(low))
        assert int(row["positives"]) == expected["positives"]
    for row in rows_of(paper / "table_counts.csv"):
        expected = metrics["labels"][row["finding"]]
        counts = [int(row[f"{kind} {sign}"]) for kind in ("true", "false") for sign in ("positive", "negative")]
        assert counts == [expected[name] for name in ("tp", "tn", "fp", "fn")]
    flow = {row[""]: int(row["test"]) for row in rows_of(paper / "table_flow.csv")}
    assert flow["images analysed"] == metrics["images"] == metrics["flow"]["images"]
    assert set(rows_of(paper / "table_flow.csv")[0]) == {"", "train", "valid", "test"}
    methods = (paper / "methods.md").read_text()
    for words in (
        "25 times (seed 7)",
        "Intervals (95 %)",
        "policy u-ignore",
        metrics["model"]["weights_sha256"][:12],
        "to maximise F1",
        "32 x 32 pixels",
        "has been looked at",
        "Command: `cxr ",
    ):
        assert words in methods
    cited, listed = set(re.findall(r"\[(\d+)\]", methods)), set(re.findall(r"^(\d+)\. ", methods, re.MULTILINE))
    assert cited == listed
    assert "Holm" not in methods
    assert "| 23 | Cross tabulation" in (paper / "checklist_stard.md").read_text()


def test_compare_writes_tables_and_methods(call: Call, phantoms: Path, run: Path, tmp_path: Path) -> None:
    call("eval", "--data", phantoms, "--model", run, "--out", "a", "--draws", 10)
    call("eval", "--data", phantoms, "--model", run, "--out", "b", "--draws", 10)
    tables = ["a/predictions.csv", "b/predictions.csv", "--data", phantoms]
    assert call("compare", *tables, "--paper").code == 2
    done = call("compare", *tables, "--draws", 10, "--out", "c", "--paper")
    assert done.code == 0, done.stderr
    rows = rows_of(tmp_path / "c" / "paper" / "table_differences.csv")
    assert {(float(row["difference"]), float(row["p"])) for row in rows if row["finding"] == "mean"} == {(0.0, 1.0)}
    assert "Holm S." in (tmp_path / "c" / "paper" / "methods.md").read_text()


def test_a_report_from_saved_files_knows_the_flow_and_the_looks(call: Call, phantoms: Path, run: Path) -> None:
    assert call("eval", "--data", phantoms, "--model", run, "--draws", 10).code == 0
    assert call("report", run, "--data", run / "none", "--draws", 10, "--paper").code == 0
    metrics = json.loads((run / "eval_test" / "metrics.json").read_text())
    flow = {row[""]: row for row in rows_of(run / "paper" / "table_flow.csv")}
    assert int(flow["images analysed"]["test"]) == metrics["flow"]["images"]
    assert (
        int(flow["patients analysed"]["train"])
        == json.loads((run / "dataset.json").read_text())["splits"]["train"]["patients"]
    )
    assert "has been looked at" in (run / "paper" / "methods.md").read_text()
    assert "Blank labels were taken as negative" in (run / "paper" / "methods.md").read_text()
