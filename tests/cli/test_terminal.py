"""What stands in a terminal: the help, rows and progress in 80 and 120 columns."""

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import typer

from conftest import Call
from cxrtool.cli.app import COMMANDS, app
from cxrtool.cli.help_text import HEADINGS, OPTIONS, command_help, group_help
from cxrtool.cli.inputs import InputPaths
from cxrtool.cli.parameters import describe
from cxrtool.cli.prediction_rows import RowText
from cxrtool.findings import CHEXPERT14, FINDINGS
from cxrtool.predict.prediction import Prediction
from cxrtool.resolved_settings import load_settings
from cxrtool.text import counted

CALLBACKS = {info.name or info.callback.__name__: info.callback for info in app.registered_commands if info.callback}


def in_terminal(*arguments: object, columns: int, folder: Path) -> list[str]:
    """Run cxr with stdout and stderr in a terminal of so many columns; return the lines, control codes included."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "cxrtool", *map(str, arguments)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=folder,
        env=environment | {"TERM": "xterm"},
    )
    os.close(follower)
    parts = []
    while True:
        try:
            parts.append(os.read(leader, 65536))
        except OSError:  # the last writer has closed it
            break
        if not parts[-1]:
            break
    os.close(leader)
    process.wait()
    return b"".join(parts).decode().replace("\r\n", "\n").splitlines()


def plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


class TestHelp:
    @pytest.mark.parametrize("width", [80, 100])
    @pytest.mark.parametrize("name", CALLBACKS)
    def test_no_line_is_wider_than_the_terminal_and_no_name_is_broken(self, name: str, width: int) -> None:
        text = command_help(name, CALLBACKS[name], width)
        assert max(map(len, text.splitlines())) <= width
        for parameter in typer.main.get_command(app).commands[name].params:
            for option in (*parameter.opts, *parameter.secondary_opts):
                if option.startswith("--"):
                    assert re.search(rf"(?<!\S){option}(?!\S)", text), option

    @pytest.mark.parametrize("name", CALLBACKS)
    def test_headings_are_in_order_and_examples_can_be_pasted(self, name: str) -> None:
        text = command_help(name, CALLBACKS[name], 80)
        headings = [heading for heading in re.findall(r"^(\S[\w ]*):$", text, re.MULTILINE) if heading in HEADINGS]
        assert headings == [heading for heading in HEADINGS if heading in headings]
        assert OPTIONS in headings
        block = text.split("Examples:\n", 1)[1].split("\n\n", 1)[0]
        shown = [shlex.split(line) for line in block.replace("\\\n", "").splitlines()]
        assert shown == [shlex.split(line) for line in describe(CALLBACKS[name]).examples]

    def test_every_command_stands_under_a_heading(self, call: Call) -> None:
        shown = call("--help").stdout
        assert max(map(len, shown.splitlines())) <= 80
        for heading in COMMANDS:
            assert f"\n{heading}:\n" in shown
        text = group_help("What.", {"Data": {"train": CALLBACKS["train"]}}, 80)
        assert "Data:\n  train       Train a model and keep its best epoch." in text

    def test_help_is_a_command_too(self, call: Call) -> None:
        assert call("help", "train").stdout == call("train", "--help").stdout
        assert call("help").stdout == call("--help").stdout
        assert call("-V").stdout == call("--version").stdout

    def test_the_tab_key_completes_commands_and_options(self, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("_CXR_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_CWORD", "1")
        monkeypatch.setenv("COMP_WORDS", "cxr ca")
        assert call().stdout.split() == ["cache", "calibrate"]
        monkeypatch.setenv("COMP_CWORD", "2")
        monkeypatch.setenv("COMP_WORDS", "cxr train --image")
        assert call().stdout.split() == ["--image-size"]

    def test_int8_is_offered_only_where_it_can_be_had(self, call: Call) -> None:
        assert "int8" in call("predict", "--help").stdout
        for command in ("train", "explain"):
            assert "int8" not in call(command, "--help").stdout
            done = call(command, "--precision", "int8")
            assert done.code == 2
            assert "'auto', 'fp32', 'bf16'" in done.stderr

    def test_values_are_taken_in_any_case(self, call: Call) -> None:
        assert load_settings({"train.init": "ImageNet"}).settings.train.init == "imagenet"
        assert load_settings({"train.init": "Weights.safetensors"}).settings.train.init == "Weights.safetensors"
        done = call("train", "--data", "nowhere", "--init", "ImageNet", "--policy", "U-Ones", "--precision", "FP32")
        assert "nowhere" in done.stderr  # and not the values


class TestRows:
    def test_five_findings_have_a_column_each_in_80_and_more_columns(self) -> None:
        narrow, wide = RowText.fitting(FINDINGS, 80), RowText.fitting(FINDINGS, 120)
        assert len(narrow.header) == 80
        assert narrow.header.split() == ["image", "Atelectas.", "Cardiomeg.", "Consolida.", "Edema", "Effusion"]
        assert wide.header.split() == ["image", "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion"]
        assert len(wide.header) <= 120

    def test_fourteen_findings_are_listed_and_wrapped_between_words(self) -> None:
        rows = RowText.fitting(CHEXPERT14, 80)
        assert rows.column == 0
        line = "name  " + ", ".join(f"{finding} 0.912*" for finding in CHEXPERT14)
        lines = rows.wrapped(line)
        assert max(map(len, lines)) <= 80
        assert " ".join(part.strip() for part in lines) == line

    def test_an_error_is_wrapped_in_a_terminal_and_stays_on_one_line_in_a_file(self) -> None:
        failed = Prediction(Path("a.jpg"), (), error="a.jpg " + "word " * 40)
        assert len(list(RowText.fitting(FINDINGS, None).lines("a.jpg", failed))) == 1
        assert len(list(RowText.fitting(FINDINGS, 80).lines("a.jpg", failed))) > 2


@pytest.mark.parametrize("columns", [80, 120])
def test_a_folder_is_predicted_within_the_terminal_and_no_bar_is_drawn_into_it(
    phantoms: Path, run_folder: Path, tmp_path: Path, columns: int
) -> None:
    lines = in_terminal("predict", phantoms / "test", "-r", "--model", run_folder, columns=columns, folder=tmp_path)
    assert all(line == plain(line) or "\x1b[2m" in line for line in lines)  # dim hints, no cursor that moves
    assert max(len(plain(line)) for line in lines) <= columns
    images = len(list((phantoms / "test").rglob("*.jpg")))
    assert sum(".jpg" in line for line in lines) == images
    assert "Research software, not a medical device." in lines


def test_figures_of_an_evaluation_are_whole_in_80_columns(phantoms: Path, run_folder: Path, tmp_path: Path) -> None:
    arguments = ["eval", "--data", phantoms, "--model", run_folder, "--draws", 20, "--out", tmp_path / "e"]
    lines = [plain(line) for line in in_terminal(*arguments, columns=80, folder=tmp_path)]
    tables = lines[next(place for place, line in enumerate(lines) if line.startswith("test split")) :]
    assert max(len(line) for line in tables if str(tmp_path) not in line) <= 80
    intervals = re.findall(r"\(\d\.\d{4}-\d\.\d{4}\)", "\n".join(tables))
    assert len(intervals) > 2
    assert all(line.count("(") == line.count(")") for line in tables), "no interval goes over two lines"


def test_a_table_is_written_with_a_bar_that_knows_the_total(phantoms: Path, run_folder: Path, tmp_path: Path) -> None:
    arguments = ["predict", phantoms / "test", "-r", "--model", run_folder, "--csv", "p.csv"]
    lines = in_terminal(*arguments, columns=80, folder=tmp_path)
    images = len(list((phantoms / "test").rglob("*.jpg")))
    assert f"{images}/{images}" in "".join(map(plain, lines))


def test_the_total_is_known_once_all_folders_are_listed(phantoms: Path, tmp_path: Path) -> None:
    images = sorted((phantoms / "test").rglob("*.jpg"))
    given = InputPaths([images[0], phantoms / "test"], recursive=True)
    assert next(given) == images[0]
    assert given.total is None
    assert list(given) == images
    assert given.total == len(images) + 1
    assert InputPaths([Path("-")], recursive=False).total is None


def test_counts_agree_with_their_nouns() -> None:
    assert [counted(number, "image") for number in (0, 1, 1234)] == ["0 images", "1 image", "1,234 images"]
    assert counted(1, "study", "studies") == "1 study"
    assert counted(2, "study", "studies") == "2 studies"


def test_the_next_command_can_be_pasted(call: Call, tmp_path: Path) -> None:
    done = call("phantom", "two words", "--patients", 10, "--image-size", 64)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("next: ")]
    words = shlex.split(line.removeprefix("next: "))
    assert words == ["cxr", "check-data", "two words"]
    assert set(call(*words[1:], "--json").json["splits"]) == {"train", "valid", "test"}
