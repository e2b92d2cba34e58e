"""docs/commands.md and docs/api.md are up to date."""

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
import typer

import cxrtool
from cxrtool.cli.app import app

ROOT = Path(__file__).parents[1]


def load_writer() -> ModuleType:
    """Import tools/reference.py, which is not part of the package."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITER = load_writer()


@pytest.mark.parametrize("name", WRITER.PAGES)
def test_the_page_is_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == WRITER.PAGES[name](), "run: make reference"


COMMANDS = list(typer.main.get_command(app).commands)


def page_of(name: str) -> str:
    return (ROOT / "docs" / "commands" / f"{name}.md").read_text(encoding="utf-8")


def test_every_command_has_a_line_and_a_page_and_nothing_else_has() -> None:
    index = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[`cxr (\S+)`\]\(commands/\1\.md\)", index, re.MULTILINE) == COMMANDS
    assert sorted(path.stem for path in (ROOT / "docs" / "commands").iterdir()) == sorted(COMMANDS)
    assert {path.stem for path in (ROOT / "docs" / "outputs").iterdir()} | set(WRITER.NOT_RECORDED) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_shows_examples_real_output_and_exactly_the_options_that_the_parser_knows(name: str) -> None:
    page = page_of(name)
    assert "\n```bash\ncxr " in page
    rows = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `-")]
    shown = {option for row in rows for option in re.findall(r"`(--?[a-z][a-z-]*)", row)}
    parameters = typer.main.get_command(app).commands[name].params
    known = {option for one in parameters for option in [*one.opts, *one.secondary_opts] if option.startswith("-")}
    assert shown == known - {"--help", "-h"}
    if name not in WRITER.NOT_RECORDED:
        output = page.split("## What it prints")[1].split("```text\n")[1].split("```")[0]
        first, *printed = output.splitlines()
        assert first.split()[:3] == ["$", "cxr", name]
        assert printed
        if name not in ("verify", "reproduce"):  # they print digests and a script, whose lines are not broken
            assert max(map(len, printed)) <= 80
        assert not any(word in output for word in ("Traceback", "error:"))


def test_every_public_name_is_listed_and_documented() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: cxrtool\.(\w+)$", page, re.MULTILINE)
    assert sorted(listed) == sorted(name for name in cxrtool.__all__ if name != "__version__")
    things = [getattr(cxrtool, name) for name in listed]
    assert [one for one in things if (inspect.isclass(one) or callable(one)) and not inspect.getdoc(one)] == []
