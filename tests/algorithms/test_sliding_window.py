"""The exact sliding window: the law in any window, giving back, holding, bookings ahead of time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttle.algorithms import SlidingWindowRule
from throttle.algorithms.sliding_window import Log
from throttle.rates import TICKS, Rate

W = 10


def log(rule: SlidingWindowRule, *entries: tuple[int, int]) -> Log:
    state = rule.initial(0)
    for at, cost in entries:
        state = rule.book(state, at, cost)
    return state


def worst(taken: list[tuple[int, int]], window: int) -> int:
    """The most that any half-open window has seen."""
    return max((sum(w for t, w in taken if end - window < t <= end) for end, _ in taken), default=0)


def test_construction() -> None:
    rule = SlidingWindowRule.of(Rate(100, per=60), True)
    assert rule == SlidingWindowRule(100, 60 * TICKS, True)
    assert (rule.most, rule.period, rule.kind, rule.whole) == (100, 60 * TICKS, "sliding_window", True)
    assert rule.anchored(5) is rule
    with pytest.raises(TypeError, match="hold must be True or False, not 1"):
        SlidingWindowRule.of(Rate(1), 1)  # type: ignore[arg-type]
    assert rule.reconfigured(Rate(5), None) == SlidingWindowRule(5, TICKS, True)
    with pytest.raises(ValueError, match="burst=5 means nothing to a sliding window"):
        rule.reconfigured(Rate(5), 5)


def test_half_open_and_the_oldest_first() -> None:
    rule = SlidingWindowRule(3, W)
    state = log(rule, (0, 1), (4, 2))
    assert [rule.earliest(state, 5, cost) for cost in (0, 1, 2, 3)] == [5, 10, 14, 14]
    assert [rule.remaining(state, now) for now in (5, 9, 10, 13, 14)] == [0, 0, 1, 1, 3]
    assert rule.full_at(state, 5) == 14


def entries(state: Log) -> list[tuple[int, Any]]:
    return [(tick, state.weight(tick)) for tick in state.ticks]


def test_permits_of_one_tick_are_one_entry() -> None:
    rule = SlidingWindowRule(3, W)
    state = log(rule, (0, 1), (0, 1), (2, 0))
    assert entries(state) == [(0, 2)]


def test_a_charge_above_the_limit_delays_who_comes_next() -> None:
    rule = SlidingWindowRule(3, W)
    state = log(rule, (0, 2), (1, 5))
    assert rule.remaining(state, 1) == 0
    assert rule.earliest(state, 1, 1) == 11
    assert rule.earliest(state, 1, 0) == 1


@pytest.mark.parametrize(
    ("amount", "taken", "left"),
    [
        (1, 3, [(1, 2), (3, 1), (5, 2)]),  # from its own entry
        (2, 3, [(1, 2), (5, 2)]),
        (3, 3, [(1, 1), (5, 2)]),  # and what is too much, from the oldest
        (3, 4, [(3, 1), (5, 2)]),  # no such entry
        (2, None, [(3, 2), (5, 2)]),  # nobody knows
        (9, 5, []),
        (1, -4, [(1, 2), (3, 2), (5, 2)]),  # a window ago: it is free already
    ],
)
def test_giving_back(amount: int, taken: int | None, left: list[tuple[int, int]]) -> None:
    rule = SlidingWindowRule(6, W)
    state = rule.give(log(rule, (1, 2), (3, 2), (5, 2)), 6, amount, taken)
    assert entries(state) == left
    assert rule.remaining(state, 6) == 6 - sum(weight for _, weight in left)


def test_a_weight_that_is_given_back_is_forgotten() -> None:
    rule = SlidingWindowRule(9, 10)
    state = rule.book(rule.initial(0), 3, 4)
    assert rule.give(state, 4, 1, 3).weights == {3: 3}
    assert rule.give(state, 4, 3, 3).weights == {}


def test_giving_back_after_the_window_frees_nothing_else() -> None:
    rule = SlidingWindowRule(2, W)
    state = log(rule, (0, 2), (10, 2))
    assert rule.remaining(rule.give(state, 10, 1, 0), 10) == 0
    assert rule.remaining(rule.give(state, 10, 1, 3), 10) == 1


asks = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6), st.booleans()), max_size=40)


@given(st.integers(1, 6), st.integers(1, 20), asks)
def test_never_above_the_limit_in_any_window(limit: int, window: int, asks: list[tuple[int, int, bool]]) -> None:
    rule, now = SlidingWindowRule(limit, window), 0
    state = rule.initial(0)
    taken: list[tuple[int, int]] = []
    for pause, size, give in asks:
        now += pause
        if give and taken:
            at, weight = taken.pop(size % len(taken))
            state = rule.give(state, now, weight, at)
        cost = min(size, limit)
        now = rule.earliest(state, now, cost)
        state = rule.book(state, now, cost)
        taken.append((now, cost))
        assert worst(taken, window) <= limit


@given(st.integers(1, 6), st.integers(1, 20), st.lists(st.tuples(st.integers(0, 99), st.integers(1, 6)), max_size=40))
def test_bookings_ahead_of_time_in_any_order_keep_the_law(limit: int, window: int, asks: list[tuple[int, int]]) -> None:
    rule = SlidingWindowRule(limit, window)
    state = rule.initial(0)
    taken: list[tuple[int, int]] = []
    for now, cost in asks:
        at = rule.earliest(state, now, min(cost, limit))
        state = rule.book(state, at, min(cost, limit))
        taken.append((at, min(cost, limit)))
    assert worst(taken, window) <= limit


@given(st.integers(1, 6), st.integers(1, 20), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 15)), max_size=40))
def test_held_work_keeps_the_law_wherever_it_lands(limit: int, window: int, works: list[tuple[int, int]]) -> None:
    """Each permit reaches the server anywhere between its grant and the end of its work: the worst is at either."""
    rule, now = SlidingWindowRule(limit, window, holds=True), 0
    state = rule.initial(0)
    running: list[int] = []
    early: list[tuple[int, int]] = []
    late: list[tuple[int, int]] = []
    for pause, length in works:
        now += pause
        for end in sorted(e for e in running if e <= now):
            running.remove(end)
            state = rule.end(state, end, 1)
            late.append((end, 1))
        assert rule.held(state) == len(running)
        assert rule.exact(state) == (not running)
        due = rule.earliest(state, now, 1)
        if due > now:
            assert not running or due <= now + window
            continue
        state = rule.hold(state, now, 1)
        early.append((now, 1))
        running.append(now + length)
        assert len([e for e, _ in late if e > now - window]) + len(running) <= limit
    assert worst(early, window) <= limit
    assert worst(late, window) <= limit


def test_what_is_held_counts_as_if_it_ended_now() -> None:
    rule = SlidingWindowRule(2, W, holds=True)
    state: Any = rule.hold(log(rule, (0, 1)), 3, 1)
    assert (rule.earliest(state, 5, 1), rule.earliest(state, 5, 2)) == (10, 15)
    assert (rule.remaining(state, 5), rule.remaining(state, 10)) == (0, 1)
    assert (rule.full_at(state, 5), rule.full_at(state, 50)) == (15, 60)
    assert rule.copy(state) == state
    state = rule.end(state, 7, 1)
    assert (rule.exact(state), rule.held(state), rule.earliest(state, 7, 2)) == (True, 0, 17)


def test_other_rates_keep_what_was_used() -> None:
    old = SlidingWindowRule(5, W)
    state = log(old, (0, 2), (6, 2))
    shorter = SlidingWindowRule(5, 4)
    assert shorter.remaining(shorter.carry(old.copy(state), 7, old), 7) == 3
    longer = SlidingWindowRule(5, 40)
    assert longer.remaining(longer.carry(old.copy(state), 12, old), 12) == 1  # what the log still remembers
    fewer = SlidingWindowRule(1, W)
    assert fewer.earliest(fewer.carry(old.copy(state), 7, old), 7, 1) == 16


def test_what_was_dropped_still_counts_for_earlier_ticks() -> None:
    rule = SlidingWindowRule(2, W)
    state = log(rule, (0, 2), (10, 1))
    assert (rule.remaining(state, 9), rule.remaining(state, 10)) == (0, 1)
    assert rule.earliest(state, 5, 1) == 10


def test_work_is_not_held_unless_asked_for() -> None:
    assert not SlidingWindowRule.of(Rate(1)).holds
    assert SlidingWindowRule.of(Rate(1), hold=True).holds


def test_an_empty_log_is_as_new() -> None:
    rule = SlidingWindowRule.of(Rate(2))
    assert rule.full_at(rule.initial(5), 5) == 5
