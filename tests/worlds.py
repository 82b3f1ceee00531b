"""Where a scenario is played: each event loop and each kind of virtual time behind one door; and every limiter."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import trio.testing

from throttle import (
    AllOf,
    FixedWindow,
    SlidingWindow,
    SlidingWindowCounter,
    TokenBucket,
    TwoRateBucket,
)
from throttle.counters import MemoryCounter
from throttle.testing import VirtualClock, run_virtual

# Four permits at once and four in each second, of every kind.
KINDS: dict[str, Callable[..., Any]] = {
    "TokenBucket": lambda **options: TokenBucket("4/s", **options),
    "SlidingWindow": lambda **options: SlidingWindow("4/s", **options),
    "SlidingWindowCounter": lambda **options: SlidingWindowCounter("4/s", **options),
    "FixedWindow": lambda **options: FixedWindow("4/s", **options),
    "TwoRateBucket": lambda **options: TwoRateBucket("4/s", burst=4, peak="8/s", peak_burst=4, **options),
    "AllOf": lambda **options: AllOf(
        TokenBucket("4/s", **options), slow=FixedWindow("8/s", **options), log=SlidingWindow("40/s", **options)
    ),
    "bound": lambda **options: TokenBucket("4/s", **options)["key"],
    "bound AllOf": lambda **options: AllOf(
        TokenBucket("4/s", **options), SlidingWindow("9/s", **options)["all"]
    )["key"],
    "counter": lambda **options: SlidingWindow("4/s", counter=MemoryCounter(), name="n", **options),
}
HELD = {"hold": lambda **options: SlidingWindow("4/s", hold=True, **options)}


def core_of(limiter: Any) -> Any:
    return getattr(limiter, "limiter", limiter)._core


def cores_of(limiter: Any) -> list[Any]:
    core = core_of(limiter)
    return [core, *(core_of(member.limiter) for member in getattr(core, "members", []))]


def nothing_left(*limiters: Any) -> bool:
    """No gate is left, or none that anybody waits at or has to land on."""
    gates = [gate for limiter in limiters for core in cores_of(limiter) for gate in core.gates.values()]
    return not any(gate.line or gate.homes or gate.flights or gate.guests for gate in gates)


def virtual(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that is a whole asyncio program in virtual time."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtual(functools.partial(test, *args, **kwargs))

    return run


class World:
    """`clock=` for limiters, `now()`, and `pass_time(seconds)`, during which others run."""

    clock: Any = None

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ClockWorld(World):
    """Time that only the scenario moves."""

    def __init__(self) -> None:
        self.clock = VirtualClock()

    def now(self) -> float:
        return self.clock.now()

    async def pass_time(self, seconds: float) -> None:
        await self.clock.run(seconds)


class TrioWorld(World):
    """Trio with its own virtual clock, which the default clock follows."""

    def now(self) -> float:
        return trio.current_time()

    async def pass_time(self, seconds: float) -> None:
        await trio.sleep(seconds)


def _virtual(play: Any) -> None:
    run_virtual(play, World())


def _asyncio_clock(play: Any) -> None:
    asyncio.run(play(ClockWorld()))


def _trio_clock(play: Any) -> None:
    trio.run(play, ClockWorld())


def _trio_autojump(play: Any) -> None:
    trio.run(play, TrioWorld(), clock=trio.testing.MockClock(autojump_threshold=0))


WORLDS: dict[str, Callable[[Callable[[World], Awaitable[None]]], None]] = {
    "run_virtual": _virtual,
    "asyncio, VirtualClock": _asyncio_clock,
    "trio, VirtualClock": _trio_clock,
    "trio, MockClock": _trio_autojump,
}


class Crowd:
    """Tasks that acquire, each with a scope to cancel it by, and what became of them."""

    def __init__(self, world: World, group: anyio.abc.TaskGroup) -> None:
        self.world, self.group = world, group
        self.log: list[tuple[Any, float]] = []
        self.scopes: dict[Any, anyio.CancelScope] = {}
        self.tasks: dict[Any, asyncio.Task[Any] | None] = {}
        self.ended: dict[Any, Any] = {}

    async def come(self, name: Any, limiter: Any, *args: Any, work: float | None = None, **options: Any) -> None:
        """One more, who waits in line (or has been granted) when this returns."""
        self.group.start_soon(functools.partial(self._one, name, limiter, *args, work=work, **options))
        for _ in range(3):
            await anyio.lowlevel.checkpoint()

    def cancel(self, name: Any) -> None:
        """Cancel it in the manner of its loop: a task of asyncio, a scope of trio (or of anyio: see `scopes`)."""
        task = self.tasks[name]
        if task is None:
            self.scopes[name].cancel()
        else:
            task.cancel()

    async def _one(self, name: Any, limiter: Any, *args: Any, work: float | None, **options: Any) -> None:
        with anyio.CancelScope() as scope:
            self.scopes[name] = scope
            self.tasks[name] = asyncio.current_task() if not trio.lowlevel.in_trio_task() else None
            try:
                if work is None:
                    await limiter.acquire(*args, **options)
                    self.log.append((name, round(self.world.now(), 6)))
                else:
                    async with limiter.permit(*args, **options):
                        self.log.append((name, round(self.world.now(), 6)))
                        await self._work(work)
                self.ended[name] = "done"
            except Exception as error:
                self.ended[name] = error
            except asyncio.CancelledError:
                self.ended[name] = "cancelled"
                raise
        if scope.cancelled_caught:
            self.ended[name] = "cancelled"

    async def _work(self, seconds: float) -> None:
        if self.world.clock is None:
            await anyio.sleep(seconds)
        else:
            await self.world.clock.sleep(seconds)

    def names(self) -> list[Any]:
        return [name for name, _ in self.log]
