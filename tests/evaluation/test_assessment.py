from dataclasses import replace

from cxrtool.choices import Criterion
from cxrtool.evaluation.assessment import AssessmentSettings, assess
from cxrtool.evaluation.intervals import BootstrapSettings
from cxrtool.evaluation.thresholds import ThresholdOrigin, threshold_grid
from cxrtool.findings import FINDINGS
from tests_support import random_table

SETTINGS = AssessmentSettings(BootstrapSettings(50))
HALF = dict.fromkeys(FINDINGS, 0.5)


def origin(split: str, sheet: str) -> ThresholdOrigin:
    return ThresholdOrigin(split, sheet, Criterion.F1, None, threshold_grid())


def test_thresholds_of_this_very_split_are_said_loudly_with_the_honest_figure() -> None:
    table = replace(random_table(80), sheet_sha256="abc")
    told = assess(table, SETTINGS, HALF, origin("valid", "abc"))
    assert told.honest is not None
    assert "this very split" in told.warnings[0]
    elsewhere = assess(table, SETTINGS, HALF, origin("valid", "another"))
    assert elsewhere.honest is None
    assert not [text for text in elsewhere.warnings if "split" in text]


def test_thresholds_of_test_are_said() -> None:
    told = assess(replace(random_table(80), sheet_sha256="abc"), SETTINGS, HALF, origin("test", "another"))
    assert any("test split" in text for text in told.warnings)
