"""Values as people read them: in tables on screen, in the report, in the model card."""

import math
from typing import Protocol

UNDEFINED = "–"


class Ends(Protocol):
    """What has a lower and an upper end; None where it is undefined."""

    @property
    def low(self) -> float | None: ...

    @property
    def high(self) -> float | None: ...


def cell(value: object, digits: int = 4) -> str:
    """A value as text: numbers with so many decimals, thousands apart, yes or no, a dash for what is undefined."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNDEFINED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def interval_text(value: float | None, interval: Ends | None, digits: int = 4) -> str:
    """``0.8123 (0.7401-0.8766)``; the value alone without an interval, a dash for what is undefined."""
    if value is None or interval is None or interval.low is None or interval.high is None:
        return cell(value, digits)
    return f"{cell(value, digits)} ({cell(interval.low, digits)}-{cell(interval.high, digits)})"


def range_text(interval: Ends, digits: int = 4, signed: bool = False) -> str:
    """``0.31 to 0.47``, or with signs ``-0.0120 to +0.0345``; a dash for what is undefined."""
    if interval.low is None or interval.high is None:
        return UNDEFINED
    sign = "+" if signed else ""
    return f"{interval.low:{sign}.{digits}f} to {interval.high:{sign}.{digits}f}"
