"""`VirtualClock`: a clock that a test moves by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from contextlib import suppress
from typing import Any

from ..loops import running

__all__ = ["VirtualClock", "all_blocked", "check_seconds"]

_QUIET_PASSES = 5  # a loop is quiet when so many passes in a row find every task blocked


def check_seconds(seconds: float, verb: str) -> None:
    """One clear error for a time that a clock cannot pass."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a clock {verb} a number of seconds, not {seconds!r}")
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"a clock {verb} a finite number of seconds of at least 0, not {seconds!r}")


class VirtualClock:
    """A clock that stands still until a test moves it: `TokenBucket("10/s", clock=VirtualClock())`. Starts at 0.0 s.

    `advance(seconds)` is a plain function: it moves time and marks the sleepers that are due. `await
    clock.run(seconds)` goes from deadline to deadline and lets each woken task run. For asyncio and trio.

    >>> clock = VirtualClock()
    >>> clock.advance(1.5)
    >>> clock.now()
    1.5
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, int, Any]] = []
        self._count = itertools.count()

    def __repr__(self) -> str:
        return f"<VirtualClock at {self._now} s>"

    def now(self) -> float:
        """Virtual seconds since the clock was made."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Return when the clock has been moved by `seconds`."""
        import anyio
        import anyio.lowlevel

        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        event = anyio.Event()
        sleeper = (self._now + seconds, next(self._count), event)
        heapq.heappush(self._sleepers, sleeper)
        try:
            await event.wait()
        finally:
            if not event.is_set():  # cancelled: nobody sleeps here any more
                self._sleepers.remove(sleeper)
                heapq.heapify(self._sleepers)

    def advance(self, seconds: float) -> None:
        """Move time forward; whoever was to sleep no longer than that is due, and runs when the event loop gets to
        it."""
        check_seconds(seconds, "is advanced by")
        self._move(self._now + seconds)

    def _move(self, to: float) -> None:
        self._now = max(self._now, to)
        while self._sleepers and self._sleepers[0][0] <= self._now:
            sleeper = heapq.heappop(self._sleepers)[2]
            with suppress(RuntimeError):  # its loop was closed under it
                sleeper.set()

    async def run(self, seconds: float) -> None:
        """Move time forward from deadline to deadline; every task that wakes runs until it waits again."""
        check_seconds(seconds, "runs for")
        end = self._now + seconds
        await all_blocked()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._move(self._sleepers[0][0])
            await all_blocked()
        self._move(end)
        await all_blocked()


async def all_blocked() -> None:
    """Let every other task run until it waits for something."""
    if not isinstance(running(), asyncio.AbstractEventLoop):
        import trio.testing

        await trio.testing.wait_all_tasks_blocked()
        return
    me = asyncio.current_task()
    quiet = 0
    while quiet < _QUIET_PASSES:
        await asyncio.sleep(0)
        quiet = 0 if any(task is not me and _runs(task) for task in asyncio.all_tasks()) else quiet + 1


def _runs(task: asyncio.Task[Any]) -> bool:
    # The future a task waits for has no public name; anyio's own test helpers read it in the same way.
    waiter = getattr(task, "_fut_waiter", None)
    return waiter is None or waiter.done()
