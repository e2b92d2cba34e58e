"""The report's page: its markup, and how a real browser shows it."""

import base64
import csv
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import Call
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import change_header, open_bundle

CHROMIUM = shutil.which("chromium")


class _Page(HTMLParser):
    """Ids, links, pictures and tables of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.sources: list[str] = []
        self.unnamed: list[str] = []
        self.downloads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"]] if given.get("id") else []
        self.targets += [given["href"]] if tag == "a" and given.get("href") else []
        self.downloads += [given["download"]] if given.get("download") else []
        self.sources += [value for name in ("src", "xlink:href") if (value := given.get(name))]
        if (tag == "img" and not given.get("alt")) or (tag == "svg" and not given.get("aria-label")):
            self.unnamed.append(tag)


@pytest.fixture(scope="module")
def report(phantoms: Path, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with calibration and mistakes of a run whose name is a script."""
    from cxrtool.report.content import gather
    from cxrtool.report.page import write_report
    from cxrtool.resolved_settings import load_settings
    from cxrtool.tasks.tune import calibrate_model

    run = Path(shutil.copytree(run_folder, tmp_path_factory.mktemp("report") / "run"))
    model = run / "model.safetensors"
    settings = load_settings({"data.root": phantoms, "eval.draws": 50}, environ={}).settings
    calibrate_model(model, settings)
    mistaken = {finding: float(place % 2) for place, finding in enumerate(FINDINGS)}  # all positive, or all negative
    change_header(open_bundle(model), run="<script>document.title='broken'</script>", thresholds=mistaken)
    write_report(gather(model, settings, top=1), run / "report.html")
    return run / "report.html"


def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [CHROMIUM, *fixed, *quiet, profile, *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def without_policy(page: Path) -> str:
    """A page's text without its own policy, which forbids the scripts of a test."""
    return re.sub(r"<meta http-equiv=.Content-Security-Policy.[^>]*>", "", page.read_text(encoding="utf-8"))


def shown_by(head: str, script: str, page: Path, folder: Path, *options: str) -> Any:
    """What a script at the end of a copy of the page gives to its function ``show``."""
    show = (
        "const show = value => { const out = document.createElement('pre'); out.id = 'found';"
        " out.textContent = JSON.stringify(value); document.body.appendChild(out); };"
    )
    copy = folder / "copy.html"
    copy.write_text(without_policy(page).replace("</body>", f"{head}<script>{show}{script}</script></body>"))
    found = re.search(r'<pre id="found">(.*?)</pre>', browse(copy, *options, "--dump-dom").stdout, re.DOTALL)
    assert found is not None
    return json.loads(html.unescape(found.group(1)))


def test_the_page_loads_no_other_files(report: Path) -> None:
    page = _Page(report.read_text())
    assert all(source.startswith(("data:", "#")) for source in page.sources)
    assert all(target.startswith(("data:text/csv", "#")) for target in page.targets)
    assert len(page.ids) == len(set(page.ids))
    assert {target[1:] for target in page.targets if target[0] == "#"} <= set(page.ids)
    assert {source[1:] for source in page.sources if source[0] == "#"} <= set(page.ids)
    assert not page.unnamed, "pictures without a description for screen readers"
    assert {"areas.csv", "rates.csv", "calibration.csv", "history.csv", "settings.csv"} <= set(page.downloads)


def test_names_are_escaped(report: Path) -> None:
    text = report.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_participants_methods_and_checklists_are_shown(report: Path) -> None:
    text = report.read_text()
    assert {"flow.csv", "characteristics.csv", "counts.csv", "checklist_stard.csv"} <= set(_Page(text).downloads)
    assert re.search(r"<details><summary>Show</summary>.*TRIPOD\+AI.*</details>", text, re.DOTALL)
    assert re.search(r"test looked at</dt>\s*<dd>(once|twice|\d+ times)", text), re.findall(
        r"test looked.{80}", text, re.DOTALL
    )
    assert "Biometrics 1988" in text


def test_a_small_learning_rate_is_shown_with_all_its_digits(call: Call, run: Path) -> None:
    history = json.loads((run / "history.json").read_text())
    (run / "history.json").write_text(json.dumps([row | {"learning_rate": 0.00003} for row in history]))
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    settings["train"] |= {"lr": 0.00003, "weight_decay": 1e-7}
    (run / "settings.yaml").write_text(yaml.safe_dump(settings))
    assert call("eval", "--data", settings["data"]["root"], "--model", run, "--draws", 10).code == 0
    assert call("report", run, "--draws", 10).code == 0
    tables = {}
    for name, encoded in re.findall(
        r'download="([a-z]+).csv" href="data:text/csv;charset=utf-8;base64,([^"]+)"', (run / "report.html").read_text()
    ):
        tables[name] = list(csv.DictReader(io.StringIO(base64.b64decode(encoded).decode())))
    assert [row["learning rate"] for row in tables["history"]] == ["0.00003", "0.00003"]
    values = {row["setting"]: row["value"] for row in tables["settings"]}
    assert values["train.lr"] == "0.00003"
    assert values["train.weight_decay"] == "0.0000001"
    assert values["train.batch_size"] == "8"
    assert ">0.00003</" in (run / "report.html").read_text()


def test_a_downloaded_table_equals_the_shown_one(report: Path) -> None:
    text = report.read_text()
    (encoded,) = re.findall(r'download="areas.csv" href="data:text/csv;charset=utf-8;base64,([^"]+)"', text)
    rows = list(csv.reader(base64.b64decode(encoded).decode().splitlines()))
    assert rows[0][:2] == ["finding", "AUROC"]
    assert [row[0] for row in rows[1:]][-1] == "mean"
    assert rows[0][1:5] == ["AUROC", "AUROC low", "AUROC high", "AUROC method"]
    assert any(low for _, _, low, *_ in rows[1:])
    for name, value, low, high, *_ in rows[1:-1]:
        assert f">{name}</" in text
        if low:
            assert f">{float(value):.4f} ({float(low):.4f}-{float(high):.4f})</" in text


@pytest.mark.needs_debian
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_renders_without_errors_and_fits_the_window(report: Path, width: int) -> None:
    """Measure with a script in a copy of the page, because the page's own policy forbids scripts."""
    probe = """<script>addEventListener("load", () => {
      const box = node => node.getBoundingClientRect();
      document.body.dataset.probe = JSON.stringify({
        overflow: document.documentElement.scrollWidth - innerWidth,
        broken: [...document.images].filter(image => !image.naturalWidth).length,
        images: document.images.length,
        flat: [...document.querySelectorAll("figure svg")].filter(svg => box(svg).height < 80).length,
        charts: document.querySelectorAll("figure svg").length,
        title: document.title });
    });</script></head>"""
    text = without_policy(report)
    copy = report.with_name(f"probe{width}.html")
    copy.write_text(text.replace("</head>", probe, 1))
    done = browse(copy, f"--window-size={width},900", "--enable-logging=stderr", "--dump-dom")
    (found,) = re.findall(r'data-probe="([^"]+)"', done.stdout)
    seen = json.loads(found.replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert seen["overflow"] <= 0, "the page scrolls sideways"
    assert seen["broken"] == 0
    assert seen["images"] >= 1
    assert seen["charts"] >= 12
    assert seen["flat"] == 0
    assert "broken" not in seen["title"].split("script")[0]
    assert "CONSOLE" not in done.stderr


@pytest.mark.needs_debian
def test_the_page_logs_no_console_errors_and_prints(report: Path) -> None:
    done = browse(report, "--enable-logging=stderr", f"--print-to-pdf={report.with_suffix('.pdf')}")
    assert "CONSOLE" not in done.stderr
    assert report.with_suffix(".pdf").stat().st_size > 50_000


@pytest.mark.needs_debian
@pytest.mark.parametrize(
    ("width", "medium"),
    [(400, ""), (1280, ""), (1280, "@media (prefers-color-scheme: dark)"), (1280, "@media print")],
    ids=["narrow", "wide", "dark", "print"],
)
def test_axe_finds_no_violation(report: Path, tmp_path: Path, width: int, medium: str) -> None:
    axe = pytest.importorskip("axe_core_python", reason="axe-core is not installed")
    rules = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    check = (
        "axe.run(document).then(found => show([found.passes.length,"
        " found.violations.map(one => [one.id, one.nodes[0].html])]))"
    )
    page = tmp_path / "page.html"
    text = report.read_text(encoding="utf-8")
    assert medium in text
    page.write_text(text.replace(medium, "@media all") if medium else text, encoding="utf-8")
    window = (f"--window-size={width},900", "--virtual-time-budget=60000")
    passes, violations = shown_by(f"<script>{rules}</script>", check, page, tmp_path, *window)
    assert violations == []
    assert passes > 20


@pytest.mark.needs_debian
def test_type_of_charts_has_ten_pixels_and_the_first_screen_holds_the_verdict(report: Path, tmp_path: Path) -> None:
    measure = (
        "const small = [...document.querySelectorAll('section[aria-labelledby=roc] svg text, section[aria-labelledby="
        "decisions] svg text, section[aria-labelledby=calibration] svg text')].map(text => { const on ="
        " text.getScreenCTM(); return Math.hypot(on.a, on.b) * parseFloat(getComputedStyle(text).fontSize); });"
        "const end = document.querySelector('.screen .block').getBoundingClientRect().bottom;"
        "show([Math.min(...small), small.length, end]);"
    )
    smallest, count, end = shown_by("", measure, report, tmp_path, "--window-size=1280,800")
    assert count > 20
    assert smallest >= 10
    assert end <= 800


def test_every_csv_of_the_page_holds_numbers_in_the_columns_of_figures(report: Path) -> None:
    words = {"settings", "methods", "versions", "flow", "characteristics", "participants"}
    for name, encoded in re.findall(
        r'download="([^"]+).csv" href="data:text/csv;charset=utf-8;base64,([^"]+)"', report.read_text(encoding="utf-8")
    ):
        if name in words or name.startswith("checklist"):
            continue
        for row in csv.DictReader(io.StringIO(base64.b64decode(encoded).decode())):
            for column, value in list(row.items())[1:]:
                if column != "group" and "SHA" not in column and re.fullmatch(r"[-+]?\d.*", value):
                    assert re.fullmatch(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", value), (name, column, value)


def test_the_first_line_says_that_the_data_are_drawings_and_the_title_names_model_and_data(
    report: Path, phantoms: Path
) -> None:
    body = report.read_text(encoding="utf-8").split("<body>")[1]
    lines = [line for line in re.sub(r"<[^>]+>", "\n", body).splitlines() if line.strip()]
    assert lines[1].strip().startswith("Synthetic radiographs: every image is a drawing")
    assert lines[2].strip() == f"DenseNet121, 32 px, u-ignore: test split of {phantoms.name}"
