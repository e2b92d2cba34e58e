import pytest

from cxrtool.cells import cell, exact, interval_text, p_text, range_text
from cxrtool.evaluation.intervals import Interval


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (True, "yes"),
        (False, "no"),
        (0.12345, "0.1235"),
        (0, "0"),
        (223414, "223,414"),
        ("Edema", "Edema"),
    ],
)
def test_a_cell(value: object, text: str) -> None:
    assert cell(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00003, "0.00003"), (1e-7, "0.0000001"), (0.1, "0.1"), (1.0, "1.0"), (32, "32"), (1e-4, "0.0001"), (0, "0")],
)
def test_a_number_with_all_its_digits(value: float, text: str) -> None:
    assert exact(value) == text
    assert float(text) == value


def test_a_value_with_its_interval() -> None:
    assert interval_text(None, None) == interval_text(float("nan"), Interval(None, None)) == "–"
    assert interval_text(0.5, None) == interval_text(0.5, Interval(None, None)) == "0.5000"
    assert interval_text(0.5, Interval(0.4, 0.6), 2) == "0.50 (0.40-0.60)"


def test_a_range() -> None:
    assert range_text(Interval(None, None)) == "–"
    assert range_text(Interval(0.314, 0.47), 2) == "0.31 to 0.47"
    assert range_text(Interval(-0.012, 0.0345), signed=True) == "-0.0120 to +0.0345"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), (0.0, "< 0.0001"), (0.00012, "0.0001"), (0.0082, "0.0082"), (0.5, "0.500")],
)
def test_a_p_value(value: float | None, text: str) -> None:
    assert p_text(value) == text
