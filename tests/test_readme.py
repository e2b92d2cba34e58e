"""The README's commands do what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from setting_names import KEYS, SECTIONS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tour_runs_as_it_stands(tmp_path: Path) -> None:
    (tour,) = re.findall(r"<!-- tests/test_readme.py runs this block -->\n```bash\n(.*?)```", README, re.DOTALL)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CXR_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", tour],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "predictions.csv").read_text().count("\n") > 9
    assert len(list((tmp_path / "explanations").glob("*Pleural_Effusion_figure.png"))) == 1


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_dependency_is_explained() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    table = README.split("## Why each library is here")[1]
    names = [re.split(r"[>=\[; ]", text)[0] for text in project["dependencies"]]
    assert [name for name in names if name.lower() not in table] == []


def test_settings_named_in_the_docs_exist() -> None:
    files = {"train.csv"}  # written as a setting is
    pattern = rf"`((?:{'|'.join(SECTIONS)})\.[a-z_]+)`"
    named = {name for page in PAGES for name in re.findall(pattern, page.read_text(encoding="utf-8"))}
    assert len(named) > 5
    assert named - files - set(KEYS) == set()
