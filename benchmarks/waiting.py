"""Rows of limiters that make their callers wait: long lines, cancellations, saturation, and whether the limit holds."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import peers
from measure import Call, Measured, Reach, apart, medians, resident, row

from throttle import SlidingWindow, TokenBucket
from throttle.testing import run_virtual

OURS = "throttle TokenBucket"


def limiters(rate: float, burst: float) -> dict[str, Call]:
    """Who can make a caller wait; built in the running loop."""
    return {OURS: TokenBucket(rate, burst=burst).acquire, **peers.acquirers(rate, burst, waiting=True)}


def among(*names: str) -> list[str]:
    return [OURS, *(name for name in names if peers.have(name))]


# ── a long line ─────────────────────────────────────────────────────────────────────────────────────────────────────

LINE = 100_000


async def _lag(lags: list[float], going: Callable[[], bool]) -> None:
    """How late the loop is, asked once a millisecond (its own timers round up to one)."""
    while going():
        start = time.perf_counter()
        await asyncio.sleep(0.001)
        lags.append(time.perf_counter() - start - 0.001)


def _first_in_line(acquire: Call) -> Any:
    """A coroutine that waits for its permit: behind it all others have to, however slowly they arrive."""
    while True:
        call: Any = acquire()
        try:
            call.send(None)
        except StopIteration:
            continue
        return call


def _drain(who: str) -> Measured:
    """A line of 100,000, from the first arrival to the last grant, at 200,000/s."""

    async def main() -> Measured:
        acquire = limiters(200_000, 1000)[who]
        order: list[int] = []
        lags: list[float] = []

        async def one(number: int) -> None:
            await acquire()
            order.append(number)

        first = _first_in_line(acquire)
        before, wall, cpu = resident(), time.perf_counter(), time.process_time()
        tasks = [asyncio.create_task(one(number)) for number in range(LINE)]
        await asyncio.sleep(0)
        used = resident() - before
        monitor = asyncio.create_task(_lag(lags, lambda: len(order) < LINE))
        for task in tasks:
            await task
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        await monitor
        first.close()
        last, overtaken = -1, 0
        for number in order:
            overtaken += number < last
            last = max(last, number)
        return {
            "wall": wall / LINE * 1e6,
            "cpu": cpu / LINE * 1e6,
            "overtaken": overtaken,
            "memory": used / LINE,
            "lag": sorted(lags)[int(len(lags) * 0.99)] * 1000 if lags else 0.0,
        }

    return asyncio.run(main())


@cache
def _lines() -> dict[str, Measured]:
    names = among("asynciolimiter", "aiolimiter")
    return medians(5, {name: (lambda name=name: apart(_drain, name)) for name in names})


def _of_lines(what: str) -> Measured:
    return {name: figures[what] for name, figures in _lines().items()}


@row("us", Reach(OURS, most=1, times="asynciolimiter"))
def waiters_wall() -> Measured:
    """100,000 waiters, 200,000/s: wall time a permit"""
    return _of_lines("wall")


@row("us", Reach(OURS, most=1, times="asynciolimiter"))
def waiters_cpu() -> Measured:
    """100,000 waiters: CPU a permit"""
    return _of_lines("cpu")


@row("waiters", Reach(OURS, most=0))
def waiters_overtaken() -> Measured:
    """100,000 waiters: granted after somebody who came later"""
    return _of_lines("overtaken")


@row("bytes", Reach(OURS, most=1400))
def waiters_memory() -> Measured:
    """100,000 waiters: resident bytes each, its task included"""
    return _of_lines("memory")


@row("ms", Reach(OURS, most=5))
def waiters_lag() -> Measured:
    """100,000 waiters: how late the loop is while they drain, p99"""
    return _of_lines("lag")


# ── cancellations, saturation ───────────────────────────────────────────────────────────────────────────────────────


@row("of ideal", Reach(OURS, most=1.02))
def cancelled() -> Measured:
    """10,000 waiters at 1000/s, burst 10, half of them cancelled: time of the rest over the ideal"""

    async def run(who: str) -> float:
        acquire = limiters(1000, 10)[who]
        start = time.perf_counter()
        tasks = [asyncio.create_task(acquire()) for _ in range(10_000)]
        await asyncio.sleep(0)
        dice = random.Random(3)
        gone = dice.sample(tasks[100:], 5000)  # those at the head may have been granted already
        for task in gone:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return (time.perf_counter() - start) / ((5000 - 10) / 1000)

    names = among("aiolimiter", "asynciolimiter")
    return medians(1, {name: (lambda name=name: asyncio.run(_bounded(run(name)))) for name in names})


async def _bounded(work: Any) -> Any:
    try:
        return await asyncio.wait_for(work, 30)
    except TimeoutError:
        return float("inf")


async def _delivered(who: str, rate: float, burst: float, seconds: float) -> float:
    """The permits of those due that 50 callers got, who always ask for the next."""
    acquire = limiters(rate, burst)[who]
    done = 0
    start = time.perf_counter()

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() - start < seconds:
            await acquire()
            done += 1

    workers = [asyncio.create_task(worker()) for _ in range(50)]
    await asyncio.sleep(seconds)
    count, elapsed = done, time.perf_counter() - start
    for task in workers:
        task.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    return count / (burst + rate * elapsed)


def _share(rate: float, burst: float, seconds: float) -> Measured:
    names = among("aiolimiter", "asynciolimiter", "pyrate-limiter")
    runs = {name: (lambda name=name: asyncio.run(_delivered(name, rate, burst, seconds))) for name in names}
    return medians(3, runs)


@row("of due", Reach(OURS, least=0.999))
def saturated() -> Measured:
    """1000/s, burst 100, 50 callers that always ask for more: permits delivered of those due"""
    return _share(1000, 100, 2)


@row("of due", Reach(OURS, least=0.995))
def ten_thousand() -> Measured:
    """10,000/s asked, burst 100: permits delivered of those due"""
    return _share(10_000, 100, 2)


# ── does the limit hold ─────────────────────────────────────────────────────────────────────────────────────────────


async def _times(acquire: Call, seconds: float) -> list[float]:
    """When 20 callers, who rest now and then, were granted in so many (virtual) seconds."""
    loop, dice, times = asyncio.get_running_loop(), random.Random(5), list[float]()
    end = loop.time() + seconds

    async def worker() -> None:
        while loop.time() < end:
            await acquire()
            times.append(loop.time())
            if dice.random() < 0.02:
                await asyncio.sleep(dice.random() * 2)

    await asyncio.gather(*(worker() for _ in range(20)))
    return times


def above_line(times: list[float], rate: float, burst: float) -> float:
    """The most permits in any window above burst + rate x its length."""
    most, least = 0.0, float("inf")
    for index, at in enumerate(times):
        least = min(least, index - rate * at)
        most = max(most, index + 1 - rate * at - least)
    return max(0.0, most - burst)


def most_within(times: list[float], window: float) -> int:
    """The most permits in any window of that length."""
    most, first = 0, 0
    for index, at in enumerate(times):
        while times[first] <= at - window + 1e-9:
            first += 1
        most = max(most, index + 1 - first)
    return most


SECONDS = 4
VIRTUAL = ", virtual time"  # exact; what is seen in real time is late by the lag of the loop, now and then


def _holds(ours: str, who: list[str], acquires: Callable[[], dict[str, Call]], judge: Callable[..., float]) -> Measured:
    async def run(name: str, seconds: float) -> float:
        return judge(await _times(acquires()[name], seconds))

    found = {ours + VIRTUAL: run_virtual(run, ours, 60 * SECONDS)}
    return found | {name: asyncio.run(run(name, SECONDS)) for name in (ours, *who) if name == ours or peers.have(name)}


@row("permits", Reach(OURS + VIRTUAL, most=0.001))
def any_window_bucket() -> Measured:
    """1000/s, burst 100: the most above burst + rate x t in any window"""
    who = ["aiolimiter", "asynciolimiter", "pyrate-limiter"]
    return _holds(OURS, who, lambda: limiters(1000, 100), lambda times: above_line(times, 1000, 100))


@row("of limit", Reach("throttle SlidingWindow" + VIRTUAL, most=1), Reach("throttle SlidingWindow", most=1))
def any_window_sliding() -> Measured:
    """100 in a second: the most in any 0.99 s over the limit"""
    ours = "throttle SlidingWindow"
    who = ["aiolimiter", "asynciolimiter", "pyrate-limiter"]
    acquires = lambda: limiters(100, 100) | {ours: SlidingWindow("100/s").acquire}
    return _holds(ours, who, acquires, lambda times: most_within(times, 0.99) / 100)
