from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrtool.errors import RequestError
from cxrtool.evaluation.comparison import Comparison, compare
from cxrtool.evaluation.delong import compare_areas
from cxrtool.evaluation.difference import Difference
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.evaluation.metrics import auroc
from cxrtool.evaluation.pairing import Candidate
from cxrtool.findings import FINDINGS, Findings
from tests_support import random_table, table_of

DRAWS = BootstrapSettings(300)


def noisy_models(shifts: dict[str, float], studies: int = 200, positives: int = 40, seed: int = 0) -> list[Candidate]:
    """Return models of two studies per patient whose scores of positives are shifted, with the same labels."""
    rng = np.random.default_rng(seed)
    targets = np.zeros((studies, 5), dtype=np.float32)
    for column in targets.T:
        column[rng.permutation(studies)[:positives]] = 1
    base = replace(table_of(targets[:, 0], np.full(studies, 0.5)), targets=targets)
    base = replace(base, patients=tuple(f"p{row // 2}" for row in range(studies)))
    return [
        Candidate(name, (replace(base, scores=1 / (1 + np.exp(-shift * targets - rng.normal(size=targets.shape)))),))
        for name, shift in shifts.items()
    ]


def one(result: Comparison, first: str, second: str, finding: str = "mean", figure: str = "auroc") -> Difference:
    """Return the difference of a pair."""
    (found,) = [
        item
        for item in result.differences
        if (item.first, item.second, item.finding, item.figure) == (first, second, finding, figure)
    ]
    return found


def test_a_coin_does_not_tie_with_good_models_in_any_finding() -> None:
    models = noisy_models({"coin": 0, "a": 2.2, "b": 2.3, "c": 2.4}, positives=15)
    result = compare(models, BootstrapSettings(1000))
    coins = [item for item in result.differences if item.first == "coin"]
    assert len(coins) == 36
    assert all(item.beyond_chance for item in coins if item.figure == "auroc")
    # 30 comparisons times 2 / 1001 is 0.06: by counting alone no finding could be significant.
    counted = [item for item in coins if item.figure == "auprc" and item.p_method == "normal tail"]
    assert counted
    assert all(item.p_bootstrap == pytest.approx(2 / 1001) for item in counted)
    assert all((item.p_holm or 0) < 0.05 for item in counted)
    assert any("no counted p could be significant" in note for note in result.notes)
    assert "beats coin" in result.sentence()


def test_the_difference_by_finding_is_that_of_two_arrays() -> None:
    models = noisy_models({"a": 1.0, "b": 1.3})
    result = compare(models, DRAWS)
    first, second = (model.tables[0] for model in models)
    alone = compare_areas(first.targets[:, 2], first.scores[:, 2], second.scores[:, 2], first.patients)
    found = one(result, "a", "b", FINDINGS[2])
    assert found.value == pytest.approx(alone.value)
    assert found.p_value == pytest.approx(alone.p_value)
    assert found.p_delong == pytest.approx(alone.normal_p_value)
    assert found.p_method == "obuchowski"
    assert (found.interval.low, found.interval.high) == pytest.approx(
        (alone.interval(0.95, "").low, alone.interval(0.95, "").high)
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_s_standard_error_is_near_the_bootstrap_s(seed: int) -> None:
    # The labels of a study are alike over findings, so that findings are not independent.
    models = noisy_models({"a": 1.0, "b": 1.3}, studies=600, positives=200, seed=seed)
    labels = np.repeat(models[0].tables[0].targets[:, :1], 5, axis=1)
    models = [Candidate(model.name, (replace(model.tables[0], targets=labels),)) for model in models]
    mean = one(compare(models, BootstrapSettings(2000)), "a", "b")
    low, high = mean.bootstrap_interval.low, mean.bootstrap_interval.high
    assert low is not None
    assert high is not None
    assert mean.estimate.standard_error == pytest.approx((high - low) / 3.92, rel=0.1)


@given(st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_names_of_patients_and_order_of_rows_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table, scores = random_table(40, seed % 1000), random_table(40, seed % 1000 + 1).scores
    patients = tuple(f"p{number}" for number in rng.integers(0, 15, 40))
    tables = [replace(table, patients=patients), replace(table, patients=patients, scores=scores)]
    new = dict(zip(sorted(set(patients)), map(str, rng.permutation(len(set(patients)))), strict=True))
    renamed = [replace(one, patients=tuple(new[name] for name in one.patients)) for one in tables]
    shuffled = [one.select(rng.permutation(40)) for one in renamed]
    before, after = (
        compare([Candidate("a", (pair[0],)), Candidate("b", (pair[1],))], BootstrapSettings(40)).to_dict()
        for pair in (tables, shuffled)
    )
    assert before == after


def test_identical_scores_count_as_one_model() -> None:
    a, b, c = noisy_models({"a": 1.0, "b": 1.6, "c": 1.1})
    without = compare([a, b, c], DRAWS)
    result = compare([a, b, c, replace(b, name="copy")], DRAWS)
    same = one(result, "b", "copy")
    assert same.identical
    assert (same.value, same.p_value, same.p_holm, same.interval.low, same.interval.high) == (0, 1, 1, 0, 0)
    for first, second in (("a", "b"), ("b", "c")):
        assert one(result, first, second).p_holm == pytest.approx(one(without, first, second).p_holm)
        assert one(result, first, second).comparisons == 3
    assert one(result, "a", "copy").p_holm == one(result, "a", "b").p_holm
    assert "b and copy have identical scores and count as one model" in result.notes


def test_a_reference_is_compared_with_each_other_model_only() -> None:
    models = noisy_models({"a": 1.0, "b": 1.6, "c": 1.1})
    result = compare(models, DRAWS, reference="b", margin=0.02)
    assert {(item.first, item.second) for item in result.differences} == {("a", "b"), ("c", "b")}
    assert one(result, "a", "b").comparisons == 2
    assert one(result, "a", "b", "Edema").comparisons == 10
    assert one(result, "c", "b").value == pytest.approx(-(one(compare(models, DRAWS), "b", "c").value or 0))
    with pytest.raises(RequestError, match="'d' is not compared"):
        compare(models, DRAWS, reference="d")


def test_non_inferiority_is_judged_by_the_interval_in_either_direction() -> None:
    models = noisy_models({"a": 1.5, "b": 1.4}, studies=1000, positives=300)
    found = one(compare(models, DRAWS, margin=0.02), "a", "b")
    low, high = found.interval.low or 0, found.interval.high or 0
    assert low < high < 0.06
    for margin in (-low - 1e-6, -low + 1e-6, high - 1e-6, high + 1e-6):
        if not 0 < margin < 1:
            continue
        judged = one(compare(models, DRAWS, margin=margin), "a", "b")
        assert judged.first_not_inferior is (low > -margin)
        assert judged.second_not_inferior is (high < margin)
    result = compare(models, DRAWS, margin=0.2)
    assert "With a margin of 0.2 in mean AUROC (one-sided level 2.5 %" in result.sentence()
    assert "a is not inferior to b" in result.sentence()
    assert "b is not inferior to a" in result.sentence()
    for wrong in (0.0, -0.1, 1.0):
        with pytest.raises(RequestError, match="not between 0 and 1"):
            compare(models, DRAWS, margin=wrong)


def test_p_values_contain_the_spread_between_seeds_if_all_have_several() -> None:
    runs = noisy_models({f"run{n}": shift for n, shift in enumerate((1.0, 1.6, 1.5, 2.0))})
    tables = [run.tables[0] for run in runs]
    recipes = [Candidate("a", (tables[0], tables[1])), Candidate("b", (tables[2], tables[3]))]
    result = compare(recipes, DRAWS)
    mean = one(result, "a", "b")
    areas = [np.mean([auroc(t.targets[:, n], t.scores[:, n]) for n in range(5)]) for t in tables]
    seeds = sum(np.var(areas[part], ddof=1) / 2 for part in (slice(0, 2), slice(2, 4)))
    alone = compare([replace(recipe, tables=recipe.tables[:1]) for recipe in recipes], DRAWS)
    assert mean.covers_seeds
    assert mean.estimate.standard_error**2 > seeds
    assert (mean.p_value or 0) > (mean.p_without_seeds or 1)
    assert any("contain the spread between trainings of each model" in note for note in result.notes)
    assert not one(alone, "a", "b").covers_seeds
    assert any("do not contain the spread between trainings" in note for note in alone.notes)
    mixed = compare([recipes[0], replace(recipes[1], tables=recipes[1].tables[:1])], DRAWS)
    assert not one(mixed, "a", "b").covers_seeds
    assert any("where a model has one run only" in note for note in mixed.notes)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_verdict_never_contradicts_its_interval(confidence: float) -> None:
    for seed in range(12):
        models = noisy_models({"a": 1.0, "b": 1.35, "c": 1.2}, studies=120, seed=seed)
        result = compare(models, BootstrapSettings(100, confidence=confidence))
        sentence = result.sentence()
        for item in result.differences:
            if item.figure != "auroc" or item.finding != "mean":
                continue
            if item.beyond_chance:
                assert item.excludes_zero
                assert f"{item.better} beats {item.worse} by" in sentence
            elif item.excludes_zero:
                assert "exclude" in sentence
        if all(item.excludes_zero for item in result.differences if item.figure == "auroc"):
            assert "No difference" not in sentence


def test_findings_that_not_all_tables_have_are_left_out_by_name() -> None:
    table = random_table(60)
    some = Findings(("Edema", "Atelectasis"))
    scores = random_table(60, 1).scores
    other = replace(table, scores=scores).with_findings(some)
    result = compare([Candidate("a", (table,)), Candidate("b", (other,))], DRAWS)
    assert {item.finding for item in result.differences} == {"Edema", "Atelectasis", "mean"}
    column = FINDINGS.index("Edema")
    rows = table.mask[:, column]
    assert result.figures["b"]["Edema"]["auroc"].value == pytest.approx(
        auroc(table.targets[rows, column], scores[rows, column])
    )
    assert any("Cardiomegaly, Consolidation, Pleural Effusion of a" in note for note in result.notes)
    alone = [table.with_findings(Findings((name,))) for name in ("Edema", "Consolidation")]
    with pytest.raises(RequestError, match="no finding is in all tables: a has Edema; b has Consolidation"):
        compare([Candidate("a", (alone[0],)), Candidate("b", (alone[1],))], DRAWS)


def test_a_model_does_not_differ_from_itself() -> None:
    table = random_table(80)
    result = compare([Candidate("a", (table,)), Candidate("b", (table,))], DRAWS)
    assert all(item.value == 0 and item.p_value == 1 for item in result.differences)
    assert "No difference" in result.sentence()


def test_a_better_model_is_found_and_pairing_narrows_its_interval() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 300)
    shared = rng.normal(size=300)
    good, worse = shared + 1.6 * targets, shared + 0.9 * targets
    tables = [table_of(targets, 1 / (1 + np.exp(-score))) for score in (good, worse)]
    result = compare([Candidate("good", (tables[0],)), Candidate("worse", (tables[1],))], DRAWS)
    mean = next(item for item in result.differences if item.finding == "mean" and item.figure == "auroc")
    assert mean.value == pytest.approx(auroc(targets, good) - auroc(targets, worse), abs=1e-6)
    assert mean.beyond_chance
    assert "good beats worse" in result.sentence()
    alone = [result.figures[name]["mean"]["auroc"].interval for name in ("good", "worse")]
    unpaired = np.hypot(*[(one.high or 0) - (one.low or 0) for one in alone])
    assert (mean.interval.high or 0) - (mean.interval.low or 0) < 0.6 * unpaired


def test_the_error_rate_without_a_difference_is_near_5_percent() -> None:
    rng = np.random.default_rng(3)
    false_alarms = 0
    for run in range(120):
        targets = rng.integers(0, 2, 120)
        tables = [table_of(targets, 1 / (1 + np.exp(-(targets + rng.normal(size=120))))) for _ in range(2)]
        result = compare([Candidate("a", (tables[0],)), Candidate("b", (tables[1],))], BootstrapSettings(2, run))
        mean = next(item for item in result.differences if item.finding == "mean" and item.figure == "auroc")
        false_alarms += mean.beyond_chance
    assert false_alarms <= 14  # 5 % of 120 is 6; 14 or more would come by chance once in 300


def test_rows_in_another_order_are_matched_by_name() -> None:
    table = random_table(40)
    shuffled = table.select(np.random.default_rng(0).permutation(40))
    result = compare([Candidate("a", (table,)), Candidate("b", (shuffled,))], DRAWS)
    assert all(item.value == pytest.approx(0, abs=1e-12) for item in result.differences)


def test_seeds_are_averaged_and_their_deviation_is_reported() -> None:
    table = random_table(60, seed=1)
    tables = (table, replace(table, scores=random_table(60, seed=2).scores))
    areas = [[auroc(one.targets[rows, n], one.scores[rows, n]) for n, rows in enumerate(one.mask.T)] for one in tables]
    figures = compare([Candidate("a", tables), Candidate("b", (table,))], DRAWS).figures
    of_edema = [of_one[FINDINGS.index("Edema")] for of_one in areas]
    assert figures["a"]["Edema"]["auroc"].value == pytest.approx(np.mean(of_edema))
    assert figures["a"]["Edema"]["auroc"].seed_deviation == pytest.approx(np.std(of_edema, ddof=1))
    assert figures["a"]["mean"]["auroc"].seed_deviation == pytest.approx(np.std(np.mean(areas, axis=1), ddof=1))
    assert figures["b"]["mean"]["auroc"].seed_deviation is None
