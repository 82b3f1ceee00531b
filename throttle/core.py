"""What stands behind a limiter: its lock, its clock, its gates by key; thin verbs that take the lock and read the
time."""

from __future__ import annotations

import logging
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from .calls import current_call, current_work
from .clock import Clock, current_clock, ticks_of, wait_of
from .decisions import Counted, Decision, decided
from .errors import ThrottleError
from .gate import Gate, Slots
from .guard import Guard
from .rates import TICKS, Exact, Rate, check_number, seconds
from .waiting import GRANTED, Claim, Grant, Place, granted, new_ticket, rank_of, running

if TYPE_CHECKING:
    from .adaptive import Learner
    from .hints import Hints

__all__ = ["LONG", "Core"]

_log = logging.getLogger("throttle")
LONG = 5 * TICKS  # a wait above this is logged, once per key
_ROUND = 100  # gates that are lined up for a look: finding the oldest takes a step for each that is gone
_UNTOLD = TICKS // 20  # a guess where nothing but another call's end decides


class Core(ABC):
    """What all limiters share; `with core as now` reads the clock and holds the lock.

    First what a rule, or a combination of rules, answers for itself; then what the gates ask, with the lock held; then
    the verbs, which take it.
    """

    remote: bool = False  # whether the counts are in a shared store
    ends: bool = True  # whether it wants to know when work has ended of which no gate knows
    gateless: bool = False  # whether permits can be out of which no gate knows
    learns: bool = False  # whether each gate finds out its limit
    combines: bool = False  # whether it wants to know who is the head of a line, and from when on it is granted

    def __init__(self, guard: Guard, clock: Clock | None) -> None:
        self.guard: Guard = guard
        self.gates: dict[str, Gate] = {}
        self._round: list[str] = []  # gates that are still to be looked at: see `sweep`
        self.paused_until: int = 0
        self.given: Clock | None = clock
        self.clock: Clock = clock or current_clock()
        self.time: float = 0.0  # what the clock said when it was read last ...
        self.now: int = 0  # ... in ticks
        self.watchers: WeakSet[Core] = WeakSet()  # combined limiters that this one is a member of
        self.joined: bool = False  # whether there ever was one
        self.random: Callable[[], float] = random.random

    def __enter__(self) -> int:
        clock = self.given or current_clock()
        time = clock.now()  # before the lock: a clock may be anybody's code
        self.guard.acquire()
        self.shut()
        return self.tell(clock, time)

    def __exit__(self, *exc: object) -> None:
        self.open()
        self.guard.release()

    def shut(self) -> None:  # noqa: B027
        """The lock is held: nobody may pass without it."""

    def open(self) -> None:  # noqa: B027
        """The lock will be free: let those pass without it (see `lanes`) who need not know more than the counts."""

    def tell(self, clock: Clock, time: float) -> int:
        """The time is `time`, in ticks; under another clock than last time everything starts as new."""
        if clock is not self.clock:
            self.restart(clock)
            self.time, self.now = time, ticks_of(time)
        elif time > self.time:  # else another thread, which read the clock later, was here first
            self.time, self.now = time, ticks_of(time)
        return self.now

    def restart(self, clock: Clock) -> None:
        """Everything as new, under `clock`."""
        self.clock = clock
        self.paused_until = 0
        self.gates.clear()

    def watch(self, watcher: Core) -> None:
        """`watcher` is a combined limiter with this one as a member: it takes here under the lock alone."""
        with self:
            self.joined = True
            self.watchers.add(watcher)

    @property
    @abstractmethod
    def holds(self) -> bool:
        """Whether permits are held while their work runs."""
        ...

    def learner(self) -> Learner | None:
        """What finds out the limit of a new gate, where no rule gives it."""
        return None

    # ── what a rule answers (B027: what concerns only some kinds does nothing in the others) ──────────────────────────

    @property
    def most(self) -> Exact | None:
        """Where there is a rule: what it grants at once."""
        return None

    @property
    @abstractmethod
    def period(self) -> int:
        """Ticks after which a head that waits elsewhere, too, may insist."""
        ...

    @abstractmethod
    def cost(self, cost: Any) -> Any:
        """A cost as the rule counts; one clear error if it cannot."""
        ...

    @abstractmethod
    def free(self, cost: Any) -> bool:
        """Whether that costs nothing."""
        ...

    @abstractmethod
    def check(self, cost: Any, key: str) -> None:
        """Raises `CostExceedsBurst` for what can never be granted."""
        ...

    @abstractmethod
    def earliest(self, key: str, now: int, cost: Any, place: Place | None) -> int:
        """The first tick from `now` on at which the rule grants `cost` to `place`, the head of its line."""
        ...

    @abstractmethod
    def look(self, key: str, at: int) -> Any:
        """A copy of what `key` has used, to book on from `at` on: see `rulecore.Look`."""
        ...

    @abstractmethod
    def version(self) -> int:
        """How often the counts were changed."""
        ...

    def seal(self) -> int:
        """Changes when the counts of a key may have been changed without its gate."""
        return 0

    @abstractmethod
    def take(self, key: str, now: int, cost: Any, *, held: bool) -> Any:
        """Take `cost`; `held`: until its work ends. The hold, if there is one: for `end`, and for the others before."""
        ...

    def queue(self, key: str) -> Place | None:
        """A place for one permit behind everybody, where that is all that changes; else None."""
        return None

    def hand_out(self, gate: Gate, now: int, most: int) -> int:
        """Grant to up to `most` at the head of a line that nothing but one rule in memory holds back; to how many."""
        return 0

    @abstractmethod
    def undo(self, key: str, now: int, cost: Any, taken: int, hold: Any) -> None:
        """As if `cost` had not been taken at `taken`."""
        ...

    @abstractmethod
    def end(self, key: str, now: int, cost: Any, hold: Any) -> None:
        """The work of a held permit has ended."""
        ...

    @abstractmethod
    def change(self, key: str, now: int, before: Any, after: Any, taken: int | None, hold: Any) -> Any:
        """The true cost of what was taken for `before` is `after`; its hold from now on, where it had one."""
        ...

    @abstractmethod
    def facts(self, key: str, now: int) -> tuple[Exact, int, bool]:
        """Remaining permits, the tick at which all is as new, and whether forecasts are exact."""
        ...

    def told_until(self, key: str) -> int:
        """Where this combines others: the tick up to which they hold `key` back, as callers are told it."""
        return 0

    def forget(self, key: str, place: Place) -> None:  # noqa: B027
        """`place` is no longer the head of its line, or hangs on something other than time."""

    def plan(self, key: str, place: Place) -> None:  # noqa: B027
        """`place`, the head of its line, is going to be granted at `place.at`."""

    def clear(self, key: str | None) -> None:  # noqa: B027
        """The counts of `key`, or all, as new."""

    def news(self, gate: Gate, place: Place, hints: Hints, now: int, loop: Any) -> bool:
        """Hand what the server said to the gates it concerns; whether a refusal was news."""
        if hints.refused:
            wait = None if hints.wait is None else ticks_of(hints.wait)
            return gate.refused(place.sent, wait, now, loop)
        gate.answered()
        if hints.wait:
            gate.spent(ticks_of(hints.wait), now, loop)
        return True

    def corrected(self, gate: Gate, place: Place, hints: Hints, whole: Gate | None, now: int, loop: Any) -> bool | None:
        """What the server said of this limit, to a permit that may have come through the gate of a combined one
        (`whole`); None where it shows nothing new."""
        return None

    # ── what the gates ask ────────────────────────────────────────────────────────────────────────────────────────

    def wait(self, now: int, due: int) -> float:
        """Seconds from the time read last until the tick `due`; never early."""
        return wait_of(self.time, due) if due > now else 0.0

    def gate(self, key: str, now: int) -> Gate:
        """The gate of `key`."""
        gate = self.gates.get(key)
        if gate is None:
            if self.gates:
                self.sweep(now)
            gate = self.gates[key] = self.new_gate(key)
        return gate

    def sweep(self, now: int) -> None:
        """A key without a gate is used: look at one of the gates, in turn, whether it is still needed."""
        if not self._round:
            self._round = [*islice(self.gates, _ROUND)][::-1]  # the oldest first
        key = self._round.pop()
        gate = self.gates.get(key)
        if gate is not None:
            gate.bury(now, None)
            self.gates[key] = self.gates.pop(key)
            self.tidy(gate, now)

    def new_gate(self, key: str) -> Gate:
        """A gate for `key`."""
        return Gate(self, key)

    def tidy(self, gate: Gate, now: int) -> None:
        """Forget a gate that nobody needs."""
        if gate.idle(now) and self.gates.get(gate.key) is gate:
            del self.gates[gate.key]

    def stirred(self, key: str | None, now: int, loop: Any) -> None:
        """Counts, rule or pause of `key` (None: of every key) were changed: everybody there, and in the combined lines
        before it, is looked at again."""
        self.shake(key, now, loop)
        self.spread(key, now, loop)

    def shake(self, key: str | None, now: int, loop: Any) -> None:
        """Have the gates of `key` look again at everybody."""
        if now > self.now:  # another core read the clock: bells are set from here
            self.now, self.time = now, now / TICKS
        gates = list(self.gates.values()) if key is None else [self.gates[key]] if key in self.gates else []
        for gate in gates:
            gate.shaken(now, loop)
            self.tidy(gate, now)

    def spread(self, key: str | None, now: int, loop: Any) -> None:
        """Tell the combined limiters that this one is a member of."""
        for watcher in list(self.watchers):
            watcher.member_stirred(self, key, now, loop)

    def member_stirred(self, member: Core, key: str | None, now: int, loop: Any) -> None:  # noqa: B027
        """The counts, rule or pause of a member of this combined limiter were changed."""

    def refuse_larger(self, loop: Any) -> None:
        """The rule was changed: refuse those in line who can never be granted any more."""
        for gate in list(self.gates.values()):
            gate.refuse_larger(loop)
        for watcher in list(self.watchers):
            watcher.refuse_larger(loop)

    def admission(self, key: str, now: int, cost: Any, guest: Place | None) -> int:
        """When `guest`, the head of a combined line (None: somebody who only asks), would pass here; see `Guests`."""
        gate = self.gates.get(key)
        if gate is None:
            due = max(self.paused_until, self.earliest(key, now, cost, guest))
        else:
            gate.bury(now, None)
            due = gate.guests.due(gate, now, cost, guest)
        if due > now and guest is not None and guest.home is not None:
            (gate or self.gate(key, now)).guests.add(guest, cost, now)
        return due

    def dismiss(self, key: str, guest: Place) -> None:
        """`guest` is not refused here any more."""
        gate = self.gates.get(key)
        if gate is not None:
            now = self.now
            gate.guests.drop(gate, guest, now)
            self.tidy(gate, now)
        self.forget(key, guest)

    def replan(self, key: str, guest: Place) -> None:
        """`guest` is going to be granted at `guest.at`."""
        gate = self.gates.get(key)
        if gate is not None:
            gate.guests.replan(gate, guest)
        self.plan(key, guest)

    def due(self, key: str, now: int, cost: Any) -> tuple[int, bool]:
        """When a newcomer would be granted as things stand, and whether that is exact."""
        gate = self.gates.get(key)
        held = self.paused_until
        if gate is not None:
            gate.bury(now, None)
            held = gate.held_until()
            if gate.line and not self.free(cost):
                due = gate.forecast.whole(gate, now).earliest(cost)
                if gate.due is None:
                    return max(due, now + _UNTOLD), False
                return max(due, now + 1), not gate.vague()
            if gate.probing():
                return max(held, now + _UNTOLD), False
        if held > now:
            due = self.look(key, held).earliest(cost)
            return due if gate is None else gate.slower(held, cost, due), True
        opens = gate.opens(now, cost) if gate is not None else self.earliest(key, now, cost, None)
        return (now + _UNTOLD, False) if opens is None else (opens, True)

    # ── verbs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def check_key(self, key: str) -> None:
        """One clear error for what cannot be a key."""
        if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a key is a str, not {key!r}")

    def ask(self, cost: Any, key: str) -> Any:
        """The cost as the rule counts, of a key that is one; one clear error if that is wrong or can never be
        granted."""
        if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            self.check_key(key)  # type: ignore[unreachable]
        amount = self.cost(cost)
        self.check(amount, key)
        return amount

    def passes(self, key: str, cost: Any) -> bool:
        """Take at once if nobody waits and nothing holds back; the short way of `enter`."""
        with self as now:
            if self.gates:
                self.sweep(now)
            if key in self.gates or self.paused_until > now or self.earliest(key, now, cost, None) > now:
                return False
            self.take(key, now, cost, held=False)
            return True

    def arrive(self, key: str, cost: Any, max_wait: float | None, priority: int) -> Place | None:
        """Take at once; or a place in line, which `stand` waits for."""
        if key not in self.gates and self.passes(key, cost):
            return None
        _, place = self.enter(key, cost, max_wait=max_wait, priority=priority)
        return None if place.outcome is GRANTED else place

    def grab(self, key: str, cost: Any) -> Grant | None:
        """A permit whose work will be told to end, granted at once and without a gate; None where that takes more."""
        return None

    def gate_of(self, key: str, clock: Clock, *, out: bool) -> Gate:
        """The gate of `key` for a place that was granted without one, when `clock` was the clock; `out`: its work goes
        on."""
        with self as now:
            gate = self.gate(key, now) if clock is self.clock else Gate(self, key)
            gate.flights += out
            if clock is not self.clock:
                gate.clock = clock  # it is not current: nothing here concerns its place any more
            return gate

    def finish(self, key: str, out: Place | Grant, clock: Clock) -> Place | Grant:
        """The work of what was granted without a gate has ended; what is known of it from now on."""
        place = granted(*out) if isinstance(out, tuple) else out
        with self as now:
            if clock is not self.clock:
                return place
            gate = self.gates.get(key)
            if gate is not None:
                gate.flights += 1
                self.landed(gate, place, now, running())
            else:
                self.end(key, now, place.cost, place.hold)
                place.at = now
        return place

    def enter(
        self,
        key: str,
        cost: Any,
        *,
        max_wait: float | None = None,
        priority: int = 0,
        slots: tuple[Slots, ...] = (),
        holding: bool = False,
        crowded: bool = False,
    ) -> tuple[Gate, Place]:
        """A place at the gate of `key`: granted, or in line (then `stand` waits for it); or raises why it is
        refused."""
        call = current_call.get()
        if call is None:
            ticket, patience = new_ticket(), None
        else:
            ticket = new_ticket() if call.ticket is None else call.ticket
            call.ticket = None
            patience = None if call.patience is None else ticks_of(call.patience)
            if call.deadline is not None:
                left = max(0.0, call.deadline - current_clock().now())
                max_wait = left if max_wait is None else min(max_wait, left)
        with self as now:
            deadline = None if max_wait is None else ticks_of(self.time + max_wait)
            rank = rank_of(priority, ticket)
            if deadline is None and patience is None and not slots and not holding:
                place = Place(cost, rank)
            else:
                place = Claim(
                    cost, rank, deadline=deadline, patience=patience, slots=slots, holding=holding, crowded=crowded
                )
            gate, loop = self.gates.get(key) or self.gate(key, now), running()
            try:
                gate.admit(place, now, loop)
                if place.outcome is not None and place.home is not None:  # decided as soon as it was in line
                    place.home.gone(place)
            finally:
                if place.outcome is not None or place.home is None:
                    self.tidy(gate, now)
        if isinstance(place.outcome, ThrottleError):
            raise place.outcome
        return gate, place

    async def stand(self, place: Place) -> None:
        """Wait in line until `place` is granted; raises what it is refused with. A cancelled one delays nobody."""
        try:
            await self.turn(place)
        except BaseException:
            self.leave(place)
            raise
        self.served(place)

    def turn(self, place: Place) -> Awaitable[None]:
        """What `place`, in line, awaits; it ends with `served`, or with `leave` where something was raised."""
        home = place.home
        due = home.gate.due
        if due is not None and due - self.now > LONG:
            self.note(home.gate)
        call = current_call.get()
        if call is not None and call.waiting is not None:
            call.waiting()
        work = current_work.get()
        if work is not None:
            work._make_way(self, home.gate.key)
        return home.wait(place)  # type: ignore[no-any-return]

    def leave(self, place: Place) -> None:
        """Its waiter was cancelled, which is the exception in progress: it delays nobody."""
        gate = place.home.gate
        if isinstance(sys.exception(), GeneratorExit):  # perhaps by the garbage collector: also under our lock
            self.guard.later(lambda: gate.leave(place, self.now, None))
        else:
            with self as now:
                gate.leave(place, now, running())

    def served(self, place: Place) -> None:
        """Its wait is over: raises what it was refused with."""
        call = current_call.get()
        if call is not None and call.granted is not None:
            call.granted()
        if place.outcome is not GRANTED:
            raise place.outcome

    def note(self, gate: Gate) -> None:
        """Log a long wait, once per key; outside the lock, because a handler may do anything."""
        wait = (gate.due or 0) - self.now
        if wait > LONG and not gate.noted:
            gate.noted = True
            _log.info("key %r waits for %.1f s", gate.key, seconds(wait))

    def decide(self, key: str, cost: Any, *, take: bool) -> Decision:
        """What a newcomer would be told; `take` takes if that is yes."""
        with self as now:
            if self.gates:
                self.sweep(now)
            time = self.time
            due, exact_due = self.due(key, now, cost)
            allowed = due <= now
            if allowed and take:
                self.take(key, now, cost, held=False)
            remaining, full_at, exact_rule = self.facts(key, now)
        exact = allowed or (exact_due and exact_rule)
        return decided(allowed, time, now, due, Counted(remaining, full_at), exact=exact)

    async def decide_there(self, key: str, cost: Any, *, take: bool) -> Decision:
        """`decide` where the counts are in a shared store."""
        raise NotImplementedError

    async def flush(self, key: str) -> None:  # noqa: B027
        """Tell a shared store what it has not been told yet."""

    async def clear_there(self, key: str | None) -> None:  # noqa: B027
        """`key` (None: every key) as new in a shared store."""

    def pause(self, duration: float, key: str | None) -> None:
        """Nobody of `key` (None: of any) is admitted for so many seconds."""
        check_number("pause (seconds)", duration)
        if key is not None:
            self.ask(0, key)
        loop = running()
        with self as now:
            until = ticks_of(self.time + duration)
            if key is not None:
                gate = self.gate(key, now)
                gate.pause(until, now, loop)
                self.tidy(gate, now)
            elif until > self.paused_until:
                self.paused_until = until
                self.stirred(None, now, loop)

    def hear(self, gate: Gate, place: Place, hints: Hints) -> bool:
        """What the server answered to the call of `place`; whether a refusal was news."""
        loop = running()
        with self as now:
            if not gate.current():
                return False
            gate = self.gates.setdefault(gate.key, gate)
            news = self.news(gate, place, hints, now, loop)
            self.tidy(gate, now)
        self.note(gate)
        return news

    def held_for(self, gate: Gate) -> float:
        """Seconds until the last pause of that gate ends."""
        with self as now:
            return seconds(max(0, gate.patience_until() - now))

    def learned(self, key: str) -> Rate | None:
        """What was learned of the limit of `key`."""
        with self:
            gate = self.gates.get(key)
            return None if gate is None or gate.learner is None else gate.learner.learned()

    def tick(self) -> int:
        """The time."""
        with self as now:
            return now

    def land(self, gate: Gate, place: Place, *, answered: bool) -> None:
        """The work of a granted place has ended."""
        with self as now:
            self.landed(gate, place, now, running(), answered=answered)

    def aside(self, gate: Gate, place: Place) -> None:
        """The work of a granted place waits for a turn here of its own: others need not wait for it meanwhile."""
        with self as now:
            gate.aside(place, now)
            self.stirred(gate.key, now, running())

    def land_later(self, gate: Gate, place: Place) -> None:
        """The same of work that a finaliser has ended."""
        self.guard.later(lambda: self.landed(gate, place, self.now, None))

    def finish_later(self, key: str, place: Place, clock: Clock) -> None:
        """`finish` of work that a finaliser has ended."""

        def finish() -> None:
            if clock is self.clock:
                gate = self.gate(key, self.now)
                gate.flights += 1
                self.landed(gate, place, self.now, None)

        self.guard.later(finish)

    def landed(self, gate: Gate, place: Place, now: int, loop: Any, *, answered: bool = False) -> None:
        """`land`, with the lock held."""
        ends = self.holds and gate.current()
        if ends:
            self.end(gate.key, now, place.cost, place.hold)
            place.at = now
        gate.landed(place, now, loop, answered=answered)
        if ends or (self.joined and place.flight is not None):
            self.spread(gate.key, now, loop)

    def settle(self, gate: Gate, place: Place, after: Any, *, held: bool) -> None:
        """The true cost of a granted place is `after`."""
        loop = running()
        with self as now:
            if gate.current():
                hold = self.change(gate.key, now, place.cost, after, place.at, place.hold if held else None)
                if held:
                    place.hold = hold
                self.stirred(gate.key, now, loop)
            place.cost = after

    def refund(self, key: str, cost: Any) -> None:
        """Give back `cost`."""
        loop = running()
        with self as now:
            self.change(key, now, cost, self.cost(0), None, None)  # nobody knows when it was taken
            self.stirred(key, now, loop)

    def reset(self, key: str | None) -> None:
        """`key` (None: every key) as new."""
        loop = running()
        with self as now:
            self.renew(key, now, loop)

    def renew(self, key: str | None, now: int, loop: Any) -> None:
        """`reset`, with the lock held."""
        self.clear(key)
        if key is None:
            self.paused_until = 0
        for gate in self.gates.values():
            if key is None or gate.key == key:
                gate.renew()
        self.stirred(key, now, loop)
