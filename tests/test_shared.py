"""Limiters on a shared counter: how they wait on it. The counter here is a model of a store with its own round trip."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from worlds import virtual

from throttle import (
    AllOf,
    CounterUnavailable,
    FixedWindow,
    SlidingWindow,
    SlidingWindowCounter,
    Throttle,
    TokenBucket,
    TwoRateBucket,
    WaitTooLong,
    current_permit,
    throttled,
)
from throttle.algorithms import FixedWindowRule, TokenBucketRule, TwoRateRule
from throttle.clock import ticks_of
from throttle.counters import Ask, MemoryCounter
from throttle.counters.base import Booking, Outage
from throttle.counters.shares import share_of
from throttle.counters.wire import legs_of
from throttle.gate import Slots
from throttle.hints import Hints
from throttle.permits import Booking as Block
from throttle.rates import TICKS, Rate
from throttle.testing import VirtualClock, run_virtual


class Store:
    """A store behind a network: memory with a round trip, and with outages."""

    shared = True

    def __init__(self, trip: float = 0.0, memory: MemoryCounter | None = None) -> None:
        self.memory = memory or MemoryCounter()
        self.trip = trip
        self.asked: list[Sequence[Ask]] = []
        self.trouble: Exception | None = None

    async def book(self, asks: Sequence[Ask]) -> Sequence[Booking]:
        self.asked.append(asks)
        await asyncio.sleep(self.trip / 2)
        if self.trouble is not None:
            raise self.trouble
        for ask in asks:  # as a store that keeps states, not rules
            table = self.memory._tables.get(ask.name)
            if table is not None and table.rule != ask.rule:
                table.reconfigure(ask.rule, ticks_of(now()))
        answer = await self.memory.book(asks)
        await asyncio.sleep(self.trip / 2)
        return answer

    async def clear(self, name: str, key: str | None = None) -> None:
        await self.memory.clear(name, key)

    async def aclose(self) -> None: ...


def now() -> float:
    return asyncio.get_running_loop().time()


KINDS = {
    "TokenBucket": lambda **options: TokenBucket("4/s", **options),
    "SlidingWindow": lambda **options: SlidingWindow("4/s", **options),
    "SlidingWindowCounter": lambda **options: SlidingWindowCounter("4/s", **options),
    "FixedWindow": lambda **options: FixedWindow("4/s", **options),
    "TwoRateBucket": lambda **options: TwoRateBucket("4/s", burst=4, peak="8/s", peak_burst=4, **options),
    "AllOf": lambda counter, name: AllOf(
        TokenBucket("4/s", counter=counter, name=name), log=SlidingWindow("40/s", counter=counter, name=name + "log")
    ),
}


@pytest.fixture(params=list(KINDS))
def make(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]


@virtual
async def test_who_waits_is_served_in_order_and_at_the_rate(make: Any) -> None:
    limiter = make(counter=Store(0.002), name="n")
    granted: list[tuple[int, float]] = []

    async def one(name: int) -> None:
        await limiter.acquire()
        granted.append((name, now()))

    await asyncio.gather(*(one(name) for name in range(24)))
    assert [name for name, _ in granted] == list(range(24))
    at = [moment for _, moment in granted]
    assert max(at[:4]) < 0.01
    assert 4 <= at[-1] <= 7.5
    for index in range(8, 24):
        assert at[index] - at[index - 8] > 0.98  # never more than burst and rate in a second
    assert not limiter._core.gates


@virtual
async def test_one_round_trip_when_nobody_waits() -> None:
    store = Store(0.02)
    limiter = TokenBucket("1000/s", burst=100, counter=store, name="n")
    await limiter.acquire()
    assert now() == pytest.approx(0.02)
    await asyncio.gather(*(limiter.acquire() for _ in range(50)))
    assert len(store.asked) == 3  # the first of them, and all who came meanwhile
    assert now() == pytest.approx(0.06)


@virtual
async def test_many_processes_share_one_rate() -> None:
    memory = MemoryCounter()
    stores = [Store(0.001, memory) for _ in range(4)]
    limiters = [TokenBucket("500/s", burst=50, counter=store, name="n") for store in stores]
    granted = [0] * 4
    moments: list[float] = []

    async def work(index: int) -> None:
        while now() < 4:
            await limiters[index].acquire()
            granted[index] += now() > 0.5  # after the burst, which the first one takes
            moments.append(now())

    await asyncio.gather(*(work(index) for index in range(4) for _ in range(50)))
    inside = sum(moment <= 4 for moment in moments)
    assert 0.995 * 2050 <= inside <= 2050
    assert max(granted) / min(granted) < 1.08
    assert sum(len(store.asked) for store in stores) / inside < 0.12


@virtual
async def test_a_slow_store_keeps_the_rate() -> None:
    store = Store(0.02)
    limiter = TokenBucket("100/s", burst=1, counter=store, name="n")
    count = 0

    async def work() -> None:
        nonlocal count
        while now() < 5:
            await limiter.acquire()
            count += now() <= 5

    await asyncio.gather(*(work() for _ in range(20)))
    assert count >= 0.98 * 500


@virtual
async def test_max_wait_is_refused_before_anything_is_booked(make: Any) -> None:
    limiter = make(counter=Store(0.002), name="n")
    await limiter.acquire(4)
    with pytest.raises(WaitTooLong) as refused:
        await limiter.acquire(4, max_wait=0.3)
    assert now() < 0.1
    assert refused.value.retry_after > 0.3
    decision = await limiter.try_acquire()
    assert not decision
    assert 0 < decision.retry_after <= 2
    await limiter.acquire(4, max_wait=3)
    assert 0.9 < now() < 2.1


@virtual
async def test_peek_takes_nothing_and_refund_gives_back(make: Any) -> None:
    limiter = make(counter=Store(), name="n")
    assert (await limiter.peek(4)).allowed
    assert (await limiter.try_acquire(4)).remaining == 0
    peeked = await limiter.peek()
    assert (peeked.allowed, peeked.remaining) == (False, 0)
    await limiter.refund(2)
    assert (await limiter.peek()).remaining == 2
    await limiter.reset()
    assert (await limiter.try_acquire(4)).allowed
    with pytest.raises(TypeError, match="await try_acquire"):
        limiter.try_acquire_nowait()


@virtual
async def test_half_a_character_is_no_key_of_a_store(make: Any) -> None:
    store = Store()
    limiter = make(counter=store, name="n")
    said = r"a key in a shared counter must be a text that UTF-8 can spell, not '\\udcff'"
    for verb in (limiter.acquire, limiter.try_acquire, limiter.peek, limiter.refund):
        with pytest.raises(ValueError, match=said):
            await verb(key="\udcff")
    for verb in (limiter.__getitem__, limiter.reset, lambda key: limiter.pause(1, key=key)):
        with pytest.raises(ValueError, match=said):
            await verb("\udcff")
    with pytest.raises(ValueError, match=r"a name in a shared counter .* not 'n\\ud800'"):
        TokenBucket("1/s", counter=store, name="n\ud800")
    await limiter.acquire(key="\N{GRINNING FACE}")


@virtual
async def test_settle_is_told_when_a_call_fails(make: Any) -> None:
    limiter = make(counter=Store(), name="n")

    @throttled(limiter)
    async def fail() -> None:
        permit = current_permit()
        assert permit is not None
        permit.settle(3)
        raise OSError

    with pytest.raises(OSError):
        await fail()
    assert (await limiter.peek()).remaining == 1


@virtual
async def test_what_was_taken_in_a_window_that_is_over_gives_nothing_back(make: Any) -> None:
    """As in memory: else what later calls have used would be free again."""
    left: list[float] = []
    for counter in (MemoryCounter(), Store()):
        limiter = make(counter=counter, name="n")
        async with limiter.permit(3) as long, limiter.permit(0) as longer:
            await asyncio.sleep(2.5)
            async with limiter.permit(2) as short:
                long.settle(0)
                longer.settle(1)
                short.settle(0)
        left.append((await limiter.peek()).remaining)
    assert left[0] == left[1] == (4 if isinstance(limiter, (TokenBucket, TwoRateBucket, AllOf)) else 3)


@virtual
async def test_settle_is_told_at_the_end_of_the_block(make: Any) -> None:
    store = Store()
    limiter = make(counter=store, name="n")
    async with limiter.permit(1) as permit:
        permit.settle(3)
    assert (await limiter.peek()).remaining == 1
    async with limiter.permit(1) as permit:
        permit.settle(0)
    assert (await limiter.peek()).remaining == 1


@virtual
async def test_a_pause_holds_back_every_process() -> None:
    memory = MemoryCounter()
    one, two = (TokenBucket("4/s", counter=Store(0.001, memory), name="n") for _ in range(2))
    async with one.permit() as permit:
        permit.observe(Hints(refused=True, retry_after=2.0, wait=2.0))
    await two.acquire()
    assert now() == pytest.approx(2, abs=0.01)
    two.pause(1)
    waiter = asyncio.create_task(two.acquire())
    await asyncio.sleep(0.1)
    assert (await one.try_acquire()).retry_after == pytest.approx(0.9, abs=0.01)
    await waiter
    assert now() == pytest.approx(3, abs=0.01)


@virtual
async def test_a_pause_of_a_combination_holds_back_every_process() -> None:
    memory = MemoryCounter()

    def both(memory: MemoryCounter) -> Any:
        store = Store(0.001, memory)
        return AllOf(
            TokenBucket("400/s", counter=store, name="a")["all"], log=SlidingWindow("40/s", counter=store, name="b")
        )

    one, two = both(memory), both(memory)
    async with one.permit(key="k") as permit:
        permit.observe(Hints(refused=True, retry_after=2.0, wait=2.0))
    assert (await two.try_acquire(key="k")).retry_after == pytest.approx(2, abs=0.01)
    assert (await two.try_acquire(key="other")).remaining == 39  # what is kept of the pause is no limit
    await two.acquire(key="k")
    assert now() == pytest.approx(2, abs=0.01)
    one.pause(1)
    await one.refund(0)
    assert (await two.try_acquire(key="k")).retry_after == pytest.approx(1, abs=0.02)
    await two.reset()
    assert await two.try_acquire(key="other")


@virtual
async def test_what_costs_nothing_of_a_member_takes_nothing_there() -> None:
    store = Store()
    tokens = TokenBucket("100/h", counter=store, name="tokens")
    both = AllOf(TokenBucket("1/s", counter=store, name="requests"), tokens=tokens)
    waiters = [asyncio.create_task(both.acquire({"tokens": 0})) for _ in range(3)]
    await asyncio.sleep(0.5)
    assert (await tokens.peek()).remaining == 100
    await asyncio.gather(*waiters)


@virtual
async def test_a_cancelled_waiter_loses_nothing_and_delays_nobody(make: Any) -> None:
    limiter = make(counter=Store(0.002), name="n")
    await limiter.acquire(4)
    order: list[int] = []

    async def one(name: int) -> None:
        await limiter.acquire()
        order.append(name)

    tasks = [asyncio.create_task(one(name)) for name in range(12)]
    for moment in (0.001, 0.0015, 0.1, 0.3):
        await asyncio.sleep(moment)
        next(task for task in tasks if not task.done()).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == sorted(order)
    assert len(order) >= 8
    assert now() < 3.5
    assert not limiter._core.gates


@virtual
async def test_an_outage_is_waited_out_or_raised() -> None:
    store = Store(0.001)
    limiter = TokenBucket("10/s", burst=1, counter=store, name="n")
    store.trouble = Outage("gone", sent=False)
    waiters = [asyncio.create_task(limiter.acquire()) for _ in range(5)]
    late = asyncio.create_task(limiter.acquire(max_wait=1))
    await asyncio.sleep(3)
    assert len(store.asked) < 20
    with pytest.raises(WaitTooLong):
        await late
    store.trouble = None
    await asyncio.gather(*waiters)
    assert now() < 5
    store.trouble = CounterUnavailable("wrong password")
    with pytest.raises(CounterUnavailable, match="wrong password"):
        await limiter.acquire()
    with pytest.raises(CounterUnavailable, match="wrong password"):
        await limiter.acquire(max_wait=3)
    with pytest.raises(CounterUnavailable, match="wrong password"):
        await limiter.try_acquire()
    assert not limiter._core.gates


def test_what_a_shared_counter_cannot_do() -> None:
    store = Store()
    with pytest.raises(ValueError, match="hold=True needs counts in memory"):
        SlidingWindow("4/s", hold=True, counter=store, name="n")
    with pytest.raises(ValueError, match="needs name="):
        SlidingWindow("4/s", counter=store)
    with pytest.raises(ValueError, match="must share one counter"):
        AllOf(TokenBucket("4/s", counter=store, name="n"), TokenBucket("4/s"))
    one = TokenBucket("4/s", counter=store, name="n")
    assert TokenBucket("4/s", counter=store, name="n")._core is one._core
    with pytest.raises(ValueError, match="counts by another rule already"):
        TokenBucket("5/s", counter=store, name="n")


@virtual
async def test_reconfigure_and_reset_concern_who_waits() -> None:
    limiter = TokenBucket("1/s", burst=2, counter=Store(0.001), name="n")
    await limiter.acquire(2)
    waiters = [asyncio.create_task(limiter.acquire()) for _ in range(4)]
    await asyncio.sleep(0.5)
    limiter.reconfigure("100/s")
    await asyncio.gather(*waiters)
    assert now() < 1.6
    await limiter.acquire(2)
    waiter = asyncio.create_task(limiter.acquire(2))
    await asyncio.sleep(0.001)
    limiter.reconfigure("0.01/s", burst=2)
    await asyncio.sleep(0.1)
    await limiter.reset()
    await waiter
    assert now() < 8


@virtual
async def test_concurrency_and_a_shared_limit() -> None:
    api = Throttle(TokenBucket("100/s", burst=10, counter=Store(0.001), name="n"), concurrency=2)
    most = running = 0

    async def call() -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.1)
        running -= 1

    await asyncio.gather(*(api.call(call) for _ in range(10)))
    assert most == 2
    assert 0.5 <= now() < 1


@virtual
async def test_priority_goes_ahead_and_takes_what_is_booked() -> None:
    limiter = TokenBucket("10/s", burst=2, counter=Store(0.001), name="n")
    await limiter.acquire(2)
    order: list[str] = []

    async def one(name: str, cost: int, priority: int = 0) -> None:
        await limiter.acquire(cost, priority=priority)
        order.append(name)

    tasks = [asyncio.create_task(one("big", 2)), asyncio.create_task(one("next", 1))]
    await asyncio.sleep(0.05)
    tasks.append(asyncio.create_task(one("urgent", 1, 5)))
    await asyncio.gather(*tasks)
    assert order == ["urgent", "big", "next"]
    assert 0.38 < now() < 0.52  # what was booked for the big one and is not enough any more may be lost


@virtual
async def test_the_line_tells_who_would_wait_for_too_long(make: Any) -> None:
    limiter = make(counter=Store(0.001), name="n")
    await limiter.acquire(4)
    waiters = [asyncio.create_task(limiter.acquire()) for _ in range(40)]
    await asyncio.sleep(0.01)
    with pytest.raises(WaitTooLong):
        await limiter.acquire(max_wait=0.5)
    assert now() < 0.2 or not isinstance(limiter, TokenBucket)
    refused = await limiter.try_acquire()
    assert not refused.allowed
    assert refused.retry_after > 0.04
    assert (await limiter.try_acquire(0)).allowed
    await limiter.acquire(0)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    assert not limiter._core.gates


@virtual
async def test_nobody_is_refused_who_would_be_served_in_time() -> None:
    limiter = TokenBucket("1/s", burst=10, counter=Store(0.001), name="n")
    await limiter.acquire(10)

    async def one(cost: int, max_wait: float) -> float:
        await limiter.acquire(cost, max_wait=max_wait)
        return now()

    found = await asyncio.gather(one(7, 8), one(2, 9.5), one(3, 11), return_exceptions=True)
    assert found[:2] == [pytest.approx(7, abs=0.01), pytest.approx(9, abs=0.01)]
    assert isinstance(found[2], WaitTooLong)
    daily = TokenBucket("1/day", burst=90, counter=Store(0.01), name="daily")
    both = AllOf(TokenBucket("50/s", burst=1, counter=daily.counter, name="pace"), tokens=daily)
    await asyncio.gather(*(both.acquire(max_wait=5) for _ in range(50)))
    await asyncio.gather(*(daily.acquire(max_wait=1) for _ in range(39)))


@virtual
async def test_the_store_is_asked_again_for_what_is_far_away() -> None:
    store = Store(0.001)
    limiter = FixedWindow("1/min", counter=store, name="n")
    await limiter.acquire()
    waiter = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(59)
    assert not waiter.done()
    assert len(store.asked) < 20
    await waiter
    assert now() == pytest.approx(60, abs=0.1)


@virtual
async def test_one_who_leads_is_cancelled() -> None:
    store = Store(0.1)
    limiter = TokenBucket("1/h", burst=10, counter=store, name="n")
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(6)]
    await asyncio.sleep(0.05)
    tasks[0].cancel()
    tasks[3].cancel()
    await asyncio.sleep(0.05)
    await asyncio.sleep(0)
    for _ in range(4):
        await asyncio.sleep(0)
        tasks[1].cancel()  # perhaps just called to ask
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(task.cancelled() for task in tasks) == 3
    assert (await limiter.peek()).remaining == pytest.approx(7, abs=0.01)


@virtual
async def test_what_a_cancelled_one_has_booked_for_all_is_not_lost() -> None:
    """Whoever talks to the store for those in line is cancelled while it does, thirty times."""

    class Hooked(Store):
        async def book(self, asks: Sequence[Ask]) -> Sequence[Booking]:
            gate = limiter._core.gates.get("")
            if gate is not None and gate.booker is not None and len(victims) < 30:
                victims.append(next(task for task in tasks if not task.done()))  # the head of the line
                asyncio.get_running_loop().call_later(0.001, victims[-1].cancel)
            return await super().book(asks)

    victims: list[asyncio.Task[None]] = []
    limiter = TokenBucket("500/s", burst=1, counter=Hooked(0.004), name="n")
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(430)]
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(victims) == 30 - sum(not task.cancelled() for task in victims)
    assert 400 / 500 <= now() < 1.05 * 400 / 500


@pytest.mark.parametrize("seed", range(40))
def test_random_callers_are_cancelled_at_random_and_nothing_is_lost(seed: int) -> None:
    rng = random.Random(seed)
    store = Store(rng.choice([0, 0.001, 0.02, 0.1]))
    bucket = TokenBucket("1/day", burst=900, counter=store, name="n")
    limiter: Any = rng.choice([bucket, AllOf(bucket, SlidingWindow("900/day", counter=store, name="m"))])

    async def call(how: float) -> bool:
        if how < 0.2:
            return bool(await limiter.try_acquire())
        options: dict[str, Any] = {"max_wait": 1} if how < 0.4 else {"priority": 1} if how < 0.6 else {}
        await limiter.acquire(**options)
        return True

    async def main() -> None:
        tasks: list[asyncio.Task[bool]] = []
        for _ in range(rng.randrange(20, 80)):
            what = rng.random()
            if what < 0.5:
                tasks.append(asyncio.create_task(call(rng.random())))
            elif what < 0.8 and tasks:
                rng.choice(tasks).cancel()
            else:
                await asyncio.sleep(rng.choice([0, 0, 0, 0, store.trip / 2, store.trip]))
        async with asyncio.timeout(60):
            found = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(one) for one in found} <= {bool, asyncio.CancelledError, WaitTooLong}
        await limiter.refund(0)
        assert (await limiter.peek()).remaining == pytest.approx(900 - sum(one is True for one in found), abs=0.1)
        assert not limiter._core.gates

    run_virtual(main)


@virtual
async def test_a_cancelled_try_takes_nothing(make: Any) -> None:
    store = Store(0.01)
    limiter = make(counter=store, name="n")
    tries = [asyncio.create_task(limiter.try_acquire(2)), asyncio.create_task(limiter.peek(2))]
    await asyncio.sleep(0.005)
    for one in tries:
        one.cancel()
    assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*tries, return_exceptions=True))
    assert (await limiter.try_acquire(4)).allowed
    assert not await limiter.try_acquire(1)


@virtual
async def test_who_does_not_wait_at_all_takes_nothing_but_a_permit() -> None:
    limiter = TokenBucket("1/h", burst=10, counter=Store(0.01), name="n")
    cancelled = asyncio.create_task(limiter.acquire(max_wait=0))
    await asyncio.sleep(0.005)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert not limiter._core.gates
    paused = asyncio.create_task(limiter.acquire(max_wait=0))
    await asyncio.sleep(0.005)
    limiter.pause(1)
    with pytest.raises(WaitTooLong) as told:
        await paused
    assert told.value.retry_after == pytest.approx(1, abs=0.01)
    await asyncio.sleep(1)
    slots = Slots(1)
    bookings = [Block(limiter._core, 1, "", max_wait=0, slots=(slots,)) for _ in range(2)]
    _, other = await asyncio.gather(*(booking.__aenter__() for booking in bookings), return_exceptions=True)
    assert isinstance(other, WaitTooLong)
    assert other.retry_after == pytest.approx(0.05)
    assert slots.used == 1
    with pytest.raises(WaitTooLong):
        await Block(limiter._core, 1, "", max_wait=0, slots=(slots,)).__aenter__()
    await bookings[0].__aexit__(None, None, None)
    assert slots.used == 0
    assert (await limiter.peek()).remaining == pytest.approx(9, abs=0.01)
    assert not limiter._core.gates


@virtual
async def test_who_does_not_wait_at_all_waits_for_no_counter() -> None:
    store = Store(0.01)
    limiter = TokenBucket("1/h", burst=10, counter=store, name="n")
    for store.trouble, told in ((Outage("gone"), WaitTooLong), (Outage("gone", waits=False), CounterUnavailable)):
        with pytest.raises(told) as caught:
            await limiter.acquire(max_wait=0)
        assert told is CounterUnavailable or 0 < caught.value.retry_after <= 1
        assert not limiter._core.gates


@virtual
async def test_a_coroutine_closed_by_hand_gives_back() -> None:
    limiter = TokenBucket("1/h", burst=10, counter=Store(0.01), name="n")
    task = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0)
    called = limiter.acquire()
    called.send(None)  # the one that is going to ask next
    await asyncio.sleep(0.1)
    called.close()
    await task
    assert (await limiter.peek()).remaining == pytest.approx(9, abs=0.01)
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(2)]
    await asyncio.sleep(0)
    granted = limiter.acquire()
    granted.send(None)
    await asyncio.sleep(0.1)
    granted.close()
    await asyncio.gather(*tasks)
    assert (await limiter.peek()).remaining == pytest.approx(7, abs=0.01)


def test_two_loops_share_one_line() -> None:
    class Plain(Store):
        async def book(self, asks: Sequence[Ask]) -> Sequence[Booking]:
            return await self.memory.book(asks)

    limiter = TokenBucket("200/s", burst=1, counter=Plain(), name="n")

    async def main() -> None:
        await asyncio.gather(*(limiter.acquire() for _ in range(20)))

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not limiter._core.gates


@virtual
async def test_a_nested_combination_is_booked_in_one_step() -> None:
    store = Store()
    inner = AllOf(a=TokenBucket("4/s", counter=store, name="a"), b=SlidingWindow("3/s", counter=store, name="b"))
    outer = AllOf(inner, c=FixedWindow("9/s", counter=store, name="c")["all"])
    assert (await outer.try_acquire(3)).allowed
    assert [ask.name for ask in store.asked[-1]] == ["a", "b", "{a}+b", "c", "{a}+b+c[all]"]
    assert not await outer.try_acquire(1)
    async with outer.permit(1) as permit:
        permit.settle(0)
    await outer.reset()
    assert (await outer.try_acquire(3)).allowed
    outer.pause(1)
    await outer.acquire()
    assert now() >= 1


def test_shares_of_a_limit() -> None:
    bucket = TokenBucketRule.of(Rate(10), 3)
    assert share_of(bucket, 0.5).burst == Fraction(3, 2)
    assert share_of(bucket, 0.1).burst == 1
    two = share_of(TwoRateRule.of(Rate(10), 20, Rate(50), 5), 0.5)
    assert (two.committed.burst, two.peak.burst) == (10, Fraction(5, 2))
    assert share_of(FixedWindowRule.of(Rate(10)), 0.25).limit == 2
    few = share_of(FixedWindowRule.of(Rate(2)), 0.25)
    assert (few.limit, few.window) == (1, 2 * TICKS)


def test_numbers_too_large_for_the_wire() -> None:
    with pytest.raises(ValueError, match="too many for this counter"):
        legs_of(FixedWindowRule.of(Rate(10**9, 86400)))
    with pytest.raises(ValueError, match="too large for this counter"):
        legs_of(TokenBucketRule.of(Rate(99991, 86399), 10**14))
    (leg,) = legs_of(TokenBucketRule.of(Rate(99991, 86400)))  # not exact, and near enough
    assert leg.numbers[0] / leg.numbers[1] == pytest.approx(99991 / 86400 / 1e6, rel=1e-9)


@virtual
async def test_memory_keeps_pauses_for_who_asks() -> None:
    memory, rule = MemoryCounter(), TokenBucketRule.of(Rate(10))
    assert repr(memory) == "MemoryCounter()"
    (booking,) = await memory.book([Ask("n", "k", rule, (1,), pause=TICKS)])
    assert (booking.waits, booking.wait, booking.paused) == ((), TICKS, TICKS)
    await memory.clear("n", "k")
    assert (await memory.book([Ask("n", "k", rule, (1,))]))[0].waits == (0,)
    await memory.clear("unknown")


@virtual
async def test_what_was_not_sent_is_told_later() -> None:
    store = Store(0.001)
    both = AllOf(
        TokenBucket("4/s", counter=store, name="a"), log=SlidingWindow("4/s", counter=store, name="b"),
    )  # fmt: skip
    member = both._core.members[0].limiter
    await both.acquire()
    member.pause(2)
    member.pause(1, key="k")
    store.trouble = Outage("gone")  # perhaps it has heard: pauses are told again, what is given is not
    await both.refund(1)
    assert member._core.pauses
    assert not member._core.gives
    store.trouble = Outage("gone", sent=False)
    await both.refund(1)
    assert member._core.gives
    with pytest.raises(CounterUnavailable):
        await member.try_acquire(key="k")
    waiter = asyncio.create_task(both.acquire())
    await asyncio.sleep(0.2)
    waiter.cancel()
    store.trouble = None
    await asyncio.sleep(0.1)
    await both.refund(0)
    seen = await TokenBucket("4/s", counter=Store(0, store.memory), name="a").try_acquire()
    assert seen.retry_after > 1.5
    with pytest.raises(ValueError, match="another clock"):
        TokenBucket("4/s", counter=store, name="a", clock=VirtualClock())


@virtual
async def test_a_grant_whose_waiter_is_cancelled_goes_to_the_next() -> None:
    limiter = TokenBucket("1/s", burst=1, counter=Store(0.001), name="n")
    await limiter.acquire()
    one, two = (asyncio.create_task(limiter.acquire()) for _ in range(2))
    await asyncio.sleep(0.01)
    limiter._core.gates[""].stock.add(0, (1,))
    with limiter._core as tick:
        limiter._core.gates[""].stock._entries.clear()
        limiter._core.gates[""].stock.add(tick, (1,))
        limiter._core.gates[""].step(tick, asyncio.get_running_loop())
    one.cancel()  # it has been granted and has not run yet
    await two
    assert now() < 0.1
    await asyncio.gather(one, return_exceptions=True)


@virtual
async def test_many_keys_leave_no_lanes_behind() -> None:
    limiter = TokenBucket("4/s", counter=Store(), name="n")
    for key in range(1100):
        await limiter.acquire(key=f"{key}")
    assert len(limiter._core.lanes) <= 1000


@virtual
async def test_a_crowd_that_is_cancelled_while_the_store_fails() -> None:
    store = Store(0.01)
    limiter = TokenBucket("100/s", burst=50, counter=store, name="n")
    for rounds in range(4):
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(5)]
        for _ in range(rounds):
            await asyncio.sleep(0)
        store.trouble = CounterUnavailable("no") if rounds % 2 else None
        tasks[0].cancel()
        await asyncio.sleep(0.005)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    store.trouble = None
    async with asyncio.timeout(5):
        await limiter.acquire()
    assert not limiter._core.gates


@virtual
async def test_whatever_a_store_raises_reaches_all_whom_it_was_asked_for() -> None:
    store = Store(0.01)
    limiter = TokenBucket("100/s", burst=50, counter=store, name="n")
    first = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0.001)
    others = [asyncio.create_task(limiter.acquire()) for _ in range(3)]  # they are asked for together
    await first
    limiter.pause(1)
    store.trouble = OSError("a bug of its own")
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert [repr(outcome) for outcome in outcomes] == ["OSError('a bug of its own')"] * 3
    with pytest.raises(OSError, match="a bug of its own"):
        await limiter.try_acquire()
    store.trouble = None
    assert not await limiter.try_acquire()  # which tells of the pause, too
    other = TokenBucket("100/s", burst=50, counter=Store(0, store.memory), name="n")
    assert 0.9 < (await other.peek()).retry_after < 1.1
    await limiter.acquire()


@virtual
async def test_one_of_a_crowd_is_cancelled_before_the_store_has_failed_them_all() -> None:
    store = Store(0.01)
    store.trouble = CounterUnavailable("no")
    limiter = TokenBucket("100/s", burst=50, counter=store, name="n")
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(4)]
    await asyncio.sleep(0.007)  # the first has failed, the others have been asked for together
    tasks[2].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "CounterUnavailable", "CounterUnavailable", "CancelledError", "CounterUnavailable",
    ]  # fmt: skip
    assert len(store.asked) == 2
    assert not limiter._core.gates


@virtual
async def test_a_bell_that_rings_late_takes_no_booked_permit_away() -> None:
    limiter = TokenBucket("2/s", burst=1, counter=Store(), name="n")
    await limiter.acquire()
    waiter = asyncio.create_task(limiter.acquire(max_wait=0.51))  # due after 0.5
    await asyncio.sleep(0.495)
    gate = limiter._core.gates[""]
    assert not waiter.done()
    with limiter._core as tick:
        gate.step(tick + TICKS // 25, None)  # 0.535: its time is over, but its permit was due before
    await waiter
    assert now() == 0.495


@virtual
async def test_who_is_called_from_elsewhere_or_in_vain() -> None:
    limiter = TokenBucket("2/s", burst=1, counter=Store(0.001), name="n")
    await limiter.acquire()
    waiters = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
    await asyncio.sleep(0.01)
    gate = limiter._core.gates[""]
    head = gate.line.head()
    await gate.talk(head)  # nobody has called it
    head.home.arm(None)
    with limiter._core as tick:
        gate.step(tick, None)  # as another loop does: this one is told
    await asyncio.sleep(0.001)
    gate.stock.empty()
    with limiter._core as tick:
        gate.step(tick, None)
    await asyncio.gather(*waiters)
    assert now() < 3
    assert not limiter._core.gates


def test_without_an_event_loop() -> None:
    limiter = TokenBucket("2/s", counter=Store(), name="n")
    with pytest.raises(RuntimeError, match="needs a running"):
        limiter.acquire().send(None)


@virtual
async def test_a_pause_that_others_know_is_not_told_again() -> None:
    store = Store()
    one, two = (TokenBucket("2/s", counter=its, name="n") for its in (store, Store(0, store.memory)))
    async with one.permit(key="k"):
        one.pause(5, key="k")
    waiter = asyncio.create_task(two.acquire(key="k"))
    await asyncio.sleep(1)
    two.pause(1, key="k")
    assert not two._core.untold("k", 0)
    await waiter
    assert now() == pytest.approx(5, abs=0.1)
