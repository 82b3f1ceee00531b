"""Where time is read and slept: the `Clock` protocol of two verbs, the real clock, and which is the default here."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic_ns
from typing import Any, Protocol, runtime_checkable
from weakref import finalize

from .rates import ticks_of, wait_of

__all__ = [
    "REAL", "Clock", "LoopClock", "RealClock", "TrioClock", "current_clock", "default_clock", "loop_clocks",
    "monotonic_ns", "ticks_of", "wait_of",
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


class TrioClock:
    """The clock of one trio run with a time of its own: trio's `MockClock` drives it."""

    def now(self) -> float:
        """Seconds of the run's own time."""
        return float(sys.modules["trio"].current_time())

    async def sleep(self, seconds: float) -> None:
        """Sleep in that time."""
        await sys.modules["trio"].sleep(seconds)


# Who does not run in real time, asyncio loops among them: almost always empty, and then the default clock costs one
# look at it. Under None: a clock that is the default everywhere.
loop_clocks: dict[Any, Clock] = {}


def current_clock() -> Clock:
    """The default clock: real, or that of the running loop if `run_virtual` or trio's `MockClock` drives it."""
    if not loop_clocks and _TRIO_TESTING not in sys.modules:
        return REAL
    if _TRIO_TESTING in sys.modules and (clock := _mock_clock()) is not None:
        return clock
    try:
        return loop_clocks.get(asyncio.get_running_loop()) or loop_clocks.get(None, REAL)
    except RuntimeError:
        return loop_clocks.get(None, REAL)


_TRIO_TESTING = "trio.testing"  # without it nobody has a MockClock


def _mock_clock() -> Clock | None:
    """The clock of the running trio run if a `MockClock` drives it."""
    try:
        driver = sys.modules["trio"].lowlevel.current_clock()
    except RuntimeError:
        return None
    if not isinstance(driver, sys.modules[_TRIO_TESTING].MockClock):
        return None
    clock = loop_clocks.get(id(driver))
    if clock is None:
        clock = loop_clocks[id(driver)] = TrioClock()  # being there, it also turns the lanes off
        finalize(driver, loop_clocks.pop, id(driver), None).atexit = False
    return clock


@contextmanager
def default_clock(clock: Clock, loop: asyncio.AbstractEventLoop | None = None) -> Generator[None]:
    """While it lasts, the default clock is `clock`: on `loop`, or wherever no other one drives."""
    before = loop_clocks.get(loop)
    loop_clocks[loop] = clock
    try:
        yield
    finally:
        del loop_clocks[loop]
        if before is not None:
            loop_clocks[loop] = before
