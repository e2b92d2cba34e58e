"""Rows of several tables are matched by name, and patients must agree."""

from dataclasses import replace

import numpy as np
import pytest

from cxrtool.errors import RequestError
from cxrtool.evaluation.pairing import Candidate, align, pair_candidates
from tests_support import random_table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rows", "1 unmatched rows"),
        ("label", "a different label"),
        ("split", "holds the test split"),
        ("patient", "b gives 'patient3/study1' to patient 'other', but the first table gives it to 'patient3'"),
    ],
)
def test_tables_with_different_rows_labels_or_patients_are_refused(change: str, message: str) -> None:
    table = random_table(20)
    other = {
        "rows": table.select(np.arange(19)),
        "label": replace(table, targets=1 - table.targets),
        "split": replace(table, split="test"),
        "patient": replace(table, patients=(*table.patients[:3], "other", *table.patients[4:])),
    }[change]
    with pytest.raises(RequestError, match=message):
        align(other, table, "b")


def test_a_table_without_patients_is_compared_only_with_others_without() -> None:
    table = random_table(20)
    without = replace(table, patients=table.studies, patients_given=False)
    for pair in ((table, without), (without, table)):
        names = ("with", "without") if pair[0] is table else ("without", "with")
        with pytest.raises(RequestError, match=r"^without has no column 'patient', but with has one"):
            pair_candidates([Candidate(name, (one,)) for name, one in zip(names, pair, strict=True)])
    _, notes = pair_candidates([Candidate("a", (without,)), Candidate("b", (without,))])
    assert any("each study counts as a patient" in note for note in notes)


def test_the_order_of_patients_does_not_depend_on_the_order_of_tables() -> None:
    table = random_table(30)
    tables = [replace(table, scores=random_table(30, seed).scores) for seed in (1, 2)]
    orders = []
    for names in ("ab", "ba"):
        pair = [Candidate(name, (tables["ab".index(name)],)) for name in names]
        paired, _ = pair_candidates(pair)
        orders.append([one.tables[0].ids for one in paired])
    assert orders[0][0] == orders[0][1] == orders[1][0] == orders[1][1]


def test_rows_of_a_patient_stay_together() -> None:
    table = random_table(30)
    table = replace(table, patients=tuple(f"p{row % 10}" for row in range(30)))
    paired, _ = pair_candidates([Candidate("a", (table,)), Candidate("b", (table,))])
    found = paired[0].tables[0]
    old = dict(zip(table.ids, table.patients, strict=True))
    assert len({(old[row], new) for row, new in zip(found.ids, found.patients, strict=True)}) == 10
    assert list(found.patients) == sorted(found.patients)


def test_fewer_than_two_or_equally_named_candidates_are_refused() -> None:
    table = random_table(20)
    for names in ("a", "aa"):
        with pytest.raises(RequestError, match="cannot compare"):
            pair_candidates([Candidate(name, (table,)) for name in names])
