"""Numbers as text for tables on screen, the report and the model card."""

import math
from decimal import Decimal
from typing import Protocol

UNDEFINED = "–"


class Bounds(Protocol):
    """An interval with a lower and an upper bound, which are None if undefined."""

    @property
    def low(self) -> float | None: ...

    @property
    def high(self) -> float | None: ...


def cell(value: object, digits: int = 4) -> str:
    """Return a value as text.

    Floats get `digits` decimals, integers commas between thousands; booleans become yes or no, None and NaN a dash.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNDEFINED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def p_text(value: float | None) -> str:
    """Return a p-value as ``0.032`` or, below 0.01, ``0.0032``; ``< 0.0001`` if it is smaller, a dash for None."""
    if value is None or math.isnan(value):
        return UNDEFINED
    if value < 0.0001:
        return "< 0.0001"
    return f"{value:.4f}" if value < 0.01 else f"{value:.3f}"


def exact(value: int | float) -> str:
    """Return a number with all its digits and without an exponent: 3e-05 becomes ``0.00003``."""
    return format(Decimal(repr(value)), "f")


def interval_text(value: float | None, interval: Bounds | None, digits: int = 4) -> str:
    """Return ``0.8123 (0.7401-0.8766)``, the value alone if the interval is undefined, or a dash if both are.

    An interval with a negative end is written ``-0.12 (-0.31 to 0.07)``.
    """
    if value is None or interval is None or interval.low is None or interval.high is None:
        return cell(value, digits)
    if interval.low < 0:
        return f"{cell(value, digits)} ({range_text(interval, digits)})"
    return f"{cell(value, digits)} ({cell(interval.low, digits)}-{cell(interval.high, digits)})"


def range_text(interval: Bounds, digits: int = 4, signed: bool = False) -> str:
    """Return ``0.31 to 0.47``, with `signed` ``-0.0120 to +0.0345``, or a dash if the interval is undefined."""
    if interval.low is None or interval.high is None:
        return UNDEFINED
    sign = "+" if signed else ""
    return f"{interval.low:{sign}.{digits}f} to {interval.high:{sign}.{digits}f}"
