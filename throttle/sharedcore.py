"""The core of limiters that count in a shared store: they reserve there, and hand out here what they have reserved.

What is in the store is a schedule: up to when the future is sold. A booking moves that on and answers when each permit
is due. So nobody polls: whoever talks to the store books for a short while ahead (`QUANTUM`), for all who wait here.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Iterator, Sequence
from fractions import Fraction
from itertools import zip_longest
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from .algorithms.base import Algorithm
from .calls import current_call
from .clock import Clock, ticks_of, wait_of
from .core import Core
from .counters.base import Ask, Booking, Counter, Outage
from .counters.memory import Table
from .decisions import Decision, whole_wait
from .errors import CounterUnavailable
from .gate import Gate
from .guard import Guard
from .lane import Lane
from .loops import running
from .rates import TICKS, Exact, Rate, seconds
from .rulecore import RuleCore
from .stock import HORIZON, SharedGate, Stock, shielded
from .waiting import GRANTED, Place

__all__ = ["SharedCore", "SharedRuleCore", "shared_core"]

QUANTUM = TICKS // 50
"""So far ahead is booked for those behind the first; where the store is more than half of it away, WIDE."""
WIDE = TICKS // 20
_UNTOLD = TICKS // 20
_LANES = 1000  # kept before those that nobody uses are forgotten


def check_text(what: str, text: str) -> None:
    """One clear error for a text that no store can keep."""
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as in file names that are not UTF-8
        raise ValueError(f"{what} in a shared counter must be a text that UTF-8 can spell, not {text!r}") from None


class Pace:
    """The earliest that anybody in line can be due: with what is booked, and behind it as the line stands.

    Others' bookings are left aside: who seems to be in time may hear later of being too late, never the other way.
    """

    __slots__ = ("_amounts", "_opens", "_paces", "_stock", "_sums", "at")

    def __init__(self, core: SharedCore, gate: SharedGate | None, at: int) -> None:
        self.at: int = at
        self._amounts = core.amounts
        self._stock = Stock() if gate is None else gate.stock.copy()
        opens = None if gate is None else gate.opens_at
        rooms: Sequence[Exact] = () if gate is None or opens is None else gate.room
        self._opens: int = at if opens is None else max(at, opens)
        self._paces = [pace_of(rule, room) for rule, room in zip_longest(core.rules(), rooms)]
        self._sums: list[Exact] = [0] * len(self._paces)

    def earliest(self, cost: Any) -> int:
        """When `cost` is due at the earliest."""
        return self._look(self._amounts(cost))[0]

    def _look(self, amounts: tuple[Exact, ...]) -> tuple[int, bool]:
        """The same, and whether it is booked."""
        booked = None if any(self._sums) else self._stock.due(amounts)
        if booked is not None:
            return max(self.at, booked), True
        waits = [
            max(0, -((-(used + one - room) * ticks) // 1)) if one else 0
            for used, one, (room, ticks) in zip(self._sums, amounts, self._paces, strict=True)
        ]
        return max(self.at, self._opens + int(max(waits))), False

    def book(self, cost: Any) -> None:
        """Go on behind it."""
        amounts = self._amounts(cost)
        self.at, booked = self._look(amounts)
        if booked:
            self._stock.take(amounts)
        else:
            self._sums = [used + one for used, one in zip(self._sums, amounts, strict=True)]


def pace_of(rule: Any, room: Exact | None) -> tuple[Exact, Fraction]:
    """What may come at once, and the ticks of each permit after that; `room`: what may come when the line is due, None
    where that is not known."""
    if rule.kind == "token_bucket":
        return (rule.most if room is None else room), Fraction(rule.ticks) / rule.permits
    if rule.kind == "two_rate":
        return (rule.most if room is None else room), Fraction(rule.peak.ticks) / rule.peak.permits
    return rule.most, Fraction(rule.period) / rule.most


class SharedCore(Core):
    """What one limit and a combination of several have in common when their counts are in a shared store."""

    remote = True
    gateless = False
    counter: Counter
    name: str
    trip: int = 0  # ticks: a smoothed round trip
    lanes: dict[Any, Lane]
    pauses: dict[str | None, int]  # not told yet: the ticks at which they end

    def prepare(self, counter: Counter, name: str) -> None:
        """Called once, at construction; under `name` the counter keeps its pauses."""
        check_text("a name", name)
        self.counter = counter
        self.name = name
        self.lanes = {}
        self.pauses = {}

    def rules(self) -> list[Algorithm]:
        """The rule of each limit, in the order of `amounts`."""
        raise NotImplementedError

    def amounts(self, cost: Any) -> tuple[Exact, ...]:
        """What a cost takes of each limit."""
        raise NotImplementedError

    def kept(self, now: int, taken: int) -> list[bool]:
        """Of each limit, whether what was taken then may be given back: a window that is over is none of the store's
        any more, and what is given counts for those who came later."""
        raise NotImplementedError

    def asks(self, key: str, now: int, costs: Sequence[Any], **terms: Any) -> list[Ask]:
        """What to ask of the counter, what is to be told to it included."""
        raise NotImplementedError

    def counts(self, bookings: Iterator[Booking]) -> list[Booking]:
        """Of the answers to `asks`, those that are of `rules`."""
        raise NotImplementedError

    def untold(self, key: str, now: int) -> bool:
        """Whether the counter is still to be told something."""
        return key in self.pauses or None in self.pauses

    def give_back(self, key: str, amounts: tuple[Exact, ...]) -> None:
        """To be given back with the next booking."""
        raise NotImplementedError

    def check_key(self, key: str) -> None:
        super().check_key(key)
        check_text("a key", key)

    def ask(self, cost: Any, key: str) -> Any:
        if key.__class__ is str and not key.isascii():
            check_text("a key", key)
        return super().ask(cost, key)

    # ── what the gates ask ────────────────────────────────────────────────────────────────────────────────────────

    def new_gate(self, key: str) -> Gate:
        return SharedGate(self, key)

    def stock_gate(self, key: str) -> SharedGate | None:
        """The gate of `key`, if there is one."""
        gate = self.gates.get(key)
        return gate if isinstance(gate, SharedGate) else None

    def forget_bookings(self, key: str | None) -> list[tuple[str, tuple[Exact, ...]]]:
        """Nothing is booked for `key` (None: any) any more; what that was."""
        gates: list[Any] = [gate for gate in self.gates.values() if key in (None, gate.key)]
        for gate in gates:
            gate.again_at, gate.opens_at = 0, None
        return [(gate.key, amounts) for gate in gates for amounts in gate.stock.empty()]

    def tidy(self, gate: Gate, now: int) -> None:
        assert isinstance(gate, SharedGate)
        if gate.idle(now) and self.gates.get(gate.key) is gate:
            del self.gates[gate.key]
        if not gate.line:
            for amounts in gate.stock.empty():
                self.give_back(gate.key, amounts)

    def lead(self) -> int:
        """How long before the stock ends more is asked for."""
        return min(2 * self.trip + TICKS // 1000, WIDE)

    def ahead(self) -> int:
        """How far ahead is booked."""
        return QUANTUM if self.trip <= QUANTUM // 2 else WIDE

    def earliest(self, key: str, now: int, cost: Any, place: Place | None) -> int:
        gate = self.stock_gate(key)
        due = None if gate is None else gate.stock.due(self.amounts(cost))
        return now + _UNTOLD if due is None else max(now, due)

    def look(self, key: str, at: int) -> Any:
        return Pace(self, self.stock_gate(key), at)

    def take(self, key: str, now: int, cost: Any, *, held: bool) -> None:
        self.shared_gate(key, now).stock.take(self.amounts(cost))

    def queue(self, key: str) -> Place | None:
        return None  # who comes may have to talk to the store

    def hand_out(self, gate: Gate, now: int, most: int) -> int:
        return 0  # from the stock, one by one

    def undo(self, key: str, now: int, cost: Any, taken: int, hold: Any) -> None:
        self.shared_gate(key, now).stock.put_back(now, self.amounts(cost))

    def change(self, key: str, now: int, before: Any, after: Any, taken: int | None, hold: Any) -> None:
        kept = self.kept(now, now if taken is None else taken)
        parts = zip(self.amounts(before), self.amounts(after), kept, strict=True)
        self.give_back(key, tuple(was - is_ if counts or was < is_ else 0 for was, is_, counts in parts))

    def decide(self, key: str, cost: Any, *, take: bool) -> Decision:
        raise TypeError(f"try_acquire_nowait needs counts in memory, not {self.counter!r}: await try_acquire")

    # ── talking to the counter ────────────────────────────────────────────────────────────────────────────────────

    async def send(self, asks: Sequence[Ask]) -> Sequence[Booking]:
        """Ask the counter; whoever calls this shields it."""
        started = self.clock.now()
        try:
            bookings = await self.counter.book(asks)
        except Exception as error:
            sent = error.sent if isinstance(error, Outage) else not isinstance(error, CounterUnavailable)
            self.untell(asks, again=not sent)
            raise
        trip = ticks_of(max(0.0, self.clock.now() - started))
        self.trip = trip if not self.trip else (7 * self.trip + trip) // 8
        return bookings

    def note_pause(self, key: str | None, until: int) -> None:
        """Others are to know that nobody of `key` is granted before `until`."""
        self.pauses[key] = max(until, self.pauses.get(key, 0))

    def told_pauses(self, key: str, now: int) -> dict[str, int]:
        """The pauses that an ask carries."""
        if not self.pauses:
            return {}
        ends = self.pauses.pop(key, 0), self.pauses.pop(None, 0)
        return {"pause": max(0, ends[0] - now), "pause_all": max(0, ends[1] - now)}

    def untell(self, asks: Sequence[Ask], *, again: bool) -> None:
        """These asks were not answered. Their pauses are to be told again; what they give, if they were surely not
        carried out (`again`)."""
        with self as now:
            for ask in asks:
                if ask.name == self.name:
                    for key, ticks in ((ask.key, ask.pause), (None, ask.pause_all)):
                        if ticks:
                            self.note_pause(key, now + ticks)

    async def book(self, gate: SharedGate) -> None:
        """Book for those in line at `gate` who have nothing in stock."""
        with self as now:
            asked = gate.uncovered() if gate.held_until() <= now else []
            costs = [place.cost for place in asked]
            deadline = asked[0].deadline if asked else None
            first = HORIZON if deadline is None else min(HORIZON, max(0, deadline - now))
            asks = self.asks(gate.key, now, costs, within=first, ahead=self.ahead())
        try:
            bookings = await self.send(asks)
        except CounterUnavailable as error:
            with self as now:
                gate.unavailable(error, now, running(), self.random())
            return
        with self as now:
            gate.received(asked, bookings, now, running())

    async def flush(self, key: str) -> None:
        """Tell the counter what it has not been told yet; if it cannot be reached, with the next booking."""
        with self as now:
            if not self.untold(key, now):
                return
            asks = self.asks(key, now, ())
        try:
            await shielded(self.send(asks))
        except CounterUnavailable:
            pass

    def arrive(self, key: str, cost: Any, max_wait: float | None, priority: int) -> Place | None:
        if max_wait is None and not priority and key not in self.gates and not self.free(cost) and self._rides():
            loop = running()
            lane = self.lanes.get((loop, key))
            if lane is None and isinstance(loop, asyncio.AbstractEventLoop):
                if len(self.lanes) >= _LANES:
                    self.lanes = {place: one for place, one in self.lanes.items() if one.busy}
                lane = self.lanes[loop, key] = Lane(self, key, loop)
            if lane is not None:
                return lane.come(cost)
        _, place = self.enter(key, cost, max_wait=max_wait, priority=priority)
        return None if place.outcome is GRANTED else place

    def _rides(self) -> bool:
        """Whether nothing holds back, so that a call of no special wishes may travel with others."""
        return current_call.get() is None and (
            not self.paused_until or self.paused_until <= ticks_of(self.clock.now())
        )

    def turn(self, place: Place) -> Awaitable[None]:
        if isinstance(place.home, Lane):
            return place.home.ride(place)
        return super().turn(place)

    def leave(self, place: Place) -> None:
        lane = place.home
        if not isinstance(lane, Lane):
            super().leave(place)
        elif lane.gone(place):
            if isinstance(sys.exception(), GeneratorExit):
                self.guard.later(lambda: self.give_back(lane.key, self.amounts(place.cost)))
            else:
                with self:
                    self.give_back(lane.key, self.amounts(place.cost))

    def shared_gate(self, key: str, now: int) -> SharedGate:
        """The gate of `key`."""
        gate = self.gate(key, now)
        assert isinstance(gate, SharedGate)
        return gate

    async def decide_there(self, key: str, cost: Any, *, take: bool) -> Decision:
        told: list[Decision] = []
        try:
            await shielded(self._decide_there(key, cost, told, take=take))
        except BaseException:
            if take and told and told[0].allowed:  # cancelled, perhaps by the garbage collector: nobody has it
                self.guard.later(lambda: self.give_back(key, self.amounts(cost)))
            raise
        return told[0]

    async def _decide_there(self, key: str, cost: Any, told: list[Decision], *, take: bool) -> None:
        """What a newcomer is told; `take` takes if that is yes."""
        with self as now:
            time = self.time
            gate = self.stock_gate(key)
            held = self.paused_until if gate is None else gate.held_until()
            waits = gate is not None and bool(gate.line) and not self.free(cost)
            free = held <= now and not waits and not (gate is not None and gate.probing())
            local = now
            if not free:
                local = max(held, now + _UNTOLD)
                if gate is not None and gate.line:
                    local = max(local, gate.forecast.whole(gate, now).earliest(cost))
            asks = self.asks(key, now, [cost], within=0 if take and free else -1)
        bookings = await self.send(asks)
        taken = bool(bookings[0].waits)
        due = now if taken else max(local, now + max(booking.wait for booking in bookings))
        allowed = taken or due <= now
        decision = Decision(
            allowed=allowed,
            remaining=float(min(booking.remaining for booking in bookings)),
            retry_after=0.0 if allowed else wait_of(time, due),
            exact=allowed or not waits,
            reset_after=seconds(max(booking.reset_after for booking in bookings)),
            retry_after_whole=0 if allowed else whole_wait(time, now, due),
        )
        told.append(decision)

    def pause(self, duration: float, key: str | None) -> None:
        super().pause(duration, key)
        if key is None:
            with self:
                self.note_pause(None, ticks_of(self.time + duration))

    def clear(self, key: str | None) -> None:
        super().clear(key)
        self.forget_bookings(key)
        if key is None:
            self.pauses.clear()
        else:
            self.pauses.pop(key, None)

    async def clear_there(self, key: str | None) -> None:
        for name, its_key in self.names(key):
            await shielded(self.counter.clear(name, its_key))

    def names(self, key: str | None) -> list[tuple[str, str | None]]:
        """Name and key of each limit in the counter."""
        raise NotImplementedError


class SharedRuleCore(SharedCore, RuleCore):
    """One limit in a shared store."""

    def __init__(self, counter: Counter, name: str, rule: Algorithm, guard: Guard, clock: Clock | None) -> None:
        RuleCore.__init__(self, Table(rule), guard, clock)
        self.prepare(counter, name)
        self.gives: dict[str, Exact] = {}

    def open(self) -> None:
        """Its counts are elsewhere: no lane in memory is open."""

    def rules(self) -> list[Algorithm]:
        return [self.table.spec]

    def amounts(self, cost: Any) -> tuple[Exact, ...]:
        return (cost,)

    def kept(self, now: int, taken: int) -> list[bool]:
        rule: Any = self.table.rule
        if not rule.whole:
            return [True]
        new = rule.initial(now)
        return [taken > new.since if rule.kind == "sliding_window" else taken >= new[0]]

    def give_back(self, key: str, amounts: tuple[Exact, ...]) -> None:
        give = self.gives.get(key, 0) + amounts[0]
        self.gives[key] = give
        if not give:
            del self.gives[key]

    def counts(self, bookings: Iterator[Booking]) -> list[Booking]:
        return [next(bookings)]

    def untold(self, key: str, now: int) -> bool:
        return key in self.gives or super().untold(key, now)

    def asks(self, key: str, now: int, costs: Sequence[Any], **terms: Any) -> list[Ask]:
        give = self.gives.pop(key, 0) if self.gives else 0
        terms |= self.told_pauses(key, now)
        return [Ask(self.name, key, self.table.spec, tuple(costs), give=give, **terms)]

    def untell(self, asks: Sequence[Ask], *, again: bool) -> None:
        super().untell(asks, again=again)
        if again:
            with self:
                for ask in asks:
                    if ask.name == self.name:
                        self.give_back(ask.key, (ask.give,))

    def names(self, key: str | None) -> list[tuple[str, str | None]]:
        return [(self.name, key)]

    def clear(self, key: str | None) -> None:
        super().clear(key)
        if key is None:
            self.gives.clear()
        else:
            self.gives.pop(key, None)

    def reconfigure(self, rate: Rate, burst: float | None) -> None:
        with self:
            for key, amounts in self.forget_bookings(None):
                self.give_back(key, amounts)
        super().reconfigure(rate, burst)


class _Shelf:
    """What the limiters of one counter share in this process: a lock, and a core for each name."""

    def __init__(self) -> None:
        self.guard = Guard()
        self.cores: WeakValueDictionary[str, SharedRuleCore] = WeakValueDictionary()


_shelves: WeakKeyDictionary[Any, _Shelf] = WeakKeyDictionary()  # as long as the counter is there


def shared_core(counter: Counter, name: str, rule: Algorithm, clock: Clock | None) -> SharedRuleCore:
    """The core of that name, the same for all limiters of this process that give the same counter and name.

    Raises `ValueError` where the name already counts by another rule or clock.
    """
    shelf = _shelves.setdefault(counter, _Shelf())
    core = shelf.cores.get(name)
    if core is None:
        core = shelf.cores[name] = SharedRuleCore(counter, name, rule, shelf.guard, clock)
    elif core.table.spec != rule:
        raise ValueError(f"name {name!r} counts by another rule already: {core.table.spec!r}, not {rule!r}")
    elif core.given is not clock:
        raise ValueError(f"name {name!r} counts on another clock already")
    return core
