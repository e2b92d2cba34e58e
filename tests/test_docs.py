"""README.md and docs/: examples run, and everything named or linked exists.

A block of bash or Python stands behind a comment that says what becomes of it here: ``<!-- run -->``,
``<!-- run, after: COMMAND -->`` with what a reader has done by then, or ``<!-- not run: REASON -->``. The blocks of a
page that are run are run in order, in one folder and one shell.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from cxrtool.cli.app import app
from setting_names import KEYS, SECTIONS

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "PYPI.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
ENGINES = ("onnx", "openvino", "torch-export")
"""Marks of the snippets in docs/export.md, which the engines' own tests run."""
OF_A_RUN = ("export/", "masks/", "truth/", "runs/", "site/", "paper/")
"""Folders that commands write."""
COMMANDS = typer.main.get_command(app).commands


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A fenced block: the comment before it, its language, its lines."""

    mark: str
    language: str
    text: str

    @property
    def is_run(self) -> bool:
        return self.mark == "run" or self.mark.startswith("run, after: ")

    @property
    def script(self) -> str:
        """The script for bash."""
        text = f"python - <<'END_OF_PYTHON'\n{self.text}END_OF_PYTHON\n" if self.language == "python" else self.text
        return self.mark.removeprefix("run").removeprefix(", after: ") + "\n" + text


def blocks_of(page: Path) -> list[Block]:
    found = re.findall(
        r"(?:^<!-- ([^\n]*) -->\n)?^```([\w-]*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return [Block(*parts) for parts in found]


def commands_in(text: str) -> Iterator[list[str]]:
    """Return the arguments of each ``cxr`` in a script."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        for start, word in enumerate(words):
            if word == "cxr" or word.endswith("/cxr"):
                rest = words[start + 1 :]
                ends = [index for index, one in enumerate(rest) if set(one) <= set("|&;<>()")]
                yield rest[: ends[0]] if ends else rest
                break


ALL_BLOCKS = [(page, block) for page in PAGES for block in blocks_of(page)]


def test_every_block_of_code_says_whether_it_is_run() -> None:
    assert len(ALL_BLOCKS) > 30
    for page, block in ALL_BLOCKS:
        if block.language in ("bash", "python"):
            ok = block.is_run or block.mark.startswith("not run: ") or block.mark in ENGINES
            assert ok, f"{name_of(page)}: no comment says whether this is run:\n{block.text}"


LONG_PAGES = (
    "README.md",
    "docs/tutorial.md",
    "docs/own-data.md",
    "docs/quickstart.md",
    "docs/howto-student.md",
    "docs/howto-hospital.md",
    "docs/howto-paper.md",
)
"""Pages whose blocks take minutes."""


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.takes_minutes] if name_of(page) in LONG_PAGES else [])
        for page in PAGES
        if any(block.is_run for block in blocks_of(page))
    ],
    ids=name_of,
)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    script = "\n".join(block.script for block in blocks_of(page) if block.is_run)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CXR_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if "cxr explain" in script:
        assert len(list((tmp_path / "explanations").glob("*Pleural_Effusion_figure.png"))) == 1
        assert (tmp_path / "predictions.csv").read_text().count("\n") > 9


def test_blocks_that_are_not_run_can_be_parsed() -> None:
    for page, block in ALL_BLOCKS:
        if block.language == "python":
            compile(block.text, name_of(page), "exec")
        if block.language == "bash":
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)


def test_every_command_line_is_one_that_cxr_accepts() -> None:
    lines = [
        (page, arguments)
        for page, block in ALL_BLOCKS
        if block.language in ("", "bash", "console")
        for arguments in commands_in(block.text)
    ]
    assert len(lines) > 60
    for page, (name, *arguments) in lines:
        assert name in COMMANDS, (name_of(page), name)
        COMMANDS[name].make_context(f"cxr {name}", list(arguments))  # raises where an option or a value is wrong


def test_commands_and_options_named_in_sentences_exist() -> None:
    options = {name: {word for one in command.params for word in [*one.opts, *one.secondary_opts]}
               for name, command in COMMANDS.items()}  # fmt: skip
    for page in PAGES:
        for name, rest in re.findall(r"`cxr ([a-z][a-z-]*)([^`]*)`", page.read_text(encoding="utf-8")):
            assert name in COMMANDS, (name_of(page), name)
            named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)) - {"--help"}
            assert named <= options[name], (name_of(page), name, named - options[name])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_link_targets_exist(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8")):
        to = page.parent / target if target else page
        assert to.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", to.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", one.lower())) for one in headings], anchor


def test_files_named_in_the_docs_exist() -> None:
    """Files of the repository, or of the package."""
    for page in PAGES:
        for name in re.findall(r"`((?:[a-z]+/)+(?:[\w.-]+\.(?:py|md|svg))?)`", page.read_text(encoding="utf-8")):
            if "NAME" not in name and name not in OF_A_RUN:
                assert any((base / name).exists() for base in (ROOT, ROOT / "src" / "cxrtool")), (name_of(page), name)


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("## Why each library is here")[1]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    names = {re.split(r"[>=\[; ]", text)[0] for text in [*project["dependencies"], *extras]} - {"cxrtool"}
    in_groups = {name for name in names if name.endswith("-stubs") or name.startswith(("types-", "pylibjpeg-"))}
    named = set(re.findall(r"[a-z][\w-]*", table.lower()))
    assert names - in_groups - named == set()


def test_settings_named_in_the_docs_exist() -> None:
    files = {"train.csv"}  # written as a setting is
    pattern = rf"`((?:{'|'.join(SECTIONS)})\.[a-z_]+)`"
    named = {name for page in PAGES for name in re.findall(pattern, page.read_text(encoding="utf-8"))}
    assert len(named) > 5
    assert named - files - set(KEYS) == set()


def test_every_message_of_the_page_on_troubles_is_one_of_the_program() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    assert len(messages) >= 10
    assert [message for message in messages if message not in source] == []
