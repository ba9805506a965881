"""How numbers are written: one way, everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"
"""In a cell that has no value."""
SEEN = 5e-4
"""What three decimals show as more than nothing."""


def percent(value: float) -> str:
    """A share as a percentage with one decimal, as fine as three decimals of the share.

    What is no share at all, beyond a thousand, is written as the number it is.

    >>> percent(0.9134), percent(float("nan")), percent(1e30)
    ('91.3%', 'not defined', '1.00e+30')
    """
    return _minus(f"{100 * value:.1f}%") if abs(value) < 1000 else decimals(value)


def decimals(value: float, beside: float = 0.0) -> str:
    """A number with three decimals; very large and very small ones in powers of ten.

    Args:
        value: the number.
        beside: the largest that stands beside it; next to one with three decimals it has three.

    >>> decimals(0.1234), decimals(2.0), decimals(3.2e9), decimals(float("inf"))
    ('0.123', '2.000', '3.20e+09', 'infinite')
    >>> decimals(0.0002), decimals(0.0002, beside=0.01)
    ('2.00e-04', '0.000')
    """
    if math.isnan(value):
        return "not defined"
    if math.isinf(value):
        return "infinite" if value > 0 else f"{MINUS}infinite"
    size = abs(value)
    tiny = 0 < size < SEEN and not abs(beside) >= SEEN
    return _minus(f"{value:.2e}" if size >= 1e5 or tiny else f"{value:.3f}")


def p_value(value: float) -> str:
    """Three decimals, and never a flat zero: resampling cannot show one.

    >>> p_value(0.0), p_value(0.31)
    ('p < 0.001', 'p = 0.310')
    """
    if not math.isfinite(value):
        return "p not defined"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def seconds(value: float) -> str:
    """Seconds as a person says them.

    >>> seconds(4.26), seconds(135.0), seconds(7500.0)
    ('4.3 s', '2 min 15 s', '2 h 5 min')
    """
    if not math.isfinite(value):
        return "unknown"
    whole = round(value)
    if whole < 60:
        return f"{value:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(value: int, noun: str) -> str:
    """A number of things, with its plural.

    >>> count(1, "text"), count(12000, "text")
    ('1 text', '12,000 texts')
    """
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def interval(low: float, high: float, unit: str) -> str:
    """Both ends in brackets, without a percentage's sign.

    >>> interval(0.25, 0.75, "%"), interval(0.0001, 0.02, "nats")
    ('[25.0, 75.0]', '[0.000, 0.020]')
    """
    if unit in ("%", "points"):
        return f"[{percent(low)}, {percent(high)}]".replace("%", "")
    largest = max(abs(low), abs(high))
    return f"[{decimals(low, largest)}, {decimals(high, largest)}]"


@dataclass(frozen=True)
class StoredEstimate:
    """A value with its 95% interval, where one was computed."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, metrics: Mapping[str, float], name: str) -> StoredEstimate | None:
        """`name` with `name/low` and `name/high`; None if it was not measured."""
        if name not in metrics:
            return None
        return cls(metrics[name], metrics.get(f"{name}/low"), metrics.get(f"{name}/high"))

    def interval(self, unit: str) -> str:
        """`[low, high]`, or nothing where there is no interval.

        >>> StoredEstimate(0.5, 0.25, 0.75).interval("%")
        '[25.0, 75.0]'
        """
        if self.low is None or self.high is None:
            return ""
        return interval(self.low, self.high, unit)

    def text(self, unit: str) -> str:
        """The value in its unit ("%" or a plain number), and the interval.

        >>> StoredEstimate(0.5, 0.25, 0.75).text("%"), StoredEstimate(0.5).text("nats")
        ('50.0% [25.0, 75.0]', '0.500')
        >>> StoredEstimate(0.0002, 0.0, 0.25).text("nats")
        '0.000 [0.000, 0.250]'
        """
        beside = max(abs(self.low or 0.0), abs(self.high or 0.0))
        value = percent(self.value) if unit == "%" else decimals(self.value, beside)
        return f"{value} {self.interval(unit)}".rstrip()


def _minus(text: str) -> str:
    return text.replace("-", MINUS, 1) if text.startswith("-") else text
