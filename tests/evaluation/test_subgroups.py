"""Figures by subgroup."""

from dataclasses import replace

import numpy as np
import pytest

from cxrtool.evaluation.metrics import auroc
from cxrtool.evaluation.subgroups import MOST_GROUPS, age_band, capped_group_warnings, subgroup_figures
from tests_support import random_table


def test_subgroup_figures_are_those_of_their_rows() -> None:
    table = random_table(180, seed=3)
    sexes = tuple("Female" if n % 3 else "Male" for n in range(180))
    ages = tuple(str(20 + n % 90) if n % 10 else "" for n in range(180))
    table = replace(table, attributes={"sex": sexes, "age": ages, "blank": ("",) * 180})
    found = subgroup_figures(table, ("sex", "age", "blank", "none"))
    assert {item.attribute for item in found} == {"sex", "age"}
    assert {item.group for item in found if item.attribute == "age"} == {
        "under 40", "40-59", "60-79", "80 and over", "not given"
    }  # fmt: skip
    one = next(item for item in found if item.group == "Female" and item.finding == "Edema")
    rows = np.array([sex == "Female" for sex in sexes]) & table.mask[:, 3]
    assert one.metrics.auroc == pytest.approx(auroc(table.targets[rows, 3], table.scores[rows, 3]))
    assert not one.small
    assert next(item for item in found if item.group == "not given").small


@pytest.mark.parametrize(
    ("age", "band"),
    [("0", "under 40"), ("39", "under 40"), ("40", "40-59"), ("80.5", "80 and over"), ("", ""), ("x", "")],
)
def test_age_bands(age: str, band: str) -> None:
    assert age_band(age) == band


def test_a_column_of_ids_gets_figures_of_its_largest_groups_and_a_warning() -> None:
    table = random_table(90, seed=3)
    ids = tuple(f"g{max(n - 20, 0)}" for n in range(90))  # g0 has 21 rows, the 69 others have one
    table = replace(table, attributes={"id": ids, "sex": tuple("MF"[n % 2] for n in range(90))})
    found = subgroup_figures(table, ("id", "sex"))
    groups = {item.group for item in found if item.attribute == "id"}
    assert len(groups) == MOST_GROUPS
    assert "g0" in groups
    assert {item.group for item in found if item.attribute == "sex"} == {"M", "F"}
    assert capped_group_warnings(table, ("id", "sex", "none")) == ("id: figures of the 20 largest of 70 groups only",)
