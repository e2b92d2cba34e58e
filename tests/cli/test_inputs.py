"""Inputs of a command."""

import io
from pathlib import Path

import pytest

from cxrtool.cli.inputs import InputPaths


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_on_stdin_may_begin_with_a_byte_order_mark_and_end_lines_in_any_way(
    start: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a.jpg", "b c.jpg", "\ufeffd.jpg"]
    listed = start + end.join(["a.jpg", "", *names[1:]]) + end
    monkeypatch.setattr("sys.stdin", io.StringIO(listed, newline=""))
    assert list(InputPaths([Path("-")], recursive=False)) == [Path(name) for name in names]
