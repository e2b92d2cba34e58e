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
