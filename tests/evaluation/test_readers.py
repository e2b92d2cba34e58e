"""Readers beside a model, against figures computed by hand, by loops, and by another formula."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from cxrtool.choices import Level
from cxrtool.errors import RequestError
from cxrtool.evaluation.intervals import BootstrapSettings, PatientDraws
from cxrtool.evaluation.paired_rates import newcombe_paired
from cxrtool.evaluation.proportions import wilson
from cxrtool.evaluation.reader_points import PairedRows
from cxrtool.evaluation.reader_sentences import sentences_on
from cxrtool.evaluation.reader_study import study_readers
from cxrtool.evaluation.readers import MAJORITY, Readings, majority_vote
from cxrtool.evaluation.table import PredictionTable
from tests_support import table_of

SETTINGS = BootstrapSettings(draws=200)


def readings_of(name: str, calls: object, mask: object = None) -> Readings:
    column = np.asarray(calls, dtype=np.float64)
    known = ~np.isnan(column) if mask is None else np.asarray(mask)
    return Readings(name, np.repeat((column == 1)[:, None], 5, axis=1), np.repeat(known[:, None], 5, axis=1))


def noisy(seed: int, positives: int = 60, negatives: int = 140) -> tuple[PredictionTable, list[Readings]]:
    """A model, a bad reader and a good one."""
    rng = np.random.default_rng(seed)
    truth = np.repeat([1, 0], [positives, negatives])
    table = table_of(truth, 1 / (1 + np.exp(-(rng.normal(size=len(truth)) + 2 * truth))))
    bad = rng.random(len(truth)) < np.where(truth, 0.5, 0.4)
    good = rng.random(len(truth)) < np.where(truth, 0.9, 0.05)
    return table, [readings_of("bad", bad), readings_of("good", good)]


def paired_rows(positive: object, scores: object, called: object) -> PairedRows:
    rows = np.arange(len(np.asarray(positive)))
    arrays = np.asarray(positive, dtype=bool), np.asarray(scores, dtype=float), np.asarray(called, dtype=bool)
    return PairedRows(*arrays, rows, rows)


def compare(rows: PairedRows, count: int) -> object:
    return rows.compare(PatientDraws([str(n) for n in range(count)], SETTINGS))


@pytest.mark.parametrize(
    ("called", "expected"),
    [
        ([1, 0, 0, 0, 0, 0], 2 / 3),  # specificity 1: the two positives above all negatives
        ([1, 0, 0, 1, 0, 0], 5 / 6),  # one false alarm in three, half way through the tied pair
        ([1, 0, 0, 1, 1, 0], 1),
        ([1, 1, 1, 1, 1, 1], 1),
    ],
)
def test_the_curve_is_joined_by_lines_and_its_upper_end_counts(called: list[int], expected: float) -> None:
    """Positives 0.9, 0.8, 0.5; negatives 0.5, 0.5, 0.1: two negatives tie with a positive."""
    found = compare(paired_rows([1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.5, 0.5, 0.5, 0.1], called), 6)
    assert found.model_sensitivity == pytest.approx(expected)
    assert found.difference == pytest.approx(expected - sum(called[:3]) / 3)


def test_the_curve_is_that_of_scikit_learn_in_each_draw() -> None:
    table, (reader, _) = noisy(1)
    positive, scores, called = table.targets[:, 0] > 0.5, table.scores[:, 0], reader.positive[:, 0]
    draws = PatientDraws(table.patients, SETTINGS)
    _, patients = np.unique(table.patients, return_inverse=True)
    found = PairedRows(positive, scores, called, np.arange(len(table)), patients).compare(draws)
    for weights, value in zip(draws.chunk(0), found.draws, strict=False):
        kept = np.repeat(np.arange(len(table)), weights.astype(int))
        fpr, tpr, _ = roc_curve(positive[kept], scores[kept], drop_intermediate=False)
        at = (called & ~positive)[kept].sum() / (~positive)[kept].sum()
        expected = np.interp(at, fpr, tpr) - (called & positive)[kept].sum() / positive[kept].sum()
        assert value == pytest.approx(expected)


def test_a_reader_who_is_the_model_at_a_threshold_does_not_differ_from_it() -> None:
    table, _ = noisy(2)
    study = study_readers(table, [readings_of("same", table.scores[:, 0] >= 0.5)], SETTINGS)
    row = study.rows[0]
    assert row.difference == pytest.approx(0)
    assert not row.above_by_point
    assert row.intervals["difference"].low < 0 < row.intervals["difference"].high


def test_the_threshold_follows_the_reader_in_each_draw() -> None:
    table, _ = noisy(2)
    found = compare(paired_rows(table.targets[:, 0] > 0.5, table.scores[:, 0], table.scores[:, 0] >= 0.5), 200)
    assert found.draws == pytest.approx(np.zeros(200))


def test_sensitivity_and_specificity_have_wilsons_interval() -> None:
    table, readers = noisy(3)
    row = study_readers(table, readers, SETTINGS).rows[0]
    hits = int((readers[0].positive[:, 0] & (table.targets[:, 0] > 0.5)).sum())
    low, high = wilson(hits / 60, 60, 0.95)
    assert row.sensitivity == pytest.approx(hits / 60)
    assert (row.intervals["sensitivity"].low, row.intervals["sensitivity"].high) == pytest.approx((low, high))
    assert row.intervals["specificity"].method == "wilson"


def of_counts(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    counts = [both, first, second, neither]
    one, other = (np.repeat(values, counts).astype(float) for values in ([1, 1, 0, 0], [1, 0, 1, 0]))
    return newcombe_paired(one, other, np.arange(sum(counts)))


def test_newcombe_is_that_of_his_table() -> None:
    """Newcombe 1998, table II: 36, 12, 2 and 0 of 50 pairs."""
    assert of_counts(36, 12, 2, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(1, 30))
def test_newcombe_is_his_formula_of_counts(e: int, f: int, g: int, h: int) -> None:
    n = e + f + g + h
    (l2, l3), (u2, u3) = (np.array([wilson(k / n, n, 0.95)[end] for k in (e + f, e + g)]) for end in (0, 1))
    crossed = e * h - f * g
    crossed = max(crossed - n / 2, 0) if crossed > 0 else crossed
    root = np.sqrt(float((e + f) * (g + h) * (e + g) * (f + h)))
    phi = crossed / root if root else 0
    p2, p3 = (e + f) / n, (e + g) / n
    down = np.sqrt((p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u3 - p3) + (u3 - p3) ** 2)
    up = np.sqrt((p3 - l3) ** 2 - 2 * phi * (p3 - l3) * (u2 - p2) + (u2 - p2) ** 2)
    assert of_counts(e, f, g, h) == pytest.approx((p2 - p3 - down, p2 - p3 + up), abs=1e-7)


def test_few_positives_get_newcombes_interval_and_the_draws_of_negatives_widen_it() -> None:
    table, readers = noisy(4, positives=8)
    interval = study_readers(table, readers, SETTINGS).rows[0].intervals["difference"]
    assert interval.method == "newcombe 10, with draws of negatives"
    rows = paired_rows(table.targets[:, 0] > 0.5, table.scores[:, 0], readers[0].positive[:, 0])
    called = rows._model_calls()[rows._positive]
    alone = newcombe_paired(called, rows._called[rows._positive].astype(float), np.arange(8))
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low < alone[0]
    assert interval.high > alone[1]


def test_the_model_is_above_a_bad_reader_and_below_a_good_one() -> None:
    table, readers = noisy(5)
    study = study_readers(table, readers, SETTINGS)
    bad, good, vote = study.of("Edema")
    assert (bad.above_by_point, bad.above_by_interval, bad.below_by_interval) == (True, True, False)
    assert (good.above_by_point, good.above_by_interval) == (False, False)
    assert vote.reader == MAJORITY
    assert sentences_on(study)[3].startswith("Edema: above 1 of 2 readers by points, 1 of 2 by intervals")


def test_a_majority_is_more_than_half_of_those_who_read() -> None:
    blank = np.nan
    vote = majority_vote(
        [
            readings_of("a", [1, 1, 1, 0, blank, 1]),
            readings_of("b", [1, 0, 0, 0, blank, blank]),
            readings_of("c", [1, 1, blank, 1, blank, blank]),
        ]
    )
    assert vote.positive[:, 0].tolist() == [True, True, False, False, False, True]  # the third is a tie
    assert vote.mask[:, 0].tolist() == [True, True, True, True, False, True]


def test_blank_cells_do_not_count() -> None:
    table, (reader, _) = noisy(6)
    unread = np.arange(200) % 4 == 0
    masked = replace(reader, mask=reader.mask & ~unread[:, None])
    row = study_readers(table, [masked], SETTINGS).rows[0]
    kept = table.select(np.flatnonzero(~unread))
    expected = study_readers(kept, [Readings("kept", reader.positive[~unread], reader.mask[~unread])], SETTINGS).rows[0]
    assert row.not_read == 50
    assert (row.positives, row.negatives) == (expected.positives, expected.negatives)
    assert row.model_sensitivity == pytest.approx(expected.model_sensitivity)
    assert row.specificity == pytest.approx(expected.specificity)


def test_the_average_reader_is_the_mean_of_differences_with_an_interval_for_other_readers() -> None:
    table, readers = noisy(7)
    study = study_readers(table, readers, SETTINGS)
    rows = study.of("Edema")[:2]
    one, area = (item for item in study.averages if item.finding == "Edema")
    assert one.analysis.estimate.value == pytest.approx(np.mean([row.difference for row in rows]))
    assert one.readers == pytest.approx(np.mean([row.sensitivity for row in rows]))
    assert area.readers == pytest.approx(np.mean([(row.sensitivity + row.specificity) / 2 for row in rows]))
    # Two readers so unlike say little of others.
    assert one.interval.low is not None
    assert one.interval.low < -0.2
    assert one.analysis.estimate.degrees_of_freedom < 2


def test_one_reader_has_neither_majority_nor_average() -> None:
    table, readers = noisy(8)
    study = study_readers(table, readers[:1], SETTINGS)
    assert len(study.rows) == 5
    assert not study.averages


def test_a_missing_class_leaves_figures_undefined() -> None:
    table = table_of([0] * 30, np.linspace(0, 1, 30))
    study = study_readers(table, [readings_of("a", [0, 1] * 15), readings_of("b", [0] * 30)], SETTINGS)
    assert study.rows[0].sensitivity is None
    assert study.rows[0].specificity == pytest.approx(0.5)
    assert study.rows[0].difference is None
    assert study.averages[0].model is None
    assert "a class is missing" in sentences_on(study)[0]
    assert "NaN" not in repr(study.to_dict())
    assert "nan" not in repr(study.to_dict())


def test_images_are_refused() -> None:
    table, readers = noisy(9)
    with pytest.raises(RequestError, match="readers read studies"):
        study_readers(replace(table, level=Level.IMAGE), readers, SETTINGS)


def test_a_reader_of_nothing_is_left_out_of_the_average() -> None:
    table, readers = noisy(10)
    nothing = replace(readers[0], name="nothing", mask=np.zeros_like(readers[0].mask))
    with_it = study_readers(table, [*readers, nothing], SETTINGS).averages
    without = study_readers(table, readers, SETTINGS).averages
    assert [one.analysis for one in with_it] == [one.analysis for one in without]
    assert study_readers(table, [nothing, nothing], SETTINGS).averages[0].readers is None


def test_one_patient_has_no_intervals() -> None:
    table, readers = noisy(11)
    study = study_readers(replace(table, patients=("one",) * len(table)), readers, SETTINGS)
    assert all(interval.low is None for row in study.rows for interval in row.intervals.values())
    assert all(one.interval.low is None for one in study.averages)


def test_readers_who_always_or_never_call_are_the_ends_of_the_curve() -> None:
    table, _ = noisy(12)
    always, never = readings_of("always", np.ones(200)), readings_of("never", np.zeros(200))
    study = study_readers(table, [always, never], SETTINGS)
    assert [row.model_sensitivity for row in study.of("Edema")[:1]] == [1]
    assert study.of("Edema")[1].precision is None
    assert study.of("Edema")[1].difference >= 0
