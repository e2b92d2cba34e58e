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


def test_exactly_the_commands_of_the_application_are_listed() -> None:
    sections = re.findall(r"^## cxr (\S+)$", (ROOT / "docs" / "commands.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == list(typer.main.get_command(app).commands)


def test_exactly_the_options_that_the_parser_knows_are_listed() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    sections = re.split(r"^## cxr (\S+)$", page, flags=re.MULTILINE)[1:]
    for name, section in zip(sections[::2], sections[1::2], strict=True):
        rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `-")]
        shown = {option for row in rows for option in re.findall(r"`(--?[a-z][a-z-]*)", row)}
        parameters = typer.main.get_command(app).commands[name].params
        known = {option for one in parameters for option in [*one.opts, *one.secondary_opts] if option.startswith("-")}
        assert shown == known - {"--help", "-h"}, name


def test_a_command_without_description_or_example_is_an_error() -> None:
    for section in WRITER.command_reference().split("\n## ")[1:]:
        assert "\n```bash\ncxr " in section, section[:40]


def test_every_public_name_is_listed_and_documented() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: cxrtool\.(\w+)$", page, re.MULTILINE)
    assert sorted(listed) == sorted(name for name in cxrtool.__all__ if name != "__version__")
    things = [getattr(cxrtool, name) for name in listed]
    assert [one for one in things if (inspect.isclass(one) or callable(one)) and not inspect.getdoc(one)] == []
