"""The lanes past the line: what a call costs that need not wait, as flat as it can be written.

`TokenBucket` and `SlidingWindow` on the real clock let a call of one permit pass without the lock while their table is
`open`: nobody waits, nothing is paused, no combined limiter takes here, and no other thread is in the locked part. Each
lane is the rule's own `earliest` and `book` for that case, written out; all else goes the general way, which decides
the same. `_grab` is the lane of decorators, bundles and transports, whose permits end; `HoldLane` is that of their
ends, where a window starts with them.

Why no lock is needed: with a global interpreter lock, threads take turns only at calls and at jumps back. From the call
that reads the clock to the store (or to the call that stores) there is neither, so a lane is one step to other threads;
`tests/test_lanes.py` holds the bytecode to that. Without a global interpreter lock the tables are never open. A tracer
that runs Python code between two lines (a debugger) can break such a step; then two threads may take the same permit.

What it buys: about half of the way with a lock. What is checked before, and what it costs: the cost, the clock and the
options (50 ns), the key (5 ns), the clock's own call (30-60 ns). That options are by keyword only is not checked in
`acquire`: CPython binds such parameters one by one (100 ns).
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final

from .calls import current_call
from .clock import loop_clocks
from .decisions import Decision, new_decision
from .waiting import GRANTED, new_ticket

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Clock
    from .counters.memory import Table
    from .waiting import Grant, Place

__all__ = ["BucketLane", "HoldLane", "WindowLane"]

_ONE: Final = 1  # compared by identity: True and 1.0 are for the general way to judge
_NONE: Final = 0
_PLAIN: Final = ""
_OFTEN: Final = 256  # entries of a log between two looks for what has run out


class BucketLane:
    """The lane of a token bucket; before `RuleLimiter` in the order of bases."""

    _table: Table
    _core: Any
    _arrive: Callable[[Any, str, float | None, int], Place | None]

    async def acquire(  # noqa: PLR0912  # flat, so that it is fast
        self, cost: Any = 1, key: str = "", max_wait: float | None = None, priority: int = 0
    ) -> None:
        """See `BaseLimiter.acquire`."""
        if cost is _ONE and max_wait is None and priority is _NONE and not loop_clocks:
            table = self._table
            since = monotonic_ns()
            rule: Any = table.rule
            if key is _PLAIN:
                if rule.permits is not _ONE:
                    since *= rule.permits
                if table.open:
                    if table.plain <= since:
                        table.plain = since + rule.ticks
                        return
                    if table.plain <= since + rule.slack:
                        table.plain += rule.ticks
                        return
            elif table.open and since < table.tidy_at and key.__class__ is str:
                if rule.permits is not _ONE:
                    since *= rule.permits
                if key in table.young:
                    if table.young[key].__class__ is int:
                        if table.young[key] <= since:
                            table.young[key] = since + rule.ticks
                            return
                        if table.young[key] <= since + rule.slack:
                            table.young[key] += rule.ticks
                            return
                elif key and not table.old:  # its first use
                    table.young[key] = since + rule.ticks
                    return
            since = 0  # who waits keeps no number
        place = self._arrive(cost, key, max_wait, priority)
        if place is not None:  # as `stand`, without a coroutine more for each who waits
            try:
                await (place.wake or self._core.turn(place))
            except BaseException:
                self._core.leave(place)
                raise
            if place.outcome is not GRANTED or current_call.get() is not None:
                self._core.served(place)

    def try_acquire_nowait(self, cost: Any = 1, *, key: str = "") -> Decision:
        """See `BaseLimiter.try_acquire_nowait`."""
        if cost is _ONE and key is _PLAIN and not loop_clocks:
            table = self._table
            now = monotonic_ns()
            rule: Any = table.rule
            since = now if rule.permits is _ONE else now * rule.permits
            full = table.plain
            if table.open:
                allowed = full <= since + rule.slack
                if allowed:
                    table.plain = full = (full if full > since else since) + rule.ticks
                decision = new_decision(Decision)
                decision._allowed = allowed
                decision._exact = True
                decision._numbers = None
                decision._facts = (None, now, None, rule, full)
                return decision
        return super().try_acquire_nowait(cost, key=key)  # type: ignore[misc,no-any-return]

    def _grab(self, key: str, cost: Any) -> Grant | None:
        """See `BaseLimiter._grab`."""
        if cost is _ONE and not loop_clocks:
            table, ticket = self._table, new_ticket()
            rule: Any = table.rule
            states = table.young
            now = monotonic_ns()
            since = now if rule.permits is _ONE else now * rule.permits
            if table.open:
                if key is _PLAIN:
                    if table.plain <= since + rule.slack:
                        table.plain = (table.plain if table.plain > since else since) + rule.ticks
                        return cost, ticket, now, None
                elif (
                    now < table.tidy_at
                    and key.__class__ is str
                    and key in states
                    and states[key].__class__ is int
                    and states[key] <= since + rule.slack
                ):
                    states[key] = (states[key] if states[key] > since else since) + rule.ticks
                    return cost, ticket, now, None
        return super()._grab(key, cost)  # type: ignore[misc,no-any-return]


class WindowLane:
    """The lane of an exact sliding window: while its log has room, without looking what has run out."""

    _table: Table
    _core: Any
    _arrive: Callable[[Any, str, float | None, int], Place | None]

    async def acquire(self, cost: Any = 1, key: str = "", max_wait: float | None = None, priority: int = 0) -> None:
        """See `BaseLimiter.acquire`."""
        if cost is _ONE and max_wait is None and priority is _NONE and not loop_clocks:
            table = self._table
            rule: Any = table.rule
            now = monotonic_ns()
            if table.open and (key is _PLAIN or (key.__class__ is str and key in table.young and now < table.tidy_at)):
                log = table.plain if key is _PLAIN else table.young[key]
                ticks = log.ticks
                if log.used < rule.limit and ticks and ticks[-1] < now:
                    log.used += 1
                    ticks.append(now)
                    return
        place = self._arrive(cost, key, max_wait, priority)
        if place is not None:  # as `stand`, without a coroutine more for each who waits
            try:
                await (place.wake or self._core.turn(place))
            except BaseException:
                self._core.leave(place)
                raise
            if place.outcome is not GRANTED or current_call.get() is not None:
                self._core.served(place)

    def _grab(self, key: str, cost: Any) -> Grant | None:
        """See `BaseLimiter._grab`."""
        if cost is _ONE and not loop_clocks:
            table, ticket = self._table, new_ticket()
            rule: Any = table.rule
            now = monotonic_ns()
            if table.open and (key is _PLAIN or (key.__class__ is str and key in table.young and now < table.tidy_at)):
                log = table.plain if key is _PLAIN else table.young[key]
                if log.used < rule.limit:
                    if rule.holds:
                        log.used += 1
                        log.held += 1
                        return cost, ticket, now, log
                    ticks = log.ticks
                    if ticks and ticks[-1] < now:
                        log.used += 1
                        ticks.append(now)
                        return cost, ticket, now, None
        return super()._grab(key, cost)  # type: ignore[misc,no-any-return]


class HoldLane:
    """The lane of work that has ended; before `Core` in the order of bases.

    The log that its permit was held in must be the very one that counts: after a reset it is not. What has run out is
    dropped on the general way: where the log is over full, and now and then before.
    """

    table: Table

    def finish(self, key: str, out: Place | Grant, clock: Clock) -> Place | Grant:
        """See `Core.finish`."""
        if isinstance(out, tuple) and not loop_clocks:
            cost, ticket, since, log = out[:4]
            table = self.table
            rule: Any = table.rule
            ticks = log.ticks
            now = monotonic_ns()
            if (
                table.open
                and cost is _ONE
                and (table.plain is log if key is _PLAIN else key in table.young and table.young[key] is log)
                and log.used <= rule.limit
                and log.used % _OFTEN
                and (not ticks or ticks[-1] < now)
            ):
                log.held -= 1
                ticks.append(now)
                return cost, ticket, since, log, now
        return super().finish(key, out, clock)  # type: ignore[misc,no-any-return]
