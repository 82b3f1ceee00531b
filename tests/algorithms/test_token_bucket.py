"""The token bucket: construction, tables of (t, cost, expected), reconfiguration, the bound in any interval."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttle.algorithms import TokenBucketRule
from throttle.rates import TICKS, Rate

S = TICKS


@pytest.mark.parametrize(
    ("rate", "burst", "expected"),
    [
        ("10/s", None, TokenBucketRule(1, S // 10, 10, S)),
        ("10/s", 20, TokenBucketRule(1, S // 10, 20, S)),
        ("7/s", 2.5, TokenBucketRule(14, 2 * S, Fraction(5, 2), S)),  # so the burst is 5 * S units
        ("0.5/s", None, TokenBucketRule(1, 2 * S, 1, S)),  # at least 1
        ("5000/h", 1, TokenBucketRule(1, 720_000_000, 1, 3600 * S)),
        ("1/5s", None, TokenBucketRule(1, 5 * S, 1, 5 * S)),
        ("1.5/s", None, TokenBucketRule(6, 4 * S, Fraction(3, 2), S)),
    ],
)
def test_construction(rate: str, burst: float | None, expected: TokenBucketRule) -> None:
    rule = TokenBucketRule.of(Rate.parse(rate), burst)
    assert rule == expected
    assert rule.most == rule.burst
    assert (rule.burst * rule.ticks).denominator == 1
    assert (rule.kind, rule.whole, rule.holds) == ("token_bucket", False, False)
    assert rule.anchored(-5) is rule


@pytest.mark.parametrize("burst", [0, -1, float("nan"), float("inf")])
def test_a_bad_burst_is_named(burst: float) -> None:
    with pytest.raises(ValueError, match=rf"burst must be a finite number above 0, not {burst!r}"):
        TokenBucketRule.of(Rate(1), burst)
    with pytest.raises(TypeError, match="burst"):
        TokenBucketRule.of(Rate(1), "5")  # type: ignore[arg-type]


TABLE: list[tuple[str, float | None, list[tuple[float, Any, float, Any]]]] = [
    # (seconds, cost, wait in seconds, remaining after the booking at its instant)
    ("1/s", 3, [(0, 1, 0, 2), (0, 2, 0, 0), (0, 1, 1, 0), (1, 3, 3, 0), (10, 1, 0, 2)]),
    ("10/s", 1, [(0, 1, 0, 0), (0, 1, 0.1, 0), (0.1, 1, 0.1, 0), (0.25, 1, 0.05, 0)]),
    ("4/2s", 2, [(0, 2, 0, 0), (0.25, 1, 0.25, 0), (1, Fraction(1, 2), 0, Fraction(1, 2)), (1, 0, 0, Fraction(1, 2))]),
    ("1/3s", None, [(0, 1, 0, 0), (1, 1, 2, 0), (3, 1, 3, 0)]),
]


@pytest.mark.parametrize(("rate", "burst", "rows"), TABLE)
def test_table(rate: str, burst: float | None, rows: list[tuple[float, Any, float, Any]]) -> None:
    rule = TokenBucketRule.of(Rate.parse(rate), burst)
    state = rule.initial(0)
    for at, cost, wait, remaining in rows:
        now = round(at * S)
        due = rule.earliest(state, now, cost)
        assert due - now == round(wait * S)
        state = rule.book(state, due, cost)
        assert rule.remaining(state, due) == remaining


def test_integers_stay_integers() -> None:
    rule = TokenBucketRule.of(Rate(10), 20)
    state = rule.book(rule.initial(5), 5, 3)
    assert type(state) is int
    state = rule.book(state, 5, Fraction(1, 10))  # a tenth of a permit is a whole number of units
    assert type(state) is int
    assert type(rule.give(state, 5, Fraction(1, 10), 5)) is int
    assert type(rule.remaining(rule.initial(5), 5)) is int


def test_what_is_charged_above_the_burst_delays_who_comes_next() -> None:
    rule = TokenBucketRule.of(Rate(1), 5)
    state = rule.book(rule.initial(0), 0, 12)
    assert rule.remaining(state, 0) == 0
    assert rule.earliest(state, 0, 1) == 8 * S
    assert rule.earliest(state, 0, 0) == 0  # nothing is always granted
    assert rule.full_at(state, 0) == 12 * S
    state = rule.give(state, 0, 100, 0)
    assert rule.remaining(state, 0) == 5  # never above the burst
    assert rule.full_at(state, 0) == 0


def test_reconfigured_keeps_what_was_used() -> None:
    old = TokenBucketRule.of(Rate(10), 20)
    state = old.book(old.initial(S), S, 15)
    new = old.reconfigured(Rate(7, per=3), None)
    assert new == TokenBucketRule.of(Rate(7, per=3), 20)
    assert new.remaining(new.carry(state, S, old), S) == 5
    larger = old.reconfigured(Rate(1), 30)
    assert larger.remaining(larger.carry(state, S, old), S) == 15
    smaller = old.reconfigured(Rate(1), 10)
    kept = smaller.carry(state, S, old)
    assert smaller.remaining(kept, S) == 0
    assert smaller.earliest(kept, S, 1) == 7 * S  # 5 below zero, and one
    assert old.reconfigured(Rate(1), None).burst == 20


@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.integers(1, 30),
    st.integers(1, 50),
    st.integers(1, 50),
    st.integers(0, 30),
)
def test_carry_is_exact(permits: int, ticks: int, burst: int, permits2: int, ticks2: int, used: int) -> None:
    old, new = TokenBucketRule(permits, ticks, burst, 1), TokenBucketRule(permits2, ticks2, 40, 1)
    used = min(used, burst)
    state = old.book(old.initial(0), 0, used)
    for now in range(0, 60, 7):
        missing = burst - old.remaining(state, now)
        assert new.remaining(new.carry(state, now, old), now) == 40 - missing


@given(
    st.integers(1, 9),
    st.integers(1, 20),
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=40),
)
def test_never_above_burst_and_rate_in_any_interval(
    permits: int, ticks: int, burst: int, asks: list[tuple[int, int]]
) -> None:
    rule, now = TokenBucketRule(permits, ticks, burst, ticks), 0
    state = rule.initial(0)
    granted: list[tuple[int, int]] = []
    for pause, cost in asks:
        now = rule.earliest(state, now + pause, min(cost, burst))
        state = rule.book(state, now, min(cost, burst))
        granted.append((now, min(cost, burst)))
    for i, (start, _) in enumerate(granted):
        passed = 0
        for end, cost in granted[i:]:
            passed += cost
            assert passed <= burst + Fraction(permits, ticks) * (end - start)


def test_extreme_rates_do_not_overflow() -> None:
    slow, fast = TokenBucketRule.of(Rate(1e-300)), TokenBucketRule.of(Rate(1e300))
    state = slow.book(slow.initial(0), 0, 1)
    assert slow.earliest(state, 0, 1) == 10**309
    assert fast.burst == 10**300  # by its spelling, not the nearest binary number
    state = fast.book(fast.initial(0), 0, 10**300)
    assert fast.earliest(state, 0, 1) == 1


def test_numbers_of_a_rule_are_whole() -> None:
    rule = TokenBucketRule.of(Rate(1, per=0.3), 20)
    assert (type(rule.period), rule.period) == (int, 300_000_000)
    assert rule.slack == 19 * rule.ticks
