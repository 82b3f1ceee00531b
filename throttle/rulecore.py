"""The core of a limiter with one rule: the rule, and the table of its counts."""

from __future__ import annotations

import sys
from fractions import Fraction
from sys import modules
from typing import TYPE_CHECKING, Any

from .algorithms.base import Algorithm
from .calls import current_call
from .clock import REAL, Clock, current_clock, loop_clocks, monotonic_ns, ticks_of
from .core import LONG, Core
from .correcting import Corrections
from .counters.memory import Table
from .errors import CostExceedsBurst
from .guard import Guard
from .lanes import HoldLane
from .rates import TICKS, Exact, Rate, check_number, exact
from .waiting import GRANTED, Grant, Place, new_ticket, running

if TYPE_CHECKING:
    from .gate import Gate
    from .hints import Hints

__all__ = ["Look", "RuleCore"]

# Whether threads take turns between two steps of the interpreter; `lanes` builds on that.
_ONE_AT_A_TIME: bool = getattr(sys, "_is_gil_enabled", lambda: True)()


class Look:
    """A rule looked at ahead of time, on a copy of a key's state: each booking at its earliest instant, in order."""

    __slots__ = ("at", "rule", "state")

    def __init__(self, rule: Algorithm, state: Any, at: int) -> None:
        self.rule: Algorithm = rule
        self.state: Any = state
        self.at: int = at

    def earliest(self, cost: Any) -> int:
        """When `cost` would be granted after all that was booked."""
        return self.rule.earliest(self.state, self.at, cost)

    def book(self, cost: Any) -> None:
        """Go on to that instant, and take."""
        self.at = self.rule.earliest(self.state, self.at, cost)
        self.state = self.rule.book(self.state, self.at, cost)


class RuleCore(HoldLane, Core):
    """One rule and its counts."""

    gateless = True

    def __init__(self, table: Table, guard: Guard, clock: Clock | None) -> None:
        super().__init__(guard, clock)
        self.table = table
        self.ends: bool = bool(table.spec.holds)  # the same of each rule it may be given later
        self._version = 0
        self._anchor()

    def _anchor(self) -> None:
        """Aligned windows: tell the rule what this clock reads at the Unix epoch (0 where the clock does not know)."""
        epoch = getattr(self.clock, "epoch", None)
        self._epoch = 0 if epoch is None else -ticks_of(epoch())
        self.table.rule = self.table.spec.anchored(self._epoch)

    def restart(self, clock: Clock) -> None:
        super().restart(clock)
        self.table.reset(None)
        self._anchor()

    def shut(self) -> None:
        self.table.open = False

    def open(self) -> None:
        if self.table.plain is None:
            self.table.plain = self.table.rule.initial(self.now)
        self.table.open = (
            _ONE_AT_A_TIME
            and self.table.plain.__class__ is not Fraction
            and self.table.rule.most >= 1
            and not self.gates
            and self.clock is REAL
            and self.given is None
            and not self.joined
            and ticks_of(self.time) >= self.paused_until
        )

    @property
    def holds(self) -> bool:
        return self.ends

    @property
    def most(self) -> Exact:
        return self.table.rule.most

    @property
    def period(self) -> int:
        return self.table.rule.period

    def cost(self, cost: Any) -> Exact:
        if cost.__class__ is int and cost >= 0:
            return cost
        number = exact(check_number("cost", cost))
        if not isinstance(number, int) and self.table.rule.whole:
            raise ValueError(f"cost must be a whole number for a {self.table.rule.kind} limiter, not {cost!r}")
        return number

    def ask(self, cost: Any, key: str) -> Any:
        if cost.__class__ is int and key.__class__ is str and 0 <= cost <= self.table.rule.most:
            return cost
        return super().ask(cost, key)

    def free(self, cost: Any) -> bool:
        return not cost

    def check(self, cost: Any, key: str) -> None:
        if cost > self.table.rule.most:
            raise CostExceedsBurst(_plain(cost), _plain(self.table.rule.most), key)

    def earliest(self, key: str, now: int, cost: Any, place: Place | None) -> int:
        table = self.table
        return table.rule.earliest(table.get(key, now), now, cost) if cost else now

    def look(self, key: str, at: int) -> Look:
        rule = self.table.rule
        return Look(rule, rule.copy(self.table.get(key, at)), at)

    def version(self) -> int:
        return self._version

    def passes(self, key: str, cost: Any) -> bool:
        with self as now:  # as in `Core`, with one look at the table
            if self.gates:
                self.sweep(now)
            if key in self.gates or self.paused_until > now:
                return False
            table, rule = self.table, self.table.rule
            state = table.get(key, now)
            if cost and rule.earliest(state, now, cost) > now:
                return False
            self._version += 1
            table.put(key, rule.book(state, now, cost), now)
            return True

    def grab(self, key: str, cost: Any) -> Grant | None:
        # In one piece: where there is no lane it is the way of every request, and between requests all code is cold.
        if not self.gateless or key in self.gates:
            return None
        table = self.table
        now = self._enter()
        try:
            if self.gates:
                self.sweep(now)
            if key in self.gates or self.paused_until > now:
                return None
            rule: Any = table.rule
            state = table.young.get(key)
            if state is None:
                state = table.get(key, now)
            if cost and rule.earliest(state, now, cost) > now:
                return None
            self._version += 1
            state = (rule.hold if self.ends else rule.book)(state, now, cost)
            if table.old or now >= table.turn_at or not key:
                table.put(key, state, now)
            else:
                table.young[key] = state
        finally:
            self.open()
            self.guard.release()
        return cost, new_ticket(), now, state if self.ends else None

    def _enter(self) -> int:
        """`__enter__`, which it is, where time is real."""
        if self.given is None and not loop_clocks and "trio.testing" not in modules and self.clock is REAL:
            self.guard.acquire()
            self.table.open = False
            self.now: int = max(monotonic_ns(), self.now)
            self.time: float = self.now / TICKS
            return self.now
        return self.__enter__()

    def queue(self, key: str) -> Place | None:
        """A place for one permit behind everybody, where that is all that changes: neither the time nor the counts
        matter then."""
        if current_call.get() is not None or (loop_clocks and (self.given or current_clock()) is not self.clock):
            return None  # without loops of their own time, who stands in line here already knows the right clock
        loop = running()
        self.guard.acquire()
        try:
            gate = self.gates.get(key)
            if gate is None or self.table.rule.most < 1 or ((gate.due or 0) > self.now + LONG and not gate.noted):
                return None  # the last: it is to be logged
            return gate.queue(loop)
        finally:
            self.guard.release()

    def leave(self, place: Place) -> None:
        if not isinstance(sys.exception(), GeneratorExit):
            with self.guard:
                if place.home.gate.slip(place):
                    return
        super().leave(place)

    def hand_out(self, gate: Gate, now: int, most: int) -> int:
        """Grant to up to `most` at the head of a line who have no wishes but their permit; to how many."""
        table, rule, places = self.table, self.table.rule, gate.line.places
        state, total, count = table.get(gate.key, now), 0, 0
        free, more = 0, 1  # so much is there, and so much is not: most need not ask
        while more <= most and more <= rule.most and rule.earliest(state, now, more) <= now:
            free, more = more, 2 * more
        try:
            while places and count < most:
                place = places[0]
                if place.outcome is None:
                    asked = total + place.cost
                    if place.__class__ is not Place:
                        break
                    if asked > free and (asked >= more or asked > rule.most or rule.earliest(state, now, asked) > now):
                        break
                    total, count = asked, count + 1
                    place.at, place.outcome = now, GRANTED
                    place.home.wake(place)
                places.popleft()
        finally:
            if count:
                self._version += 1
                table.put(gate.key, rule.book(state, now, total), now)
        return count

    def take(self, key: str, now: int, cost: Any, *, held: bool) -> Any:
        table = self.table
        state = table.get(key, now)
        rule: Any = table.rule
        self._version += 1
        gate = None if held else self.gates.get(key)
        if gate is not None and gate.learner is not None:  # of the others it is told by their gate
            gate.learner.sent(now, cost, lands=False)
        held = held and rule.holds
        state = rule.hold(state, now, cost) if held else rule.book(state, now, cost)
        table.put(key, state, now)
        return state if held else None  # the very state, which a reset replaces: see `end`

    def undo(self, key: str, now: int, cost: Any, taken: int, hold: Any) -> None:
        self.change(key, now, cost, 0, taken, hold)

    def end(self, key: str, now: int, cost: Any, hold: Any) -> None:
        rule: Any = self.table.rule
        state = self.table.get(key, now)
        self._version += 1  # what was reset meanwhile holds nothing, but its window starts all the same
        self.table.put(key, rule.end(state, now, cost) if state is hold else rule.book(state, now, cost), now)

    def change(self, key: str, now: int, before: Any, after: Any, taken: int | None, hold: Any) -> Any:
        rule: Any = self.table.rule
        self._version += 1
        if hold is None:
            if before != after:
                self.table.give(key, now, before - after, taken)
            return None
        state = self.table.get(key, now)
        if state is not hold and before:
            return hold  # what was reset meanwhile
        self.table.put(key, rule.hold(state, now, after - before), now)
        return state  # for nothing none was kept, if the key was idle

    def facts(self, key: str, now: int) -> tuple[Exact, int, bool]:
        rule: Any = self.table.rule
        state = self.table.get(key, now)
        return rule.remaining(state, now), rule.full_at(state, now), rule.exact(state)

    def news(self, gate: Gate, place: Place, hints: Hints, now: int, loop: Any) -> bool:
        heard = self.corrected(gate, place, hints, None, now, loop)
        return super().news(gate, place, hints, now, loop) if heard is None else heard

    def corrected(self, gate: Gate, place: Place, hints: Hints, whole: Gate | None, now: int, loop: Any) -> bool | None:
        if self.__class__ is not RuleCore or self.table.rule.kind == "unlimited":
            return None
        return Corrections(self, whole).hear(gate, place, hints, now, loop)

    def clear(self, key: str | None) -> None:
        self._version += 1
        self.table.reset(key)

    def reconfigure(self, rate: Rate, burst: float | None) -> None:
        """Another rate at once, also for who is waiting."""
        loop = running()
        with self as now:
            self.table.spec = spec = self.table.spec.reconfigured(rate, burst)
            self.table.reconfigure(spec.anchored(self._epoch), now)
            self._version += 1
            self.refuse_larger(loop)
            self.stirred(None, now, loop)


def _plain(number: Exact) -> int | float:
    return number if isinstance(number, int) else float(number)
