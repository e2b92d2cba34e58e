import csv
import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.errors import CxrError
from cxrtool.files import csv_row, link_or_copy, replacing, to_json, write_text


def test_json_has_no_nan() -> None:
    text = to_json({"a": float("nan"), "b": [np.float32(1.5), float("inf")], 3: Path("x"), "d": np.arange(2)})
    assert json.loads(text) == {"a": None, "b": [1.5, None], "3": "x", "d": [0, 1]}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_in_csv_is_read_back_exactly(value: float) -> None:
    assert float(csv_row([value])) == value


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_a_cell_that_a_spreadsheet_would_run_is_quoted(text: str) -> None:
    (cell,) = next(csv.reader(io.StringIO(csv_row([text]))))
    assert cell == "'" + text


def test_no_temporary_file_remains_when_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / "result.txt"
    write_text(target, "before")

    def write_half() -> None:
        with replacing(target) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["result.txt"]


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CxrError, match="cannot write"):
        write_text(tmp_path / "file" / "below.txt", "x")


def test_a_killed_process_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    target = tmp_path / "big.txt"
    write_text(target, "0" * 3_000_000)
    program = (
        "import sys; from pathlib import Path; from cxrtool.files import write_text\n"
        "for n in range(10**6): write_text(Path(sys.argv[1]), str(n % 10) * 3_000_000)"
    )
    for wait in (0.3, 0.35, 0.4, 0.45, 0.5):
        writer = subprocess.Popen([sys.executable, "-c", program, str(target)])
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        text = target.read_text()
        assert len(text) == 3_000_000
        assert len(set(text)) == 1


def test_a_second_name_keeps_its_content_when_the_first_is_replaced(tmp_path: Path) -> None:
    first, kept = tmp_path / "a", tmp_path / "b"
    write_text(first, "old")
    link_or_copy(first, kept)
    assert kept.samefile(first)  # no second copy on the disk
    write_text(first, "new")
    assert kept.read_text() == "old"
    with pytest.MonkeyPatch.context() as patch:  # a file system without hard links
        patch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError()))
        link_or_copy(first, kept)
    assert kept.read_text() == "new"


def test_the_folder_is_synced_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    plain = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        assert (tmp_path / "a").exists() == synced[-1]
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a", "x")
    assert synced == [False, True]
