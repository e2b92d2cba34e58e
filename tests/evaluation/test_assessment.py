from dataclasses import replace

import numpy as np

from cxrtool.choices import Criterion
from cxrtool.evaluation.assessment import FEW_DRAWS, AssessmentSettings, assess
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.evaluation.thresholds import ThresholdOrigin, threshold_grid
from cxrtool.findings import FINDINGS
from tests_support import random_table

SETTINGS = AssessmentSettings(BootstrapSettings(50))
HALF = dict.fromkeys(FINDINGS, 0.5)


def origin(split: str, sheet: str) -> ThresholdOrigin:
    return ThresholdOrigin(split, sheet, Criterion.F1, None, threshold_grid())


def test_thresholds_chosen_on_the_same_split_give_a_warning_and_corrected_rates() -> None:
    table = replace(random_table(80), sheet_sha256="abc")
    result = assess(table, SETTINGS, HALF, origin("valid", "abc"))
    assert result.honest is not None
    assert "this same split" in result.warnings[0]
    elsewhere = assess(table, SETTINGS, HALF, origin("valid", "another"))
    assert elsewhere.honest is None
    assert not [text for text in elsewhere.warnings if "split" in text]


def test_thresholds_chosen_on_test_give_a_warning() -> None:
    result = assess(replace(random_table(80), sheet_sha256="abc"), SETTINGS, HALF, origin("test", "another"))
    assert any("test split" in text for text in result.warnings)


def test_few_patients_give_a_warning_and_one_patient_no_intervals() -> None:
    few = assess(random_table(19), SETTINGS)
    assert "the valid split has 19 patients only: with fewer than 20, intervals mean little" in few.warnings
    assert few.intervals["mean"]["auroc"].low is not None
    assert not [text for text in assess(random_table(20), SETTINGS).warnings if "patients only" in text]
    table = replace(random_table(60), patients=("p",) * 60)
    one = assess(table, SETTINGS, HALF)
    assert "the valid split has one patient only, so there are no intervals" in one.warnings
    assert one.evaluation.mean_auroc is not None
    for rows in one.intervals.values():
        for interval in rows.values():
            assert (interval.low, interval.high) == (None, None)
            assert interval.to_dict()["reason"] == "the rows are of one patient, so there is nothing to draw from"
    assert all(item.auroc_interval.low is None for item in one.subgroups)


def test_a_mean_that_few_draws_define_has_no_interval() -> None:
    """A positive study in a single patient is missing from 37 % of draws; five such findings from most."""
    table = random_table(60)
    targets = np.zeros_like(table.targets)
    targets[np.arange(5), np.arange(5)] = 1
    table = replace(table, targets=targets, mask=np.ones_like(table.mask))
    found = assess(table, AssessmentSettings(BootstrapSettings(200), by=())).intervals["mean"]["auroc"]
    assert (found.low, found.high, found.reason) == (None, None, FEW_DRAWS)
    assert found.undefined_draws > 100
