"""Where time is read and slept: the `Clock` protocol of two verbs, the real clock, and which is the default here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from .rates import ticks_of, wait_of

__all__ = [
    "REAL", "Clock", "LoopClock", "RealClock", "current_clock", "loop_clocks", "ticks_of", "virtual_loop", "wait_of",
]  # fmt: skip


@runtime_checkable
class Clock(Protocol):
    """What a limiter asks of time: `now()` in seconds from any origin, never going back, and `sleep(seconds)`."""

    def now(self) -> float:
        """Seconds since an origin of the clock's own."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return when `seconds` have passed on this clock; cancellable."""
        ...


class RealClock:
    """The machine's monotonic clock; `sleep` is the running event loop's own (asyncio or trio)."""

    def now(self) -> float:
        """Seconds of `time.monotonic()`."""
        return time.monotonic()

    def epoch(self) -> float:
        """The Unix time at which `now()` was zero, as the wall clock says this moment."""
        return time.time() - time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running event loop."""
        import anyio  # only here: importing throttle must stay cheap

        await anyio.sleep(seconds)


class LoopClock:
    """The clock of one event loop with a time of its own (see `throttle.testing.run_virtual`)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        """Seconds of the loop's own time."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Sleep on that loop."""
        await asyncio.sleep(seconds)


REAL = RealClock()

# Loops that do not run in real time: almost always empty, and then the default clock costs one look at it.
loop_clocks: dict[asyncio.AbstractEventLoop, LoopClock] = {}


def current_clock() -> Clock:
    """The default clock: real, or that of the running loop if `run_virtual` drives it."""
    if not loop_clocks:
        return REAL
    try:
        return loop_clocks.get(asyncio.get_running_loop(), REAL)
    except RuntimeError:
        return REAL


@contextmanager
def virtual_loop(loop: asyncio.AbstractEventLoop) -> Generator[None]:
    """While it lasts, the default clock on `loop` is the loop's own time."""
    loop_clocks[loop] = LoopClock(loop)
    try:
        yield
    finally:
        del loop_clocks[loop]
