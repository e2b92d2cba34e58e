import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bad_inputs import BAD_SHEETS, HEADER, ROW, sheet
from cxrtool.choices import Views
from cxrtool.data.manifest import load_manifest
from cxrtool.errors import RequestError, SheetError
from cxrtool.findings import FINDINGS, Findings


def test_a_row_of_chexpert_is_read(tmp_path: Path) -> None:
    lateral = "CheXpert-v1.0-small/train/patient00042/study1/view2_lateral.jpg,Male,60,Lateral,,,,,,"
    manifest = load_manifest(sheet(tmp_path, f"{HEADER}\n{ROW}\n{lateral}\n"), "train", Views.ALL)
    assert manifest.paths.tolist() == [ROW.split(",")[0], "train/patient00042/study1/view2_lateral.jpg"]
    assert manifest.patients.tolist() == ["patient00042"] * 2
    assert manifest.studies.tolist() == ["patient00042/study1"] * 2
    assert manifest.views.tolist() == ["frontal", "lateral"]
    assert manifest.projections.tolist() == ["AP", ""]
    assert manifest.ages.tolist() == [60, 60]
    np.testing.assert_array_equal(manifest.raw_labels[0], [1, 0, -1, np.nan, 1])
    assert np.isnan(manifest.raw_labels[1]).all()
    assert manifest.lines.tolist() == [2, 3]
    assert len(load_manifest(tmp_path, "train")) == 1


def test_columns_are_found_by_name_and_a_missing_view_is_taken_from_the_file_name(tmp_path: Path) -> None:
    text = "Edema,Path," + ",".join(f for f in FINDINGS if f != "Edema") + "\n"
    text += "1,test/patient1/study1/view1_frontal.jpg,0,0,0,0\n,test/patient1/study1/view2_lateral.jpg,0,0,0,0\n"
    manifest = load_manifest(sheet(tmp_path, text, "test_labels.csv"), "test", Views.ALL)
    assert manifest.sheet.name == "test_labels.csv"
    assert manifest.views.tolist() == ["frontal", "lateral"]
    assert manifest.raw_labels[0, FINDINGS.index("Edema")] == 1


def test_a_prefix_is_stripped_only_if_it_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    rows = [f"{first}/train/patient1/study1/view1_frontal.jpg,M,1,Frontal,AP,0,0,0,0,0" for first in ("here", "gone")]
    manifest = load_manifest(sheet(tmp_path, "\n".join([HEADER, *rows])), "train")
    assert [path.split("/")[0] for path in manifest.paths] == ["here", "train"]


@given(st.lists(st.sampled_from(["1", "1.0", "0", "0.0", "-1", "-1.0", "", " 1.0 "]), min_size=5, max_size=5))
def test_every_spelling_of_a_label_is_read(tmp_path_factory: pytest.TempPathFactory, cells: list[str]) -> None:
    folder = sheet(tmp_path_factory.mktemp("d"), f"{HEADER}\npatient1/study1/b.jpg,,,Frontal,,{','.join(cells)}\n")
    expected = [float(cell) if cell.strip() else np.nan for cell in cells]
    np.testing.assert_array_equal(load_manifest(folder, "train").raw_labels[0], expected)


@pytest.mark.parametrize("case", BAD_SHEETS)
def test_a_bad_sheet_is_refused_by_name_and_line(tmp_path: Path, case: str) -> None:
    content, words = BAD_SHEETS[case]
    with pytest.raises(SheetError) as caught:
        load_manifest(sheet(tmp_path, content), "train")
    text = f"{caught.value.message} {caught.value.advice}"
    assert "\n" not in text
    for word in ["train.csv", *words]:
        assert word in text


def test_byte_order_marks_blank_lines_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf" + f"{HEADER}\r\n\r\n{ROW}\r\n".encode()
    manifest = load_manifest(sheet(tmp_path, text), "train")
    assert manifest.lines.tolist() == [3]


def test_a_path_named_na_and_a_number_with_zeros_stay_text(tmp_path: Path) -> None:
    rows = [f"{path},,,Frontal,,0,0,0,0,0,{path},null" for path in ("NA", "00042", "null")]
    manifest = load_manifest(sheet(tmp_path, "\n".join([f"{HEADER},patient_id,study_id", *rows])), "train")
    assert manifest.paths.tolist() == manifest.patients.tolist() == ["NA", "00042", "null"]
    assert manifest.studies.tolist() == ["NA/null", "00042/null", "null/null"]


def test_the_error_for_a_missing_sheet_names_the_existing_ones(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        load_manifest(tmp_path / "gone", "train")
    with pytest.raises(SheetError, match="contains no label sheet"):
        load_manifest(tmp_path, "train")
    sheet(tmp_path, f"{HEADER}\n{ROW}\n")
    with pytest.raises(SheetError) as caught:
        load_manifest(tmp_path, "test")
    assert "test.csv or test_labels.csv" in caught.value.message
    assert "train" in caught.value.advice


def test_a_finding_is_read_from_a_column_under_another_known_name(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("Path,Effusion,Pleural_Thickening,My Finding\np1/s1/a.jpg,1,0,-1\n".replace(
        "p1/s1", "patient1/study1"))  # fmt: skip
    findings = Findings(("Pleural Thickening", "Pleural Effusion", "My Finding"))
    manifest = load_manifest(tmp_path, "train", findings=findings)
    assert manifest.raw_labels.tolist() == [[0, 1, -1]]
    assert manifest.findings == findings


def test_a_finding_without_a_column_is_refused_or_left_out_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("Path,Edema,Fracture\npatient1/study1/a.jpg,1,0\n")
    with pytest.raises(SheetError, match="no column 'Atelectasis'") as caught:
        load_manifest(tmp_path, "train")
    assert "Path, Edema, Fracture" in caught.value.advice
    manifest = load_manifest(tmp_path, "train", partial=True)
    assert manifest.findings.names == ("Edema",)
    assert manifest.raw_labels.tolist() == [[1]]
    (note,) = [text for text in manifest.notes if "no labels" in text]
    assert "Atelectasis, Cardiomegaly, Consolidation, Pleural Effusion" in note
    with pytest.raises(SheetError, match="no column for any of Hernia"):
        load_manifest(tmp_path, "train", findings=Findings(("Hernia",)), partial=True)


def test_select_accepts_a_mask_or_row_numbers(phantoms: Path) -> None:
    manifest = load_manifest(phantoms, "train")
    assert manifest.select(np.array([2, 0])).paths.tolist() == [manifest.paths[2], manifest.paths[0]]
    assert len(manifest.select(np.zeros(len(manifest), dtype=bool))) == 0


def test_the_real_train_sheet(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    source = os.environ.get("CXR_TEST_CHEXPERT_TRAIN_CSV")
    if not source:
        pytest.skip("set CXR_TEST_CHEXPERT_TRAIN_CSV to CheXpert's train.csv")
    os.symlink(source, tmp_path / "train.csv")
    began = time.perf_counter()
    manifest = load_manifest(tmp_path, "train", Views.ALL)
    record_property("seconds", time.perf_counter() - began)
    assert len(manifest) == 223_414
    assert (manifest.views == "frontal").sum() == 191_027
    counts = [[int((manifest.raw_labels[:, i] == v).sum()) for v in (1, 0, -1)] for i in range(5)]
    assert counts == [
        [33_376, 1_328, 33_739],
        [27_000, 11_116, 8_087],
        [14_783, 28_097, 27_742],
        [52_246, 20_726, 12_984],
        [86_187, 35_396, 11_628],
    ]
