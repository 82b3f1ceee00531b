"""Permits that a shared counter has booked for this process, and who in it talks to the counter."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

from .clock import REAL, LoopClock
from .counters.base import Booking, Outage
from .errors import CounterUnavailable, WaitTooLong
from .gate import Gate
from .loops import running
from .rates import TICKS, Exact
from .waiting import Home, LoopHome, NapHome, Place

if TYPE_CHECKING:
    from .sharedcore import SharedCore

__all__ = ["SharedGate", "Stock", "shielded"]

T = TypeVar("T")

GRACE = TICKS // 20
"""A permit that was not used so long after it was due is forfeited: a process that slept does not catch up."""
_BATCH = 500  # costs in one booking
HORIZON = 5 * TICKS
"""What is due later is not booked yet: the counter is asked again, at the latest after so long."""


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. Cancelled meanwhile, it is cancelled when the work, which is bounded in time, has ended."""
    loop = running()
    if not isinstance(loop, asyncio.AbstractEventLoop):
        import anyio  # only here: importing throttle must stay cheap

        with anyio.CancelScope(shield=True):
            return await work
    task = loop.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await _finish(task)
        raise


async def _finish(task: asyncio.Task[Any]) -> None:
    """Wait for `task`, whatever cancels this meanwhile."""
    import anyio

    with anyio.CancelScope(shield=True):  # or anyio would go on cancelling, all the time
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
    _ = task.cancelled() or task.exception()  # looked at: else the loop would report it


class Stock:
    """What is booked and not handed out yet: (due, amounts) in the order of the dues; amounts are one for each limit.

    Fluid: a cost may be made up of several entries and is due with the last of them, or take a part of one.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: deque[tuple[int, tuple[Exact, ...]]] = deque()

    @property
    def last(self) -> int | None:
        """When the last of it is due."""
        return self._entries[-1][0] if self._entries else None

    def add(self, due: int, amounts: tuple[Exact, ...]) -> None:
        """So much more, due at `due`, or with what is there if that is later."""
        self._entries.append((max(due, self.last or due), amounts))

    def due(self, amounts: tuple[Exact, ...]) -> int | None:
        """When so much is there; None if it is not all booked."""
        missing = amounts
        for due, there in self._entries:
            missing = tuple(one - had for one, had in zip(missing, there, strict=True))
            if max(missing) <= 0:
                return due
        return None

    def take(self, amounts: tuple[Exact, ...]) -> None:
        """Hand so much out, what was due first before the rest."""
        entries: deque[tuple[int, tuple[Exact, ...]]] = deque()
        while self._entries and any(amounts):
            due, there = self._entries.popleft()
            used = tuple(min(one, had) for one, had in zip(amounts, there, strict=True))
            amounts = tuple(one - part for one, part in zip(amounts, used, strict=True))
            left = tuple(had - part for had, part in zip(there, used, strict=True))
            if any(left):
                entries.append((due, left))
        entries.extend(self._entries)
        self._entries = entries

    def put_back(self, now: int, amounts: tuple[Exact, ...]) -> None:
        """So much was handed out and is not used."""
        self._entries.appendleft((now, amounts))

    def drop(self, before: int) -> None:
        """Forfeit what was due before that tick."""
        while self._entries and self._entries[0][0] < before:
            self._entries.popleft()

    def empty(self) -> list[tuple[Exact, ...]]:
        """All of it, which is not in stock any more."""
        all_of_it = [amounts for _, amounts in self._entries]
        self._entries.clear()
        return all_of_it

    def copy(self) -> Stock:
        """The same, to take from when looking ahead."""
        stock = Stock()
        stock._entries = self._entries.copy()
        return stock


class SharedGate(Gate):
    """The gate of one key whose counts are in a shared counter: it serves the line from its stock.

    One of those in line, the `booker`, talks to the counter for all of them: the head, when it has nothing in stock or
    the stock is about to end.
    """

    __slots__ = ("again_at", "booker", "failures", "opens_at", "room", "stock", "talks")

    flights: int
    paused_until: int
    told_until: int
    core: SharedCore  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, core: SharedCore, key: str) -> None:
        super().__init__(core, key)
        self.stock: Stock = Stock()
        self.booker: Place | None = None
        self.talks: bool = False  # it has begun
        self.again_at: int = 0  # the counter need not be asked before this tick
        self.opens_at: int | None = None  # when the first of whom nothing is booked is due, by its last answer
        self.room: list[Exact] = []  # and how much may come then, of each limit
        self.failures: int = 0  # of the counter, in a row

    def admit(self, place: Place, now: int, loop: Any) -> bool:
        core, until = self.core, place.deadline
        hurried = until is not None and until - now <= 2 * core.trip and not self.line and not core.free(place.cost)
        if hurried and all(slots.used < slots.limit for slots in place.slots):
            self.flights += 1  # so that this gate stays the one of its key
            place.home = Alone(self)
            return False
        return super().admit(place, now, loop)

    def answered_alone(self, place: Place, now: int, refused: float | None) -> None:
        """The counter has granted `place`, which is in no line, or it is `refused` for so many seconds."""
        self.flights -= 1
        if refused is None:
            self.stock.put_back(now, self.core.amounts(place.cost))
            self.forecast.drop()
            due = self.ready(place, now)
            if due is not None and due <= now:
                self._grant(place, now)
            else:
                refused = self.core.wait(now, now + GRACE if due is None else due)
        if refused is not None:
            place.outcome = WaitTooLong(refused, self.key)
        self.core.tidy(self, now)

    def ready(self, place: Place, now: int) -> int | None:
        held = self.held_until()
        if held > now:
            return held
        if self.probing() or [slots for slots in place.slots if not slots.free(self)]:
            return None
        return self.opens(now, place.cost, place)

    def opens(self, now: int, cost: Any, place: Place | None = None) -> int | None:
        if self.core.free(cost):
            return now
        self.stock.drop(now - GRACE)
        return self.stock.due(self.core.amounts(cost))

    def new_home(self) -> Home:
        loop = running()
        if isinstance(loop, asyncio.AbstractEventLoop) and (self.clock is REAL or isinstance(self.clock, LoopClock)):
            return SharedLoopHome(self, loop)
        if loop is None:
            return super().new_home()
        return SharedNapHome(self, loop, self.clock)

    def uncovered(self) -> list[Place]:
        """Who in line has not enough in stock, in order."""
        stock = self.stock.copy()
        line = iter(self.line)
        for place in line:
            amounts = self.core.amounts(place.cost)
            if stock.due(amounts) is None:
                return [place, *(other for other, _ in zip(line, range(_BATCH - 1), strict=False))]
            stock.take(amounts)
        return []

    def asks_at(self, head: Place, now: int) -> int | None:
        """The tick at which the counter is to be asked for more; None while that hangs on something other than
        time."""
        if self.core.untold(self.key, now):
            return max(now, self.again_at)
        if self.probing() or any(slots.used >= slots.limit for slots in head.slots):
            return None
        at = max(self.held_until(), self.again_at)
        last = self.stock.last
        if last is not None and self.stock.due(self.core.amounts(head.cost)) is not None:
            if len(self.line) == 1:
                return None
            at = max(at, last - self.core.lead())
            if at <= now and not self.uncovered():
                return None
        return at

    def received(self, asked: list[Place], bookings: Sequence[Booking], now: int, loop: Any) -> None:
        """The counter has answered for these."""
        for place, wait in zip(asked, bookings[0].waits, strict=False):
            self.stock.add(now + wait, self.core.amounts(place.cost))
        left = asked[len(bookings[0].waits) :]
        self.heard(bookings, now, left)
        self.forecast.drop()
        if left:
            self._in_time(left[0], now, loop)
        self.recheck(now, loop)
        self.step(now, loop)

    def _in_time(self, first: Place, now: int, loop: Any) -> None:
        """Refuse the first that was not booked if it would be too late: the counter has said when it is due."""
        opens = self.opens_at
        if first.outcome is None and opens is not None and first.deadline is not None and opens > first.deadline:
            self._refuse(first, WaitTooLong(self.core.wait(now, opens), self.key), loop)

    def heard(self, bookings: Sequence[Booking], now: int, left: list[Place]) -> None:
        """What an answer says of the time to come; nothing is booked for those `left`."""
        self.failures = 0
        wait = max(booking.wait for booking in bookings)
        self.opens_at = now + wait if wait else self.stock.last
        first: Sequence[Exact] = self.core.amounts(left[0].cost) if left else ()
        remaining = [one.remaining for one in self.core.counts(iter(bookings))]
        self.room = [max(1, *both) for both in zip_longest(remaining, first, fillvalue=0)]
        self.again_at = 0
        if wait > HORIZON:
            self.again_at = now + min(wait - HORIZON, HORIZON)
        paused = max(booking.paused for booking in bookings)
        self.paused_until = max(self.paused_until, now + paused)
        self.told_until = max(self.told_until, now + paused)

    def pause(self, until: int, now: int, loop: Any, jitter: int = 0) -> None:
        if until > self.told_until:
            self.core.note_pause(self.key, until)
        super().pause(until, now, loop, jitter)

    def hold_off(self, error: CounterUnavailable, now: int, chance: float) -> bool:
        """The counter could not be asked: whether those here wait for it, and then when it is asked again."""
        self.failures += 1
        most = min(TICKS, TICKS // 20 << min(self.failures - 1, 10))
        self.again_at = now + round(most * (0.5 + chance / 2))
        return isinstance(error, Outage) and error.waits

    def unavailable(self, error: CounterUnavailable, now: int, loop: Any, chance: float) -> None:
        """The counter could not be asked for those in line."""
        if not self.hold_off(error, now, chance):
            self.again_at = 0
            for place in list(self.line):
                self._refuse(place, error, loop)
        self.step(now, loop)

    def step(self, now: int, loop: Any) -> None:
        super().step(now, loop)
        head = self.line.head()
        if self.booker is not None or head is None:
            return
        at = self.asks_at(head, now)
        if at is None:
            return
        home = head.home
        if at <= now:
            self.booker = head
            if home.loop is loop:
                home.call(head)
            else:
                home.soon(home.call, head)
        elif home.loop is loop:
            if home.due is None or at < home.due:
                home.arm(at)
        elif home.due is None or at < home.due:
            home.soon(home.ring)

    def leave(self, place: Place, now: int, loop: Any) -> None:
        if isinstance(place.home, Alone):
            self.flights -= 1
            self.core.tidy(self, now)
            return
        self._uncall(place)
        super().leave(place, now, loop)

    def slip(self, place: Place) -> bool:
        return False  # it may be the one that talks to the counter

    def _tell(self, place: Place, loop: Any) -> None:
        self._uncall(place)
        super()._tell(place, loop)

    def _uncall(self, place: Place) -> None:
        """`place` does not wait any more: if it was to talk to the counter and has not begun, another will."""
        if place is self.booker and not self.talks:
            self.booker = None

    async def talk(self, place: Place) -> None:
        """`place` has been called to talk to the counter."""
        if place is not self.booker:
            return
        self.talks = True
        try:
            await shielded(self.core.book(self))  # cancelled or not, what it books is for all who wait
        finally:
            with self.core as now:
                self.booker, self.talks = None, False
                self.step(now, running())
                self.core.tidy(self, now)


class Alone:
    """Where one waits whose `max_wait` is over before any answer can be there: it asks for itself, and takes what is
    free at once."""

    __slots__ = ("gate",)

    def __init__(self, gate: SharedGate) -> None:
        self.gate: SharedGate = gate

    async def wait(self, place: Place) -> None:
        """Returns when `place` has its outcome."""
        gate, core = self.gate, self.gate.core
        try:
            decision = await core.decide_there(gate.key, place.cost, take=True)
            refused = None if decision.allowed else decision.retry_after
        except Outage as error:
            if not error.waits:
                raise
            with core as now:
                gate.hold_off(error, now, core.random())
                refused = core.wait(now, gate.again_at)
        with core as now:
            gate.answered_alone(place, now, refused)


class SharedLoopHome(LoopHome):
    """On asyncio: who is called is woken."""

    gate: SharedGate

    def call(self, place: Place) -> None:
        """Have `place` talk to the counter."""
        self.wake(place)

    async def wait(self, place: Place) -> None:
        while place.outcome is None:
            if self.gate.booker is place:
                await self.gate.talk(place)
            else:
                await super().wait(place)


class SharedNapHome(NapHome):
    """Elsewhere: who holds the baton does not nap while it talks."""

    gate: SharedGate

    def call(self, place: Place) -> None:
        """Have `place` talk to the counter."""
        self.wake(place)

    async def errand(self, place: Place) -> bool:
        if self.gate.booker is not place:
            return False
        self.enter(place)  # anew
        await self.gate.talk(place)
        return True
