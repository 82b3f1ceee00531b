"""Rates: their spellings, their checks, and arithmetic by decimal spelling."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttle import Rate
from throttle.rates import TICKS, check_number, exact, seconds


@pytest.mark.parametrize(
    ("text", "permits", "per"),
    [
        ("10/s", 10, 1),
        ("10/sec", 10, 1),
        (" 10 / second ", 10, 1),
        ("100/minute", 100, 60),
        ("100/min", 100, 60),
        ("100/m", 100, 60),
        ("5000/h", 5000, 3600),
        ("1/5s", 1, 5),
        ("10 per 2 minutes", 10, 120),
        ("10 PER 2 Minutes", 10, 120),
        ("0.5/s", 0.5, 1),
        ("1/500ms", 1, 0.5),
        ("3 per 2 days", 3, 172800),
        ("1e3/s", 1000, 1),
        ("2 per 1.5 hours", 2, 5400),
    ],
)
def test_spellings(text: str, permits: float, per: float) -> None:
    assert Rate.parse(text) == Rate(permits, per) == Rate.of(text)


@pytest.mark.parametrize(
    "text",
    ["", "10", "/s", "x/s", "10/fortnight", "-1/s", "inf/s", "nan/s", "10/-2s", "１/s", "10 s", "10//s", "10/s/s"],
)
def test_unreadable(text: str) -> None:
    with pytest.raises(ValueError, match="unreadable rate") as caught:
        Rate.parse(text)
    assert repr(text) in str(caught.value)
    assert '"10/s"' in str(caught.value)


@pytest.mark.parametrize("text", ["0/s", "10/0s", "1e999/s", "1e999999999/s", "1/1e-999999999s", "9" * 5000 + "/s"])
def test_spelled_but_not_a_rate(text: str) -> None:
    with pytest.raises(ValueError, match="must be finite and above zero"):
        Rate.parse(text)


@pytest.mark.parametrize("bad", [0, -1, -0.5, math.inf, -math.inf, math.nan])
def test_bad_numbers(bad: float) -> None:
    for make in (lambda: Rate(bad), lambda: Rate(1, bad), lambda: Rate.of(bad)):
        with pytest.raises(ValueError, match=str(bad)):
            make()


@pytest.mark.parametrize("bad", [10**400, Fraction(10**400), Decimal("1e400"), Decimal("sNaN")])
def test_numbers_that_no_float_can_hold(bad: float) -> None:
    with pytest.raises(ValueError, match="must be a finite number"):
        check_number("x", bad)
    with pytest.raises(ValueError, match="permits of a Rate must be a finite number"):
        Rate(bad)


@pytest.mark.parametrize("bad", [None, "10", [1], True, 1j])
def test_no_numbers(bad: object) -> None:
    with pytest.raises(TypeError):
        Rate(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Rate(1, bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [None, [1], True, b"10/s"])
def test_of_what_is_no_rate(bad: object) -> None:
    with pytest.raises(TypeError, match="a rate is"):
        Rate.of(bad)  # type: ignore[arg-type]


def test_parse_takes_text_only() -> None:
    with pytest.raises(TypeError, match="a rate is text"):
        Rate.parse(10)  # type: ignore[arg-type]


def test_keeps_both_and_derives_the_third() -> None:
    rate = Rate(100, 60)
    assert (rate.permits, rate.per, rate.per_second) == (100, 60.0, 100 / 60)
    assert Rate.of(rate) is rate
    assert Rate(1, 5e-324).per_second == math.inf
    with pytest.raises(AttributeError):
        rate.per = 1.0  # type: ignore[misc]


@given(st.floats(min_value=1e-6, max_value=1e6), st.floats(min_value=1e-3, max_value=1e6))
def test_per_second_is_the_nearest_float(permits: float, per: float) -> None:
    assert Rate(permits, per).per_second == float(Fraction(repr(permits)) / Fraction(repr(per)))


@pytest.mark.parametrize(
    ("number", "is_"),
    [
        (0.1, Fraction(1, 10)),
        (3, 3),
        (3.0, 3),
        (1e23, 10**23),
        (Decimal("0.25"), Fraction(1, 4)),
        (Fraction(6, 3), 2),
        (Fraction(1, 3), Fraction(1, 3)),
    ],
)
def test_exact(number: float, is_: Fraction) -> None:
    assert exact(number) == is_
    assert isinstance(exact(number), int) == (is_ == int(is_))


@pytest.mark.parametrize("bad", [math.nan, math.inf, Decimal("nan"), Decimal("inf")])
def test_exact_of_no_number(bad: float) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        exact(bad)


def test_check_number_says_what_and_what_is_accepted() -> None:
    assert check_number("x", 0) == 0
    with pytest.raises(ValueError, match=r"x must be a finite number of at least 2, not 1"):
        check_number("x", 1, least=2)
    with pytest.raises(ValueError, match=r"x must be a finite number above 0, not 0"):
        check_number("x", 0, above=True)
    with pytest.raises(TypeError, match=r"x must be a number, not 'a'"):
        check_number("x", "a")


def test_seconds_saturate() -> None:
    assert seconds(TICKS // 2) == 0.5
    assert seconds(10**400) == 1e291
