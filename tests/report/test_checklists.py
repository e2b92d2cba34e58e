"""Reporting checklists: their items, and what is filled in."""

import re

import pytest

from cxrtool.evaluation.assessment import AssessmentSettings, assess
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.report.checklist_items import CHECKLISTS
from cxrtool.report.checklists import NOT_STATED, checklist_tables
from cxrtool.report.study import Study
from tests_support import random_table


@pytest.mark.parametrize(
    ("name", "last", "parts"),
    # STARD 2015: 10, 12, 13 and 21 have two parts. TRIPOD+AI: 3, 5, 6, 8, 9, 12, 18, 20, 23 and 27 have parts.
    [("stard", 30, 34), ("tripod", 27, 52), ("claim", 44, 44)],
)
def test_a_checklist_has_all_items_in_order(name: str, last: int, parts: int) -> None:
    numbers = [number for number, _, _ in CHECKLISTS[name][2]]
    assert len(numbers) == parts == len(set(numbers))
    whole = [int(re.sub(r"\D", "", number)) for number in numbers]
    assert whole == sorted(whole)
    assert set(whole) == set(range(1, last + 1))


def test_scores_without_a_model_fill_only_what_they_can() -> None:
    table = random_table(60)
    study = Study(table, assess(table, AssessmentSettings(BootstrapSettings(20))))
    stard, _, claim = checklist_tables(study)
    answers = {row[0]: row[-1] for row in stard.rows}
    assert str(answers["14"]).startswith("AUROC, AUPRC")
    assert str(answers["24"]).startswith("Mean AUROC 0.")
    for item in ("1", "6", "10a", "10b", "12a", "13a", "19", "20", "23", "30"):
        assert answers[item] == NOT_STATED, item
    assert {row[0]: row[2] for row in claim.rows}["22"] == "open"
