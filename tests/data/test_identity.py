"""Patients, studies, views and ages come from columns or from the text of paths, never from what is on the disk."""

from pathlib import Path

import numpy as np
import pytest

from bad_inputs import HEADER, sheet
from cxrtool.choices import Views
from cxrtool.data.dataset import Dataset
from cxrtool.data.manifest import Manifest, load_manifest
from cxrtool.errors import RequestError, SheetError
from cxrtool.settings import DataSettings

LABELS = "Atelectasis,Cardiomegaly,Consolidation,Edema,Pleural Effusion"


def manifest_of(folder: Path, header: str, *rows: str) -> Manifest:
    text = "\n".join([f"Path,{LABELS},{header}".rstrip(","), *rows])
    return load_manifest(sheet(folder, text), "train", Views.ALL)


def row(path: str, *cells: str) -> str:
    return ",".join([path, "0,0,0,0,0", *cells])


@pytest.mark.parametrize(
    ("path", "patient", "study"),
    [
        ("CheXpert-v1.0-small/train/patient00042/study3/view1_frontal.jpg", "patient00042", "patient00042/study3"),
        ("files/p10/p10000032/s50414267/02aa804e.jpg", "p10000032", "p10000032/s50414267"),
        ("p10000032/s50414267/x.dcm", "p10000032", "p10000032/s50414267"),
        ("images_001/images/00000013_005.png", "00000013", "00000013_005"),
        ("00000013_005.png", "00000013", "00000013_005"),
        ("train\\patient00042\\study3\\view1_frontal.jpg", "patient00042", "patient00042/study3"),
    ],
)
def test_known_paths_name_patient_and_study(tmp_path: Path, path: str, patient: str, study: str) -> None:
    found = manifest_of(tmp_path, "", row(path), row("a/patient1/study1/b.jpg"), row(path))
    assert found.patients.tolist() == [patient, "patient1", patient]
    assert found.studies.tolist() == [study, "patient1/study1", study]
    assert found.patients_from == "path"


@pytest.mark.parametrize(
    "path", ["a.jpg", "folder/a.jpg", "patients/study1/a.jpg", "p1/s1/a.jpg", "123_000.png", "patient1/a.jpg"]
)
def test_a_path_of_another_form_is_refused_and_not_guessed(tmp_path: Path, path: str) -> None:
    with pytest.raises(SheetError, match=r"line 3.*names the patient and the study") as caught:
        manifest_of(tmp_path, "", row("patient1/study1/a.jpg"), row(path))
    assert "columns patient_id and study_id" in caught.value.advice


def test_a_missing_patient_folder_does_not_change_who_the_patient_is(tmp_path: Path) -> None:
    """Otherwise the study alone would be left of the path, and be taken for a patient in two splits."""
    for split, numbers in (("train", (1, 2)), ("valid", (3, 4))):
        rows = [row(f"patient{number}/study1/view1_frontal.jpg") for number in numbers]
        sheet(tmp_path, "\n".join([f"Path,{LABELS}", *rows]), f"{split}.csv")
    for number in (2, 4):
        (tmp_path / f"patient{number}" / "study1").mkdir(parents=True)
        (tmp_path / f"patient{number}" / "study1" / "view1_frontal.jpg").write_bytes(b"x")
    dataset = Dataset(DataSettings(root=tmp_path, max_missing=0.5))
    assert dataset.shared_patients() == []
    assert dataset.manifest("train").patients.tolist() == ["patient1", "patient2"]
    assert dataset.manifest("train").paths[0] == "patient1/study1/view1_frontal.jpg"
    assert dataset.usable("train").patients.tolist() == ["patient2"]


@pytest.mark.parametrize("patient", ["patient_id", "Patient ID", "PatientID", "subject_id", "SUBJECT-ID"])
@pytest.mark.parametrize("study", ["study_id", "StudyInstanceUID", "Study ID"])
def test_columns_name_patient_and_study_before_the_path(tmp_path: Path, patient: str, study: str) -> None:
    found = manifest_of(
        tmp_path,
        f"{patient},{study}",
        row("patient1/study1/a.jpg", "7", "1"),
        row("flat.jpg", "7.0", "2"),
        row("c.jpg", "8", "1"),
    )
    assert found.patients.tolist() == ["7", "7", "8"]
    assert found.studies.tolist() == ["7/1", "7/2", "8/1"]
    assert found.patients_from == "column"


def test_one_column_and_the_path_together_name_both(tmp_path: Path) -> None:
    by_path = manifest_of(tmp_path, "subject_id", row("p10000032/s50000001/a.jpg", "9"))
    assert (by_path.patients[0], by_path.studies[0]) == ("9", "p10000032/s50000001")
    by_column = manifest_of(tmp_path, "study_id", row("p10000032/s50000001/a.jpg", "77"))
    assert (by_column.patients[0], by_column.studies[0]) == ("p10000032", "p10000032/77")
    with pytest.raises(SheetError, match="names the study"):
        manifest_of(tmp_path, "subject_id", row("a.jpg", "9"))


def test_splits_that_name_patients_differently_are_not_compared(tmp_path: Path) -> None:
    sheet(tmp_path, f"Path,{LABELS},patient_id\n{row('patient1/study1/a.jpg', '1')}", "train.csv")
    sheet(tmp_path, f"Path,{LABELS}\n{row('patient1/study1/a.jpg')}", "valid.csv")
    with pytest.raises(RequestError, match="train by column, valid by path"):
        Dataset(DataSettings(root=tmp_path)).refuse_shared_patients()


VIEWS = {
    "Frontal": "frontal",
    "AP": "frontal",
    "pa": "frontal",
    "AP_supine": "frontal",
    "LL": "lateral",
    "LATERAL": "lateral",
    "left lateral": "lateral",
    "LPO": "unknown",
    "AP LLD": "unknown",
    "": "unknown",
}


@pytest.mark.parametrize("column", ["Frontal/Lateral", "ViewPosition", "View Position", "view"])
def test_views_are_read_or_counted(tmp_path: Path, column: str) -> None:
    rows = [row(f"patient{number}/study1/a.jpg", view) for number, view in enumerate(VIEWS)]
    found = manifest_of(tmp_path, column, *rows)
    assert found.views.tolist() == list(VIEWS.values())
    (note,) = found.notes
    assert "3 of 10 rows have a view that is blank or cannot be read ('AP LLD', 'LPO')" in note
    usable = Dataset(DataSettings(root=tmp_path, max_missing=1)).manifest("train")
    assert usable.select(usable.views == "frontal").patients.tolist() == [f"patient{n}" for n in range(4)]


def test_a_blank_view_is_taken_from_the_projection_or_from_the_name(tmp_path: Path) -> None:
    rows = [
        row("patient1/study1/a.jpg", "Frontal", "LL"),  # as in CheXpert's own sheet
        row("patient2/study1/a.jpg", "", "PA"),
        row("patient3/study1/a.jpg", "", "LL"),
        row("patient4/study1/view2_lateral.jpg", "", ""),
        row("patient5/study1/view1_frontal.jpg", "", ""),
    ]
    found = manifest_of(tmp_path, "Frontal/Lateral,AP/PA", *rows)
    assert found.views.tolist() == ["frontal", "frontal", "lateral", "lateral", "frontal"]
    assert found.notes == ()


def test_a_sheet_without_any_view_is_taken_as_frontal_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = manifest_of(tmp_path, "", row("00000001_000.png"), row("00000002_lateral/patient2/study1/lateral.png"))
    assert found.views.tolist() == ["frontal", "lateral"]
    assert "1 of 2 rows state no view and are taken as frontal" in found.notes[0]
    (tmp_path / "00000001_000.png").write_bytes(b"x")
    assert len(Dataset(DataSettings(root=tmp_path)).usable("train")) == 1
    assert "state no view" in caplog.text


def test_ages_are_read_in_every_form_or_counted(tmp_path: Path) -> None:
    ages = {"57": 57, "57.0": 57, "056Y": 56, "006M": 0.5, ">89": 90, "90+": 90, "0": 0, "": np.nan}
    wrong = ["old", "411", "-3", "nan"]
    rows = [row(f"patient{number}/study1/frontal.jpg", age) for number, age in enumerate([*ages, *wrong])]
    for column in ("Age", "Patient Age", "age"):
        found = manifest_of(tmp_path, column, *rows)
        np.testing.assert_allclose(found.ages[: len(ages)], list(ages.values()))
        assert np.isnan(found.ages[len(ages) :]).all()
        assert "4 ages cannot be read ('old', '411', '-3')" in found.notes[0]


def test_an_image_with_different_labels_is_refused_and_an_equal_row_is_used_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "patient1" / "study1").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "patient1" / "study1" / name).write_bytes(b"x")
    cells = ",Male,60,Frontal,AP,0,0,0,0,0"
    equal = [f"patient1/study1/{name}.jpg{cells}" for name in ("a", "b", "./a")]
    root = sheet(tmp_path, "\n".join([HEADER, *equal]))
    assert Dataset(DataSettings(root=root)).usable("train").lines.tolist() == [2, 3]
    assert "1 paths occur twice: patient1/study1/a.jpg (lines 2 and 4)" in caplog.text
    sheet(tmp_path, "\n".join([HEADER, *equal[:2], f"patient1/study1/a.jpg{cells[:-1]}1"]))
    with pytest.raises(SheetError, match=r"two different labels.*a\.jpg \(lines 2 and 4\)"):
        Dataset(DataSettings(root=root)).usable("train")
