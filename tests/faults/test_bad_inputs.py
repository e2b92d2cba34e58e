"""A table of bad inputs and faults: how each is made, the command that meets it, and how that must end.

A row is a command in this process. What needs a process to be killed, a small disk or little memory is tested beside
this file.
"""

import csv
import fcntl
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.uid import JPEG2000Lossless, RLELossless

from bad_inputs import (
    BAD_DICOMS,
    BAD_FILES,
    BAD_SHEETS,
    HEADER,
    LOSSLESS_JPEG_LIES,
    ROW,
    Bomb,
    bomb_png,
    deflated_bomb,
    dicom,
    dicom_bytes,
    encoded,
    lossless_jpeg_that_lies,
    picture,
    png_of,
    with_another_syntax_first,
)
from conftest import Call, Done, run_cxr
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import BUNDLE_NAME, open_bundle, save_bundle
from tests_support import change_header


@dataclass(frozen=True)
class Scene:
    """Where a fault is made.

    Attributes:
        folder: the command's own.
        call: runs a command.
        phantoms: a good data set.
        run: a good run.
        good: a good radiograph.
    """

    folder: Path
    call: Call
    phantoms: Path
    run: Path
    good: Path

    def data(self) -> Path:
        """Copy the data set, to be damaged."""
        return Path(shutil.copytree(self.phantoms, self.folder / "data"))

    def bundle(self) -> Path:
        """Copy the model, to be damaged."""
        return Path(shutil.copy(self.run / BUNDLE_NAME, self.folder / BUNDLE_NAME))


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    Attributes:
        name: what is wrong.
        command: makes the fault and gives the arguments of ``cxr``.
        code: the exit code.
        words: each stands in what is printed.
        check: what else must hold.
    """

    name: str
    command: Callable[[Scene], list[object]]
    code: int
    words: tuple[str, ...] = ()
    check: Callable[[Scene, Done], None] | None = None

    def __str__(self) -> str:
        return self.name


Make = Callable[[Path], object]


def in_row(name: str, make: Make, *words: str, as_name: str = "bad.jpg") -> Fault:
    """One file of three cannot be read: it has a row with an error, the others are predicted, the exit code is 1."""

    def command(scene: Scene) -> list[object]:
        make(scene.folder / as_name)
        return ["predict", scene.good, as_name, scene.good, "--model", scene.run, "--json"]

    def check(scene: Scene, done: Done) -> None:
        first, row, last = done.json["predictions"]
        assert row["findings"] == []
        assert all(word in row["error"] for word in words), row["error"]
        assert "\n" not in row["error"]
        assert first["error"] is last["error"] is None
        assert len(last["findings"]) == 5

    return Fault(name, command, 1, check=check)


def warned(name: str, make: Make, code: str, as_name: str = "odd.png") -> list[Fault]:
    """The file is read with a warning, and has its row with ``--strict``."""

    def command(scene: Scene) -> list[object]:
        make(scene.folder / as_name)
        return ["predict", as_name, "--model", scene.run, "--json"]

    def has_warning(scene: Scene, done: Done) -> None:
        (row,) = done.json["predictions"]
        assert row["error"] is None
        assert code in [warning["code"] for warning in row["warnings"]]

    def refused(scene: Scene, done: Done) -> None:
        (row,) = done.json["predictions"]
        assert f"{code}: " in row["error"]

    strictly = Fault(f"{name}, --strict", lambda scene: [*command(scene), "--strict"], 1, check=refused)
    return [Fault(name, command, 0, check=has_warning), strictly]


def read(name: str, make: Make, check: Callable[[Scene, Done], None], as_name: str = "image.jpg") -> Fault:
    """The file is read correctly."""

    def command(scene: Scene) -> list[object]:
        make(scene.folder / as_name)
        return ["predict", as_name, "--model", scene.run, "--precision", "fp32", "--json"]

    return Fault(name, command, 0, check=check)


def probabilities(done: Done) -> np.ndarray:
    (row,) = done.json["predictions"]
    assert row["error"] is None
    return np.array([finding["probability"] for finding in row["findings"]])


def predicts_as(content: Callable[[], bytes], atol: float) -> Callable[[Scene, Done], None]:
    """The probabilities equal those of another file."""

    def check(scene: Scene, done: Done) -> None:
        (scene.folder / "other.png").write_bytes(content())
        other = scene.call("predict", "other.png", "--model", scene.run, "--precision", "fp32", "--json")
        np.testing.assert_allclose(probabilities(done), probabilities(other), atol=atol)

    return check


def writes(content: Callable[[], bytes]) -> Make:
    return lambda path: path.write_bytes(content())


def png(values: np.ndarray, mode: str | None = None, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(values)
    (image if mode is None else image.convert(mode)).save(buffer, format=kind, **options)
    return buffer.getvalue()


FULL = np.interp(picture(), (picture().min(), picture().max()), (0, 255)).astype(np.uint8)
"""Uses the whole range of 0 to 255, so that scaling by the range has no effect."""
TURNED = Image.Exif()
TURNED[0x0112] = 6


def coloured() -> np.ndarray:
    return np.stack([picture(), picture() // 2, 255 - picture()], axis=2)


def animated() -> bytes:
    buffer = io.BytesIO()
    first = Image.fromarray(picture())
    second = Image.fromarray(255 - picture())
    first.save(buffer, format="PNG", save_all=True, append_images=[second])
    return buffer.getvalue()


def flipped_scan(path: Path) -> None:
    content = bytearray(encoded(quality=95))
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def only_a_digest_tells(scene: Scene, done: Done) -> None:
    assert probabilities(done).shape == (5,)
    assert (scene.folder / "image.jpg").read_bytes() != encoded(quality=95)


def saves(make: Callable[[], FileDataset]) -> Make:
    return writes(lambda: dicom_bytes(make()))


def run_lengths_that_lie() -> FileDataset:
    """Two bytes stand for 128: the segment unpacks to 64 times the picture."""
    from pydicom.encaps import encapsulate

    dataset = dicom((np.arange(64 * 48).reshape(64, 48) % 200).astype(np.uint8))
    dataset.file_meta.TransferSyntaxUID = RLELossless
    header = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56)
    dataset.PixelData = encapsulate([header + b"\x81\x07" * 6000])
    dataset["PixelData"].is_undefined_length = True
    return dataset


def unknown_codec() -> FileDataset:
    dataset = dicom()
    dataset.compress(RLELossless)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.106"
    return dataset


def cut_dicom() -> bytes:
    return dicom_bytes(dicom())[:-2000]


def packed(syntax: str) -> Callable[[], FileDataset]:
    def make() -> FileDataset:
        dataset = dicom()
        dataset.compress(syntax)
        return dataset

    return make


def by_list(scene: Scene, path: str) -> list[object]:
    """Give the path on stdin, where a folder is read as a file instead of listed."""
    lines = io.BytesIO(os.fsencode(f"{scene.good}\n{path}\n"))
    pytest.MonkeyPatch().setattr("sys.stdin", io.TextIOWrapper(lines, encoding="utf-8"))
    return ["predict", "-", "--model", scene.run, "--json"]


def second_row_says(*words: str) -> Callable[[Scene, Done], None]:
    def check(scene: Scene, done: Done) -> None:
        first, row = done.json["predictions"]
        assert first["error"] is None
        assert all(word in row["error"] for word in words), row["error"]

    return check


def good_named(name: str | bytes) -> Callable[[Scene], list[object]]:
    def command(scene: Scene) -> list[object]:
        path = os.path.join(os.fsencode(scene.folder), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copy(os.fsencode(scene.good), path)
        return ["predict", os.fsdecode(name), "--model", scene.run]

    return command


def no_escape_codes(scene: Scene, done: Done) -> None:
    assert "\x1b" not in done.stdout + done.stderr
    assert "\a" not in done.stdout + done.stderr


def see_through() -> bytes:
    image = Image.fromarray(picture())
    image.putalpha(200)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def bad_file(name: str) -> Make:
    return writes(BAD_FILES[name][0])


def bad_dicom(name: str) -> Make:
    return saves(BAD_DICOMS[name][0])


IMAGES = [
    in_row("missing", lambda path: None, "no such file"),
    in_row("zero bytes", bad_file("zero bytes"), "empty"),
    in_row("HTML named .jpg", bad_file("HTML named .jpg"), "not an image"),
    in_row("JPEG cut at half", bad_file("JPEG cut at half"), "truncated"),
    in_row("progressive JPEG cut", bad_file("progressive JPEG cut"), "truncated"),
    in_row("JPEG without its end", bad_file("JPEG without its end"), "truncated"),
    read("flipped scan bytes", flipped_scan, only_a_digest_tells),
    in_row("PNG with a bad checksum", bad_file("PNG with a bad checksum"), "decoded"),
    in_row("PNG with a tenth of its rows", bad_file("PNG with a tenth of its rows"), "decoded"),
    in_row("header of 900 megapixels, JPEG", bad_file("header of 900 megapixels"), "64,000,000 pixels"),
    in_row("header of 900 megapixels, PNG", writes(bomb_png), "64,000,000 pixels"),
    in_row("100 megapixels", writes(lambda: png_of(10_000, 10_000)), "10000 x 10000", "64,000,000"),
    read("16 bits", writes(lambda: png(FULL.astype(np.uint16) * 257)), predicts_as(lambda: png(FULL), 0.02)),
    *warned("12 bits in 16", writes(lambda: png(FULL.astype(np.uint16) * 16)), "shallow"),
    read(
        "12 bits in 16, its pixels",
        writes(lambda: png(FULL.astype(np.uint16) * 16)),
        predicts_as(lambda: png(FULL), 0.02),
    ),
    *warned("palette", writes(lambda: png(picture(), "P")), "converted"),
    *warned("CMYK", writes(lambda: png(picture(), "CMYK", "JPEG")), "converted"),
    *warned("coloured RGB", writes(lambda: png(coloured())), "colour"),
    *warned("alpha", writes(see_through), "alpha"),
    read(
        "EXIF orientation",
        writes(lambda: png(picture(), exif=TURNED)),
        predicts_as(lambda: png(np.rot90(picture(), -1)), 1e-6),
    ),
    read("TIFF named .jpg", writes(lambda: encoded("TIFF")), predicts_as(lambda: encoded("PNG"), 1e-6)),
    in_row("GIF named .jpg", bad_file("a GIF"), "not an image"),
    in_row("two pages", bad_file("two pages"), "several pages"),
    in_row("two frames", writes(animated), "several pages"),
    in_row("FIFO", os.mkfifo, "regular"),
    in_row("device", lambda path: path.symlink_to("/dev/zero"), "regular"),
    Fault("a folder in a list", lambda scene: by_list(scene, "."), 1, check=second_row_says("is a folder")),
    in_row("one pixel", bad_file("one pixel"), "too small"),
    in_row("5000 x 10", writes(lambda: png_of(5000, 10)), "too narrow"),
    *warned("constant image", writes(lambda: png(np.full((96, 96), 90, dtype=np.uint8))), "blank"),
    Fault("a name that is no UTF-8", good_named(b"caf\xe9.jpg"), 0, (r"caf\udce9.jpg",)),
    Fault(
        "a name that is no UTF-8, of a missing file",
        lambda scene: by_list(scene, os.fsdecode(b"caf\xe9.jpg")),
        1,
        check=second_row_says("no such file"),
    ),
    Fault("a name of markup", good_named("a[/red].jpg"), 0, ("a[/red].jpg",)),
    Fault("escape codes in a name", good_named("b\x1b[2J\a\nc.jpg"), 0, (r"\x1b[2J\x07\x0ac.jpg",), no_escape_codes),
]

DICOMS = [
    in_row("text named .dcm", writes(lambda: b"not a DICOM " * 99), "not an image", as_name="bad.dcm"),
    in_row("DICM and then nothing", writes(lambda: bytes(128) + b"DICM"), "no pixel data", as_name="bad.dcm"),
    in_row("no pixel data", bad_dicom("no pixel data"), "no pixel data"),
    in_row("truncated DICOM", writes(cut_dicom), "holds 4,144 bytes, not 6,144"),
    in_row("multi-frame", bad_dicom("multi-frame"), "several frames"),
    read(
        "MONOCHROME1",
        saves(lambda: dicom(255 - FULL, PhotometricInterpretation="MONOCHROME1")),
        predicts_as(lambda: png(FULL), 1e-6),
    ),
    in_row("window width 0", bad_dicom("window of width 0"), "window of width 0"),
    in_row("slope 0", bad_dicom("slope 0"), "slope of 0"),
    in_row("more rows than pixels", bad_dicom("more rows than pixels"), "holds"),
    in_row("fewer rows than pixels", bad_dicom("fewer rows than pixels"), "holds"),
    in_row("a frame of another size", bad_dicom("a frame of another size"), "its frame"),
    in_row("giant rows", bad_dicom("giant rows"), "at most 64,000,000"),
    in_row("giant lossless JPEG frame", saves(lossless_jpeg_that_lies), LOSSLESS_JPEG_LIES),
    in_row("run lengths that lie", saves(run_lengths_that_lie), "run lengths"),
    in_row("a codec that is missing", saves(unknown_codec), "needs a codec"),
    in_row("deflated bomb", writes(deflated_bomb), "deflated"),
    in_row(
        "deflated bomb, its syntax given twice",
        writes(lambda: with_another_syntax_first(deflated_bomb(500_000))),
        "deflated",
    ),
    *warned("burnt-in annotation", saves(lambda: dicom(BurnedInAnnotation="YES")), "burnt-in"),
    *warned("another modality", saves(lambda: dicom(Modality="CT")), "modality"),
]


def check_sheet(content: str | bytes, name: str = "train.csv") -> Callable[[Scene], list[object]]:
    def command(scene: Scene) -> list[object]:
        (scene.folder / "sheets").mkdir()
        text = content if isinstance(content, bytes) else content.encode()
        (scene.folder / "sheets" / name).write_bytes(text)
        return ["check-data", "sheets", "--json"]

    return command


def bad_sheets() -> Iterator[Fault]:
    for title, (content, words) in BAD_SHEETS.items():
        yield Fault(title, check_sheet(content), 2, ("train.csv", *words))


def rows_of(*paths: str) -> str:
    rest = ROW.partition(",")[2]
    return "\n".join([f"{HEADER},patient_id,study_id", *(f"{path},{rest},1,1" for path in paths)]) + "\n"


def missing_are(*lines: str) -> Callable[[Scene, Done], None]:
    def check(scene: Scene, done: Done) -> None:
        assert done.json["splits"]["train"]["missing_examples"] == list(lines)

    return check


def two_labels(scene: Scene) -> list[object]:
    return check_sheet(f"{HEADER}\n{ROW}\n{ROW.replace('-1.0', '1.0')}\n")(scene)


def shared_patient(scene: Scene) -> list[object]:
    data = scene.data()
    first = (data / "train.csv").read_text().splitlines()[1]
    with (data / "valid.csv").open("a") as file:
        file.write(first + "\n")
    return ["check-data", data]


def same_bytes(scene: Scene) -> list[object]:
    data = scene.data()
    shutil.copy(next((data / "train").rglob("*frontal.jpg")), next((data / "test").rglob("*frontal.jpg")))
    return ["check-data", data, "--full"]


def leading_out(scene: Scene) -> Path:
    """Return a data set whose sheet names a file above it, an absolute path, and a link that leads outside."""
    data = scene.data()
    secret = scene.folder / "patient9" / "study1" / "secret.jpg"
    secret.parent.mkdir(parents=True)
    secret.write_bytes(encoded())
    images = sorted((data / "train").rglob("*frontal.jpg"))[:1]
    images[0].unlink()
    images[0].symlink_to(secret)
    last = (data / "train.csv").read_text().splitlines()[-1].partition(",")[2]
    with (data / "train.csv").open("a") as file:
        for path in ("../patient9/study1/secret.jpg", str(secret), "train/../../patient9/study1/secret.jpg"):
            file.write(f"{path},{last}\n")
    return data


def four_lead_out(scene: Scene, done: Done) -> None:
    train = done.json["splits"]["train"]
    assert train["missing"] == 4
    assert all("outside the data folder" in text for text in train["missing_examples"])


def three_lead_out(scene: Scene, done: Done) -> None:
    train = done.json["splits"]["train"]
    assert train["missing"] == 3
    assert all("secret.jpg" in text for text in train["missing_examples"])


SHEETS = [
    Fault("paths that lead out", lambda scene: ["check-data", leading_out(scene), "--json"], 1, check=four_lead_out),
    Fault(
        "paths that lead out are not read",
        lambda scene: ["eval", "--data", leading_out(scene), "--model", scene.run, "--split", "train"],
        2,
        ("4 of ", "no usable image", "secret.jpg"),
    ),
    Fault(
        "paths that lead out, with --allow-outside",
        lambda scene: ["check-data", leading_out(scene), "--json", "--full", "--allow-outside"],
        1,
        check=three_lead_out,
    ),
    *bad_sheets(),
    Fault("all blank", check_sheet(f"{HEADER}\n{ROW.replace('0.0,-1.0', ',-1.0')}\n"), 1, ("is blank in every row",)),
    Fault("a path NA", check_sheet(rows_of("NA")), 1, check=missing_are("NA (line 2): no such file")),
    Fault("an id 00042", check_sheet(rows_of("00042")), 1, check=missing_are("00042 (line 2): no such file")),
    Fault("one path, two labels", two_labels, 1, ("two different labels",)),
    Fault("a patient in two splits", shared_patient, 1, ("patient00001", "train", "valid")),
    Fault("the same bytes in two splits", same_bytes, 1, ("same bytes",)),
    Fault("FIFO in a sheet", lambda scene: ["check-data", with_fifo(scene), "--json"], 1, ("regular",)),
]


def with_fifo(scene: Scene) -> Path:
    data = scene.data()
    image = next((data / "train").rglob("*frontal.jpg"))
    image.unlink()
    os.mkfifo(image)
    return data


def train(scene: Scene, *more: object) -> list[object]:
    small = ["--init", "none", "--image-size", 32, "--epochs", 1, "--device", "cpu"]
    return ["train", "--data", scene.phantoms, *small, *more]


HELD: list[Any] = []


def held_by_another(scene: Scene) -> list[object]:
    (scene.folder / "held").mkdir()
    lock = (scene.folder / "held" / ".lock").open("w")
    HELD.append(lock)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return train(scene, "--out", "held")


def nothing_to_resume(scene: Scene) -> list[object]:
    (scene.folder / "nothing").mkdir()
    return ["train", "--resume", "nothing"]


def resumed_on_other_data(scene: Scene) -> list[object]:
    data = scene.data()
    lines = (data / "train.csv").read_text().splitlines()
    (data / "train.csv").write_text("\n".join(lines[:-3]) + "\n")
    return ["train", "--resume", scene.run, "--data", data, "--seed", 7, "--policy", "u-ones"]


TRAINING = [
    Fault("two runs in one folder", held_by_another, 2, ("another process is training in",)),
    Fault("a run is there", lambda scene: train(scene, "--out", scene.run), 2, ("already contains a run", "--resume")),
    Fault("nothing to resume", nothing_to_resume, 2, ("nothing to resume",)),
    Fault(
        "resumed with other settings", resumed_on_other_data, 2, ("seed was 0 and is now 7", "policy", "train sheet")
    ),
    Fault("train --device cuda without a GPU", lambda scene: train(scene, "--device", "cuda"), 2, ("cuda",)),
    Fault(
        "predict --device cuda without a GPU",
        lambda scene: ["predict", scene.good, "--model", scene.run, "--device", "cuda"],
        2,
        ("cuda",),
    ),
]


def one_class(scene: Scene) -> list[object]:
    data = scene.data()
    change_column(data / "test.csv", "Edema", "0.0")
    return ["eval", "--data", data, "--model", scene.run, "--out", "figures", "--draws", 20, "--json"]


def edema_is_null(scene: Scene, done: Done) -> None:
    labels = done.json["labels"]
    assert labels["Edema"]["auroc"] is labels["Edema"]["auprc"] is None
    others = [row["auroc"] for row in labels.values() if row["auroc"] is not None]
    assert done.json["mean"]["auroc"] == pytest.approx(np.mean(others))


def change_column(sheet: Path, name: str, value: str) -> None:
    rows = list(csv.reader(sheet.open(newline="")))
    column = rows[0].index(name)
    for row in rows[1:]:
        row[column] = value
    with sheet.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def table_with(scene: Scene, change: Callable[[list[list[str]]], object]) -> Path:
    """A changed predictions.csv of valid."""
    made = scene.call("eval", "--data", scene.phantoms, "--model", scene.run, "--split", "valid", "--out", "v")
    assert made.code == 0
    rows = list(csv.reader((scene.folder / "v/predictions.csv").open(newline="")))
    change(rows)
    path = scene.folder / "table.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def tune_on(change: Callable[[list[list[str]]], object]) -> Callable[[Scene], list[object]]:
    return lambda scene: ["tune", "--predictions", table_with(scene, change), "--out", "tuned", "--json"]


def set_nan(rows: list[list[str]]) -> None:
    rows[2][rows[0].index("Edema probability")] = "nan"


def columns_turned(rows: list[list[str]]) -> None:
    for row in rows:
        row.reverse()


def as_if_not_turned(scene: Scene, done: Done) -> None:
    plain = scene.call("tune", "--predictions", "v/predictions.csv", "--out", "plain", "--json")
    assert done.json["thresholds"] == plain.json["thresholds"]


def one_study(scene: Scene) -> list[object]:
    data = scene.data()
    lines = (data / "test.csv").read_text().splitlines()
    first = next(line for line in lines[1:] if "frontal" in line)
    (data / "test.csv").write_text(f"{lines[0]}\n{first}\n")
    return ["eval", "--data", data, "--model", scene.run, "--out", "figures", "--draws", 20, "--json"]


def all_null(scene: Scene, done: Done) -> None:
    assert done.json["studies"] == 1
    assert all(row["auroc"] is row["auprc"] is None for row in done.json["labels"].values())
    assert done.json["mean"]["auroc"] is done.json["mean"]["auprc"] is None


EVALUATION = [
    Fault("one class", one_class, 0, ("Edema",), edema_is_null),
    Fault("NaN score", tune_on(set_nan), 1, ("NaN", "patient")),
    Fault("a row twice", tune_on(lambda rows: rows.append(rows[1])), 2, ("twice",)),
    Fault("rows in another order", tune_on(lambda rows: rows.insert(1, rows.pop())), 0, (), as_if_not_turned),
    Fault("columns in another order", tune_on(columns_turned), 0, (), as_if_not_turned),
    Fault(
        "tune on test",
        lambda scene: ["tune", "--data", scene.phantoms, "--model", scene.run, "--split", "test"],
        2,
        ("test split",),
    ),
    Fault("one study", one_study, 0, (), all_null),
]


def predict_with(change: Callable[[Path], object]) -> Callable[[Scene], list[object]]:
    def command(scene: Scene) -> list[object]:
        path = scene.bundle()
        change(path)
        return ["predict", scene.good, "--model", path]

    return command


def pickled(save: Callable[[object, Path], object]) -> Callable[[Scene], list[object]]:
    def command(scene: Scene) -> list[object]:
        os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
        save({"state_dict": Bomb(scene.folder / "ran")}, scene.folder / "model.pt")
        return ["predict", scene.good, "--model", "model.pt"]

    return command


def to_import(scene: Scene) -> list[object]:
    pickled(torch.save)(scene)
    return ["import", "model.pt", "out"]


def nothing_ran(scene: Scene, done: Done) -> None:
    assert not (scene.folder / "ran").exists()
    assert not (scene.folder / "out").exists()


def change_weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], object]:
    def apply(path: Path) -> None:
        bundle = open_bundle(path)
        weights = {name: tensor.clone() for name, tensor in bundle.network.state_dict().items()}
        save_bundle(path, change(weights), bundle.header)

    return apply


def with_nan(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    weights["classifier.bias"][0] = torch.nan
    return weights


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def newer(path: Path) -> None:
    change_header(path, format_version=99)


def same_name_in_two_folders(scene: Scene) -> list[object]:
    for folder in ("a", "b"):
        (scene.folder / folder).mkdir()
        shutil.copy(scene.good, scene.folder / folder / "x.jpg")
    return ["explain", "a/x.jpg", "b/x.jpg", "--model", scene.run, "--label", "Edema", "--json"]


def both_are_kept(scene: Scene, done: Done) -> None:
    files = [path for row in done.json["explanations"] for path in row["explanations"][0]["files"].values()]
    assert len(set(files)) == len(files) == 6
    assert all((scene.folder / path).is_file() for path in files)


def formula(scene: Scene) -> list[object]:
    return [*good_named("=1+1.jpg")(scene), "--csv", "out.csv"]


def is_neutral(scene: Scene, done: Done) -> None:
    (row,) = csv.DictReader((scene.folder / "out.csv").open(newline=""))
    assert row["path"] == "'=1+1.jpg"


def blind(scene: Scene) -> list[object]:
    path = scene.bundle()
    change_weights(lambda weights: weights | {"classifier.weight": torch.zeros(5, 1024)})(path)
    return ["explain", scene.good, "--model", path, "--label", "Edema", "--json"]


def the_map_is_zero(scene: Scene, done: Done) -> None:
    (row,) = done.json["explanations"]
    assert row["explanations"][0]["peak"] is None
    assert [warning["code"] for warning in row["warnings"]] == ["zero-map"]


def empty_folder(scene: Scene) -> list[object]:
    (scene.folder / "empty").mkdir()
    return ["predict", "empty", "--model", scene.run]


MODELS = [
    Fault("a pickle of torch that runs code", pickled(torch.save), 2, ("not a bundle",), nothing_ran),
    Fault(
        "a bare pickle that runs code",
        pickled(lambda content, path: path.write_bytes(pickle.dumps(content))),
        2,
        ("not a bundle",),
        nothing_ran,
    ),
    Fault("a pickle that runs code, in import", to_import, 2, ("nothing of it was run",), nothing_ran),
    Fault("empty model", predict_with(lambda path: path.write_bytes(b"")), 2, ("not a bundle",)),
    Fault("text as a model", predict_with(lambda path: path.write_text("a model " * 99)), 2, ("not a bundle",)),
    Fault("a truncated model", predict_with(lambda path: os.truncate(path, 1_000_000)), 2, ("not a bundle",)),
    Fault("a flipped byte", predict_with(flip), 2, ("damaged", "digest")),
    Fault("NaN weights", predict_with(change_weights(with_nan)), 2, ("not finite", "classifier.bias")),
    Fault(
        "module. prefix",
        predict_with(change_weights(lambda w: {f"module.{name}": tensor for name, tensor in w.items()})),
        2,
        ("is not a DenseNet121 of cxrtool",),
    ),
    Fault(
        "14 findings",
        predict_with(change_weights(lambda w: w | {"classifier.weight": torch.zeros(14, 1024)})),
        2,
        ("classifier.weight", "(14, 1024)"),
    ),
    Fault("a newer bundle", predict_with(newer), 2, ("version 99", "Upgrade")),
    Fault("empty folder", empty_folder, 2, ("contains no image", "--recursive")),
    Fault("one name in two folders", same_name_in_two_folders, 0, (), both_are_kept),
    Fault("a cell =1+1", formula, 0, (), is_neutral),
    Fault(
        "a label with ../",
        lambda scene: ["explain", scene.good, "--model", scene.run, "--label", "../../Edema"],
        2,
        ("'../../Edema' is unknown", "Edema"),
    ),
    Fault("zero gradient", blind, 0, ("zero everywhere",), the_map_is_zero),
]

FAULTS = [*IMAGES, *DICOMS, *SHEETS, *TRAINING, *EVALUATION, *MODELS]


@pytest.fixture
def scene(tmp_path: Path, call: Call, phantoms: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    good = min((phantoms / "test").rglob("*frontal.jpg"))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "0")  # so that it is restored after a row that sets it
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return Scene(tmp_path, call, phantoms, run_folder, good)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_bad_input_has_its_exit_code_and_message(fault: Fault, scene: Scene) -> None:
    if "without a GPU" in fault.name and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = scene.call(*fault.command(scene))
    printed = done.stdout + done.stderr
    assert done.code == fault.code, printed
    assert "Traceback" not in printed
    assert "error: unexpected" not in printed
    for word in fault.words:
        assert word in printed, printed
    if fault.code == 2:
        error, *advice = done.stderr.splitlines()
        assert error.startswith("error: ")
        assert len(advice) == 1
        assert not done.stdout
    if fault.check is not None:
        fault.check(scene, done)


def test_a_file_without_permission_gets_a_row_with_an_error(scene: Scene) -> None:
    shutil.copy(scene.good, scene.folder / "good.jpg")
    shutil.copy(scene.good, scene.folder / "bad.jpg")
    (scene.folder / "bad.jpg").chmod(0)
    as_user = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = run_cxr("predict", ".", "--model", scene.run, "--json", cwd=scene.folder, under=as_user)
    assert done.returncode == 1
    bad, good = json.loads(done.stdout)["predictions"]
    assert "permission denied" in bad["error"]
    assert good["error"] is None


def test_names_of_faults_are_unique() -> None:
    names = [fault.name for fault in FAULTS]
    assert sorted(set(names)) == sorted(names)


def test_packed_dicoms_are_still_read(scene: Scene) -> None:
    """Checks against frames with a false size accept correct ones."""
    for syntax in (RLELossless, JPEG2000Lossless):
        (scene.folder / "image.dcm").write_bytes(dicom_bytes(packed(syntax)()))
        done = scene.call("predict", "image.dcm", "--model", scene.run, "--json")
        assert done.code == 0, done
        assert probabilities(done).shape == (len(FINDINGS),)
