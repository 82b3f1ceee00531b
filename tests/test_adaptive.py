"""The limiter that learns: its verbs, the gate it lives in, and whole programs against simulated servers."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from simulated import Bucket, Network, Queue, Window
from worlds import nothing_left, virtual

from throttle import AdaptiveLimiter, Rate, Retry, Throttle, WaitTooLong
from throttle.hints import Hints


def now() -> float:
    return asyncio.get_running_loop().time()


class Refused(Exception):
    def __init__(self, hints: Hints) -> None:
        self.hints = hints


class Passed:
    def __init__(self, hints: Hints) -> None:
        self.hints = hints


async def scrape(server: Any, items: int, **options: Any) -> tuple[float, int, Throttle]:
    """Seconds that many items took through `Throttle(limiter=None)`, how many were refused, and the throttle."""
    network, refused = Network(rng=Random(5)), 0
    retry = Retry(on=Refused, hints=lambda outcome: getattr(outcome, "hints", None), attempts=8)
    api = Throttle(retry=retry, **options)

    async def call(number: int) -> Passed:
        nonlocal refused
        await asyncio.sleep(network.way())
        passes, hints, work = server.at(now())
        await asyncio.sleep(work + network.way())
        if not passes:
            refused += 1
            raise Refused(hints)
        return Passed(hints)

    async with api.map(call, range(items), read_ahead=200) as results:
        done = {item async for item, _ in results}
    assert done == set(range(items))
    assert nothing_left(api.limiter)
    return now(), refused, api


@virtual
async def test_a_whole_program_finds_the_rate_of_a_bucket() -> None:
    server = Bucket(40, 20)
    seconds, refused, api = await scrape(server, 261)
    assert seconds <= 1.1 * server.ideal(261)
    assert refused <= 30
    learned = api.limiter.learned()  # type: ignore[union-attr]
    assert learned is not None
    assert 30 < learned.per_second < 50
    assert "AdaptiveLimiter {'': " in repr(api.limiter)


@virtual
async def test_a_whole_program_spends_what_is_left() -> None:
    server = Window(100, 3.0)
    seconds, refused, api = await scrape(server, 300)
    assert seconds <= 1.1 * server.ideal(300)
    assert refused == 0
    assert api.limiter.learned() == Rate(100, 3)  # type: ignore[union-attr]


@virtual
async def test_a_whole_program_before_a_server_that_queues() -> None:
    server = Queue(40, 20)
    seconds, refused, _ = await scrape(server, 240)
    assert seconds <= 1.3 * server.ideal(240)
    assert refused <= 12


@virtual
async def test_it_waits_as_long_as_it_is_told_and_then_sends_one() -> None:
    limiter = AdaptiveLimiter()
    async with limiter.permit() as permit:
        permit.observe(Hints(refused=True, retry_after=2.0))
    assert not limiter.try_acquire_nowait()
    sent: list[float] = []

    async def call() -> None:
        async with limiter.permit():
            sent.append(now())
            await asyncio.sleep(0.1)

    await asyncio.gather(*(call() for _ in range(7)))
    assert 2 <= sent[0] <= 2.04
    assert [round(at - sent[0], 6) for at in sent] == [0, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2]


@virtual
async def test_a_bare_pause_simply_ends() -> None:
    limiter = AdaptiveLimiter()
    limiter.pause(2.0)
    with pytest.raises(WaitTooLong):
        await limiter.acquire(max_wait=1)
    await asyncio.gather(*(limiter.acquire() for _ in range(5)))
    assert now() == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"minimum": "10/s", "maximum": "5/s"}, "maximum"),
        ({"minimum": "10/s", "initial": "5/s"}, "initial"),
        ({"initial": 0}, "0"),
        ({"maximum": "fast"}, "fast"),
    ],
)
def test_what_is_no_limit_is_refused(options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AdaptiveLimiter(**options)
