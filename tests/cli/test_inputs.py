"""Inputs of a command."""

import io
from pathlib import Path

import pytest

from cxrtool.cli.inputs import InputPaths
from cxrtool.errors import RequestError


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_on_stdin_may_begin_with_a_byte_order_mark_and_end_lines_in_any_way(
    start: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a.jpg", "b c.jpg", "\ufeffd.jpg"]
    listed = start + end.join(["a.jpg", "", *names[1:]]) + end
    monkeypatch.setattr("sys.stdin", io.StringIO(listed, newline=""))
    assert list(InputPaths([Path("-")], recursive=False)) == [Path(name) for name in names]


def test_the_images_of_a_folder_are_given_out_while_it_is_searched(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number:03d}").mkdir()
        (tmp_path / f"{number:03d}" / "a.jpg").touch()
    given = InputPaths([tmp_path], recursive=True)
    assert next(given) == tmp_path / "000" / "a.jpg"
    assert given.total is None
    (tmp_path / "199" / "b.jpg").touch()  # a folder whose turn has not come
    second = [next(given) for _ in range(10)]
    assert given.total == 201
    (tmp_path / "199" / "c.jpg").touch()  # a folder that was searched
    found = [tmp_path / "000" / "a.jpg", *second, *given]
    assert found == [*(tmp_path / f"{number:03d}" / "a.jpg" for number in range(200)), tmp_path / "199" / "b.jpg"]


def test_folders_of_few_images_and_of_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, images in enumerate((32, 33, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "notes.heic").touch()
        for image in range(images):
            (folder / f"{image:02d}.jpg").touch()
        assert len(list(InputPaths([folder, folder], recursive=False))) == 2 * images
        assert capsys.readouterr().err.count("left out HEIC files") == 2
    (tmp_path / "3").mkdir()
    given = InputPaths([tmp_path / "2", tmp_path / "3"], recursive=True)
    assert next(given) == tmp_path / "2" / "00.jpg"
    with pytest.raises(RequestError, match="3 contains no image"):
        next(given)
