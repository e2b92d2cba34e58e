"""``cxr power`` from assumptions and from a pilot."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from conftest import Call
from cxrtool.evaluation.power import Assumptions, TwoSidedTest, detectable_difference, studies_to_detect
from cxrtool.evaluation.table import write_predictions
from cxrtool.findings import FINDINGS
from tests_support import table_of


@pytest.fixture
def pilots(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    positive = np.arange(300) < 60
    shared = rng.standard_normal(300)
    paths = []
    for name in ("a", "b"):
        scores = norm.cdf(0.8 * shared + 0.6 * rng.standard_normal(300) + 1.6 * positive)
        paths.append(tmp_path / f"{name}.csv")
        write_predictions(paths[-1], table_of(positive, scores))
    return paths


def test_power_from_assumptions(call: Call) -> None:
    done = call("power", "--auroc", 0.88, "--prevalence", 0.06, "--studies", 500, "--difference", 0.02, "--json")
    assert done.code == 0, done.stderr
    (found,) = done.json["findings"]
    assumed = Assumptions(0.88, 0.06, 0.6)
    (size,) = found["sizes"]
    assert size["detectable"] == pytest.approx(detectable_difference(assumed, 500, TwoSidedTest()))
    assert (size["positives"], size["negatives"]) == (30, 470)
    needed = {one["purpose"]: one for one in found["needed"]}
    assert needed["difference"]["studies"] == studies_to_detect(assumed, 0.02, TwoSidedTest())
    assert needed["sensitivity"]["positives"] == pytest.approx(245, abs=1)
    assert needed["specificity"]["negatives"] == pytest.approx(245, abs=1)


def test_the_table_shows_several_sizes_and_a_sentence_one(call: Call) -> None:
    done = call("power", "--auroc", 0.88, "--prevalence", 0.06)
    assert "10,000" in done.stdout
    assert "would be found" not in done.stdout
    done = call("power", "--auroc", 0.88, "--prevalence", 0.06, "--studies", 1000, "--comparisons", 30)
    assert "With 1,000 studies (60 positives), a gain in AUROC from 0.880 to 0.9" in done.stdout
    assert "level 0.05 / 30" in done.stdout


def test_power_from_one_pilot_and_from_two(call: Call, pilots: list[Path]) -> None:
    one = call("power", pilots[0], "--json").json["findings"]
    assert [item["finding"] for item in one] == list(FINDINGS)
    assert one[0]["assumed"]["correlation"] == 0.6
    two = call("power", *pilots, "--studies", 3000, "--json").json["findings"]
    assert two[0]["assumed"]["correlation"] == pytest.approx(0.64, abs=0.1)
    assert two[0]["sizes"][0]["studies"] == 3000
    assert two[0]["sizes"][0]["detectable"] < one[0]["sizes"][0]["detectable"]


def test_a_finding_that_the_pilot_says_nothing_of_is_warned_of(call: Call, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    table = table_of(np.arange(60) < 20, rng.random(60) / 2 + (np.arange(60) < 20) / 3)
    targets = table.targets.copy()
    targets[:, 3] = 0
    write_predictions(tmp_path / "pilot.csv", replace(table, targets=targets))
    done = call("power", "pilot.csv")
    assert done.code == 0
    assert "the pilot says nothing of Edema: fewer than two positives" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "neither a pilot nor --auroc and --prevalence is given"),
        (["--auroc", 0.8], "neither a pilot nor --prevalence is given"),
        (["--auroc", 1.2, "--prevalence", 0.1], "not between 0.5 and 1"),
        (["--auroc", 0.8, "--prevalence", 0.1, "--width", 0], "width 0 is not between"),
        (["--auroc", 0.8, "--prevalence", 0.1, "--difference", 0.3], "does not stay below 1"),
        (["--auroc", 0.8, "--prevalence", 0.1, "--alpha", 0], "level 0"),
        (["missing.csv"], "missing.csv"),
        (["missing.csv", "--auroc", 0.8], "--auroc is measured on the pilot"),
        (["a.csv", "b.csv", "--correlation", 0.5], "--correlation is measured on the pilot"),
    ],
)
def test_requests_that_make_no_sense_are_refused(call: Call, options: list[object], message: str) -> None:
    done = call("power", *options)
    assert done.code == 2
    assert message in done.stderr
