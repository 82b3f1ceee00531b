"""A soak in virtual time: millions of permits, with cancellations, pauses, refunds and other rates in between.

    python tests/soak.py [--permits 10000000] [--days 7] [--seed 1]

Each limiter serves its share of the permits over the same simulated time. Every grant is checked against what may pass
in any window, everybody's turn against the order of arrival, and memory against what it was when a tenth was done.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from throttle import FixedWindow, SlidingWindow, SlidingWindowCounter, TokenBucket, TwoRateBucket
from throttle.testing import run_virtual

SECOND = 10**9


class AnyWindow:
    """Never more than `limit` in any `window` ticks."""

    def __init__(self, limit: int, window: int) -> None:
        self.limit, self.window = limit, window
        self.times: deque[int] = deque(maxlen=limit)

    def grant(self, at: int) -> None:
        if len(self.times) == self.limit:
            assert at - self.times[0] >= self.window, f"{self.limit + 1} permits in {at - self.times[0]} ns at {at}"
        self.times.append(at)


class Line:
    """Never more than `burst` + `permits` per `ticks` x the time passed, in any interval: a bucket of integers."""

    def __init__(self, permits: int, ticks: int, burst: int) -> None:
        self.permits, self.burst, self.full = permits, burst * ticks, burst * ticks
        self.unit, self.level, self.at = ticks, self.full, 0

    def grant(self, at: int) -> None:
        self.level, self.at = min(self.full, self.level + (at - self.at) * self.permits), at
        self.level -= self.unit
        assert self.level >= -2 * self.permits, f"{-self.level / self.unit} permits too many at {at}"  # 2 ns of floats


class Aligned:
    """Never more than `limit` in a window that starts at a multiple of its length."""

    def __init__(self, limit: int, window: int) -> None:
        self.limit, self.window = limit, window
        self.index, self.count = -1, 0

    def grant(self, at: int) -> None:
        index = (at + 2) // self.window  # a float may be 2 ns short of a boundary
        self.count = self.count + 1 if index == self.index else 1
        self.index = index
        assert self.count <= self.limit, f"{self.count} permits in the window of {at}"


# For r permits a second: the limiter, and who watches it. What two counters bound is any two windows.
KINDS: dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]] = {
    "TokenBucket": (lambda r: TokenBucket(r, burst=20), lambda r: Line(r, SECOND, 20)),
    "SlidingWindow": (lambda r: SlidingWindow(f"{r}/s"), lambda r: AnyWindow(r, SECOND - 2)),
    "SlidingWindowCounter": (lambda r: SlidingWindowCounter(f"{r}/s"), lambda r: AnyWindow(2 * r, SECOND - 2)),
    "FixedWindow": (lambda r: FixedWindow(f"{r}/s"), lambda r: AnyWindow(2 * r, SECOND - 2)),
    "TwoRateBucket": (
        lambda r: TwoRateBucket(r, burst=20, peak=3 * r, peak_burst=5), lambda r: Line(r, SECOND, 20)
    ),
}  # fmt: skip


@dataclass
class Soak:
    """One limiter's share."""

    kind: str
    permits: int
    seconds: float
    seed: int
    granted: int = 0
    cancelled: int = 0
    paused: int = 0
    memory: list[int] = field(default_factory=list)
    arrived: int = 0
    last: int = -1  # the arrival that was granted last

    async def run(self) -> Soak:
        self.dice = random.Random(self.seed)
        self.loop = asyncio.get_running_loop()
        self.rate = max(1, -(-self.permits * 5 // (4 * round(self.seconds))))  # a quarter more than is asked
        make, watch = KINDS[self.kind]
        self.limiter, self.watch = make(self.rate), watch(self.rate)
        self.held_until = 0.0
        crew = 12
        gap = crew * self.seconds / self.permits  # each task's, so that the line is empty now and full then
        tasks = {asyncio.create_task(self._caller(gap)): None for _ in range(crew)}  # in order: the seed tells all
        trouble = asyncio.create_task(self._trouble(tasks, gap))
        while self.granted < self.permits:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in tasks if task in done]:
                del tasks[task]
                if not task.cancelled():
                    task.result()
                if self.granted < self.permits:
                    tasks[asyncio.create_task(self._caller(gap))] = None
        for task in (trouble, *tasks):
            task.cancel()
        await asyncio.gather(trouble, *tasks, return_exceptions=True)
        return self

    async def _caller(self, gap: float) -> None:
        dice = self.dice
        for _ in range(2000):
            if self.granted >= self.permits:
                return
            await asyncio.sleep(dice.random() * gap * (8 if dice.random() < 0.1 else 1))
            self.arrived += 1
            number = self.arrived
            await self.limiter.acquire()
            self._check(number)

    def _check(self, number: int) -> None:
        at = self.loop.time()
        assert at >= self.held_until - 2e-9, f"granted at {at}, paused until {self.held_until}"
        assert number > self.last, f"{number} was overtaken by {self.last}"
        self.last = number
        self.granted += 1
        self.watch.grant(round(at * SECOND))
        if self.granted % max(1, self.permits // 10) == 0:
            gc.collect()
            self.memory.append(sys.getallocatedblocks())

    async def _trouble(self, tasks: dict[asyncio.Task[None], None], gap: float) -> None:
        dice = self.dice
        while True:
            await asyncio.sleep(dice.expovariate(1 / (2 * gap)))
            if dice.random() < 0.95 and tasks:
                dice.choice(list(tasks)).cancel()
                self.cancelled += 1
            else:
                seconds = dice.random() * 5 * gap
                self.limiter.pause(seconds)
                self.held_until = max(self.held_until, self.loop.time() + seconds)
                self.paused += 1


def soak(kind: str, permits: int, seconds: float, seed: int) -> Soak:
    """One limiter through its share; raises `AssertionError` at the first permit too many or out of turn."""
    return run_virtual(Soak(kind, permits, seconds, seed).run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--permits", type=int, default=10_000_000)
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for kind in KINDS:
        start = time.perf_counter()
        done = soak(kind, options.permits // len(KINDS), options.days * 86400, options.seed)
        growth = done.memory[-1] - done.memory[0]
        print(
            f"{kind}: {done.granted:,} permits, {done.cancelled:,} cancellations, {done.paused:,} pauses, none amiss; "
            f"{growth:+d} blocks of memory since the first tenth; {time.perf_counter() - start:.0f} s",
            flush=True,
        )
        assert growth < 5000, f"memory grows: {done.memory}"


if __name__ == "__main__":
    main()
