"""Comparison of saved tables: their figures, and the names that distinguish them."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from cxrtool.errors import RequestError
from cxrtool.evaluation.metrics import auroc
from cxrtool.evaluation.table import write_predictions
from cxrtool.findings import FINDINGS
from cxrtool.resolved_settings import load_settings
from cxrtool.tasks.compare import compare_models, write_comparison
from tests_support import random_table

SETTINGS = load_settings({"eval.draws": 20}, environ={}).settings


def saved(folder: Path, *names: str) -> list[Path]:
    """Save a table per name, with the same rows and different probabilities."""
    base = random_table(40)
    paths = []
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_predictions(path, replace(base, scores=random_table(40, seed).scores))
        paths.append(path)
    return paths


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["a.csv", "b.csv"], ["a.csv", "b.csv"]),
        (["a/t.csv", "b/t.csv"], ["a/t.csv", "b/t.csv"]),
        (["x/a/t.csv", "y/a/t.csv", "y/b/t.csv"], ["x/a/t.csv", "y/a/t.csv", "y/b/t.csv"]),
    ],
)
def test_tables_get_the_shortest_names_that_differ(tmp_path: Path, names: list[str], short: list[str]) -> None:
    result = compare_models(saved(tmp_path, *names), SETTINGS)
    assert list(result.figures) == short
    base = random_table(40)
    rows = base.mask[:, 0]
    for seed, name in enumerate(short):
        expected = auroc(base.targets[rows, 0], random_table(40, seed).scores[rows, 0])
        assert result.figures[name][FINDINGS[0]]["auroc"].value == pytest.approx(expected)


def test_a_reference_is_named_by_its_path_or_its_short_name(tmp_path: Path) -> None:
    paths = saved(tmp_path, "a.csv", "b.csv", "c.csv")
    for reference in ("b.csv", str(paths[1])):
        result = compare_models(paths, SETTINGS, reference=reference)
        assert result.reference == "b.csv"
        assert {(one.first, one.second) for one in result.differences} == {("a.csv", "b.csv"), ("c.csv", "b.csv")}
    with pytest.raises(RequestError, match=r"'d\.csv' is none of the models"):
        compare_models(paths, SETTINGS, reference="d.csv")


def test_tables_without_patients_are_compared_with_a_note_and_never_with_one_that_has_them(tmp_path: Path) -> None:
    paths = saved(tmp_path, "a.csv", "b.csv")
    bare = []
    for path in paths:
        rows = list(csv.DictReader(path.open()))
        bare.append(path.with_stem(f"{path.stem}_bare"))
        with bare[-1].open("w", newline="") as file:
            writer = csv.DictWriter(file, [name for name in rows[0] if name != "patient"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    result = compare_models(bare, SETTINGS)
    assert any("no table names patients" in note for note in result.notes)
    assert not any("no table names patients" in note for note in compare_models(paths, SETTINGS).notes)
    with pytest.raises(RequestError, match=r"b_bare\.csv has no column 'patient', but a\.csv has one"):
        compare_models([paths[0], bare[1]], SETTINGS)


def test_files_hold_every_p_value_and_the_interval(tmp_path: Path) -> None:
    result = compare_models(saved(tmp_path, "a.csv", "b.csv"), SETTINGS, margin=0.05)
    write_comparison(tmp_path, result)
    rows = list(csv.DictReader((tmp_path / "differences_valid.csv").open()))
    document = json.loads((tmp_path / "compare_valid.json").read_text())
    assert len(rows) == len(document["differences"]) == 12
    for row, item in zip(rows, document["differences"], strict=True):
        assert list(row)[:9] == [
            "first", "second", "finding", "figure", "difference", "low", "high", "p_value", "p_holm",
        ]  # fmt: skip
        assert float(row["low"]) == item["interval"]["low"]
        assert float(row["bootstrap_low"]) == item["bootstrap_interval"]["low"]
        assert float(row["detectable"]) == item["detectable"]
        for name in ("p_value", "p_holm", "p_bootstrap"):
            assert float(row[name]) == item[name]
        assert row["p_method"] == item["p_method"]
        assert row["first_not_inferior"] == str(item["first_not_inferior"])
        assert (item["p_delong"] is None) == (item["figure"] == "auprc")


def test_one_table_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    paths = saved(tmp_path, "a.csv")
    with pytest.raises(RequestError, match="at least two models"):
        compare_models(paths, SETTINGS)
    with pytest.raises(RequestError, match=r"gone\.csv does not exist"):
        compare_models([*paths, tmp_path / "gone.csv"], SETTINGS)
