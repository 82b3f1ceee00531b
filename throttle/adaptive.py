"""`Learner`: the controller that finds a limit which nobody published; a pure machine driven by what happens.

It is told when a request is sent, what a refusal or an answer said, and when the request has landed; it answers when
the next may be sent (`earliest`) and whether that hangs on an answer (`full`). Instants are ticks, rates permits per
tick.

- It starts slowly: one request, more with each answer.
- Where answers carry a quota, it spends what is left, less what is under way, until the reset (see `ledger`).
- Where they do not, the first refusal tells that nothing is left. Probes after ever longer silences find when something
  comes back; from then on it sends at a pace. What passes between two moments at which nothing was left is what the
  server allows, whether it counts by bucket or by window: so each refusal is also a measurement. In between the pace
  creeps up.
- Refusals of requests sent before the last reaction bring no news: a flight of a hundred is one reaction.
- Where more at once only take longer, it sends no more at once (see `width`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .ledger import JITTER, MOST_JITTER, Flight, Ledger
from .rates import TICKS, Rate
from .width import Width

if TYPE_CHECKING:
    from .hints import Hints, Quota

__all__ = ["Learner"]

_FIRST_SILENCE = TICKS // 50  # after a refusal that names no time: 20 ms, then longer
_UNSERVED = TICKS // 10  # the same where nothing has ever passed: equal jitter of this, doubled each time
_LONG_SILENCE = TICKS // 2  # from here on silences grow more slowly
_LONGEST_SILENCE = 30 * TICKS
_PATIENT = TICKS  # a refusal after a silence of this length is the call's; before it, it is the price of the search
_FEW = 4  # permits that tell a limit that has changed
_SOME = 8  # permits that make a measurement
_MANY = 20  # permits that make it a good one
_RESERVE = 0.98  # the share of what was measured that is used
_REMEMBERED = 60 * TICKS  # an idle key is forgotten after this
_QUOTAS = 16  # no server has more


class Learner:
    """What is known of one key's limit. `initial`, `minimum` and `maximum` in permits per tick."""

    __slots__ = (
        "_burst", "_emptied", "_free", "_guessed", "_last", "_ledgers", "_passed", "_rate", "_refill", "_return",
        "_seen", "_span", "index", "maximum", "minimum", "named", "next_at", "opened", "random", "reacted_at", "row",
        "served", "silence", "slack", "until", "width",
    )  # fmt: skip

    def __init__(
        self,
        random: Callable[[], float],
        *,
        initial: float | None = None,
        minimum: float = 0.0,
        maximum: float | None = None,
    ) -> None:
        self.random: Callable[[], float] = random
        self.minimum: float = minimum
        self.maximum: float | None = maximum
        self.width: Width = Width()
        self.index: float = 0.0  # the cost of everything sent so far
        self.until: int = 0  # nobody is sent before
        self.next_at: int = 0  # the pace lets the next one go
        self.slack: int = 0  # what the pace may be late and catch up
        self.reacted_at: int = -1  # the last reaction to a refusal
        self.row: int = 0  # refusals in a row
        self.silence: int = 0  # how long the last of them was followed by
        self.named: bool = False  # the server has named that time
        self.served: bool = False  # something has passed: the server is alive, and refuses for a limit
        self.opened: int = -1  # something was left again from then on ...
        self._passed = 0.0  # ... and so much has passed since
        self._emptied = -1  # nothing was left ...
        self._refill = 0.0  # ... and so much has passed since
        self._free = 0.0  # what may go without a pace after a pause that the server has named
        self._rate: float | None = self._clamped(initial)
        self._burst = 0.0  # so much passed at once in the smallest of those cycles
        self._return = 0  # it took so long until something came back
        self._guessed = False  # the pace is only what passed on average
        self._seen = 0.0  # so much has passed in the last times that were measured ...
        self._span = 0  # ... in so many ticks
        self._last = 0
        self._ledgers: dict[str | None, Ledger] = {}

    # ── who may go ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def rate(self) -> float | None:
        """Permits per tick of the pace; None while there is none."""
        return self._rate

    def learned(self) -> Rate | None:
        """The limit as far as it is known: the tightest quota that the server tells, else the pace found."""
        told = [one for one in self._ledgers.values() if one.limit and one.window]
        if told and self._rate is None:
            tightest = min(told, key=lambda one: (one.limit or 0.0) / (one.window or 1))
            return Rate(tightest.limit or 0.0, (tightest.window or 0) / TICKS)
        return None if self._rate is None else Rate(self._rate * TICKS)

    def held_until(self) -> int:
        """The tick up to which nobody is sent whatever it costs: after a refusal, and where a quota is spent."""
        held = self.until
        for ledger in self._ledgers.values():
            held = max(held, ledger.held_until(self.index))
        return held

    def full(self) -> bool:
        """Whether the next has to wait for an answer."""
        if self.width.full():
            return True
        flying = self.width.cost
        return any(ledger.doubtful(self.index, flying) for ledger in self._ledgers.values())

    def earliest(self, now: int, cost: float) -> int:
        """The tick from which `cost` may be sent, as far as time decides."""
        due = max(now, self.until)
        if cost and self._ledgers:
            flying = self.width.cost
            for ledger in self._ledgers.values():
                due = max(due, ledger.earliest(now, self.index, flying, cost))
        if self._rate is not None and self._free < cost:
            due = max(due, self.next_at)
        return due

    def forgotten(self, now: int) -> bool:
        """Whether nothing of this is worth remembering any more."""
        return not self.width.flying and max(self._last, self.until) + _REMEMBERED <= now

    # ── what happens ──────────────────────────────────────────────────────────────────────────────────────────────

    def sent(self, now: int, cost: float, *, lands: bool) -> Flight:
        """`cost` is sent; `lands`: its end will be told."""
        if self.opened < 0:
            self.opened = now
        self._last = now
        self.index += cost
        asks = [ledger for ledger in self._ledgers.values() if ledger.sent(self.index)] if self._ledgers else ()
        if asks:
            self.width.narrow()
        if lands:
            self.width.sent(cost)
        if self._free >= cost:
            self._free -= cost
        elif self._rate is not None and cost:
            gap = cost / self._rate
            self._creep(now, gap)
            self.next_at = round(max(self.next_at, now - self.slack) + cost / self._rate)
        return Flight(now, self.index, cost)

    def charge(self, cost: float) -> None:
        """What was sent has cost so much more; negative: less, or it was not sent after all."""
        self.index += cost
        if self._rate is not None:
            self.next_at += round(cost / self._rate)

    def remaining(self, now: int, plenty: int) -> int:
        """Permits that may be sent now, as far as that is known."""
        if self.earliest(now, 1) > now:
            return 0
        left = [plenty, *(int(one.credit - self.index) for one in self._ledgers.values() if one.credit is not None)]
        return max(1, min(left))

    def heard(self, hints: Hints, flight: Flight, now: int) -> bool:
        """What the answer to a request says; whether a refusal counts as an attempt."""
        if hints.refused and flight.sent > self.reacted_at:
            for ledger in self._ledgers.values():
                ledger.refused()
        retry_after = None if hints.refused else hints.retry_after
        for quota in hints.quotas:
            self._ledger(quota).heard(quota, flight, now, self.index, self.width.cost, retry_after)
        wait = 0 if not hints.wait else round(hints.wait * TICKS)
        if hints.refused:
            return self._refused(flight.sent, now, wait)
        if wait and not any(quota.remaining is not None and quota.remaining < 1 for quota in hints.quotas):
            self._hold(now, wait)
        return True

    def landed(self, flight: Flight, now: int, *, answered: bool, contended: bool) -> None:
        """A request's work has ended; `answered`: the server let it pass. `contended`: others wait to be sent."""
        sent, _, cost = flight
        self._last = now
        if not answered:
            self.width.landed(cost)
            return
        self.served = True
        for ledger in self._ledgers.values():
            ledger.passed(now, cost)
        if sent > self.reacted_at and self.row:
            self._reopened(sent)
        self._passed += cost
        if sent > self.reacted_at:
            self._refill += cost
        self.width.answered(cost, sent, now, contended=contended, told=bool(self._ledgers))

    # ── refusals ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _refused(self, sent: int, now: int, wait: int) -> bool:
        if sent <= self.reacted_at:
            if wait:
                self.until = max(self.until, now + wait)
            return False
        counts = not self.served or wait > 0 or (self.row > 0 and self.silence >= _PATIENT)
        if self.row == 0:
            self._closed(sent)
        elif self._rate is not None and not self.named:
            self._rate = self._clamped(self._rate * 0.8)
        self.row += 1
        self.reacted_at = now
        self.named = wait > 0
        self.width.narrow()
        if wait:
            self._hold(now, wait)
        else:
            self._be_silent(now)
        return counts

    def _closed(self, at: int) -> None:
        """Nothing is left at `at`: what has passed since that was so last is what came back in between."""
        if self._rate is not None:
            measured = self._measured(at)
            least = 0.0 if self._guessed else self._rate * (0.5 if self._seen >= _SOME else 0.85)
            self._rate = self._clamped(min(self._rate * 0.95, max(_RESERVE * measured, least)))
            self._guessed = False
        self._emptied, self._refill = at, 0.0

    def _measured(self, at: int) -> float:
        """Permits per tick that came back, at least: over the last times, unless this time tells of another limit."""
        passed, ticks = max(self._refill, 0.5), max(at - max(self._emptied, 0), 1)
        if self._emptied < 0:
            ticks = max(at - self.opened, 1)
        if self.named:  # a full bucket may have come on top, and what has overflown in the pause is not seen
            paced = self._passed - self._burst
            self._seen = max(0.0, paced)
            return max(passed / ticks, paced / max(at - self.opened, TICKS // 100))
        known = self._seen / max(self._span, 1)
        if self._guessed or (passed >= _FEW and not 0.7 <= passed / ticks / max(known, 1e-15) <= 1.5):
            self._seen, self._span = passed, ticks
        else:
            if passed / ticks < 0.8 * known:  # less than before: chance, or a lower limit
                self._seen, self._span = self._seen / 2, self._span // 2
            self._seen, self._span = self._seen + passed, self._span + ticks
        if self._seen > 2 * _MANY:
            self._seen, self._span = self._seen / 2, self._span // 2
        measured = self._seen / self._span
        if self._passed >= _MANY:  # the pace was right for long; a long silence before it says nothing against it
            measured = max(measured, 0.75 * self._passed / max(at - self.opened, 1))
        return measured

    def _be_silent(self, now: int) -> None:
        gap = 0 if self._rate is None else round(1 / self._rate)
        if not self.served:  # it may be down, or not for us: nobody is in a hurry
            most = min(_LONGEST_SILENCE, _UNSERVED * 2 ** min(self.row, 16))
            self.silence = round(most / 2 * (1 + self.random()))
            self.until = max(self.until, now + self.silence)
            return
        if self.row == 1:
            silence = max(_FIRST_SILENCE if not gap else 0, gap, self._return // 16)
        else:
            silence = self.silence * 3 if self.silence < _LONG_SILENCE else self.silence * 3 // 2
        self.silence = min(silence, _LONGEST_SILENCE)
        self.until = max(self.until, now + round(self.silence * (1 + self.random() / 10)))

    def _hold(self, now: int, wait: int) -> None:
        self.silence = wait
        jitter = self.random() * min(wait / JITTER, MOST_JITTER)
        self.until = max(self.until, now + wait + round(jitter))

    def _reopened(self, at: int) -> None:
        """The first request passes after refusals: something has come back by `at`."""
        if self.row > 1 and self._passed and not self.named:
            self._return = at - self._emptied
        came_back = at if self.named else (at + self.reacted_at) // 2  # somewhere between the last two requests
        average = self._passed / max(came_back - self.opened, 1)
        if not self._passed:
            pass  # it has only begun: nothing was learned yet
        elif self._rate is None:
            if not self._ledgers:
                self._rate = self._clamped(max(average, 1 / max(at - self._emptied, 1)))
                self._guessed = True
                self._seen, self._span = (0.0, 0) if self.named else (self._passed, at - self.opened)
                self.slack = round(min(self._passed, 2.0) * TICKS / 100) if self._passed > 2 else 0
        elif self.row > 1:
            self._rate = self._clamped(max(self._rate, min(average, self._rate * 2)))
        if self.named:
            self._burst = min(self._passed, self._burst) if self._burst else self._passed
            self._free = self._burst * 0.8 - 1
        self.row = 0
        self.opened, self._passed = at, 0.0

    # ── the pace ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _creep(self, now: int, gap: float) -> None:
        """Try a little more, the faster the less is known; only while the pace is what holds back."""
        assert self._rate is not None
        if now - self.next_at > 2 * gap:
            return
        growth = 0.03 if self._seen >= _MANY else 0.3 if self._seen >= _SOME else 1.0
        if self.named and self._seen >= _MANY:
            growth = 0.02  # a refusal costs a whole pause
        elif not self.named:
            growth += 0.05 * (min(now - self.reacted_at, 10 * TICKS) / TICKS) ** 2
        self._rate = self._clamped(self._rate * (1 + growth * min(gap, TICKS) / TICKS))

    def _clamped(self, rate: float | None) -> float | None:
        if rate is None:
            return None
        if self.maximum is not None:
            rate = min(rate, self.maximum)
        return max(rate, self.minimum, 1e-15)

    def _ledger(self, quota: Quota) -> Ledger:
        ledger = self._ledgers.get(quota.name)
        if ledger is None:
            if len(self._ledgers) >= _QUOTAS:
                del self._ledgers[next(iter(self._ledgers))]
            ledger = self._ledgers[quota.name] = Ledger(self.random)
        return ledger
