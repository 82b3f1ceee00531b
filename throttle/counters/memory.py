"""Counts in this process's memory: the default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..algorithms.base import Algorithm
from ..clock import current_clock, ticks_of
from ..guard import Guard, Local
from ..rates import Exact
from .base import Ask, Booking, answer, book_costs

__all__ = ["PROCESS", "MemoryCounter", "Table"]


_PER_KEY = 200_000  # ticks between two turns for each key: moving keys takes some per cent of the time at most
_AT_ONCE = 32  # old keys that are looked at in one go ...
_APART = 100_000  # ... and the ticks after which a lane lets somebody do so again


class Table:
    """The counts of one limiter, by key; a key whose count is as new is not kept.

    Two generations: a used key moves to the young one, and uses look at some of the old one each, which are dropped or
    moved. So idle keys go while others are used, without a sweep over all of them. The key "" has a place of its own.
    Not locked: its counter's lock is.
    """

    __slots__ = ("core", "old", "open", "plain", "rule", "spec", "tidy_at", "turn_at", "young")

    def __init__(self, spec: Algorithm) -> None:
        self.spec: Algorithm = spec  # the rule as it was asked for
        self.rule: Algorithm = spec  # the same on the clock in use
        self.core: Any = None  # who serves the lines before these counts, on a floor above
        self.open: bool = False  # whether the counts may be used without the lock: see `lanes`
        self.plain: Any = None  # the state of the key ""
        self.young: dict[str, Any] = {}
        self.old: dict[str, Any] = {}
        self.turn_at: int = 0  # the tick from which the young become old, once the old are gone
        self.tidy_at: int = 0  # the tick from which a use has more to do than to count

    def __len__(self) -> int:
        return len(self.young) + len(self.old) + (self.plain is not None)

    def get(self, key: str, now: int) -> Any:
        """The state of `key`."""
        state = self.young.get(key) if key else self.plain
        if state is None:
            state = self.old.get(key)
            if state is None:
                return self.rule.initial(now)
        return state

    def put(self, key: str, state: Any, now: int) -> None:
        """Keep `state` from now on."""
        if not key:
            self.plain = state
            return
        self.young[key] = state
        old = self.old
        if old:
            old.pop(key, None)
            self._tidy(now)
        elif now >= self.turn_at:
            self.old, self.young = self.young, {key: self.young.pop(key)}
            self.turn_at = now + self.rule.period + len(self.old) * _PER_KEY
        self.tidy_at = now + _APART if self.old else self.turn_at

    def _tidy(self, now: int) -> None:
        old = self.old
        for _ in range(min(_AT_ONCE, len(old))):
            key, state = old.popitem()
            if self.rule.full_at(state, now) > now:
                self.young[key] = state

    def give(self, key: str, now: int, amount: Exact, taken: int | None) -> None:
        """Give back `amount` of what was taken at `taken` (None: not known); a negative amount is charged at `now`."""
        rule, state = self.rule, self.get(key, now)
        state = rule.book(state, now, -amount) if amount < 0 else rule.give(state, now, amount, taken)
        self.put(key, state, now)

    def reconfigure(self, rule: Algorithm, now: int) -> None:
        """Another rule from now on; what was used stays used."""
        old, self.rule = self.rule, rule
        if self.plain is not None:
            self.plain = rule.carry(self.plain, now, old)
        for states in (self.young, self.old):
            for key, state in states.items():
                states[key] = rule.carry(state, now, old)

    def reset(self, key: str | None) -> None:
        """`key` as new, or every key."""
        if not key:
            self.plain = None
        for states in (self.young, self.old):
            if key is None:
                states.clear()
            else:
                states.pop(key, None)
        if key is None:
            self.turn_at = self.tidy_at = 0  # perhaps there is another clock now


class MemoryCounter(Local):
    """Counts in this process's memory, for asyncio, trio and threads at once; nothing to open and nothing to close.

    Every limiter without `counter=` uses one of its own kind for the whole process. Limiters that are given the same
    `MemoryCounter` and the same `name` share their counts and their line, as they would in a shared store.

    >>> from throttle import TokenBucket
    >>> counter = MemoryCounter()
    >>> one = TokenBucket("1/s", counter=counter, name="api")
    >>> two = TokenBucket("1/s", counter=counter, name="api")
    >>> bool(one.try_acquire_nowait()), bool(two.try_acquire_nowait())
    (True, False)
    """

    shared = False

    def __init__(self) -> None:
        self.guard: Guard = Guard()
        self._tables: dict[str, Table] = {}
        self._pauses: dict[tuple[str, str | None], int] = {}

    def __repr__(self) -> str:
        return "MemoryCounter()"

    def table(self, name: str, rule: Algorithm) -> Table:
        """The table of that name. Raises `ValueError` where the name already counts by another rule."""
        with self.guard:
            table = self._tables.setdefault(name, Table(rule))
        if table.spec != rule:
            raise ValueError(f"name {name!r} counts by another rule already: {table.spec!r}, not {rule!r}")
        return table

    async def book(self, asks: Sequence[Ask]) -> Sequence[Booking]:
        """All asks in one atomic step; see `Counter.book`. Time is the default clock's."""
        clock = current_clock()
        time = clock.now()
        now = ticks_of(time)
        with self.guard:
            tables = [self._tables.setdefault(ask.name, Table(ask.rule)) for ask in asks]
            for table in tables:
                table.open = False  # until its limiter has had a look
            rules = [ask.rule for ask in asks]
            states = [table.get(ask.key, now) for table, ask in zip(tables, asks, strict=True)]
            pauses = [self._pause(ask, now) for ask in asks]
            waits, wait = book_costs(asks, rules, states, now, max(pauses, default=0))
            for table, ask, state in zip(tables, asks, states, strict=True):
                if ask.give or waits:
                    table.put(ask.key, state, now)
            for table, ask in zip(tables, asks, strict=True):
                if table.core is not None and (ask.give or waits):  # who waits there looks again
                    table.core.tell(clock, time)
                    table.core.stirred(ask.key, now, None)
            return [
                answer(ask.rule, state, now, waits, wait, paused)
                for ask, state, paused in zip(asks, states, pauses, strict=True)
            ]

    def _pause(self, ask: Ask, now: int) -> int:
        """The tick at which the last pause of the key ends; what the ask adds to it included."""
        pauses = self._pauses
        for key, ticks in ((ask.key, ask.pause), (None, ask.pause_all)):
            if ticks:
                pauses[ask.name, key] = max(pauses.get((ask.name, key), 0), now + ticks)
        ends = [pauses.get((ask.name, key), 0) for key in (ask.key, None)] if pauses else [0]
        return max(ends)

    async def clear(self, name: str, key: str | None = None) -> None:
        """Everything under `name`, or of one `key` of it, as new."""
        with self.guard:
            for paused in [one for one in self._pauses if one[0] == name and key in (None, one[1])]:
                del self._pauses[paused]
            table = self._tables.get(name)
            if table is not None:
                table.open = False
                table.reset(key)

    async def aclose(self) -> None:
        """Nothing to close."""

    async def __aenter__(self) -> MemoryCounter:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None


PROCESS = MemoryCounter()
"""Where limiters without `counter=` count."""
