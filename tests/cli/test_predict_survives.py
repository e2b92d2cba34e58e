"""Prediction of many files: stopped and gone on with, many of them broken, names hidden."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from conftest import Call
from tests_support import dicom_of, link_radiographs

CANARY = "ZEBRACANARY"


@pytest.fixture(scope="module")
def many(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 files, one in twenty of them broken."""
    folder = tmp_path_factory.mktemp("many") / "many"
    links = link_radiographs(phantoms, folder, 120)
    for number, path in enumerate(links[7::20]):
        path.unlink()
        path.write_bytes(links[0].read_bytes()[: 400 + number])
    return folder


def test_one_in_twenty_broken_has_its_row(call: Call, run_folder: Path, many: Path, tmp_path: Path) -> None:
    done = call("predict", many, "--model", run_folder, "--csv", "out.csv")
    assert done.code == 1
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert len(rows) == 120
    broken = [number for number, row in enumerate(rows) if row["error"]]
    assert broken == list(range(7, 120, 20))
    assert all(bool(row["Edema"]) != bool(row["error"]) for row in rows)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_table_is_resumed_to_the_same_bytes(
    call: Call, run_folder: Path, many: Path, tmp_path: Path, number: signal.Signals
) -> None:
    call("predict", many, "--model", run_folder, "--csv", "whole.csv")
    paths = [str(path) for path in sorted(many.iterdir())]
    command = [sys.executable, "-m", "cxrtool", "predict", "-", "--model", str(run_folder), "--csv", "out.csv"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path)
    assert process.stdin is not None
    process.stdin.write("".join(f"{path}\n" for path in paths[:100]))
    process.stdin.flush()  # and left open
    partial, deadline = tmp_path / ".out.csv.partial", time.monotonic() + 60
    while (not partial.exists() or partial.stat().st_size < 4_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    process.wait(60)
    process.stdin.close()
    assert not (tmp_path / "out.csv").exists()
    with partial.open("a") as file:
        file.write("half a ro")
    done = call("predict", many, "--model", run_folder, "--csv", "out.csv", "--resume-csv")
    assert done.code == 1
    assert int(done.stderr.split("continuing after ")[1].split()[0].replace(",", "")) > 0
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not list(tmp_path.glob(".out.csv*"))


def stopped_table(call: Call, run_folder: Path, many: Path, tmp_path: Path) -> None:
    """As a run leaves it that is killed after 32 rows."""
    from cxrtool.predict import csv_table as prediction_table

    call("predict", many, "--model", run_folder, "--csv", "whole.csv")
    lines = (tmp_path / "whole.csv").read_text().splitlines(keepends=True)
    kept: list[dict[str, object]] = []
    plain = prediction_table.write_json
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction_table, "write_json", lambda path, value: (kept.append(value), plain(path, value)))
        call("predict", many, "--model", run_folder, "--csv", "out.csv")
    (tmp_path / "out.csv").unlink()
    (tmp_path / ".out.csv.partial").write_text("".join(lines[:33]))
    (tmp_path / ".out.csv.partial.json").write_text(json.dumps(kept[0]))


def test_another_model_setting_or_input_is_refused(call: Call, run_folder: Path, many: Path, tmp_path: Path) -> None:
    stopped_table(call, run_folder, many, tmp_path)
    resume = ["--model", run_folder, "--csv", "out.csv", "--resume-csv"]
    done = call("predict", many, *resume, "--thresholds", "0.1,0.2,0.3,0.4,0.5", "--batch-size", "8")
    assert done.code == 2
    assert "thresholds, batch size" in done.stderr
    (tmp_path / "other").mkdir()
    for path in sorted(many.iterdir())[1:]:
        (tmp_path / "other" / path.name).hardlink_to(path)
    done = call("predict", tmp_path / "other", *resume)
    assert done.code == 2
    assert "row 1 of the unfinished table" in done.stderr
    done = call("predict", many, *resume)
    assert "continuing after 32 rows" in done.stderr
    assert "6 of 120 images could not be read" in done.stderr, "2 of the 32 rows and 4 of the others"
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert call("predict", many, "--model", run_folder, "--resume-csv").code == 2


def test_hashed_paths_show_no_path(call: Call, run_folder: Path, many: Path, tmp_path: Path) -> None:
    folder = tmp_path / CANARY
    folder.mkdir()
    for number in (6, 7):
        shutil.copy(many / f"000{number}.jpg", folder / f"{CANARY}{number}.jpg")
    done = call("predict", folder, "--model", run_folder, "--hash-paths", "--csv", "out.csv", "--json")
    assert CANARY not in done.stdout + done.stderr + (tmp_path / "out.csv").read_text()
    expected = sha256(os.fsencode(folder / f"{CANARY}6.jpg")).hexdigest()[:16]
    assert done.json["predictions"][0]["path"] == expected
    assert (
        done.json["predictions"][1]["error"].split(":")[0]
        == sha256(os.fsencode(folder / f"{CANARY}7.jpg")).hexdigest()[:16]
    )
    done = call("predict", folder, "--model", run_folder, "--hash-paths")
    assert CANARY not in done.stdout + done.stderr
    assert expected in done.stdout


def test_a_word_in_a_files_tags_is_in_no_output(call: Call, run_folder: Path, phantoms: Path, tmp_path: Path) -> None:
    with Image.open(sorted((phantoms / "test").rglob("*frontal.jpg"))[0]) as image:
        frontal = image.convert("L")
    exif, text = Image.Exif(), PngInfo()
    exif[0x010E] = exif[0x013B] = CANARY
    text.add_text("Comment", CANARY)
    folder = tmp_path / "in"
    folder.mkdir()
    frontal.save(folder / "a.jpg", exif=exif, comment=CANARY.encode())
    frontal.save(folder / "b.png", pnginfo=text)
    frontal.save(folder / "c.tif", exif=exif)
    dataset = dicom_of(np.asarray(frontal))
    for name in ("PatientName", "PatientID", "InstitutionName", "ImageComments", "StudyDescription", "Modality"):
        setattr(dataset, name, CANARY[:16])
    dataset.BodyPartExamined = dataset.ViewPosition = CANARY
    dataset.save_as(folder / "d.dcm", enforce_file_format=True)
    assert all(CANARY.encode() in path.read_bytes() for path in folder.iterdir())
    read = call("predict", folder, "--model", run_folder, "--csv", "out.csv", "--json")
    people = call("predict", folder, "--model", run_folder)
    shown = call("explain", folder, "--model", run_folder, "--panel", "--out", "maps", "--json")
    assert [row["error"] for row in read.json["predictions"]] == [None] * 4
    assert "modality" in (tmp_path / "out.csv").read_text()
    for done in (read, people, shown):
        assert CANARY not in done.stdout + done.stderr
    made = [tmp_path / "out.csv", *(tmp_path / "maps").iterdir()]
    assert len(made) > 4 * 15
    assert not any(CANARY.encode() in path.read_bytes() for path in made)


def test_warnings_travel_and_strict_makes_rows_of_them(
    call: Call, run_folder: Path, phantoms: Path, tmp_path: Path
) -> None:
    with Image.open(sorted((phantoms / "test").rglob("*frontal.jpg"))[0]) as image:
        Image.fromarray(255 - np.asarray(image.convert("L"))).save(tmp_path / "negative.png")
    done = call("predict", "negative.png", "--model", run_folder, "--csv", "out.csv", "--json")
    assert done.code == 0
    assert [one["code"] for one in done.json["predictions"][0]["warnings"]] == ["inverted"]
    (row,) = csv.DictReader((tmp_path / "out.csv").open())
    assert row["warnings"] == "inverted"
    assert "warning, inverted" in call("predict", "negative.png", "--model", run_folder).stdout
    assert "warning, inverted" in call("explain", "negative.png", "--model", run_folder).stdout
    done = call("predict", "negative.png", "--model", run_folder, "--strict", "--json")
    assert done.code == 1
    assert "inverted" in done.json["predictions"][0]["error"]
