"""``cxr predict`` and ``cxr explain`` as scripts and people use them."""

import csv
import io
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Call
from cxrtool.cli.explain import unique_names
from cxrtool.findings import FINDINGS
from tests_support import with_a_most_probable


@pytest.fixture
def images(phantoms: Path) -> list[Path]:
    return sorted((phantoms / "test").rglob("*frontal.jpg"))[:3]


def test_the_json_is_the_contracts(call: Call, run_folder: Path, images: list[Path]) -> None:
    document = call("predict", *images, "--model", run_folder, "--json").json
    assert document["model"]["policy"] == "u-ignore"
    assert document["model"]["image_size"] == 32
    assert len(document["model"]["sha256"]) == len(document["model"]["weights_sha256"]) == 64
    assert [row["path"] for row in document["predictions"]] == [str(path) for path in images]
    for row in document["predictions"]:
        assert list(row) == ["path", "error", "error_code", "warnings", "findings"]
        assert row["error"] is None
        assert row["error_code"] is None
        assert [finding["label"] for finding in row["findings"]] == list(FINDINGS)
        for finding in row["findings"]:
            assert 0 <= finding["probability"] <= 1
            assert finding["positive"] is (finding["probability"] >= finding["threshold"])


def test_a_bad_image_gets_its_row_and_the_others_are_done(
    call: Call, run_folder: Path, images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "cut.jpg").write_bytes(images[0].read_bytes()[:900])
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    bad = ["page.jpg", "missing.jpg", "cut.jpg", "empty.jpg", "pipe.jpg"]
    done = call("predict", bad[0], images[0], *bad[1:], images[1], "--model", run_folder, "--csv", "out.csv", "--json")
    assert done.code == 1
    document = done.json
    assert [row["error"] is None for row in document["predictions"]] == [False, True, *[False] * 4, True]
    unread, missing = "image-unreadable", "image-missing"
    codes = [unread, None, missing, unread, unread, unread, None]
    assert [row["error_code"] for row in document["predictions"]] == codes
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert list(rows[0]) == ["path", *FINDINGS, "positive", "error", "warnings", "table"]
    assert {row["table"] for row in rows} == {"prediction"}
    assert [bool(row["error"]) for row in rows] == [True, False, *[True] * 4, False]
    assert all(rows[0][finding] == "" for finding in FINDINGS)
    for row, prediction in zip(rows, document["predictions"], strict=True):
        if prediction["error"] is None:
            assert [float(row[finding]) for finding in FINDINGS] == [f["probability"] for f in prediction["findings"]]
            assert row["positive"] == ";".join(f["label"] for f in prediction["findings"] if f["positive"])


def test_a_list_on_stdin_and_a_folder_give_the_same(
    call: Call, run_folder: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = call("predict", phantoms / "test", "--recursive", "--model", run_folder, "--json").json["predictions"]
    listed = "".join(f"{row['path']}\n" for row in folder)
    monkeypatch.setattr("sys.stdin", io.StringIO(listed))
    piped = call("predict", "-", "--model", run_folder, "--json").json["predictions"]
    assert piped == folder
    assert len(folder) == len(list((phantoms / "test").rglob("*.jpg")))


def test_the_batch_and_the_threads_do_not_move_a_probability(call: Call, run_folder: Path, phantoms: Path) -> None:
    def probabilities(*options: object) -> np.ndarray:
        where = [phantoms / "test", "-r", "--model", run_folder]
        rows = call("predict", *where, "--precision", "fp32", "--json", *options).json["predictions"]
        return np.array([[finding["probability"] for finding in row["findings"]] for row in rows])

    alone = probabilities("--batch-size", 1, "--workers", 1)
    np.testing.assert_allclose(probabilities("--batch-size", 7, "--workers", 3), alone, atol=1e-6)


def test_thresholds_given_replace_the_bundles(call: Call, run_folder: Path, images: list[Path], tmp_path: Path) -> None:
    done = call("predict", images[0], "--model", run_folder, "--thresholds", "0,1,0,1,0", "--json")
    positive = [finding["positive"] for finding in done.json["predictions"][0]["findings"]]
    assert positive == [True, False, True, False, True]
    (tmp_path / "mine.json").write_text('{"Edema": 0.99}')
    done = call("predict", images[0], "--model", run_folder, "--thresholds", "mine.json", "--json")
    assert done.json["predictions"][0]["findings"][3]["threshold"] == 0.99


def test_names_are_printed_as_they_are_and_cells_are_neutral(
    call: Call, run_folder: Path, images: list[Path], tmp_path: Path
) -> None:
    """Markup, escape codes and formulas in a name."""
    names = ["a[/red].jpg", "b\x1b[2Jc.jpg", "=1+1.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(images[0], tmp_path / name)
    shown = call("predict", *names, "--model", run_folder)
    assert shown.code == 0
    assert "a[/red].jpg" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert "\\x1b[2J" in shown.stdout
    call("predict", *names, "--model", run_folder, "--csv", "out.csv")
    cells = [row["path"] for row in csv.DictReader((tmp_path / "out.csv").open())]
    assert cells[2] == "'=1+1.jpg"


def test_text_in_an_images_comment_is_in_no_output(
    call: Call, run_folder: Path, images: list[Path], tmp_path: Path
) -> None:
    with Image.open(images[0]) as image:
        image.save(tmp_path / "named.jpg", comment=b"JANE DOE", quality=95)
    assert b"JANE DOE" in (tmp_path / "named.jpg").read_bytes()
    done = call("explain", "named.jpg", "--model", run_folder, "--json")
    assert "JANE" not in done.stdout
    pictures = list((tmp_path / "explanations").iterdir())
    assert pictures
    assert not any(b"JANE DOE" in path.read_bytes() for path in pictures)


def test_an_interrupted_table_does_not_show_under_its_name(
    run_folder: Path, images: list[Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "cxrtool", "predict", "-", "--model", str(run_folder), "--csv", "out.csv"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env={**os.environ}
    )
    assert process.stdin is not None
    process.stdin.write(f"{images[0]}\n" * 100)
    process.stdin.flush()  # and left open: the list goes on
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.csv.partial")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert not (tmp_path / "out.csv").exists()


class TestExplain:
    def test_without_a_label_every_positive_finding_or_the_most_probable(
        self, call: Call, run_folder: Path, images: list[Path], tmp_path: Path
    ) -> None:
        model = with_a_most_probable(run_folder / "model.safetensors", "Consolidation", tmp_path / "model.safetensors")
        for thresholds, expected in (
            ("1,1,1,1,1", ["Consolidation"]),
            ("0,1,1,0,1", ["Atelectasis", "Edema"]),
            ("0,0,0,0,0", list(FINDINGS)),
        ):
            done = call("explain", images[0], "--model", model, "--thresholds", thresholds, "--json")
            (row,) = done.json["explanations"]
            assert [item["label"] for item in row["explanations"]] == expected

    def test_pictures_have_the_radiographs_size(
        self, call: Call, run_folder: Path, images: list[Path], tmp_path: Path
    ) -> None:
        with Image.open(images[0]) as image:
            image.resize((90, 140)).save(tmp_path / "tall.png")
        done = call("explain", "tall.png", "--model", run_folder, "--label", "pleural effusion", "--json")
        files = done.json["explanations"][0]["explanations"][0]["files"]
        assert set(files) == {"heatmap", "overlay", "figure"}
        for kind in ("heatmap", "overlay"):
            with Image.open(tmp_path / files[kind]) as picture:
                assert picture.size == (90, 140)

    def test_a_bad_image_is_reported_and_the_others_are_drawn(
        self, call: Call, run_folder: Path, images: list[Path], tmp_path: Path
    ) -> None:
        (tmp_path / "bad.jpg").touch()
        done = call("explain", "bad.jpg", images[0], "--model", run_folder, "--label", "Edema", "--out", "maps")
        assert done.code == 1
        assert "bad.jpg: error" in done.stdout
        assert len(list((tmp_path / "maps").iterdir())) == 3

    def test_the_same_name_in_two_folders_gives_two_pictures(
        self, call: Call, run_folder: Path, phantoms: Path, tmp_path: Path
    ) -> None:
        same = sorted((phantoms / "test").rglob("view1_frontal.jpg"))[:3]
        done = call("explain", *same, "--model", run_folder, "--label", "Edema", "--json")
        figures = {row["explanations"][0]["files"]["figure"] for row in done.json["explanations"]}
        assert len(figures) == 3
        assert all((tmp_path / figure).is_file() for figure in figures)

    def test_colliding_names_are_made_distinct(self) -> None:
        names = unique_names([Path("a/b_c.jpg"), Path("a_b/c.jpg"), Path("a/b/c.jpg"), Path("a/b/c.png")])
        assert len(set(names)) == 4
        assert not any("/" in name for name in names)

    def test_two_patients_explained_into_one_folder_one_after_the_other(
        self, call: Call, run_folder: Path, phantoms: Path, tmp_path: Path
    ) -> None:
        same = sorted((phantoms / "test").rglob("view1_frontal.jpg"))[:2]
        for image in same:
            assert call("explain", image, "--model", run_folder, "--label", "Edema", "--out", "maps").code == 0
        expected = {
            f"{image.parts[-3]}_{image.parts[-2]}_view1_frontal_Edema_{kind}.png"
            for image in same
            for kind in ("heatmap", "overlay", "figure")
        }
        assert {path.name for path in (tmp_path / "maps").iterdir()} == expected

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("/a/CheXpert/train/patient00001/study2/view1_frontal.jpg", "patient00001_study2_view1_frontal"),
            ("/b/files/p10/p10000032/s50414267/02aa804e.jpg", "p10000032_s50414267_02aa804e"),
            # printf %s PATH | sha256sum | cut -c 1-8
            ("/a/image.jpg", "image-7e304b5b"),
            ("/b/image.jpg", "image-4f3ead5a"),
            ("/b/image.png", "image-178a7da1"),
        ],
    )
    def test_a_name_does_not_depend_on_the_other_inputs(self, path: str, name: str) -> None:
        assert unique_names([Path(path)]) == [name]
        assert unique_names([Path("/c/image.jpg"), Path(path), Path("/c/d/e.png")])[1] == name


def test_no_nan_and_no_infinity_in_any_json(call: Call, phantoms: Path, run_folder: Path) -> None:
    for arguments in (
        ["check-data", phantoms, "--json"],
        ["eval", "--data", phantoms, "--model", run_folder, "--out", "figures", "--json"],
        ["tune", "--data", phantoms, "--model", run_folder, "--out", "tuned", "--json"],
        ["info", run_folder, "--json"],
    ):
        document = call(*arguments).json  # reads strictly
        assert all(math.isfinite(number) for number in _numbers(document))


def _numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in _numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [float(value)] if isinstance(value, (int, float)) else []
