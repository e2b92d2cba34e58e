import os
from collections import Counter
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from bad_inputs import dicom, dicom_bytes, encoded
from conftest import Call
from cxrtool.data.listing import images_in, list_folder

STORED = "1.2.840.10008.5.1.4.1.1."


def of_class(uid: str) -> bytes:
    dataset: FileDataset = dicom()
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid
    return dicom_bytes(dataset)


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    """A folder as burnt by an archive, and things that people put beside it."""
    folder = tmp_path / "disc"
    files = {
        "DICOMDIR": of_class("1.2.840.10008.1.3.10"),
        "IM000001": dicom_bytes(dicom()),
        "a.dcm": dicom_bytes(dicom()),
        "b.IMA": dicom_bytes(dicom()),
        "c.dc3": dicom_bytes(dicom()),
        "state.dcm": of_class(STORED + "11.1"),
        "report": of_class(STORED + "88.11"),
        "letter.dcm": of_class(STORED + "104.1"),
        "d.jfif": encoded(),
        "e.jpe": encoded(),
        ".f.jpg": encoded(),
        ".DS_Store": b"x",
        "notes.txt": b"x",
        "README": b"x",
        "g.heic": b"x",
        "h.nii.gz": b"x",
        "i.gz": b"x",
    }
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_what_a_disc_holds_besides_radiographs_is_counted(disc: Path) -> None:
    found = list_folder(disc)
    assert [path.name for path in found.images] == ["IM000001", "a.dcm", "b.IMA", "c.dc3", "d.jfif", "e.jpe"]
    assert found.left_out == {
        "DICOMDIR": 1,
        "DICOM presentation states": 1,
        "DICOM reports": 1,
        "DICOM documents": 1,
        "hidden files": 1,
        "HEIC files, a format that is not read": 1,
        "NIfTI files, a format that is not read": 1,
    }
    assert found.describe().startswith("DICOM documents (1), DICOM presentation states (1)")


def test_linked_folders_are_searched_once(tmp_path: Path) -> None:
    for name in ("data/one/a.jpg", "elsewhere/two/b.jpg", "elsewhere/.hidden/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(encoded())
    data = tmp_path / "data"
    (data / "linked").symlink_to(tmp_path / "elsewhere")
    (data / "linked" / "loop").symlink_to(data)
    (data / "one" / "again").symlink_to(data / "one")
    (data / "gone").symlink_to(tmp_path / "nowhere")
    found = list_folder(data, recursive=True)
    assert [str(path.relative_to(data)) for path in found.images] == ["linked/two/b.jpg", "one/a.jpg"]
    assert found.left_out == {"links to folders that were searched already": 2}
    assert list_folder(data).images == []


def test_paths_are_sorted_as_paths_and_found_one_folder_after_another(tmp_path: Path) -> None:
    names = ["a/z.jpg", "a/b/c.jpg", "a-b.jpg", "a b/x.jpg", "a.jpg", "a0/y.png", "B/n/o.jpg", "B/m.jpg", "é.jpg"]
    names.append("z/z/z.jpg")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded())
    assert list_folder(tmp_path, recursive=True).images == sorted(tmp_path / name for name in names)
    left_out: Counter[str] = Counter()
    found = images_in(tmp_path, True, left_out)
    assert Path(next(found)) == tmp_path / "B/m.jpg"
    (tmp_path / "z/z/added later.jpg").write_bytes(encoded())
    (tmp_path / "z/z/.hidden.jpg").write_bytes(encoded())
    assert [Path(path).name for path in found][-3:] == ["added later.jpg", "z.jpg", "é.jpg"]
    assert left_out == {"hidden files": 1}


def test_a_pipe_with_the_name_of_a_dicom_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.dcm")
    os.mkfifo(tmp_path / "IM01")
    assert [path.name for path in list_folder(tmp_path).images] == ["x.dcm"]  # whose row holds the error


def test_predict_says_what_it_left_out(call: Call, disc: Path, run_folder: Path) -> None:
    done = call("predict", disc, "--model", run_folder, "--json")
    assert [row["error"] for row in done.json["predictions"]] == [None] * 6
    assert "left out DICOM documents (1)" in done.stderr
    assert "DICOMDIR (1)" in done.stderr
