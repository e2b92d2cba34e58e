"""Gaps between groups."""

from dataclasses import replace

import numpy as np
import pytest

from cxrtool.evaluation.fairness import group_gaps
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.evaluation.metrics import auroc
from cxrtool.evaluation.table import PredictionTable
from cxrtool.findings import FINDINGS
from tests_support import table_of

THRESHOLDS = dict.fromkeys(FINDINGS, 0.5)


def planted(rng: np.random.Generator, shift: float, count: int = 600, per_patient: int = 1) -> PredictionTable:
    """Return a table in which the scores of group B's positives are lower by `shift`."""
    targets = rng.random(count) < 0.4
    second = np.repeat(rng.random(count // per_patient) < 0.5, per_patient)
    scores = 1 / (1 + np.exp(-(rng.normal(size=count) + 1.5 * targets - 0.5 - shift * (targets & second))))
    table = table_of(targets, scores)
    return replace(
        table,
        patients=tuple(f"p{row // per_patient}" for row in range(count)),
        attributes={"site": tuple("B" if here else "A" for here in second)},
    )


def test_a_planted_gap_is_found_with_its_size_and_groups() -> None:
    table = planted(np.random.default_rng(0), 1.0)
    found = {one.figure: one for one in group_gaps(table, ("site",), BootstrapSettings(500), THRESHOLDS) if
             one.finding == "Edema"}  # fmt: skip
    targets, scores = table.targets[:, 3], table.scores[:, 3]
    group = np.array(table.attributes["site"])
    areas = {name: auroc(targets[group == name], scores[group == name]) for name in "AB"}
    recalls = {name: float((scores[(group == name) & (targets > 0.5)] >= 0.5).mean()) for name in "AB"}
    for figure, values in (("auroc", areas), ("recall", recalls)):
        one = found[figure]
        assert (one.highest, one.lowest) == ("A", "B")
        assert one.gap == pytest.approx(values["A"] - values["B"])
        assert one.p_value == pytest.approx(1 / 501)
        assert (one.interval.low or 0) > 0
        assert one.gap > one.chance
    assert found["specificity"].p_value > 0.05
    # The five findings of this table have the same scores, so Holm multiplies the smallest by five.
    assert found["auroc"].p_holm == pytest.approx(5 / 501)


@pytest.mark.parametrize("per_patient", [1, 3])
def test_random_groups_are_seldom_significant(per_patient: int) -> None:
    """200 tables without a gap: the share of p-values below 0.05, and of gaps above what 95 % of groups have."""
    rng = np.random.default_rng(1)
    p_values, beyond = [], 0
    for seed in range(200):
        table = planted(rng, 0.0, 300, per_patient)
        one = next(iter(group_gaps(table, ("site",), BootstrapSettings(99, seed))))
        p_values.append(one.p_value)
        beyond += one.gap > one.chance
        assert one.permuted == "patients"
    # The standard error of a share of 0.05 over 200 tables is 0.015.
    assert 0.005 <= np.mean(np.array(p_values) <= 0.05) <= 0.1
    assert beyond / 200 <= 0.1
    assert 0.4 <= np.mean(p_values) <= 0.6


def test_groups_with_few_cases_take_no_part() -> None:
    table = planted(np.random.default_rng(2), 0.0, 300)
    names = np.array(table.attributes["site"], dtype=object)
    names[:40] = "small"
    found = group_gaps(replace(table, attributes={"site": tuple(names)}), ("site",), BootstrapSettings(50))
    assert {one.groups for one in found} == {2}
    assert "small" not in {name for one in found for name in (one.lowest, one.highest)}
    few = replace(table, attributes={"site": tuple("A" if row else "B" for row in range(300))})
    assert group_gaps(few, ("site", "none"), BootstrapSettings(50)) == ()


def test_rows_are_permuted_where_a_patient_is_in_two_groups() -> None:
    table = planted(np.random.default_rng(3), 0.0, 300)
    mixed = replace(table, patients=tuple(f"p{row // 2}" for row in range(300)))
    assert {one.permuted for one in group_gaps(mixed, ("site",), BootstrapSettings(20))} == {"rows"}
