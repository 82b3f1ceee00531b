"""Limiters on an SQLite file: opened again, in virtual time, in several processes; see also test_every_counter."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from worlds import virtual

from throttle import (
    CounterUnavailable,
    FixedWindow,
    TokenBucket,
)
from throttle.counters import SQLiteCounter

LOOPS: dict[str, Callable[..., Any]] = {"asyncio": lambda main: asyncio.run(main()), "trio": trio.run}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits.db"


@pytest.fixture
def counter(path: Path) -> Iterator[SQLiteCounter]:
    counter = SQLiteCounter(path)
    yield counter
    asyncio.run(counter.aclose())


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
            for _ in range(2):
                await limiter.acquire()
            assert asyncio.get_running_loop().time() == pytest.approx(3600, abs=0.1)


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

    async def main():
        limiter, times = TokenBucket("200/s", burst=20, counter=SQLiteCounter(sys.argv[1]), name="n"), []

        async def take():
            for _ in range(5):
                await limiter.acquire()
                times.append(time.time())

        await asyncio.gather(*(take() for _ in range(20)))
        print(json.dumps(times))

    asyncio.run(main())
"""


def test_processes_share_a_rate(path: Path) -> None:
    """The long form of this, with figures, is `make bench-sqlite`."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(WORKER), str(path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = [json.loads(worker.communicate(timeout=50)[0]) for worker in workers]
    times = sorted(moment for one in found for moment in one)
    assert len(times) == 300
    for first in range(0, 300, 10):
        for last in range(first + 30, 300, 10):  # as docs/counters.md promises; none is ever early
            assert last - first <= 20 + 200 * (times[last] - times[first] + 0.3)
