"""The verbs, the keys, and the named limiters: thin shells over a rule and its core."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, Protocol, runtime_checkable

from .algorithms import FixedWindowRule, SlidingWindowCounterRule, SlidingWindowRule, TokenBucketRule, TwoRateRule
from .algorithms.base import Algorithm
from .clock import Clock
from .core import Core
from .counters.base import Counter
from .counters.memory import PROCESS, MemoryCounter, Table
from .decisions import Decision
from .guard import Local
from .lanes import BucketLane, WindowLane
from .permits import Blocks, Booking, check_options
from .rates import Rate
from .rulecore import RuleCore
from .waiting import Grant, Place

__all__ = [
    "BaseLimiter", "Bound", "FixedWindow", "Limiter", "RuleLimiter", "SlidingWindow", "SlidingWindowCounter",
    "TokenBucket", "TwoRateBucket", "limiter_of",
]  # fmt: skip

_ONE: Final = 1  # compared by identity: True and 1.0 are for the general way to judge
_NONE: Final = 0

@runtime_checkable
class Limiter(Protocol):
    """What every limiter can do, with or without a key bound to it; costs in permits, times in seconds."""

    async def acquire(self, cost: Any = 1, *, max_wait: float | None = None, priority: int = 0) -> None:
        """Wait for the turn and take `cost`; first come first served. Raises `WaitTooLong`, `CostExceedsBurst`."""
        ...

    async def __aenter__(self) -> None:
        """`acquire()` of one."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The work has ended."""
        ...

    async def try_acquire(self, cost: Any = 1) -> Decision:
        """Take `cost` if that is possible now; never waits for a rate."""
        ...

    def try_acquire_nowait(self, cost: Any = 1) -> Decision:
        """The same, a plain function; in-memory counter only."""
        ...

    async def peek(self, cost: Any = 1) -> Decision:
        """What `try_acquire` would answer, without taking."""
        ...

    async def refund(self, cost: Any = 1) -> None:
        """Give permits back, never above the burst."""
        ...

    def permit(self, cost: Any = 1, *, max_wait: float | None = None, priority: int = 0) -> Booking:
        """`async with limiter.permit() as permit:` the permit is out while the block runs."""
        ...

    def pause(self, seconds: float) -> None:
        """Admit nobody before `seconds` have passed; a later end wins."""
        ...

    def reconfigure(self, rate: Rate | str | float, *, burst: float | None = None) -> None:
        """Another rate at once, also for who is waiting; what was used stays used."""
        ...

    async def reset(self) -> None:
        """As new."""
        ...


class BaseLimiter(Local):
    """The verbs of every limiter; `key` names whom a call counts for (a host, a user), each with a limit of its own."""

    _core: Core
    _blocks: Blocks | None = None  # where a permit is held until its work ends

    async def acquire(self, cost: Any = 1, *, key: str = "", max_wait: float | None = None, priority: int = 0) -> None:
        """Wait for the turn and take `cost` permits. First come first served per key, also between big and small costs.

        A higher `priority` goes ahead and may starve lower ones. Raises `WaitTooLong` (with `retry_after`) at once if
        the line as it stands cannot serve this call within `max_wait` seconds, or as soon as that becomes so; nothing
        is taken then. Raises `CostExceedsBurst` for what can never be granted. No checkpoint when it need not wait.
        A cost of 0 takes nothing and passes the line; only a pause holds it, too.
        """
        place = self._arrive(cost, key, max_wait, priority)
        if place is not None:
            await self._core.stand(place)

    def _arrive(self, cost: Any, key: str, max_wait: float | None, priority: int) -> Place | None:
        """Take at once; or a place in line to `stand` in."""
        core = self._core
        if core.gates and cost is _ONE and max_wait is None and priority is _NONE and key.__class__ is str:
            place = core.queue(key)
            if place is not None:
                return place
        amount = core.ask(cost, key)
        if max_wait is not None or priority.__class__ is not int:
            check_options(max_wait, priority)
        return core.arrive(key, amount, max_wait, priority)

    def _grab(self, key: str, cost: Any) -> Grant | None:
        """A permit whose work will be told to end, where it is granted at once and without a gate; else None."""
        return self._core.grab(key, self._core.ask(cost, key))

    async def __aenter__(self) -> None:
        """`acquire()` of one."""
        if self._blocks is None:
            await self.acquire()
        else:
            await self._blocks.enter(self.permit())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The work has ended: the window of a held permit starts now."""
        if self._blocks is not None:
            await self._blocks.leave(kind, error, trace)

    async def try_acquire(self, cost: Any = 1, *, key: str = "") -> Decision:
        """Take `cost` if that is possible now, and say so; never waits for a rate, never barges past a line or a
        pause."""
        if self._core.remote:
            return await self._core.decide_there(key, self._core.ask(cost, key), take=True)
        return self.try_acquire_nowait(cost, key=key)

    def try_acquire_nowait(self, cost: Any = 1, *, key: str = "") -> Decision:
        """`try_acquire` as a plain function; in-memory counter only.

        >>> limiter = TokenBucket("1/min")
        >>> limiter.try_acquire_nowait().allowed
        True
        >>> decision = limiter.try_acquire_nowait()
        >>> decision.allowed, 50 < decision.retry_after <= 60
        (False, True)
        """
        return self._core.decide(key, self._core.ask(cost, key), take=True)

    async def peek(self, cost: Any = 1, *, key: str = "") -> Decision:
        """What `try_acquire` would answer, without taking; `remaining` is before the cost."""
        if self._core.remote:
            return await self._core.decide_there(key, self._core.ask(cost, key), take=False)
        return self._core.decide(key, self._core.ask(cost, key), take=False)

    async def refund(self, cost: Any = 1, *, key: str = "") -> None:
        """Give `cost` permits back that were taken and not used; never makes more than the burst available."""
        self._core.ask(0, key)
        self._core.refund(key, self._core.cost(cost))
        await self._core.flush(key)

    def permit(self, cost: Any = 1, *, key: str = "", max_wait: float | None = None, priority: int = 0) -> Booking:
        """`async with limiter.permit(cost) as permit:` waits like `acquire`; the permit is out while the block runs.

        `permit.settle(actual)` charges or gives back the difference when the true cost is known;
        `permit.observe(hints)` tells the limiter what the server answered.
        """
        grab = self._grab if self._core.gateless else None
        return Booking(self._core, cost, key, max_wait=max_wait, priority=priority, grab=grab)

    def pause(self, seconds: float, *, key: str | None = None) -> None:
        """Admit nobody of `key` (None: of any key) before `seconds` have passed, waiters and a cost of 0 included; a
        later end wins."""
        self._core.pause(seconds, key)

    def reconfigure(self, rate: Rate | str | float, *, burst: float | None = None) -> None:
        """Another rate at once, also for who is waiting; what was used stays used, without `burst` the old one stays.

        A waiter that can never fit any more gets `CostExceedsBurst`.
        """
        raise TypeError(f"{type(self).__name__} has no rate of its own: reconfigure its members")

    async def reset(self, key: str | None = None) -> None:
        """As new: counts and pauses of `key` (None: of every key) are forgotten."""
        if key is not None:
            self._core.ask(0, key)
        await self._core.clear_there(key)
        self._core.reset(key)

    def __getitem__(self, key: str) -> Bound:
        """This limiter bound to `key`: a `Limiter` that takes no further `key=`."""
        self._core.check_key(key)
        return Bound(self, key)


class Bound(Local):
    """One key of a limiter: the same verbs without `key=`; `reconfigure` concerns the whole limiter."""

    def __init__(self, limiter: BaseLimiter, key: str) -> None:
        self.limiter = limiter
        self.key = key
        self._blocks = None if limiter._blocks is None else Blocks()

    def __repr__(self) -> str:
        return f"{self.limiter!r}[{self.key!r}]"

    async def acquire(self, cost: Any = 1, *, max_wait: float | None = None, priority: int = 0) -> None:
        """See `BaseLimiter.acquire`."""
        await self.limiter.acquire(cost, key=self.key, max_wait=max_wait, priority=priority)

    async def __aenter__(self) -> None:
        """`acquire()` of one."""
        if self._blocks is None:
            await self.acquire()
        else:
            await self._blocks.enter(self.permit())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `BaseLimiter.__aexit__`."""
        if self._blocks is not None:
            await self._blocks.leave(kind, error, trace)

    async def try_acquire(self, cost: Any = 1) -> Decision:
        """See `BaseLimiter.try_acquire`."""
        return await self.limiter.try_acquire(cost, key=self.key)

    def try_acquire_nowait(self, cost: Any = 1) -> Decision:
        """See `BaseLimiter.try_acquire_nowait`."""
        return self.limiter.try_acquire_nowait(cost, key=self.key)

    async def peek(self, cost: Any = 1) -> Decision:
        """See `BaseLimiter.peek`."""
        return await self.limiter.peek(cost, key=self.key)

    async def refund(self, cost: Any = 1) -> None:
        """See `BaseLimiter.refund`."""
        await self.limiter.refund(cost, key=self.key)

    def permit(self, cost: Any = 1, *, max_wait: float | None = None, priority: int = 0) -> Booking:
        """See `BaseLimiter.permit`."""
        return self.limiter.permit(cost, key=self.key, max_wait=max_wait, priority=priority)

    def pause(self, seconds: float) -> None:
        """See `BaseLimiter.pause`."""
        self.limiter.pause(seconds, key=self.key)

    def reconfigure(self, rate: Rate | str | float, *, burst: float | None = None) -> None:
        """See `BaseLimiter.reconfigure`; concerns every key."""
        self.limiter.reconfigure(rate, burst=burst)

    async def reset(self) -> None:
        """This key as new."""
        await self.limiter.reset(self.key)


class RuleLimiter(BaseLimiter):
    """A limiter of one rule over a counter.

    - `counter`: where it counts, by default this process's memory. One of `throttle.counters` needs a `name`, under
      which all limiters of that name count together.
    - `clock`: for tests, such as `throttle.testing.VirtualClock()`; by default the real time, or that of `run_virtual`.
    """

    _core: RuleCore

    def __init__(self, rule: Algorithm, counter: Counter | None, name: str | None, clock: Clock | None) -> None:
        if counter is None:
            counter = PROCESS
        elif isinstance(counter, type) or not isinstance(counter, Counter):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"counter must be one such as RedisCounter('redis://...'), not {counter!r}")
        elif not name:
            raise ValueError(f"a limiter with counter={counter!r} needs name=, under which it counts there")
        if not (name is None or isinstance(name, str)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"name must be a str, not {name!r}")
        timed: Any = clock
        if timed is not None and (isinstance(timed, type) or not isinstance(timed, Clock)):
            raise TypeError(f"clock must have now() and sleep(), not {clock!r}")
        self.counter = counter
        self.name = name
        self._core = core_in(counter, name, rule, clock)  # pyright: ignore[reportIncompatibleVariableOverride]
        self._table = self._core.table
        self._blocks = Blocks() if rule.holds else None

    def __repr__(self) -> str:
        from .counters.states import spell

        return f"<{type(self).__name__} {spell(self._core.table.spec)}{', hold' if self._blocks else ''}>"

    def reconfigure(self, rate: Rate | str | float, *, burst: float | None = None) -> None:
        """Another rate at once, also for who is waiting; what was used stays used, without `burst` the old one stays.

        A waiter that can never fit any more gets `CostExceedsBurst`.

        >>> limiter = TokenBucket("1/s", burst=3)
        >>> limiter.try_acquire_nowait(3).remaining
        0.0
        >>> limiter.reconfigure("1000/s", burst=5)
        >>> limiter.try_acquire_nowait(2).allowed
        True
        """
        self._core.reconfigure(Rate.of(rate), burst)


def core_in(counter: Counter, name: str | None, rule: Algorithm, clock: Clock | None) -> RuleCore:
    """The core of the limiters of that name in `counter`: the same for all of this process."""
    if not isinstance(counter, MemoryCounter):
        if rule.holds:
            raise ValueError(f"hold=True needs counts in memory: {counter!r} cannot hold permits while work runs")
        from .sharedcore import shared_core  # in memory nothing of it is needed

        return shared_core(counter, name or "", rule, clock)
    table = counter.table(name, rule) if name and counter is not PROCESS else Table(rule)
    if table.core is None:
        table.core = RuleCore(table, counter.guard, clock)
    elif table.core.given is not clock:
        raise ValueError(f"name {name!r} counts on another clock already")
    core: RuleCore = table.core
    return core


class TokenBucket(BucketLane, RuleLimiter):  # pyright: ignore[reportIncompatibleMethodOverride]  # see `lanes`
    """At most `burst` at once and `rate` in the long run: in any time t up to burst + rate x t permits.

    `burst` (permits, above 0) defaults to the permits of the rate, at least 1. So `TokenBucket("100/min")` lets 100
    pass at once and 99 more while the first minute refills it; where the server counts windows, take `SlidingWindow`.

        permits passed                        ▄▄▄▀▀ 199 after a minute: burst + rate
                                    ▄▄▄▄▀▀▀▀▀
                          ▄▄▄▄▀▀▀▀▀▀                the refill, one by one
        100 at once ▀▀▀▀▀▀
                    0 s          30 s           60 s

    The generic cell rate algorithm (ITU-T I.371), exact in nanoseconds and rational permits; one number per key.
    `counter` and `name` share it with other processes, `clock` is for tests. Raises `ValueError` or `TypeError` that
    names a bad rate or option.

    >>> limiter = TokenBucket("10/s", burst=20)
    >>> limiter.try_acquire_nowait(20).allowed
    True
    """

    def __init__(
        self,
        rate: Rate | str | float,
        *,
        burst: float | None = None,
        counter: Counter | None = None,
        name: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(TokenBucketRule.of(Rate.of(rate), burst), counter, name, clock)


class SlidingWindow(WindowLane, RuleLimiter):  # pyright: ignore[reportIncompatibleMethodOverride]  # see `lanes`
    """Never more than the rate's permits in ANY window of its length: the exact log, one entry per grant and key.

    With `hold=True` a permit is held while the work runs and its window starts when the work ENDS, so that however the
    network delays, the server never sees more than that in any window (counts in memory only, else `ValueError`).

    Costs are whole numbers, and so are the permits of a window: a rate of less than one is turned round (0.5/s is 1 per
    2 s), another fraction is widened where that is exact (1.5/s is 3 per 2 s), else it is a `ValueError`. A bad rate or
    option is a `ValueError` or `TypeError` that names it.

    >>> limiter = SlidingWindow("2/min")
    >>> [limiter.try_acquire_nowait().allowed for _ in range(3)]
    [True, True, False]
    """

    def __init__(
        self,
        rate: Rate | str | float,
        *,
        hold: bool = False,
        counter: Counter | None = None,
        name: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(SlidingWindowRule.of(Rate.of(rate), hold), counter, name, clock)


class SlidingWindowCounter(RuleLimiter):
    """About the rate in any window, from two counters: previous x (what is left of its window) + current <= limit.

    Constant memory per key; assumes the previous window's permits were spread evenly. Windows are aligned as those of
    `FixedWindow`; rates, costs and errors are as those of `SlidingWindow`. Source: Cloudflare, How we built rate
    limiting capable of scaling to millions of domains (2017).

    >>> SlidingWindowCounter("100/min").try_acquire_nowait(100).remaining
    0.0
    """

    def __init__(
        self,
        rate: Rate | str | float,
        *,
        counter: Counter | None = None,
        name: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(SlidingWindowCounterRule.of(Rate.of(rate)), counter, name, clock)


class FixedWindow(RuleLimiter):
    """At most the rate's permits in each window, aligned to the Unix epoch plus `offset` seconds.

    Up to twice the limit may pass around a boundary: it is what many servers count. The wall clock is read once, at
    construction; a `VirtualClock` counts its windows from 0. Rates, costs and errors are as those of `SlidingWindow`.

    >>> FixedWindow("5000/hour").try_acquire_nowait(5000).allowed
    True
    """

    def __init__(
        self,
        rate: Rate | str | float,
        *,
        offset: float = 0.0,
        counter: Counter | None = None,
        name: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(FixedWindowRule.of(Rate.of(rate), offset), counter, name, clock)


class TwoRateBucket(RuleLimiter):
    """A burst budget after RFC 2698: grants what the two rate three color marker marks green.

    `rate` and `burst` are its committed information rate and burst size, `peak` and `peak_burst` the peak ones: bursts
    are spent at no more than the peak rate. Bursts default to the permits of their rates, at least 1. Raises
    `ValueError` if the peak is below the rate.

    >>> limiter = TwoRateBucket("10/s", burst=20, peak="50/s", peak_burst=5)
    >>> limiter.try_acquire_nowait(5).allowed, limiter.try_acquire_nowait(1).allowed
    (True, False)
    """

    def __init__(
        self,
        rate: Rate | str | float,
        *,
        burst: float | None = None,
        peak: Rate | str | float,
        peak_burst: float | None = None,
        counter: Counter | None = None,
        name: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(TwoRateRule.of(Rate.of(rate), burst, Rate.of(peak), peak_burst), counter, name, clock)


def limiter_of(value: BaseLimiter | Bound | Rate | str | float, *, hold: bool = False) -> BaseLimiter | Bound:
    """A limiter as it is; a rate or its spelling as a `SlidingWindow` of its own (held where the end of work is
    known)."""
    if isinstance(value, (BaseLimiter, Bound)):
        return value
    if isinstance(value, (Rate, str, int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
        return SlidingWindow(value, hold=hold)
    raise TypeError(f"a limiter such as TokenBucket('10/s'), a Rate or its spelling '10/s' is wanted; not {value!r}")
