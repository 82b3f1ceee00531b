"""Counts in an SQLite file: one limit for the processes of one machine, and quotas that outlive a restart."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

from ..clock import REAL, current_clock, ticks_of
from ..errors import CounterUnavailable
from ..guard import Local
from ..rates import seconds
from .base import Ask, Booking, Entry, answer, book_costs
from .database import Database
from .states import dump_rule, dump_state, load_rule, load_state, spell
from .transactions import Transactions

__all__ = ["SQLiteCounter"]

T = TypeVar("T")

_PATIENCE = 5.0  # seconds that a transaction waits for the file's lock
_SCHEMA = """
CREATE TABLE counts (
    name TEXT, key TEXT, kind TEXT,
    rule TEXT NOT NULL, state TEXT NOT NULL,
    at INTEGER NOT NULL, full_at INTEGER NOT NULL,
    PRIMARY KEY (name, key, kind)
) WITHOUT ROWID;
CREATE INDEX counts_full ON counts (full_at);
CREATE TABLE pauses (
    name TEXT, key TEXT, of_all INTEGER,
    until INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (name, of_all, key)
) WITHOUT ROWID
"""
_READ = "SELECT rule, state, at FROM counts WHERE name = ? AND key = ? AND kind = ?"
_WRITE = "INSERT OR REPLACE INTO counts VALUES (?, ?, ?, ?, ?, ?, ?)"
_DROP = "DELETE FROM counts WHERE name = ? AND key = ? AND kind = ?"
_TIDY = """DELETE FROM counts WHERE (name, key, kind) IN (
    SELECT name, key, kind FROM counts WHERE full_at <= ? LIMIT 2)"""
_PAUSES = "SELECT of_all, until, at FROM pauses WHERE name = ? AND (of_all OR key = ?)"
_PAUSE = "INSERT OR REPLACE INTO pauses VALUES (?, ?, ?, ?, ?)"
_UNPAUSE = "DELETE FROM pauses WHERE until <= ?"
_LIST = """SELECT name, key, kind, rule, state, at FROM counts WHERE ? IS NULL OR name = ?
    ORDER BY name, key, kind"""
_LIST_PAUSES = "SELECT name, key, of_all, until, at FROM pauses WHERE ? IS NULL OR name = ? ORDER BY name, key"
_CLEAR = "DELETE FROM counts WHERE name = ? AND (? IS NULL OR key = ?)"
_CLEAR_PAUSES = "DELETE FROM pauses WHERE name = ? AND (? IS NULL OR key = ? AND NOT of_all)"
_LAST = 2**63 - 1  # the largest integer that SQLite keeps


@dataclass(slots=True)
class _Count:
    """One row while it is worked on."""

    ask: Ask
    rule: Any
    state: Any
    moved: bool = False  # the clock was set back since it was written

    @property
    def place(self) -> tuple[str, str, str]:
        return self.ask.name, self.ask.key, self.rule.kind


class SQLiteCounter(Local):
    """Counts in the SQLite file at `path`: for the processes of one machine, and for quotas that outlive a restart.

        counter = SQLiteCounter("limits.db")
        limiter = TokenBucket("500/s", burst=50, counter=counter, name="github")

    The file is made when it is first needed, readable by its owner only. Any number of limiters, keys and processes
    may share it, on asyncio and trio; a process may fork. `durability="normal"` keeps every permit when processes are
    killed; when the machine loses power, what was booked in the last moments may be forgotten. `"full"` keeps that,
    too, for one write to the disk per booking.

    Time is the machine's wall clock. When that is set back, what was used counts as used at that moment; when it is set
    forward by s seconds, s seconds' worth of permits comes at once.

    Raises `CounterUnavailable` when used, if the file cannot be opened, read or written, is not one of this kind, is on
    a network file system (whose locks do not hold), or stays locked by others for 5 seconds.
    """

    shared = True

    def __init__(self, path: str | os.PathLike[str], *, durability: Literal["normal", "full"] = "normal") -> None:
        if durability not in ("normal", "full"):
            raise ValueError(f'durability must be "normal" or "full", not {durability!r}')
        name = os.fspath(path)
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"path must be a str or a path of str, not {path!r}")
        if not name or name == ":memory:" or name.startswith("file:"):
            raise ValueError(f"path must name a file, not {name!r}; counts in memory are a MemoryCounter's")
        self.path: str = os.path.abspath(name)
        self.durability: str = durability
        self._database = Database(self.path, _SCHEMA, durable=durability == "full")
        self._transactions = Transactions(self._database, _PATIENCE)

    def __repr__(self) -> str:
        return f"SQLiteCounter({self.path!r}, durability={self.durability!r})"

    async def book(self, asks: Sequence[Ask]) -> Sequence[Booking]:
        """All asks in one atomic step; see `Counter.book`. In virtual time the counts follow that."""
        return await self._transact(lambda now: self._book(asks, now))

    async def entries(self, name: str | None = None) -> list[Entry]:
        """What is kept under `name` (None: under any), by name and key."""
        return await self._transact(lambda now: self._entries(name, now))

    async def clear(self, name: str, key: str | None = None) -> int:
        """Everything that is kept under `name`, or of one `key` of it, as new; how many entries that were."""
        return await self._transact(
            lambda now: sum(self._execute(clear, (name, key, key)).rowcount for clear in (_CLEAR, _CLEAR_PAUSES))
        )

    async def _transact(self, work: Callable[[int], T]) -> T:
        """`work` in a transaction, with the time at which that holds the lock."""
        clock = current_clock()
        virtual = None if clock is REAL else ticks_of(clock.now())
        return await self._transactions.do(lambda: work(time.time_ns() if virtual is None else virtual))

    def _book(self, asks: Sequence[Ask], now: int) -> list[Booking]:
        counts = [self._read(ask, now) for ask in asks]
        pauses = [self._paused(ask, now) for ask in asks]
        rules, states = [count.rule for count in counts], [count.state for count in counts]
        waits, wait = book_costs(asks, rules, states, now, max(pauses, default=now))
        for count, state in zip(counts, states, strict=True):
            count.state = state
        if waits or any(count.ask.give or count.moved for count in counts):
            self._write(counts, now)
        return [
            answer(count.rule, count.state, now, waits, wait, paused)
            for count, paused in zip(counts, pauses, strict=True)
        ]

    def _read(self, ask: Ask, now: int) -> _Count:
        """What `ask` asks about, as it stands at `now`."""
        rule: Any = ask.rule.anchored(0)
        row = self._execute(_READ, (ask.name, ask.key, rule.kind)).fetchone()
        if row is None:
            return _Count(ask, rule, rule.initial(now))
        spelled, state, at = row
        old = rule if spelled == dump_rule(rule) else self._load(load_rule, spelled)
        state = self._load(load_state, old, state, min(at, now))  # at > now: the clock was set back
        if old is not rule or at > now:  # windows fall in with the clock again
            state = rule.carry(state, now, old)
        return _Count(ask, rule, state, at > now)

    def _load(self, read: Callable[..., Any], *values: Any) -> Any:
        try:
            return read(*values)
        except ValueError as error:
            raise CounterUnavailable(f"{self.path} is damaged: {error}") from error

    def _paused(self, ask: Ask, now: int) -> int:
        """The tick at which the last pause of the key ends; what the ask adds to it included."""
        found = {of_all: times for of_all, *times in self._execute(_PAUSES, (ask.name, ask.key))}
        last = 0
        for of_all, key, ticks in ((0, ask.key, ask.pause), (1, "", ask.pause_all)):
            until, at = found.get(of_all, (0, 0))
            end = max(_until(until, at, now), now + ticks if ticks else 0)
            if end > until or at > now:
                self._execute(_UNPAUSE, (now,))
                self._execute(_PAUSE, (ask.name, key, of_all, min(end, _LAST), now))
            last = max(last, end)
        return last

    def _entries(self, name: str | None, now: int) -> list[Entry]:
        """Counts with their pauses, then pauses of what has no count."""
        found: list[Entry] = []
        paused: dict[tuple[str, str], float] = {}
        all_paused: dict[str, float] = {}
        for where, key, of_all, until, at in self._execute(_LIST_PAUSES, (name, name)):
            left = seconds(max(0, _until(until, at, now) - now))
            if of_all:
                all_paused[where] = left
            elif left:
                paused[where, key] = left
        for where, key, kind, spelled, state, at in self._execute(_LIST, (name, name)):
            rule = self._load(load_rule, spelled)
            state = self._load(load_state, rule, state, min(at, now))
            remaining, reset_after = rule.remaining(state, now), rule.full_at(state, now) - now
            if reset_after > 0:  # else it is as new
                pause = max(paused.pop((where, key), 0.0), all_paused.get(where, 0.0))
                found.append(Entry(where, key, kind, spell(rule), float(remaining), seconds(reset_after), pause))
        named = {entry.name for entry in found}
        paused.update({(where, ""): left for where, left in all_paused.items() if left and where not in named})
        found += [Entry(*place, "pause", "", 0.0, 0.0, left) for place, left in paused.items()]
        return sorted(found, key=lambda entry: (entry.name, entry.key, entry.kind))

    def _write(self, counts: list[_Count], now: int) -> None:
        for count in counts:
            full_at = count.rule.full_at(count.state, now)
            if full_at > now:
                state = dump_state(count.rule, count.state, now)
                self._execute(_WRITE, (*count.place, dump_rule(count.rule), state, now, min(full_at, _LAST)))
            else:
                self._execute(_DROP, count.place)
        self._execute(_TIDY, (now,))

    def _execute(self, statement: str, values: tuple[object, ...]) -> Any:
        assert self._database.connection is not None  # this runs in a transaction
        return self._database.connection.execute(statement, values)

    async def aclose(self) -> None:
        """Let go of the file; the counter opens it again by itself when used again."""
        import anyio.to_thread  # only here: importing throttle must stay cheap

        await anyio.to_thread.run_sync(self._transactions.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


def _until(until: int, at: int, now: int) -> int:
    """The tick at which a pause ends that was written at `at`; the clock may have been set back since."""
    return until - max(0, at - now)
