"""Comparison of saved tables: their figures, and the names that distinguish them."""

from dataclasses import replace
from pathlib import Path

import pytest

from cxrtool.errors import RequestError
from cxrtool.evaluation.metrics import auroc
from cxrtool.evaluation.table import write_predictions
from cxrtool.findings import FINDINGS
from cxrtool.resolved_settings import load_settings
from cxrtool.tasks.compare import compare_models
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


def test_one_table_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    paths = saved(tmp_path, "a.csv")
    with pytest.raises(RequestError, match="at least two models"):
        compare_models(paths, SETTINGS)
    with pytest.raises(RequestError, match=r"gone\.csv does not exist"):
        compare_models([*paths, tmp_path / "gone.csv"], SETTINGS)
