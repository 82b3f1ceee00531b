"""Aligned windows: whole permits, alignment, debts, refunds, other rates."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttle.algorithms import Algorithm, FixedWindowRule, SlidingWindowCounterRule, window_of
from throttle.rates import TICKS, Rate

S = TICKS
W = 10


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("100/min", (100, 60 * S)),
        ("0.5/s", (1, 2 * S)),
        ("0.3/s", (1, 3_333_333_334)),  # rounded up to a whole tick
        ("1.5/s", (3, 2 * S)),
        ("2.125/m", (17, 480 * S)),
        ("1.001/s", (1001, 1000 * S)),
        ("1/5s", (1, 5 * S)),
        ("2/0.0000000015s", (2, 2)),
    ],
)
def test_window_of(rate: str, expected: tuple[int, int]) -> None:
    assert window_of(Rate.parse(rate)) == expected
    assert type(window_of(Rate.parse(rate))[1]) is int


def test_a_fraction_that_cannot_be_widened_says_what_to_write() -> None:
    with pytest.raises(ValueError, match=r"Rate\(permits=1\.0001, per=2\.0\).*such as Rate\(permits=1, per=2\.0\)"):
        window_of(Rate(1.0001, per=2))
    assert window_of(Rate(1, per=float(Decimal("0.5")))) == (1, S // 2)


@pytest.mark.parametrize(
    ("make", "name"), [(FixedWindowRule, "fixed window"), (SlidingWindowCounterRule, "sliding window counter")]
)
def test_what_both_have(make: Any, name: str) -> None:
    rule = make.of(Rate(5000, per=3600))
    assert (rule.most, rule.period, rule.whole, rule.holds) == (5000, 3600 * S, True, False)
    assert rule.exact(rule.initial(0)) is True
    anchored = rule.anchored(-123)
    assert anchored.epoch == -123
    assert anchored.reconfigured(Rate(1), None) == make(1, S, epoch=-123)
    with pytest.raises(ValueError, match=f"burst=3 means nothing to a {name}: its burst is the whole window"):
        rule.reconfigured(Rate(1), 3)


def test_fixed_windows_are_aligned_to_the_epoch_plus_offset() -> None:
    rule = FixedWindowRule.of(Rate(1, per=10), offset=-2.5).anchored(-1_000_000_003 * S)
    state = rule.book(rule.initial(0), 0, 1)
    unix = 1_000_000_003
    due = rule.earliest(state, 0, 1)
    assert (due / S + unix + 2.5) % 10 == 0
    assert 0 < due <= 10 * S
    assert FixedWindowRule.of(Rate(1), offset=0.1).offset == S // 10


@pytest.mark.parametrize("offset", [float("nan"), float("inf")])
def test_a_bad_offset_is_named(offset: float) -> None:
    with pytest.raises(ValueError, match=rf"^offset \(seconds\) .*{offset!r}"):
        FixedWindowRule.of(Rate(1), offset)
    with pytest.raises(TypeError, match="offset"):
        FixedWindowRule.of(Rate(1), "1")  # type: ignore[arg-type]


def test_fixed_window_pays_debts_window_by_window() -> None:
    rule = FixedWindowRule(4, W)
    state = rule.book(rule.initial(3), 3, 11)
    assert [rule.remaining(state, now) for now in (3, 10, 20, 30)] == [0, 0, 1, 4]
    assert [rule.earliest(state, 3, cost) for cost in (0, 1, 2, 4)] == [3, 20, 30, 30]
    assert rule.full_at(state, 3) == 30
    assert rule.full_at(rule.initial(3), 3) == 3


@pytest.mark.parametrize(
    ("now", "amount", "taken", "remaining"),
    [
        (5, 2, 3, 2),
        (5, 9, 3, 4),  # never above the limit
        (5, 2, None, 2),
        (12, 2, 3, 4),  # its window is over: free already
        (12, 2, None, 4),
    ],
)
def test_fixed_window_gives_back_in_its_own_window(now: int, amount: int, taken: int | None, remaining: int) -> None:
    rule = FixedWindowRule(4, W)
    state = rule.give(rule.book(rule.initial(3), 3, 4), now, amount, taken)
    assert rule.remaining(state, now) == remaining


def test_what_was_taken_in_an_earlier_window_frees_nothing_of_this_one() -> None:
    rule = FixedWindowRule(4, W)
    assert rule.give(rule.book((0, 4), 12, 3), 14, 2, 9) == (10, 3)
    assert rule.give(rule.book((0, 4), 12, 3), 14, 2, 10) == (10, 1)
    counter = SlidingWindowCounterRule(4, W)
    assert [counter.give((20, 3, 1), 24, 2, taken) for taken in (9, 10)] == [(20, 3, 1), (20, 1, 1)]


def test_the_windows_of_a_clock_begin_with_its_epoch() -> None:
    for rule in (FixedWindowRule(4, W), SlidingWindowCounterRule(4, W)):
        assert [rule.anchored(epoch).initial(25)[0] for epoch in (0, 3, -3)] == [20, 23, 17]


def test_a_debt_can_be_given_back_later() -> None:
    fixed, counter = FixedWindowRule(4, W), SlidingWindowCounterRule(4, W)
    state = fixed.give(fixed.book(fixed.initial(3), 3, 40), 12, 30, 3)
    assert state == (10, 6)
    both = counter.give(counter.book(counter.initial(3), 3, 40), 25, 30, 3)
    assert both == (20, 4, 4)  # 40 - 8 - 30 would be 2: what the window itself may have is not touched


def test_fixed_window_at_other_rates() -> None:
    old = FixedWindowRule(4, W, offset=3)
    state = old.book(old.initial(5), 5, 4)
    more = FixedWindowRule(6, W, offset=3)
    assert more.remaining(more.carry(state, 6, old), 6) == 2
    assert more.carry(state, 14, old) == (13, 0)
    longer = FixedWindowRule(6, 25, offset=3)
    assert longer.carry(state, 6, old) == (3, 4)
    ahead = old.book(old.initial(5), 25, 4)
    assert more.carry(ahead, 6, old) == (23, 4)  # booked ahead of time


def test_a_window_booked_ahead_of_time_has_no_room_before_it() -> None:
    rules: list[Algorithm] = [FixedWindowRule(4, W), SlidingWindowCounterRule(4, W)]
    for rule in rules:
        state = rule.book(rule.initial(0), 15, 1)
        assert rule.remaining(state, 5) == 0
        assert rule.earliest(state, 5, 1) == 10


def test_counter_estimate_has_no_step_at_any_edge() -> None:
    rule = SlidingWindowCounterRule(4, W)
    state = rule.book(rule.initial(3), 3, 11)
    left = [rule.remaining(state, now) for now in range(3, 45)]
    assert left == sorted(left)
    assert max(b - a for a, b in pairwise(left)) == 1
    assert rule.full_at(state, 3) == 40
    assert rule.full_at(rule.initial(3), 3) == 3


@pytest.mark.parametrize(
    ("now", "amount", "taken", "state"),
    [
        (14, 1, 13, (10, 3, 1)),
        (14, 3, 13, (10, 2, 0)),  # more than the window has: the rest from the one before
        (14, 2, 5, (10, 1, 2)),
        (14, 9, 5, (10, 0, 2)),
        (14, 1, None, (10, 3, 1)),
        (24, 2, 5, (20, 2, 0)),  # gone
    ],
)
def test_counter_gives_back_in_its_own_window(now: int, amount: int, taken: int | None, state: tuple[int, ...]) -> None:
    rule = SlidingWindowCounterRule(4, W)
    before = rule.book(rule.book(rule.initial(3), 3, 3), 12, 2)
    assert rule.give(before, now, amount, taken) == state


def test_counter_at_other_rates() -> None:
    old = SlidingWindowCounterRule(8, W)
    state = old.book(old.book(old.initial(3), 3, 4), 12, 2)
    assert SlidingWindowCounterRule(3, W).carry(state, 15, old) == (10, 4, 2)
    assert SlidingWindowCounterRule(8, 40).carry(state, 15, old) == (0, 0, 6)  # all of both windows lies inside
    assert SlidingWindowCounterRule(8, 7).carry(state, 15, old) == (14, 0, 3)  # 2 of the ticks before: a fifth of 4, up
    assert SlidingWindowCounterRule(8, 4).carry(state, 15, old) == (12, 0, 2)


@given(
    st.integers(1, 9), st.integers(1, 12), st.integers(1, 9), st.integers(1, 30), st.integers(0, 9), st.integers(0, 9),
    st.integers(0, 11),
)  # fmt: skip
def test_carrying_never_forgets_what_the_new_window_can_still_see(
    limit: int, window: int, limit2: int, window2: int, first: int, second: int, elapsed: int
) -> None:
    old, new = SlidingWindowCounterRule(limit, window), SlidingWindowCounterRule(limit2, window2)
    now = window + elapsed % window
    state = old.book(old.book(old.initial(0), 0, min(first, limit)), window, min(second, limit))
    _, previous, current = old.book(state, now, 0)
    used = limit2 - new.remaining(new.carry(state, now, old), now)
    assert used >= min(limit2, current)
    if window2 >= window + elapsed % window:
        assert used == min(limit2, previous + current)
