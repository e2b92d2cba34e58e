import shutil
from pathlib import Path

import pytest

from bad_inputs import HEADER, sheet
from cxrtool.data.checks import check_data
from cxrtool.data.dataset import Dataset
from cxrtool.findings import FINDINGS
from cxrtool.settings import DataSettings


@pytest.fixture
def data(phantoms: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(phantoms, tmp_path / "data"))


def append(sheet: Path, row: str) -> None:
    sheet.write_text(sheet.read_text() + row + "\n")


def first_row(sheet: Path) -> list[str]:
    return sheet.read_text().splitlines()[1].split(",")


def test_a_good_data_set_has_no_error(phantoms: Path) -> None:
    report = check_data(Dataset(DataSettings(root=phantoms)), full=True)
    assert report.errors == ()
    assert set(report.splits) == {"train", "valid", "test"}
    train = report.splits["train"]
    lines = (phantoms / "train.csv").read_text().splitlines()[1:]
    assert train.rows == len(lines)
    assert train.frontal + train.lateral == train.rows
    assert train.images_read == train.rows
    for finding in FINDINGS:
        counts = train.labels[finding]
        assert counts.positive + counts.negative + counts.uncertain + counts.blank == train.rows
    assert train.sizes == {"64 x 64": train.rows}
    assert train.modes == {"L": train.rows}


def test_shared_patients_identical_files_and_conflicting_labels_are_errors(data: Path) -> None:
    row = first_row(data / "train.csv")
    append(data / "valid.csv", ",".join(row))
    flipped = list(row)
    flipped[13] = "0.0" if row[13] == "1.0" else "1.0"
    append(data / "train.csv", ",".join(flipped))
    source = data / row[0].partition("/")[2]
    target = data / first_row(data / "test.csv")[0].partition("/")[2]
    shutil.copy(source, target)
    errors = "\n".join(check_data(Dataset(DataSettings(root=data)), full=True).errors)
    assert "1 patient is in train and in valid (patient00001)" in errors
    assert "two different labels" in errors
    assert "same bytes in train and test" in errors


def test_a_repeated_path_is_an_error(data: Path) -> None:
    append(data / "test.csv", ",".join(first_row(data / "test.csv")))
    assert "paths occur twice" in check_data(Dataset(DataSettings(root=data))).errors[0]


def test_missing_and_unreadable_images_are_named(data: Path) -> None:
    images = sorted((data / "train").rglob("*.jpg"))
    images[0].unlink()
    images[1].write_bytes(images[1].read_bytes()[:-100])
    images[2].write_text("no image")
    report = check_data(Dataset(DataSettings(root=data)), full=True)
    train = report.splits["train"]
    assert train.missing == 1
    assert str(images[0].relative_to(data)) in train.missing_examples[0]
    assert len(train.unreadable) == 2
    assert all(str(image.relative_to(data)) in "\n".join(train.unreadable) for image in images[1:3])
    assert any("2 images cannot be read" in text and "--skip-unreadable" in text for text in report.errors)
    assert any("1 of " in text and "no usable image" in text for text in report.errors)
    bearable = DataSettings(root=data, max_missing=0.2, skip_unreadable=True)
    report = check_data(Dataset(bearable), full=True)
    assert report.errors == ()
    assert any("2 images cannot be read" in text for text in report.warnings)
    assert any("1 of " in text and "no usable image" in text for text in report.warnings)


def test_a_finding_that_is_always_blank_gives_a_warning(data: Path) -> None:
    lines = [line.split(",") for line in (data / "valid.csv").read_text().splitlines()]
    for line in lines[1:]:
        line[lines[0].index("Edema")] = ""
    (data / "valid.csv").write_text("\n".join(map(",".join, lines)) + "\n")
    assert "valid.csv: Edema is blank in every row" in check_data(Dataset(DataSettings(root=data))).warnings


def test_studies_whose_images_have_different_labels_give_a_warning(tmp_path: Path) -> None:
    labels = {
        "1": ("1,0,-1,,1", "1.0,0.0,-1.0,,1.0"),
        "2": ("1,0,-1,,1", "1,0,-1,0,1"),  # blank is not 0
        "3": ("1,0,-1,,1", "1,0,1,,1"),
        "4": ("1,0,-1,,1", "1,0,-1,,0"),
    }
    rows = [
        f"train/patient{name}/study1/view{view}.jpg,,,Frontal,,{cells}"
        for name, pair in labels.items()
        for view, cells in enumerate(pair)
    ]
    warnings = check_data(Dataset(DataSettings(root=sheet(tmp_path, "\n".join([HEADER, *rows]))))).warnings
    different = "patient2/study1, patient3/study1, patient4/study1"
    assert f"train.csv: 3 studies have images with different labels ({different})" in warnings


def test_the_real_sample(nih: Path) -> None:
    report = check_data(Dataset(DataSettings(root=nih)), full=True)
    assert report.errors == ()
    assert [report.splits[split].rows for split in ("train", "valid", "test")] == [259, 85, 83]
    assert report.splits["train"].labels["Atelectasis"].positive == 45
    assert all(not split.unreadable and not split.missing for split in report.splits.values())


def test_images_smaller_than_the_models_input_give_a_warning(phantoms: Path) -> None:
    dataset = Dataset(DataSettings(root=phantoms))
    (warning,) = [text for text in check_data(dataset, image_size=96).warnings if text.startswith("valid.csv")]
    assert "images read are smaller than 96 x 96 (the smallest 64 x 64)" in warning
    assert not [text for text in check_data(dataset, image_size=64).warnings if "smaller than" in text]
