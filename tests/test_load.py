"""Long lines: what an arrival, a grant or a departure costs does not grow with the line. Counted: asks of a rule."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
from worlds import core_of, nothing_left, virtual

from throttle import AllOf, SlidingWindow, TokenBucket, WaitTooLong
from throttle.algorithms import SlidingWindowRule, TokenBucketRule
from throttle.testing import VirtualClock

MAKE: dict[str, Callable[..., Any]] = {
    "TokenBucket": lambda **options: TokenBucket("100/s", burst=10, **options),
    "SlidingWindow": lambda **options: SlidingWindow("100/s", **options),
    "AllOf": lambda **options: AllOf(TokenBucket("100/s", burst=10, **options), SlidingWindow("90/s", **options)),
}
OPTIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    "plain": lambda number: {},
    "max_wait": lambda number: {"max_wait": 1e5 + number % 7},
    "priority": lambda number: {"priority": number % 3},
    "max_wait and priority": lambda number: {"priority": number % 3, "max_wait": 1e5},
    "all of it": lambda number: {"priority": number % 3, "max_wait": 1e5, "cost": 1 + number % 4},
}


class Count:
    """How often a rule was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def since(self) -> int:
        asked, self.asked = self.asked, 0
        return asked


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Count:
    counted = Count()
    for rule in (TokenBucketRule, SlidingWindowRule):
        earliest = rule.earliest

        def asked(self: Any, *args: Any, earliest: Any = earliest) -> int:
            counted.asked += 1
            return earliest(self, *args)

        monkeypatch.setattr(rule, "earliest", asked)
    return counted


@pytest.mark.parametrize("kind", list(MAKE))
@pytest.mark.parametrize("options", list(OPTIONS))
def test_arriving(kind: str, options: str, count: Count) -> None:
    @virtual
    async def main() -> None:
        limiter = MAKE[kind]()
        per_arrival = []
        for thousand in range(4):
            tasks = [
                asyncio.create_task(limiter.acquire(**OPTIONS[options](number)))
                for number in range(thousand * 1000, thousand * 1000 + 1000)
            ]
            await asyncio.sleep(0)
            per_arrival.append(count.since() / len(tasks))
        assert per_arrival[3] <= 2 * per_arrival[1] + 2
        assert per_arrival[3] <= 50
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert count.since() <= 30 * 4000
        assert nothing_left(limiter)

    main()


@pytest.mark.parametrize("kind", list(MAKE))
def test_coming_and_going(kind: str, count: Count) -> None:
    """Each one that gives up makes room for one that wants to be in time."""

    @virtual
    async def main() -> None:
        limiter, dice = MAKE[kind](), random.Random(7)
        tasks = [asyncio.create_task(limiter.acquire(max_wait=1e5)) for _ in range(3000)]
        await asyncio.sleep(0)
        count.since()
        for _ in range(1000):
            place = dice.randrange(100, len(tasks))
            tasks[place].cancel()
            tasks[place] = asyncio.create_task(limiter.acquire(max_wait=1e5))
            await asyncio.sleep(0)
        assert count.since() <= 60 * 1000
        for task in tasks:
            task.cancel()

    main()


@pytest.mark.parametrize("kind", list(MAKE))
def test_being_served(kind: str, count: Count) -> None:
    @virtual
    async def main() -> None:
        limiter = MAKE[kind]()
        tasks = [asyncio.create_task(limiter.acquire(max_wait=1e5)) for _ in range(2000)]
        await asyncio.sleep(0)
        count.since()
        for number in range(1000):
            tasks.append(asyncio.create_task(limiter.acquire(max_wait=1e5)))
            await asyncio.sleep(0.011 if number % 2 else 0.0)
        await asyncio.gather(*tasks)
        assert count.since() <= 40 * 3000
        assert nothing_left(limiter)

    main()


@pytest.mark.parametrize("options", ["plain", "max_wait"])
def test_a_long_line_lets_the_loop_do_other_work(options: str) -> None:
    """Hundreds may be granted at once: some in each turn of the loop."""

    @virtual
    async def main() -> None:
        loop, limiter, at_once = asyncio.get_running_loop(), TokenBucket("1000/s", burst=1000), list[int]()
        limiter.pause(1)
        tasks = [asyncio.create_task(limiter.acquire(**OPTIONS[options](0))) for _ in range(900)]

        def look() -> None:
            at_once.append(900 - len(core_of(limiter).gates[""].line) if core_of(limiter).gates else 900)
            if at_once[-1] < 900:
                loop.call_soon(look)

        await asyncio.sleep(0)
        loop.call_at(1.0, look)
        await asyncio.gather(*tasks)
        assert loop.time() == pytest.approx(1)
        assert at_once[-1] == 900
        assert max(after - before for before, after in itertools.pairwise(at_once)) <= 150

    main()


def test_thirty_thousand_of_whom_half_give_up(count: Count) -> None:
    @virtual
    async def main() -> None:
        limiter = TokenBucket("1/s", burst=1)
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(30_000)]
        await asyncio.sleep(0)
        assert count.since() <= 90_000
        for task in tasks[1::2]:
            task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        line = core_of(limiter).gates[""].line
        assert len(line) <= 15_000
        assert len(line.places) <= 30_000
        assert count.since() <= 90_000
        for task in tasks[::2]:
            task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert count.since() <= 90_000
        assert nothing_left(limiter)

    main()


def test_deadlines_of_those_who_were_served_are_forgotten() -> None:
    @virtual
    async def main() -> None:
        limiter = TokenBucket("1000/s", burst=1)
        long = asyncio.create_task(limiter.acquire(max_wait=50, priority=-1))
        for _ in range(20):
            for task in [asyncio.create_task(limiter.acquire(max_wait=1000)) for _ in range(100)]:
                await task
        gate = core_of(limiter).gates.get("")
        assert gate is None or len(gate._deadlines) < 200
        await long

    main()


def test_a_line_on_trio_hands_its_baton_on_at_a_constant_cost(count: Count) -> None:
    async def main() -> None:
        clock = VirtualClock()
        limiter = TokenBucket("100/s", burst=1, clock=clock)
        async with trio.open_nursery() as nursery:
            for _ in range(2000):
                nursery.start_soon(limiter.acquire)
            await clock.run(0)
            count.since()
            await clock.run(30)
        assert count.since() <= 20 * 2000
        assert nothing_left(limiter)

    trio.run(main)


@pytest.mark.parametrize("keys", [150])
def test_many_keys_under_one_total(keys: int, count: Count) -> None:
    """The heads of all keys wait for the same limiter: none starves, and a grant does not have all of them look."""

    @virtual
    async def main() -> None:
        total = TokenBucket("50/s", burst=1)
        limiter = AllOf(TokenBucket("1000/s", burst=1), total["all"])
        granted: list[tuple[int, float]] = []

        async def call(key: int) -> None:
            for _ in range(4):
                await limiter.acquire(key=f"{key}")
                granted.append((key, asyncio.get_running_loop().time()))

        await asyncio.gather(*(call(key) for key in range(keys)))
        assert len(granted) == 4 * keys
        assert granted[-1][1] == pytest.approx(4 * keys / 50, rel=0.01)
        last_first = max(min(at for key, at in granted if key == wanted) for wanted in range(keys))
        assert last_first < 2.5 * keys / 50
        assert count.since() <= 60 * keys * 4 + 50 * 2 * keys  # in the first second nobody is favoured, and all look
        assert nothing_left(limiter, total)

    main()


@virtual
async def test_a_place_before_nobody_who_still_waits() -> None:
    """The last in line has given up, and its place is not swept away yet: who comes before it comes behind the rest."""
    limiter = TokenBucket("1/s", burst=1)
    await limiter.acquire()
    first = asyncio.create_task(limiter.acquire())
    last = asyncio.create_task(limiter.acquire(priority=-1))
    await asyncio.sleep(0)
    last.cancel()
    await asyncio.sleep(0)
    with pytest.raises(WaitTooLong) as caught:
        await limiter.acquire(max_wait=1.5)
    assert caught.value.retry_after == 2
    await limiter.acquire(max_wait=2)
    assert first.done()
