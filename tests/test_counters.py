"""The atomic verb of memory against the limiters, names that share, and the two generations of a table."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import virtual

from throttle import AllOf, FixedWindow, SlidingWindow, SlidingWindowCounter, TokenBucket, TwoRateBucket
from throttle.algorithms import FixedWindowRule, SlidingWindowRule, TokenBucketRule
from throttle.algorithms.base import Algorithm
from throttle.counters import Ask, Booking, MemoryCounter
from throttle.counters.memory import Table
from throttle.rates import TICKS, Rate
from throttle.testing import VirtualClock, run_virtual

RULES = {
    "TokenBucket": lambda **options: TokenBucket("3/s", burst=5, **options),
    "SlidingWindow": lambda **options: SlidingWindow("5/s", **options),
    "SlidingWindowCounter": lambda **options: SlidingWindowCounter("5/s", **options),
    "FixedWindow": lambda **options: FixedWindow("5/s", **options),
    "TwoRateBucket": lambda **options: TwoRateBucket("3/s", burst=7, peak="6/s", peak_burst=5, **options),
}
BUCKET = TokenBucketRule.of(Rate(2), 2)
WINDOW = SlidingWindowRule.of(Rate(3))
BUCKET_OF_ONE = TokenBucketRule.of(Rate(1), 2)
AHEAD = [TokenBucketRule.of(Rate(4), 6), SlidingWindowRule.of(Rate(3)), FixedWindowRule.of(Rate(5, 2), 0.0)]


@pytest.mark.parametrize("kind", list(RULES))
@given(steps=st.lists(st.tuples(st.sampled_from([0, 0, 0.2, 0.77]), st.integers(0, 4), st.integers(0, 2)), max_size=30))
def test_book_decides_as_a_limiter_does(kind: str, steps: list[Any]) -> None:
    async def main() -> None:
        limiter = RULES[kind]()
        counter, rule = MemoryCounter(), limiter._core.table.spec
        for gap, cost, give in steps:
            await asyncio.sleep(gap)
            await limiter.refund(give)
            decision = await limiter.try_acquire(cost)
            (booking,) = await counter.book([Ask("n", "k", rule, (cost,), within=0, give=give)])
            assert (booking.waits == (0,)) == decision.allowed
            assert booking.wait == pytest.approx(decision.retry_after * TICKS, abs=1)
            assert float(booking.remaining) == decision.remaining
            assert booking.reset_after == pytest.approx(decision.reset_after * TICKS, abs=1)

    run_virtual(main)


@virtual
async def test_several_asks_are_booked_together_or_not_at_all() -> None:
    counter = MemoryCounter()
    asks = [Ask("a", "k", BUCKET, (2, 1), within=0), Ask("b", "k", WINDOW, (3, 1), within=None)]
    one, two = await counter.book(asks)
    assert one.waits == two.waits == (0,)
    assert one.wait == two.wait == TICKS  # the window has the last word
    assert (one.remaining, two.remaining) == (0, 0)
    with pytest.raises(ValueError, match="asks of one call have the same costs"):
        await counter.book([Ask("a", "k", BUCKET, (1, 1), give=2), Ask("b", "k", WINDOW, (1,))])
    (one,) = await counter.book([Ask("a", "k", BUCKET)])
    assert one.remaining == 0  # nothing was given back by what was wrong


@virtual
async def test_what_is_booked_past_a_limiter_is_seen_by_it_and_its_line() -> None:
    counter = MemoryCounter()
    limiter = SlidingWindow("3/s", counter=counter, name="n")
    await counter.book([Ask("n", "", limiter._core.table.rule, (3,))])
    assert not limiter.try_acquire_nowait()
    waiter = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0.1)
    await counter.book([Ask("n", "", limiter._core.table.rule, give=1)])
    await waiter
    assert asyncio.get_running_loop().time() == 0.1


@virtual
async def test_the_same_name_is_the_same_limit_and_line() -> None:
    counter = MemoryCounter()
    one, two = (TokenBucket("1/s", burst=2, counter=counter, name="n") for _ in range(2))
    other = TokenBucket("1/s", burst=2, counter=counter, name="other")
    await one.acquire(2)
    first = asyncio.create_task(one.acquire())
    await asyncio.sleep(0)
    second = asyncio.create_task(two.acquire())
    await asyncio.sleep(0)
    assert two.try_acquire_nowait().retry_after == 3
    assert other.try_acquire_nowait(2)
    await second
    assert first.done()
    assert asyncio.get_running_loop().time() == 2
    one.reconfigure("4/s")
    await one.reset()
    assert two.try_acquire_nowait(2)
    await two.acquire()
    assert asyncio.get_running_loop().time() == 2.25


def test_a_name_means_one_thing() -> None:
    counter = MemoryCounter()
    TokenBucket("1/s", counter=counter, name="n")
    with pytest.raises(ValueError, match=r"name 'n' counts by another rule already: .*, not"):
        TokenBucket("2/s", counter=counter, name="n")
    with pytest.raises(ValueError, match="name 'n' counts on another clock already"):
        TokenBucket("1/s", counter=counter, name="n", clock=VirtualClock())


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


@pytest.mark.parametrize("rule", AHEAD, ids=lambda rule: rule.kind)
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


def test_opens_and_closes_as_a_counter_does() -> None:
    async def main() -> None:
        async with MemoryCounter() as counter:
            assert not counter.shared
            assert repr(counter) == "MemoryCounter()"
            await counter.aclose()
            assert (await counter.book([]))[:] == []

    run_virtual(main)


def test_limiters_of_one_name_share_and_of_several_counters_do_not_combine() -> None:
    counter, clock = MemoryCounter(), VirtualClock()
    one, two = (TokenBucket("1/s", burst=2, counter=counter, name="api", clock=clock) for _ in range(2))
    assert one.try_acquire_nowait()
    assert two.try_acquire_nowait()
    assert not one.try_acquire_nowait()
    assert book(counter, Ask("api", "", BUCKET_OF_ONE))[0].remaining == 0
    with pytest.raises(ValueError, match=r"needs name="):
        TokenBucket("1/s", counter=counter)
    other = TokenBucket("1/s", counter=MemoryCounter(), name="api", clock=clock)
    with pytest.raises(ValueError, match="share one counter"):
        AllOf(one, other)


def take(table: Table, key: str, now: int, cost: int, within: int | None = 0) -> int:
    """Book `cost` at its earliest instant if that is no more than `within` ticks away; the wait either way."""
    state = table.get(key, now)
    due = table.rule.earliest(state, now, cost)
    if within is None or due - now <= within:
        table.put(key, table.rule.book(state, due, cost), now)
    return due - now


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_used_keys_stay_from_generation_to_generation() -> None:
    table = Table(WINDOW)
    keys = [f"{number}" for number in range(50)]
    for step in range(400):
        at = step * TICKS // 40
        assert take(table, keys[step % 50], at, 1) == 0
    at = 10 * TICKS
    for key in keys[15::5]:  # the counts of the last second are there, wherever they are kept
        assert table.rule.remaining(table.get(key, at - 1), at - 1) == 2
    assert len(table) == 50


def test_a_table_asks_how_far_it_may_book() -> None:
    table = Table(BUCKET)
    assert take(table, "k", 0, 2) == 0
    assert take(table, "k", 0, 1) == TICKS // 2
    assert take(table, "k", 0, 1, within=TICKS // 2) == TICKS // 2
    assert take(table, "k", 0, 1, within=None) == TICKS
    table.give("k", 0, 3, None)
    table.give("k", 0, -1, None)
    assert take(table, "k", 0, 1) == TICKS // 2


def test_reset_and_reconfigure_concern_both_generations() -> None:
    table = Table(BUCKET)
    for key in "ab":
        take(table, key, 0, 2)
    take(table, "c", 3 * TICKS, 2)  # a and b are the old ones now
    table.reconfigure(BUCKET.reconfigured(Rate(4), 4), 3 * TICKS)
    assert take(table, "c", 3 * TICKS, 2) == 0
    table.reset("c")
    assert take(table, "c", 3 * TICKS, 4) == 0
    table.reset(None)
    assert len(table) == 0
    assert take(table, "c", 0, 4) == 0  # also under a clock that begins again


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
