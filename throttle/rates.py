"""`Rate`: how many permits in how many seconds, its spellings and its checks; exact arithmetic for all of them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

__all__ = ["Exact", "Rate", "check_number", "exact", "seconds", "ticks_of", "wait_of"]

Exact = int | Fraction
"""A number of permits without rounding: an int where it is whole, else a Fraction."""

TICKS = 1_000_000_000
"""Ticks (nanoseconds) in a second: the resolution of time inside the algorithms."""

_UNITS = {
    "ms": Fraction(1, 1000),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), Fraction(1)),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), Fraction(60)),
    **dict.fromkeys(("h", "hr", "hour", "hours"), Fraction(3600)),
    **dict.fromkeys(("d", "day", "days"), Fraction(86400)),
}
_NUMBER = r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_SPELLING = re.compile(rf"\s*({_NUMBER})\s*(?:/|\bper\b)\s*({_NUMBER})?\s*([a-z]+)\s*", re.ASCII | re.IGNORECASE)
_FORMS = 'such as "10/s", "100/minute", "1/5s" or "10 per 2 minutes"; units are ms, s, min, hour and day'


def exact(number: float | Fraction | Decimal) -> Exact:
    """The exact rational of a number's decimal spelling: 0.1 is one tenth, not its binary neighbour.

    Raises `ValueError` for NaN and infinity.

    >>> exact(0.1), exact(3.0)
    (Fraction(1, 10), 3)
    """
    if isinstance(number, int):
        return int(number)
    if isinstance(number, float):
        if number.is_integer() and abs(number) < 2**53:  # above it the binary value is not the spelling: 1e23
            return int(number)
        number = Decimal(repr(float(number)))
    if isinstance(number, Decimal) and not number.is_finite():
        raise ValueError(f"{number} is not a finite number")
    fraction = Fraction(number)
    return fraction.numerator if fraction.denominator == 1 else fraction


def check_number(what: str, value: object, *, least: float = 0.0, above: bool = False) -> float:
    """`value` if it is a finite number >= `least` (> `least` with `above`), else one error that names `what`."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Fraction, Decimal)):
        raise TypeError(f"{what} must be a number, not {value!r}")
    try:
        finite = math.isfinite(value)
    except (OverflowError, ValueError):  # an int that no float can hold, a signaling NaN
        finite = False
    if not finite or value < least or (above and value == least):
        bound = "" if least == -math.inf else f" above {least:g}" if above else f" of at least {least:g}"
        raise ValueError(f"{what} must be a finite number{bound}, not {value!r}")
    return value  # type: ignore[return-value]  # Fraction and Decimal are kept exact


def _spelled(text: str) -> Exact:
    check_number("each number of a rate", float(text), above=True)  # first: exact, 1e999999999 fills the memory
    return exact(Decimal(text))


def seconds(ticks: Exact) -> float:
    """Ticks as seconds; saturates instead of overflowing."""
    return float(min(ticks, 10**300) / TICKS)


_END = 1e15  # seconds: no instant is later, so that sums stay exact enough whatever a server asks for


def ticks_of(now: float) -> int:
    """The whole nanosecond nearest to `now` seconds; monotone, and exact for times spelled in decimals."""
    return round(min(now, _END) * TICKS)


def wait_of(now: float, due: int) -> float:
    """The least float w (nearly) such that `ticks_of(now + w) >= due`: refused before it, granted at it."""
    wait = max(0.0, min(due, 10**300) / TICKS - now)
    while ticks_of(now + wait) < due and now + wait < _END:
        wait += math.ulp(now + wait)
    return wait


@dataclass(frozen=True, slots=True)
class Rate:
    """`permits` every `per` seconds; keeps both, so 60 a minute is not 1 a second to a window.

    Raises `ValueError` for zero, negative, infinite and NaN values. The rate is the exact rational of its spelling.

    >>> Rate(100, per=60)
    Rate(permits=100, per=60.0)
    >>> Rate.parse("5000/h").per_second
    1.3888888888888888
    """

    permits: float
    per: float = 1.0

    def __post_init__(self) -> None:
        check_number("permits of a Rate", self.permits, above=True)
        check_number("per (seconds) of a Rate", self.per, above=True)
        object.__setattr__(self, "per", float(self.per))

    @property
    def per_second(self) -> float:
        """Permits per second, rounded to a float."""
        try:
            return float(Fraction(exact(self.permits)) / exact(self.per))
        except OverflowError:
            return math.inf  # more than floats go

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read a spelling: "10/s", "100/minute", "5000/h", "1/5s", "10 per 2 minutes", "0.5/s".

        Units: ms, s, min, hour, day and their usual longer and plural forms. Raises `ValueError` that shows the forms.

        >>> Rate.parse("10 per 2 minutes")
        Rate(permits=10, per=120.0)
        """
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a rate is text {_FORMS}; not {text!r}")
        match = _SPELLING.fullmatch(text)
        unit = _UNITS.get(match[3].lower()) if match else None
        if match is None or unit is None:
            raise ValueError(f"unreadable rate {text!r}: write {_FORMS}")
        try:
            permits, per = _spelled(match[1]), _spelled(match[2] or "1") * unit
            return cls(permits if isinstance(permits, int) else float(permits), float(per))
        except (ValueError, OverflowError) as error:
            raise ValueError(f"rate {text!r} must be finite and above zero") from error

    @classmethod
    def of(cls, value: Rate | str | float) -> Rate:
        """`value` as a Rate: a Rate, a spelling, or a number of permits per second.

        >>> Rate.of(10) == Rate.of("10/s") == Rate(10)
        True
        """
        if isinstance(value, Rate):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a rate is a Rate, a number of permits per second or text {_FORMS}; not {value!r}")
        return cls(value)
