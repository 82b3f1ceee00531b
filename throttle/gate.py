"""One gate per key: its line, what holds it back (rule, pause, concurrency), and the way back after a refusal.

Every method runs under the lock of its core and with the time as an argument; it decides, tells the homes whom to wake
and returns. `loop` is the event loop that runs it, or None.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from .errors import CostExceedsBurst, RetryAfterTooLong, ThrottleError, WaitTooLong
from .forecast import Forecast
from .guests import Guests
from .rates import seconds
from .silence import jitter_of, others_try, silence_of
from .waiting import GRANTED, Home, Line, LoopHome, Place, new_home, new_ticket

if TYPE_CHECKING:
    from .adaptive import Learner
    from .clock import Clock
    from .core import Core

__all__ = ["Gate", "Slots", "WayBack"]

_CLOSED = "closed"  # the outcome of a place that was given up
_NEVER = 1 << 200
_APART = 3  # turns of the loop between two of a crowd where no answer comes in between ...
_CLEAR = 2  # ... and where one does: the pool of httpcore takes a turn to give a connection away
_AT_ONCE = 128  # grants before the loop gets a turn: a few milliseconds of work for those who wake


class Slots:
    """Concurrency: at most `limit` at once; the gates that wait for a slot take turns, first come first served."""

    __slots__ = ("blocked", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self.used: int = 0
        self.blocked: dict[Gate, None] = {}

    def free(self, gate: Gate) -> bool:
        """Whether a slot is free; if not, `gate` is told when one is."""
        if self.used < self.limit:
            self.blocked.pop(gate, None)
            return True
        self.blocked.setdefault(gate)
        return False


class WayBack:
    """After a refusal: one probe, then one more at a time with each answer (twice as many with each round trip), until
    nobody is held back any more."""

    __slots__ = ("flying", "width")

    def __init__(self) -> None:
        self.width: int = 1
        self.flying: int = 0


class Gate:
    """One key of a limiter: who waits for it, and what they wait for."""

    __slots__ = (
        "_deadlines", "_patience", "_queued", "clock", "core", "corrected_at", "due", "flights", "forecast",
        "guests", "homes", "key", "learner", "line", "noted", "paused_until", "reacted_at", "refusals", "slotted",
        "told_until", "turns", "way_back",
    )  # fmt: skip

    def __init__(self, core: Core, key: str) -> None:
        self.core: Core = core
        self.key: str = key
        self.clock: Clock = core.clock
        self.line: Line = Line()
        self.homes: dict[Any, Home] = {}
        self.paused_until: int = 0
        self.told_until: int = 0  # the same without the jitter that is added to what a server says
        self.flights: int = 0  # permits out whose end will be told
        self.refusals: int = 0  # in a row
        self.reacted_at: int = -1  # the tick of the last reaction to a refusal: older requests bring no news
        self.way_back: WayBack | None = None
        self.learner: Learner | None = core.learner()  # where the limit is to be found out
        self.corrected_at: int = -1  # the tick at which a learner was put over the rule; -1: there is none, or no rule
        self.guests: Guests = Guests()  # heads of combined lines that this gate refuses
        self.forecast: Forecast = Forecast()
        self.due: int | None = None  # the tick at which the next in line is granted, as far as only time decides
        self.slotted: bool = False  # some in line wait for slots, too
        self.noted: bool = False  # a long wait was logged
        self._deadlines: list[tuple[int, int, Place]] = []
        self._patience = _NEVER  # nobody in line has less
        self._queued = False  # somebody waits, or did at the last look
        self.turns: int = 0  # of the loop, until the next of a crowd is granted

    def idle(self, now: int) -> bool:
        """Whether nothing is lost when the gate is forgotten; what a refusal has taught is, one period later."""
        if self.line or self.homes or self.flights or self.guests:
            return False
        if self.learner is not None and not self.learner.forgotten(now):
            return False
        return max(self.paused_until, self.reacted_at) + (self.core.period if self.way_back else 0) <= now

    def current(self) -> bool:
        """Whether the clock is still the one that this gate has lived by."""
        return self.clock is self.core.clock

    # ── who may pass ──────────────────────────────────────────────────────────────────────────────────────────────

    def held_until(self) -> int:
        """The tick at which the last pause ends."""
        held = max(self.paused_until, self.core.paused_until)
        return held if self.learner is None else max(held, self.learner.held_until())

    def patience_until(self) -> int:
        """The same as callers are told it: what a server said, to the tick."""
        told = max(self.told_until, self.core.paused_until, self.core.told_until(self.key))
        return told if self.learner is None else max(told, self.learner.told_until())

    def probing(self) -> bool:
        """Whether nobody may go before a probe has come back."""
        if self.learner is not None and self.learner.full():
            return True
        return self.way_back is not None and self.way_back.flying >= self.way_back.width

    def untold(self, other: Gate | None) -> bool:
        """Whether more than time and the lines here and at `other` decide who comes next."""
        return self.probing() or (len(self.line) > 0 and self.vague()) or self.guests.from_elsewhere(other)

    def vague(self) -> bool:
        """Whether more than time decides when those in line are granted, or when what they take comes back."""
        if self.due is None or self.slotted or self.way_back is not None or self.learner is not None:
            return True
        return self.core.holds and any(place.holding for place in self.line)  # a window starts when its work ends

    def ready(self, place: Place, now: int) -> int | None:
        """The tick from which `place`, as the head, is granted; None while that hangs on something other than time."""
        learns = self.learner is not None
        if learns or self.paused_until > now or self.core.paused_until > now:
            held = self.held_until()
            if held > now:
                return held
        if (learns or self.way_back is not None) and self.probing():
            return None
        if place.slots and [slots for slots in place.slots if not slots.free(self)]:
            return None
        due = self.core.earliest(self.key, now, place.cost, place)
        if learns:
            due = self.slower(now, place.cost, due)
        return due if due > now or not self.guests or self.guests.spare(self, now, place.cost) else None

    def slower(self, now: int, cost: Any, due: int) -> int:
        """The tick from which a learner over the rule grants, too."""
        return due if self.corrected_at < 0 or self.learner is None else max(due, self.learner.earliest(now, cost))

    def opens(self, now: int, cost: Any, place: Place | None = None) -> int | None:
        """The tick from which the rule grants; None while a head of a combined line goes first."""
        due = self.core.earliest(self.key, now, cost, place)
        if self.learner is not None:
            due = self.slower(now, cost, due)
        return due if due > now or self.guests.spare(self, now, cost) else None

    # ── coming and going ──────────────────────────────────────────────────────────────────────────────────────────

    def admit(self, place: Place, now: int, loop: Any) -> bool:
        """Grant `place` at once (true), or give it its turn in line (false), or raise why it is refused."""
        if loop not in self.homes or len(self.homes) > 1:
            self.bury(now, loop)
        head = self.line.head()
        if head is None or place.rank < head.rank or (self.core.free(place.cost) and not place.slots):
            due = self.ready(place, now)
            if due is not None and due <= now and not (place.crowded and self.turns):
                self._grant(place, now)
                if head is not None and not self.core.free(place.cost):  # it went ahead of others
                    self.forecast.drop()
                    self.recheck(now, loop)
                    self.step(now, loop)
                return True
        if place.deadline is not None or place.patience is not None:
            self._check(place, now)
        if head is not None and place.rank < head.rank:
            self.core.forget(self.key, head)
        self._enter(place, now, loop)
        return False

    def _check(self, place: Place, now: int) -> None:
        """Refuse who would have to wait for too long as the line stands."""
        pause = self.patience_until() - now
        if place.patience is not None and pause > place.patience:
            raise RetryAfterTooLong(seconds(pause), self.key)
        if place.deadline is None or self.forecast.in_time(self, now, place.deadline, place.cost):
            return  # behind everybody: mostly that is soon enough
        last = self.line.last(place.rank)
        look = self.forecast.whole(self, now) if last else self.forecast.before(self, now, place.rank)
        due = look.earliest(place.cost)
        if due > place.deadline:
            raise WaitTooLong(self.core.wait(now, due), self.key)

    def new_home(self) -> Home:
        """A home for the waiters of the running loop."""
        return new_home(self, self.core.clock)

    def _enter(self, place: Place, now: int, loop: Any) -> None:
        home = self.homes.get(loop)
        if home is None:
            home = self.new_home()
            self.homes[home.loop] = home
        place.home = home
        home.waiters += 1
        home.enter(place)
        self._queued = True
        if place.slots:
            self.slotted = True
        if place.patience is not None:
            self._patience = min(self._patience, place.patience)
        if place.deadline is not None:
            heapq.heappush(self._deadlines, (place.deadline, place.rank, place))
        last = self.line.add(place)
        if self.forecast.look is not None:
            self.forecast.came(place.cost, last=last)
        if last and place.deadline is None and len(self.line) > 1 and (home.due is not None or self.due is None):
            return  # its bell is set for the head already, or time decides nothing
        if not last:
            self.recheck(now, loop)
        self.step(now, loop)

    def queue(self, loop: Any) -> Place | None:
        """A place for one permit at the end of the line, where that changes nothing for anybody; else None."""
        line, home, rank = self.line, self.homes.get(loop), new_ticket()
        if not isinstance(home, LoopHome) or len(self.homes) > 1 or not line.live or line.places[-1].rank > rank:
            return None
        place = Place(1, rank)  # somebody waits there, so that its bell is set, or on its way
        place.home = home
        place.wake = loop.create_future()
        home.waiters += 1
        line.live += 1
        line.places.append(place)
        if self.forecast.look is not None:
            self.forecast.came(1, last=True)
        return place

    def slip(self, place: Place) -> bool:
        """Have `place` leave the line, if that changes nothing for anybody; whether it has left."""
        if place.outcome is not None or place.__class__ is not Place or place.home.waiters < 2:
            return False
        if place is self.line.head() and not self.line.next_is_like(place):
            return False
        place.outcome = _CLOSED
        place.home.waiters -= 1
        self.line.left()
        self.forecast.went()
        return True

    def leave(self, place: Place, now: int, loop: Any) -> None:
        """`place` has stopped waiting and takes nothing: it loses nothing, and delays nobody."""
        if place.outcome is None:
            place.outcome = _CLOSED
            self._out(place)
            self._left(place.home, loop)
            self.step(now, loop)
        elif place.outcome is GRANTED:
            if self.current():  # pragma: no branch  # else another clock has made all as new in this very tick
                self.core.undo(self.key, now, place.cost, place.at, place.hold)
            self.landed(place, now, loop)
            self.core.stirred(self.key, now, loop)
        self.core.tidy(self, now)

    def _left(self, home: Home, loop: Any) -> None:
        """One less waits at `home`."""
        home.waiters -= 1
        if not home.waiters:
            self.homes.pop(home.loop, None)
            if home.loop is loop:
                home.arm(None)
            else:
                home.soon(home.arm, None)

    def _out(self, place: Place) -> None:
        self.line.left()
        self.core.forget(self.key, place)
        for slots in place.slots:
            slots.blocked.pop(self, None)
        self.forecast.went()

    def bury(self, now: int, loop: Any) -> None:
        """Waiters of loops that were closed under them count as cancelled."""
        for home in [home for home in self.homes.values() if home.dead()]:
            del self.homes[home.loop]
            for place in list(self.line):
                if place.home is home:
                    place.outcome = _CLOSED
                    self._out(place)
            self.step(now, loop)

    # ── serving the line ──────────────────────────────────────────────────────────────────────────────────────────

    def ring(self, loop: Any) -> None:
        """A home's bell: takes the lock, reads the clock, serves the line."""
        with self.core as now:
            self.turns -= self.turns > 0
            self.step(now, loop)
            self.core.tidy(self, now)

    def step(self, now: int, loop: Any) -> None:
        """Grant whose turn has come, refuse whose time is up, set the bells for the next."""
        self._serve(now, loop)
        due = self.due
        if self._deadlines:
            soonest = self._soonest()
            if due is None or soonest < due:
                due = None if soonest == _NEVER else soonest
        for home in tuple(self.homes.values()):
            if home.loop is loop:
                home.arm(due)
            elif due is not None and (home.due is None or due < home.due):
                home.soon(home.ring)

    def _serve(self, now: int, loop: Any) -> None:
        promised = self.due
        for _ in range(_AT_ONCE - self._hand_out(now, loop)):
            head = self.line.head()
            if head is None:
                self._empty()
                return
            self.due = self.ready(head, now)
            if self.due is not None and self.due <= now:
                if head.crowded and self.turns:
                    return
                if head.deadline is not None and self._too_late(head, now, promised):
                    self._refuse(head, WaitTooLong(0.0, self.key), loop)
                else:
                    self._granted(head, now, promised, loop)
            elif not self._expire(now, loop):
                if self.due is None:
                    self.core.forget(self.key, head)
                elif self.due != head.at:
                    head.at = self.due
                    if self.core.combines:
                        self.core.plan(self.key, head)
                return
        self.due = now  # the loop has other work, too: go on in its next turn

    def _hand_out(self, now: int, loop: Any) -> int:
        """Grant to those at the head who are of this loop and have no wishes, if nothing but the rule holds them back;
        to how many."""
        home = self.homes.get(loop)
        if home is None or len(self.homes) > 1 or self.learner is not None or self.way_back is not None:
            return 0
        if self.guests or self.forecast.look is not None or max(self.paused_until, self.core.paused_until) > now:
            return 0
        count = self.core.hand_out(self, now, _AT_ONCE)
        if count:
            self.line.live -= count
            home.waiters -= count - 1
            self._left(home, loop)
        return count

    def _empty(self) -> None:
        self.due = None
        self.forecast.drop()
        if self._queued:
            self._queued, self.slotted, self._patience = False, False, _NEVER
            self.guests.tell()

    def _granted(self, head: Place, now: int, promised: int | None, loop: Any) -> None:
        """Grant to the head."""
        foreseen = self.forecast.look is not None and self.forecast.granted(self, now, promised)
        self._grant(head, now)
        if foreseen:
            self.forecast.as_forecast(self)
        self.line.left()
        if self.core.combines:
            self.core.forget(self.key, head)
        self._tell(head, loop)

    def _too_late(self, place: Place, now: int, promised: int | None) -> bool:
        """Whether its permit was not due in time (a bell that rings a little late takes nobody's permit away)."""
        at = place.deadline
        if at is None or at >= now:
            return False
        return promised is None or self.core.earliest(self.key, at, place.cost, None) > at

    def _soonest(self) -> int:
        """The first deadline of anybody in line."""
        deadlines = self._deadlines
        if len(deadlines) > 64 and len(deadlines) > 4 * self.line.live:
            deadlines[:] = [entry for entry in deadlines if entry[2].outcome is None]
            heapq.heapify(deadlines)
        while deadlines and deadlines[0][2].outcome is not None:
            heapq.heappop(deadlines)
        return deadlines[0][0] if deadlines else _NEVER

    def _expire(self, now: int, loop: Any) -> bool:
        """Refuse one whose `max_wait` is over."""
        if not self._deadlines or self._soonest() > now:
            return False
        place = heapq.heappop(self._deadlines)[2]
        if self.due is None:  # nobody knows how long it will take
            due = self.core.look(self.key, max(now, self.held_until())).earliest(place.cost)
        else:
            due = self.forecast.before(self, now, place.rank).earliest(place.cost)
        self._refuse(place, WaitTooLong(self.core.wait(now, due), self.key), loop)
        return True

    def recheck(self, now: int, loop: Any) -> None:
        """Something has become later: refuse at once those who can no longer be served in time."""
        pause = self.patience_until() - now
        if pause > self._patience:
            for place in list(self.line):
                if place.patience is not None and pause > place.patience:
                    self._refuse(place, RetryAfterTooLong(seconds(pause), self.key), loop)
        soonest = self._soonest()
        if soonest == _NEVER or self.forecast.in_time(self, now, soonest):
            return  # even the last is served before the first deadline
        look = self.core.look(self.key, max(now, self.held_until()))
        for place in list(self.line):
            due = look.earliest(place.cost)
            if place.deadline is not None and due > place.deadline:
                self._refuse(place, WaitTooLong(self.core.wait(now, due), self.key), loop)
            else:
                look.book(place.cost)

    def refuse_larger(self, loop: Any) -> None:
        """The rule has changed: refuse those who can never be granted any more."""
        for place in list(self.line):
            try:
                self.core.check(place.cost, self.key)
            except CostExceedsBurst as error:
                self._refuse(place, error, loop)

    def _grant(self, place: Place, now: int) -> None:
        place.at = now
        hold = self.core.take(self.key, now, place.cost, held=place.holding)
        place.outcome = GRANTED
        if place.crowded:
            self.turns = _APART
        for slots in place.slots:
            slots.used += 1
        if place.holding:
            place.hold, place.sent = hold, now
            self.flights += 1
            if self.learner is not None:
                place.probe, place.flight = self.learner, self.learner.sent(now, place.cost, lands=True)
            elif self.way_back is not None:
                place.probe = self.way_back
                self.way_back.flying += 1

    def _refuse(self, place: Place, error: ThrottleError, loop: Any) -> None:
        place.outcome = error
        self._out(place)
        self._tell(place, loop)

    def _tell(self, place: Place, loop: Any) -> None:
        home = place.home
        if home.loop is loop:
            home.wake(place)
        else:
            home.soon(home.wake, place)
        self._left(home, loop)

    # ── what happens to permits that are out, and what the server says ────────────────────────────────────────────

    def landed(self, place: Place, now: int, loop: Any, *, answered: bool = False) -> None:
        """The work of a granted `place` has ended; `answered`: the server did not refuse it."""
        if place.holding:
            self.flights -= 1
        if answered and place.sent > self.reacted_at:
            self.answered()
        self.turns = min(self.turns, _CLEAR)
        for slots in place.slots:
            slots.used -= 1
        back = place.probe
        if place.flight is not None:
            contended = len(self.line) > 0
            back.landed(place.flight._replace(sent=place.sent), now, answered=answered, contended=contended)
        elif back is not None:
            back.flying -= 1
            back.width += answered
            if answered and back is self.way_back and back.width > back.flying + len(self.line):  # type: ignore[union-attr]
                self.way_back = None  # nobody is held back any more
        if self.core.holds and self.forecast.slipped(self):  # the window starts only now
            self.recheck(now, loop)
        for slots in place.slots:
            self._hand_over(slots, now, loop)
        self.step(now, loop)
        self.core.tidy(self, now)

    def aside(self, place: Place, now: int) -> None:
        """The work of a granted `place` waits for other work here: it is no probe, and no request, that others wait
        for."""
        back, place.probe = place.probe, None
        if place.flight is not None:
            back.landed(place.flight, now, answered=False, contended=True)
            place.flight = None
        elif back is not None:
            back.flying -= 1

    @staticmethod
    def _hand_over(slots: Slots, now: int, loop: Any) -> None:
        for gate in list(slots.blocked):
            if slots.used >= slots.limit:
                break
            slots.blocked.pop(gate, None)
            gate.step(now, loop)

    def pause(self, until: int, now: int, loop: Any, jitter: int = 0) -> None:
        """Hold everybody back, and for `jitter` more; a later end wins."""
        if until > self.told_until:
            self.told_until, self.paused_until = until, max(self.paused_until, until + jitter)
            self.core.stirred(self.key, now, loop)

    def refused(self, taken: int, wait: int | None, now: int, loop: Any) -> bool:
        """The server refused a request sent at `taken` and asks for `wait` ticks; whether that was news.

        Refusals of requests sent before the last reaction bring no news: a flight of a hundred is one reaction.
        """
        news = taken > self.reacted_at
        if news:
            self.refusals += 1
            self.reacted_at = now
            self.way_back = WayBack()
            if not wait:
                self.pause(now + silence_of(self.refusals, self.core.random), now, loop)
        if wait:
            self.pause(now + wait, now, loop, jitter_of(wait, self.core.random))
        return news

    def spent(self, wait: int, now: int, loop: Any) -> None:
        """The server let this one pass and says that nothing is left for `wait` ticks."""
        if now + wait > self.told_until:
            self.way_back = WayBack()
            self.pause(now + wait, now, loop, jitter_of(wait, self.core.random))

    def expect_less(self) -> None:
        """What is spent comes back in time by our own count, but perhaps less of it: begin with a probe."""
        if self.way_back is None:
            self.way_back = WayBack()

    def answered(self) -> None:
        """The server let one pass."""
        self.refusals = 0

    def others_try(self) -> bool:
        """Whether a probe that was refused leaves the next to another in line."""
        return others_try(self.refusals if self.learner is None else self.learner.row)

    def renew(self) -> None:
        """Forget what the server said."""
        self.paused_until, self.told_until, self.refusals, self.way_back = 0, 0, 0, None
        self.learner = self.core.learner()

    def stir(self) -> None:
        """Somebody may pass now who could not: have each loop look again."""
        for home in self.homes.values():
            home.soon(home.ring)

    def shaken(self, now: int, loop: Any) -> None:
        """Counts, rule or pause were changed from outside: look again at everybody."""
        self.forecast.drop()
        self.guests.doubt()
        self.recheck(now, loop)
        self.step(now, loop)
        self.guests.tell()

    def overtaken(self, now: int) -> None:
        """A combined line took from the same counts."""
        self.forecast.drop()
        self.recheck(now, None)
