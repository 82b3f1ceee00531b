"""Limiters on an SQLite file: in one process on both event loops, in several processes, and after a restart."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from worlds import virtual

from throttle import (
    AllOf,
    CostExceedsBurst,
    CounterUnavailable,
    FixedWindow,
    SlidingWindow,
    SlidingWindowCounter,
    TokenBucket,
    TwoRateBucket,
    WaitTooLong,
)
from throttle.counters import SQLiteCounter

LOOPS: dict[str, Callable[..., Any]] = {"asyncio": lambda main: asyncio.run(main()), "trio": trio.run}
# five at once, then one each 20 ms
KINDS: dict[str, Callable[..., Any]] = {
    "TokenBucket": lambda **options: TokenBucket("50/s", burst=5, **options),
    "TwoRateBucket": lambda **options: TwoRateBucket("50/s", burst=5, peak="100/s", peak_burst=5, **options),
    "SlidingWindow": lambda **options: SlidingWindow("5 per 100ms", **options),
    "SlidingWindowCounter": lambda **options: SlidingWindowCounter("5 per 100ms", **options),
    "FixedWindow": lambda **options: FixedWindow("5 per 100ms", **options),
    "AllOf": lambda *, name, **options: AllOf(
        TokenBucket("50/s", burst=5, name=f"{name} pace", **options),
        quota=FixedWindow("1000/day", name=f"{name} quota", **options),
    ),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits.db"


@pytest.fixture
def counter(path: Path) -> Iterator[SQLiteCounter]:
    counter = SQLiteCounter(path)
    yield counter
    asyncio.run(counter.aclose())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_limiter_waits_for_its_turn(counter: SQLiteCounter, kind: str, loop: str) -> None:
    limiter = KINDS[kind](counter=counter, name="n")
    order: list[int] = []

    async def one(number: int) -> None:
        await limiter.acquire()
        order.append(number)

    async def main() -> None:
        start = time.monotonic()
        async with anyio.create_task_group() as group:
            for number in range(15):
                group.start_soon(one, number)
        elapsed = time.monotonic() - start
        assert elapsed >= (0.1 if kind in ("FixedWindow", "SlidingWindowCounter") else 0.195)

    LOOPS[loop](main)
    assert sorted(order) == list(range(15))
    if loop == "asyncio":  # trio starts tasks in any order
        assert order == sorted(order)


def test_the_verbs(counter: SQLiteCounter) -> None:
    async def main() -> None:
        limiter = TokenBucket("1/h", burst=3, counter=counter, name="n")
        assert (await limiter.try_acquire(2)).remaining == pytest.approx(1, abs=0.01)
        refused = await limiter.try_acquire(2)
        assert not refused
        assert 3500 < refused.retry_after <= 3600
        with pytest.raises(WaitTooLong):
            await limiter.acquire(2, max_wait=1)
        with pytest.raises(CostExceedsBurst):
            await limiter.acquire(4)
        await limiter.refund(1)
        assert await limiter.try_acquire(2)
        assert await limiter["other"].try_acquire(3)
        await limiter.reset("")
        assert (await limiter.peek()).remaining == 3
        assert not await limiter["other"].try_acquire(3)
        await limiter.reset()
        assert await limiter["other"].try_acquire(3)
        with pytest.raises(TypeError):
            limiter.try_acquire_nowait()
        async with limiter.permit(1) as permit:
            permit.settle(2)
        assert (await limiter.peek()).remaining == pytest.approx(1, abs=0.01)

    asyncio.run(main())


def test_what_one_limiter_does_another_sees(counter: SQLiteCounter, path: Path) -> None:
    """As two processes would: with counters of their own on one file."""

    async def main() -> None:
        async with SQLiteCounter(path) as second:
            here = TokenBucket("1/h", burst=10, counter=counter, name="n")
            there = TokenBucket("1/h", burst=10, counter=second, name="n")
            await here.acquire(7)
            assert not await there.try_acquire(4)
            assert await there.try_acquire(3)
            async with here.permit(key="paused"):
                here.pause(60, key="paused")
            refused = await there.try_acquire(key="paused")
            assert not refused
            assert 30 < refused.retry_after <= 60

    asyncio.run(main())


def test_a_counter_lives_through_loops_and_closing(counter: SQLiteCounter) -> None:
    limiter = FixedWindow("100/day", counter=counter, name="n")

    async def take() -> None:
        await limiter.acquire(10)
        await counter.aclose()

    for loop in (*LOOPS.values(), *LOOPS.values()):
        loop(take)
    assert asyncio.run(limiter.peek()).remaining == 60


@virtual
async def test_virtual_time() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with SQLiteCounter(f"{folder}/limits.db") as counter:
            limiter = TokenBucket("1/h", burst=1, counter=counter, name="n")
            for _ in range(5):
                await limiter.acquire()
            assert asyncio.get_running_loop().time() == pytest.approx(4 * 3600, abs=0.1)


def test_an_error_of_the_file_reaches_the_caller(tmp_path: Path) -> None:
    limiter = TokenBucket("1/s", counter=SQLiteCounter(tmp_path), name="n")

    async def main() -> None:
        for call in (limiter.acquire, limiter.try_acquire, limiter.peek):
            with pytest.raises(CounterUnavailable, match="cannot be opened"):
                await call()

    asyncio.run(main())


WORKER = """
    import asyncio, json, sys, time
    from throttle import TokenBucket
    from throttle.counters import SQLiteCounter

    path, start, end = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])

    async def main():
        limiter, times = TokenBucket("200/s", burst=20, counter=SQLiteCounter(path), name="n"), []

        async def take():
            while True:
                await limiter.acquire()
                if time.time() >= end:
                    return
                times.append(time.time())

        await asyncio.sleep(max(0, start - time.time()))
        await asyncio.gather(*(take() for _ in range(20)))
        print(json.dumps(times))

    asyncio.run(main())
"""


def test_processes_share_a_rate(path: Path) -> None:
    """The long form of this, with figures, is `make bench-sqlite`."""
    start = time.time() + 1.5
    end = start + 2
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(WORKER), str(path), str(start), str(end)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = [json.loads(worker.communicate(timeout=50)[0]) for worker in workers]
    times = sorted(moment for one in found for moment in one)
    elapsed = times[-1] - times[0]
    assert len(times) <= 20 + 200 * (elapsed + 0.3)  # as docs/counters.md promises
    assert len(times) >= 0.5 * 200 * 2  # a busy machine loses some
    assert min(map(len, found)) > 0
