"""Public data sets: small sheets with their true headers, and labels, splits, patients and views counted by hand."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.choices import LayoutName
from cxrtool.data.dataset import Dataset
from cxrtool.data.layouts.registry import LAYOUTS, layout_of
from cxrtool.data.layouts.vindr import vote
from cxrtool.data.manifest import Manifest
from cxrtool.errors import CxrError, RequestError, SheetError
from cxrtool.settings import DataSettings

NAN = np.nan
FOURTEEN = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
CHEXPERT = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{FOURTEEN}"


def write(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def image(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


def rows(root: Path, split: str, findings: str = "Edema", splits: tuple[str, ...] = (), **settings: object) -> Manifest:
    data = DataSettings(root=root, findings=findings, **settings)  # type: ignore[arg-type]
    return Dataset(data, splits or (split,)).manifest(split)


def test_every_name_has_a_layout() -> None:
    assert set(LAYOUTS) == set(LayoutName) - {LayoutName.AUTO}


def test_chexpert_in_four_folders(tmp_path: Path) -> None:
    first = "CheXpert-v1.0 batch 1 (validate & csv)"
    cells = "Female,68,Frontal,AP,1.0,,,,,-1.0,,,,,,,,"
    for split, patients in (("train", (1, 21514, 43018)), ("valid", (64541,))):
        paths = [f"CheXpert-v1.0/{split}/patient{number:05}/study1/view1_frontal.jpg" for number in patients]
        write(tmp_path, f"{first}/{split}.csv", CHEXPERT, *(f"{path},{cells}" for path in paths))
    for batch, number in (("2 (train 1)", 1), ("3 (train 2)", 21514), ("4 (train 3)", 43018)):
        image(tmp_path, f"CheXpert-v1.0 batch {batch}/patient{number:05}/study1/view1_frontal.jpg")
    image(tmp_path, f"{first}/valid/patient64541/study1/view1_frontal.jpg")
    assert layout_of(tmp_path) is LayoutName.CHEXPERT_BATCHES
    dataset = Dataset(DataSettings(root=tmp_path, findings="Edema"))
    assert dataset.available == ("train", "valid")
    train = dataset.usable("train")
    assert train.paths.tolist() == [
        "CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg",
        "CheXpert-v1.0 batch 3 (train 2)/patient21514/study1/view1_frontal.jpg",
        "CheXpert-v1.0 batch 4 (train 3)/patient43018/study1/view1_frontal.jpg",
    ]
    assert train.patients.tolist() == ["patient00001", "patient21514", "patient43018"]
    assert train.raw_labels.tolist() == [[-1], [-1], [-1]]
    assert dataset.usable("valid").paths.tolist() == [f"{first}/valid/patient64541/study1/view1_frontal.jpg"]
    assert dataset.shared_patients() == []


def test_chexpert_plus(tmp_path: Path) -> None:
    header = (
        "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,report,"
        "section_narrative,section_clinical_history,section_history,section_comparison,section_technique,"
        "section_procedure_comments,section_findings,section_impression,section_end_of_impression,section_summary,"
        "section_accession_number,age,sex,race,ethnicity,interpreter_needed,insurance_type,recent_bmi,deceased,split"
    )
    names = [
        "train/patient1/study1/view1_frontal",
        "train/patient1/study1/view2_lateral",
        "valid/patient2/study3/view1_frontal",
    ]
    facts = [
        ("Frontal", "AP", "patient1", "train"),
        ("Lateral", "", "patient1", "train"),
        ("Frontal", "PA", "patient2", "valid"),
    ]
    lines = [
        f'{name}.jpg,{name}.dcm,{view},{ap},{patient},1,"a report,\nof two lines"{"," * 11}A1,57,Male,,,,,,,{split}'
        for name, (view, ap, patient, split) in zip(names, facts, strict=True)
    ]
    write(tmp_path, "df_chexpert_plus_240401.csv", header, *lines)
    labels = [
        {"path_to_image": f"{name}.jpg", "Edema": value} for name, value in zip(names, (1.0, None, -1.0), strict=True)
    ]
    write(tmp_path, "chexbert_labels/impression_fixed.json", *(json.dumps(one) for one in labels))
    image(tmp_path, f"PNG/{names[0]}.png")
    train, valid = rows(tmp_path, "train"), rows(tmp_path, "valid")
    assert layout_of(tmp_path) is LayoutName.CHEXPERT_PLUS
    assert train.paths.tolist() == [f"PNG/{name}.png" for name in names[:2]]
    assert train.views.tolist() == ["frontal", "lateral"]
    assert train.ages.tolist() == [57, 57]
    assert train.studies.tolist() == ["patient1/study1"] * 2
    np.testing.assert_array_equal(train.raw_labels, [[1], [NAN]])
    assert valid.raw_labels.tolist() == [[-1]]
    assert valid.projections.tolist() == ["PA"]
    assert valid.notes == ()


MIMIC_LABELS = (
    "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,"
    "Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)


def mimic(folder: Path) -> None:
    write(
        folder,
        "mimic-cxr-2.0.0-split.csv.gz",
        "dicom_id,study_id,subject_id,split",
        "aa-1,50414267,10000032,train",
        "bb-2,50414267,10000032,train",
        "cc-3,53189527,10000764,validate",
        "dd-4,57375967,10000898,test",
        "ee-5,50771383,10000935,test",
    )
    write(
        folder,
        "mimic-cxr-2.0.0-metadata.csv.gz",
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
        "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning",
        *(
            f'{image},1,1,"CHEST (PA AND LAT)",{view},3056,2544,21800506,213014.531,"CHEST (PA AND LAT)",,Erect'
            for image, view in (("bb-2", "LATERAL"), ("aa-1", "PA"), ("cc-3", "AP"), ("dd-4", "LL"), ("ee-5", ""))
        ),
    )
    for labeller, first in (("chexpert", "1.0"), ("negbio", "0.0")):
        write(
            folder,
            f"mimic-cxr-2.0.0-{labeller}.csv.gz",
            MIMIC_LABELS,
            f"10000032,50414267,,,,{first},,,,,,,,,,",
            "10000764,53189527,,,,-1.0,,,,,,,,,,",
            "10000898,57375967,,,,,,,,,1.0,,,,,",
        )


def test_mimic(tmp_path: Path) -> None:
    mimic(tmp_path)
    assert layout_of(tmp_path) is LayoutName.MIMIC
    assert Dataset(DataSettings(root=tmp_path)).available == ("train", "valid", "test")
    train = rows(tmp_path, "train")
    assert train.paths.tolist() == [f"files/p10/p10000032/s50414267/{one}.jpg" for one in ("aa-1", "bb-2")]
    assert train.views.tolist() == ["frontal", "lateral"]
    assert train.patients.tolist() == ["10000032"] * 2
    assert len(set(train.studies)) == 1
    assert train.raw_labels.tolist() == [[1], [1]]
    assert rows(tmp_path, "train", layout="mimic-negbio").raw_labels.tolist() == [[0], [0]]
    assert rows(tmp_path, "valid").raw_labels.tolist() == [[-1]]


def test_an_image_of_mimic_without_labels_is_left_out_and_counted(tmp_path: Path) -> None:
    mimic(tmp_path)
    test = rows(tmp_path, "test", "Edema,No Finding")
    assert test.paths.tolist() == ["files/p10/p10000898/s57375967/dd-4.jpg"]
    np.testing.assert_array_equal(test.raw_labels, [[NAN, 1]])
    assert any("1 of 2 images" in note and "have no label" in note for note in test.notes)


NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def nih(folder: Path) -> None:
    write(
        folder,
        "Data_Entry_2017_v2020.csv",
        NIH_HEADER,
        "00000001_000.png,Cardiomegaly,0,1,57,M,PA,2682,2749,0.143,0.143",
        "00000001_001.png,Cardiomegaly|Effusion,1,1,58,M,AP,2894,2729,0.143,0.143",
        "00000002_000.png,No Finding,0,2,80,F,PA,2500,2048,0.171,0.171",
        "00000003_000.png,Pleural_Thickening|Hernia,0,3,74,F,PA,2500,2048,0.168,0.168",
    )


def test_nih(tmp_path: Path) -> None:
    nih(tmp_path)
    write(tmp_path, "train_val_list.txt", "00000001_000.png", "00000001_001.png")
    write(tmp_path, "test_list.txt", "00000002_000.png", "00000003_000.png")
    image(tmp_path, "images_001/images/00000001_000.png")
    image(tmp_path, "images_002/images/00000001_001.png")
    findings = "Cardiomegaly,Pleural Effusion,Pleural Thickening,Hernia,No Finding"
    train, test = (rows(tmp_path, split, findings) for split in ("train", "test"))
    assert train.paths.tolist() == ["images_001/images/00000001_000.png", "images_002/images/00000001_001.png"]
    assert train.patients.tolist() == ["1", "1"]
    assert len(set(train.studies)) == 2
    assert train.projections.tolist() == ["PA", "AP"]
    assert train.ages.tolist() == [57, 58]
    assert train.raw_labels.tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]
    assert test.raw_labels.tolist() == [[0, 0, 0, 0, 1], [0, 0, 1, 1, 0]]
    assert test.sexes.tolist() == ["F", "F"]
    with pytest.raises(SheetError, match="has no list of valid") as caught:
        rows(tmp_path, "valid")
    assert "cxr split" in caught.value.advice


def test_nih_has_no_labels_of_other_findings(tmp_path: Path) -> None:
    nih(tmp_path)
    with pytest.raises(SheetError, match="no labels of Lung Opacity"):
        rows(tmp_path, "test", "Edema,Lung Opacity")


def test_nih_without_its_lists_is_one_split_or_none(tmp_path: Path) -> None:
    nih(tmp_path)
    assert len(rows(tmp_path, "test", "Cardiomegaly")) == 4
    with pytest.raises(RequestError, match="not divided into splits, and this command needs train and valid"):
        _ = Dataset(DataSettings(root=tmp_path), ("train", "valid")).available


PADCHEST_HEADER = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
    "MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,"
    "PixelRepresentation_DICOM,PixelAspectRatio_DICOM,SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,"
    "WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,"
    "RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,LabelsLocalizationsBySentence,"
    "labelCUIS,LocalizationsCUIS"
)


def test_padchest(tmp_path: Path) -> None:
    given = [
        ("PA", "1930.0", "F", "['normal']"),
        ("L", "1929.0", "M", "['pulmonary edema', ' loculated pleural effusion']"),
        ("AP_horizontal", "None", "M", "['laminar atelectasis', '']"),
        ("COSTAL", "1929.0", "M", "['kyphosis']"),
        ("PA", "1929.0", "M", "nan"),
        ("PA", "1929.0", "M", "['']"),
    ]
    lines = [
        f'{n},{n}.png,{n % 2},20140915,s{n},p{n // 2},{born},{sex},x,{view},m,No{"," * 18}r,Physician,"{labels}",,,,'
        for n, (view, born, sex, labels) in enumerate(given)
    ]
    write(tmp_path, "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz", PADCHEST_HEADER, *lines)
    image(tmp_path, "0/0.png")
    found = rows(tmp_path, "test", "No Finding,Edema,Pleural Effusion,Atelectasis")
    assert layout_of(tmp_path) is LayoutName.PADCHEST
    assert found.paths.tolist() == ["0/0.png", "1/1.png", "0/2.png", "1/3.png"]
    assert found.views.tolist() == ["frontal", "lateral", "frontal", "unknown"]
    assert found.patients.tolist() == ["p0", "p0", "p1", "p1"]
    np.testing.assert_array_equal(found.ages, np.array([84, 85, NAN, 85], dtype=np.float32))
    assert found.raw_labels.tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert any("2 images without any label" in note for note in found.notes)


def test_vindrs_votes_by_box(tmp_path: Path) -> None:
    write(
        tmp_path,
        "train.csv",
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
        "a,Cardiomegaly,3,R1,1,2,3,4",
        "b,No finding,14,R1,,,,",
        "a,Cardiomegaly,3,R2,1,2,3,4",
        "a,No finding,14,R3,,,,",
        "b,Cardiomegaly,3,R2,1,2,3,4",
        "b,Cardiomegaly,3,R2,5,6,7,8",
        "b,Pulmonary fibrosis,13,R3,5,6,7,8",
        "c,No finding,14,R1,,,,",
        "c,No finding,14,R2,,,,",
        "c,No finding,14,R3,,,,",
    )
    image(tmp_path, "train/b.dicom")
    assert layout_of(tmp_path) is LayoutName.VINDR
    found = rows(tmp_path, "train", "Cardiomegaly,Fibrosis,No Finding")
    assert found.paths.tolist() == ["train/a", "train/b.dicom", "train/c"]
    # a: two of three readers, b: one reader with two boxes, c: none.
    assert found.raw_labels.tolist() == [[1, 0, -1], [-1, -1, -1], [0, 0, 1]]
    assert found.projections.tolist() == ["PA"] * 3
    assert len(set(found.patients)) == 3
    assert found.lines.tolist() == [2, 3, 9]


VINDR_NAMES = (
    "Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Clavicle fracture,Consolidation,Edema,Emphysema,"
    "Enlarged PA,ILD,Infiltration,Lung Opacity,Lung cavity,Lung cyst,Mediastinal shift,Nodule/Mass,Pleural effusion,"
    "Pleural thickening,Pneumothorax,Pulmonary fibrosis,Rib fracture,Other lesion,COPD,Lung tumor,Pneumonia,"
    "Tuberculosis,Other diseases,No finding"
)


def test_vindrs_votes_by_reader(tmp_path: Path) -> None:
    def cells(effusion: object) -> str:
        return f"{'0,' * 16}{effusion}{',0' * 11}"

    votes = [("a", "R1", 1), ("b", "R8", 0), ("a", "R2", 0), ("a", "R3", 1), ("b", "R9", 1), ("b", "R10", 0)]
    train = [f"{one},{reader},{cells(vote)}" for one, reader, vote in votes]
    write(tmp_path, "annotations/image_labels_train.csv", f"image_id,rad_id,{VINDR_NAMES}", *train)
    write(tmp_path, "annotations/image_labels_test.csv", f"image_id,{VINDR_NAMES}", f"t,{cells(1)}", f"u,{cells(0)}")
    assert Dataset(DataSettings(root=tmp_path)).available == ("train", "test")
    assert rows(tmp_path, "train", "Pleural Effusion").raw_labels.tolist() == [[1], [-1]]
    test = rows(tmp_path, "test", "Pleural Effusion")
    assert test.raw_labels.tolist() == [[1], [0]]
    assert test.paths.tolist() == ["test/t", "test/u"]
    write(tmp_path, "annotations/image_labels_test.csv", f"image_id,{VINDR_NAMES}", f"t,{cells(1)}", f"u,{cells(2)}")
    with pytest.raises(SheetError, match=r"line 3: Pleural Effusion is '2'"):
        rows(tmp_path, "test", "Pleural Effusion")


@given(st.integers(1, 9).flatmap(lambda readers: st.tuples(st.integers(0, readers), st.just(readers))))
def test_a_vote_is_a_majority_none_or_uncertain(votes: tuple[int, int]) -> None:
    positive, readers = votes
    expected = 1 if positive > readers - positive else 0 if positive == 0 else -1
    assert vote(np.array([positive]), np.array([readers])).tolist() == [expected]


def test_official_test_labels(tmp_path: Path) -> None:
    header = f"Path,{FOURTEEN}"
    write(
        tmp_path, "test_labels.csv", header, f"test/patient64741/study1/view1_frontal.jpg,{'0.0,' * 5}1.0{',0.0' * 8}"
    )
    assert rows(tmp_path, "test").raw_labels.tolist() == [[1]]
    studies = write(
        tmp_path,
        "groundtruth.csv",
        f"Study,{FOURTEEN}",
        f"CheXpert-v1.0/test/patient64741/study1,{'0.0,' * 14}".rstrip(","),
    )
    assert rows(tmp_path, "test", labels=str(studies)).raw_labels.tolist() == [[0]]
    with pytest.raises(SheetError, match="no column of paths") as caught:
        rows(tmp_path, "test", sheet=str(studies))
    assert "--labels" in caught.value.advice


def test_visualchexberts_labels_replace_those_of_the_sheet(tmp_path: Path) -> None:
    def row(start: str, patient: int, edema: str) -> str:
        return f"{start}/train/patient{patient:05}/study1/view1_frontal.jpg,Male,40,Frontal,AP,,,,,,{edema},,,,,,,,"

    write(tmp_path, "train.csv", CHEXPERT, *(row("CheXpert-v1.0-small", one, "-1.0") for one in (1, 2, 3)))
    labels = [row("CheXpert-v1.0", 2, "1.0"), row("CheXpert-v1.0", 1, "0.0"), row("CheXpert-v1.0", 9, "1.0")]
    path = write(tmp_path, "train_visualCheXbert.csv", CHEXPERT, *labels)
    found = rows(tmp_path, "train", labels=f"train={path}")
    assert found.patients.tolist() == ["patient00001", "patient00002"]
    assert found.raw_labels.tolist() == [[0], [1]]
    assert any("1 of 3 images" in note for note in found.notes)
    assert any("1 of 3 labels belong to no image" in note for note in found.notes)
    assert found.sheet_sha256 != rows(tmp_path, "train").sheet_sha256
    assert rows(tmp_path, "train", labels=f"valid={path}").raw_labels.tolist() == [[-1]] * 3


def test_what_chexberts_program_writes_needs_a_column_of_paths(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", CHEXPERT, f"train/patient1/study1/view1_frontal.jpg,Male,40,Frontal,AP{',' * 14}")
    conditions = ",".join([*FOURTEEN.split(",")[1:], "No Finding"])
    path = write(tmp_path, "labeled_reports.csv", f"Report Impression,{conditions}", f"no edema{',' * 14}")
    with pytest.raises(SheetError, match="no column of paths or studies") as caught:
        rows(tmp_path, "train", labels=str(path))
    assert "Report Impression" in caught.value.advice


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("a.jpg,1", "a.jpg,0"), "lines 2 and 3 give a.jpg different labels"),
        (("a.jpg,2",), "line 2: Edema is '2'"),
        (("other.jpg,1",), "has no label for any image"),
    ],
)
def test_labels_that_cannot_be_joined_are_refused(tmp_path: Path, lines: tuple[str, ...], words: str) -> None:
    write(tmp_path, "train.csv", "Path,patient_id,study_id", "a.jpg,1,1")
    path = write(tmp_path, "labels.csv", "Path,Edema", *lines)
    with pytest.raises(CxrError, match=words):
        rows(tmp_path, "train", labels=str(path))
