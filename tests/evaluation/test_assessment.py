from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cxrtool.choices import Criterion, Level, MistakeKind
from cxrtool.errors import RequestError
from cxrtool.evaluation.assessment import AssessmentSettings, assess
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.evaluation.metrics import auroc
from cxrtool.evaluation.mistakes import find_mistakes
from cxrtool.evaluation.subgroups import age_band, subgroup_figures
from cxrtool.evaluation.table import read_predictions, to_study_level, write_predictions
from cxrtool.evaluation.thresholds import ThresholdOrigin, threshold_grid
from cxrtool.findings import FINDINGS
from tests_support import random_table

SETTINGS = AssessmentSettings(BootstrapSettings(50))
HALF = dict.fromkeys(FINDINGS, 0.5)


def origin(split: str, sheet: str) -> ThresholdOrigin:
    return ThresholdOrigin(split, sheet, Criterion.F1, None, threshold_grid())


def test_thresholds_of_this_very_split_are_said_loudly_with_the_honest_figure() -> None:
    table = replace(random_table(80), sheet_sha256="abc")
    told = assess(table, SETTINGS, HALF, origin("valid", "abc"))
    assert told.honest is not None
    assert "this very split" in told.warnings[0]
    elsewhere = assess(table, SETTINGS, HALF, origin("valid", "another"))
    assert elsewhere.honest is None
    assert not [text for text in elsewhere.warnings if "split" in text]


def test_thresholds_of_test_are_said() -> None:
    told = assess(replace(random_table(80), sheet_sha256="abc"), SETTINGS, HALF, origin("test", "another"))
    assert any("test split" in text for text in told.warnings)


def test_subgroups_are_the_figures_of_their_rows() -> None:
    table = random_table(90, seed=3)
    sexes = tuple("Female" if n % 3 else "Male" for n in range(90))
    ages = tuple(str(20 + n) if n % 10 else "" for n in range(90))
    table = replace(table, attributes={"sex": sexes, "age": ages, "blank": ("",) * 90})
    found = subgroup_figures(table, ("sex", "age", "blank", "none"), BootstrapSettings(30))
    assert {item.attribute for item in found} == {"sex", "age"}
    assert {item.group for item in found if item.attribute == "age"} == {
        "under 40", "40-59", "60-79", "80 and over", "not given"
    }  # fmt: skip
    one = next(item for item in found if item.group == "Female" and item.finding == "Edema")
    rows = np.array([sex == "Female" for sex in sexes]) & table.mask[:, 3]
    assert one.metrics.auroc == pytest.approx(auroc(table.targets[rows, 3], table.probabilities[rows, 3]))
    assert not one.small
    assert next(item for item in found if item.group == "not given").small


@pytest.mark.parametrize(
    ("age", "band"),
    [("0", "under 40"), ("39", "under 40"), ("40", "40-59"), ("80.5", "80 and over"), ("", ""), ("x", "")],
)
def test_age_bands(age: str, band: str) -> None:
    assert age_band(age) == band


def test_attributes_survive_the_csv_and_the_study_level(tmp_path: Path) -> None:
    table = replace(
        random_table(4), attributes={"sex": ("Male", "Male", "Female", ""), "Hospital": ("a", "b", "c", "=1")}
    )
    path = tmp_path / "t.csv"
    write_predictions(path, table)
    back = read_predictions(path)
    assert back.attributes["sex"] == table.attributes["sex"]
    assert back.attributes["Hospital"] == ("a", "b", "c", "'=1")
    images = replace(table, level=Level.IMAGE, studies=("p1/s1", "p1/s1", "p2/s1", "p3/s1"))
    assert to_study_level(images).attributes == {"sex": ("Male", "Female", ""), "Hospital": ("mixed", "c", "=1")}


def test_mistakes_are_the_wrong_ones_the_surest_first() -> None:
    table = replace(random_table(60, seed=8), level=Level.IMAGE)
    found = find_mistakes(table, HALF)
    for column, finding in enumerate(FINDINGS):
        wrong = {
            (MistakeKind.FALSE_POSITIVE.value, table.studies[row])
            if table.targets[row, column] == 0
            else (MistakeKind.FALSE_NEGATIVE.value, table.studies[row])
            for row in range(60)
            if table.mask[row, column]
            and (table.probabilities[row, column] >= 0.5) != (table.targets[row, column] > 0.5)
        }
        ours = [item for item in found if item.finding == finding]
        assert {(item.kind, item.study) for item in ours} == wrong
        falling = [item.probability for item in ours if item.kind == "false-positive"]
        assert falling == sorted(falling, reverse=True)
        rising = [item.probability for item in ours if item.kind == "false-negative"]
        assert rising == sorted(rising)
    top = find_mistakes(table, HALF, MistakeKind.FALSE_POSITIVE, "Edema", top=2)
    assert [item.rank for item in top] == [1, 2]
    assert {item.finding for item in top} == {"Edema"}
    with pytest.raises(RequestError, match="image"):
        find_mistakes(random_table(5), HALF)


def test_a_studys_mistake_leads_to_its_surest_image() -> None:
    table = random_table(2)
    probabilities = np.array([[0.6] * 5, [0.9] * 5], dtype=np.float32)
    table = replace(
        table,
        level=Level.IMAGE,
        studies=("p/s", "p/s"),
        probabilities=probabilities,
        targets=np.zeros((2, 5), dtype=np.float32),
        mask=np.ones((2, 5), dtype=bool),
    )
    (mistake,) = find_mistakes(table, HALF, finding="Edema")
    assert mistake.path == table.ids[1]
    assert mistake.probability == pytest.approx(0.9)
