"""Counts in memory: the one atomic verb against the limiters, names that are shared, and keys that cost nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttle import AllOf, Rate, SlidingWindow, TokenBucket
from throttle.algorithms import FixedWindowRule, SlidingWindowRule, TokenBucketRule
from throttle.algorithms.base import Algorithm
from throttle.counters import Ask, Booking, MemoryCounter
from throttle.counters.memory import Table
from throttle.rates import TICKS
from throttle.testing import VirtualClock, run_virtual

RULES = [
    TokenBucketRule.of(Rate(4), 6),
    SlidingWindowRule.of(Rate(3)),
    FixedWindowRule.of(Rate(5, 2), 0.0),
]


def book(counter: MemoryCounter, *asks: Ask) -> list[Booking]:
    async def main() -> list[Booking]:
        return list(await counter.book(asks))

    return run_virtual(main)


def test_a_batch_is_booked_in_order_as_far_as_it_may_wait() -> None:
    rule = TokenBucketRule.of(Rate(1), 1)
    [booking] = book(MemoryCounter(), Ask("api", "", rule, (1, 1, 1, 1), within=2 * TICKS))
    assert booking == Booking((0, TICKS, 2 * TICKS), 3 * TICKS, 0, 3 * TICKS)


def test_an_empty_batch_only_looks_and_a_refusal_writes_nothing() -> None:
    counter, rule = MemoryCounter(), SlidingWindowRule.of(Rate(2))
    assert book(counter, Ask("api", "", rule)) == [Booking((), 0, 2, 0)]
    assert book(counter, Ask("api", "", rule, (2,)))[0].waits == (0,)
    before = book(counter, Ask("api", "", rule))
    assert book(counter, Ask("api", "", rule, (1,))) == [Booking((), TICKS, 0, TICKS)]
    assert book(counter, Ask("api", "", rule)) == before


def test_giving_back_and_charging_come_first() -> None:
    counter, rule = MemoryCounter(), TokenBucketRule.of(Rate(1), 3)
    assert book(counter, Ask("api", "", rule, (3,)))[0].remaining == 0
    assert book(counter, Ask("api", "", rule, (2,), give=2))[0].waits == (0,)
    assert book(counter, Ask("api", "", rule, give=-5))[0].reset_after == 8 * TICKS


def test_several_limits_are_booked_together_or_not_at_all() -> None:
    counter = MemoryCounter()
    fast, slow = TokenBucketRule.of(Rate(10), 10), TokenBucketRule.of(Rate(1), 1)
    asks = [Ask("fast", "", fast, (1, 1)), Ask("slow", "", slow, (1, 1))]
    first, second = book(counter, *asks)
    assert (first.waits, second.waits) == ((0,), (0,))
    assert (first.wait, first.remaining, second.remaining) == (TICKS, 9, 0)
    third, _ = book(counter, Ask("fast", "", fast, (1,), within=None), Ask("slow", "", slow, (1,), within=None))
    assert third.waits == (TICKS,)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
@given(costs=st.lists(st.integers(min_value=0, max_value=3), max_size=12))
def test_what_is_booked_ahead_is_what_waiting_would_have_brought(rule: Algorithm, costs: list[int]) -> None:
    [booking] = book(MemoryCounter(), Ask("x", "k", rule, tuple(costs), within=None))
    state, now, waits = rule.initial(0), 0, []
    for cost in costs:
        now = rule.earliest(state, now, cost)
        state = rule.book(state, now, cost)
        waits.append(now)
    assert list(booking.waits) == waits
    assert booking.wait == 0


def test_one_name_is_one_limit_for_limiters_and_for_the_counter() -> None:
    counter, clock = MemoryCounter(), VirtualClock()
    one = TokenBucket("1/s", burst=2, counter=counter, name="api", clock=clock)
    two = TokenBucket("1/s", burst=2, counter=counter, name="api", clock=clock)
    assert one.try_acquire_nowait()
    assert two.try_acquire_nowait()
    assert not one.try_acquire_nowait()
    assert book(counter, Ask("api", "", TokenBucketRule.of(Rate(1), 2)))[0].remaining == 0
    with pytest.raises(ValueError, match=r"name 'api' counts by another rule already"):
        SlidingWindow("1/s", counter=counter, name="api", clock=clock)
    with pytest.raises(ValueError, match=r"name 'api' counts on another clock already"):
        TokenBucket("1/s", burst=2, counter=counter, name="api")
    with pytest.raises(ValueError, match=r"needs name="):
        TokenBucket("1/s", counter=counter)
    other = TokenBucket("1/s", counter=MemoryCounter(), name="api", clock=clock)
    with pytest.raises(ValueError, match="share one counter"):
        AllOf(one, other)


def test_opens_and_closes_as_a_counter_does() -> None:
    async def main() -> None:
        async with MemoryCounter() as counter:
            assert not counter.shared
            assert repr(counter) == "MemoryCounter()"
            await counter.aclose()
            assert (await counter.book([]))[:] == []

    run_virtual(main)


def test_keys_that_are_as_new_are_given_back_while_others_are_used() -> None:
    table = Table(TokenBucketRule.of(Rate(1), 1))
    rule = table.rule

    def use(key: str, now: int) -> None:
        table.put(key, rule.book(table.get(key, now), now, 1), now)

    for number in range(1000):
        use(f"key {number}", 0)
    assert len(table) == 1000
    use("slow", 5 * TICKS)
    for turn in range(1000):
        use(f"new {turn % 3}", 6 * TICKS + turn)
    assert len(table) <= 4


def test_a_key_in_use_is_never_forgotten() -> None:
    table = Table(TokenBucketRule.of(Rate(1), 1))
    rule = table.rule
    table.put("kept", rule.book(rule.initial(0), 0, 1000), 0)
    for turn in range(2000):
        now = turn * TICKS // 4
        table.put(f"key {turn}", rule.book(table.get(f"key {turn}", now), now, 1), now)
    assert rule.remaining(table.get("kept", now), now) == 0
