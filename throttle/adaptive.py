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

from .accounts import Accounts
from .ledger import Flight
from .pace import Pace
from .rates import TICKS, Rate
from .silence import jitter_of, silence_of
from .width import Width

if TYPE_CHECKING:
    from .hints import Hints

__all__ = ["Learner"]

_FIRST_SILENCE = TICKS // 50  # after a refusal that names no time: 20 ms, then longer
_LONG_SILENCE = TICKS // 2  # from here on silences grow more slowly: the longer, the more of them is lost
_LONGEST_SILENCE = 30 * TICKS
_PATIENT = 2 * TICKS  # a refusal after a silence of this length is the call's; before it, it is the price of the search
_SLOWER = 3  # refusals in a row that say something of the pace; those of later probes only that nothing is left
_REMEMBERED = 60 * TICKS  # an idle key is forgotten after this


class Learner:
    """What is known of one key's limit. `initial`, `minimum` and `maximum` in permits per tick."""

    __slots__ = (
        "_accounts", "_began", "_last", "_named", "_random", "_reacted_at", "_served", "_silence",
        "_told_until", "_until", "pace", "row", "width",
    )  # fmt: skip

    def __init__(
        self,
        random: Callable[[], float],
        *,
        initial: float | None = None,
        minimum: float = 0.0,
        maximum: float | None = None,
    ) -> None:
        self._random = random
        self._accounts = Accounts(random)
        self.pace: Pace = Pace(initial, minimum, maximum)
        self.width: Width = Width()
        self._until = 0  # nobody is sent before ...
        self._told_until = 0  # ... which was said without jitter
        self._reacted_at = -1  # the last reaction to a refusal
        self.row: int = 0  # refusals in a row
        self._silence = 0  # how long the last of them was followed by
        self._named = False  # the server has named that time
        self._served = False  # something has passed: the server is alive, and refuses for a limit
        self._began = 0
        self._last = -1  # something happened

    # ── who may go ────────────────────────────────────────────────────────────────────────────────────────────────

    def learned(self) -> Rate | None:
        """The limit as far as it is known: the tightest quota that the server tells, else the pace found."""
        return self._accounts.tightest() if self.pace.rate is None else Rate(self.pace.rate * TICKS)

    def held_until(self) -> int:
        """The tick up to which nobody is sent whatever it costs: after a refusal, and where a quota is spent."""
        return max(self._until, self._accounts.held_until()) if self._accounts else self._until

    def told_until(self) -> int:
        """The same as the server said it, without jitter."""
        return max(self._told_until, self._accounts.held_until(jitter=False))

    def full(self) -> bool:
        """Whether the next has to wait for an answer."""
        return self._accounts.flying >= int(self.width.limit) or self._accounts.doubtful()

    def earliest(self, now: int, cost: float) -> int:
        """The tick from which `cost` may be sent, as far as time decides."""
        return max(self._until, self._accounts.earliest(now, cost), self.pace.earliest(now, cost))

    def remaining(self, now: int, plenty: int) -> int:
        """Permits that may be sent now, as far as that is known."""
        return 0 if self.earliest(now, 1) > now else max(1, self._accounts.left(plenty))

    def forgotten(self, now: int) -> bool:
        """Whether nothing of this is worth remembering any more."""
        return not self._accounts.flying and max(self._last, self._until) + _REMEMBERED <= now

    # ── what happens ──────────────────────────────────────────────────────────────────────────────────────────────

    def sent(self, now: int, cost: float, *, lands: bool) -> Flight:
        """`cost` is sent; `lands`: its end will be told."""
        idle = now - max(self._last, self._until)
        if self._last < 0:
            self._began = now
        elif idle > TICKS and not self._accounts.flying:
            self.pace.idle(idle)
        self._last = now
        flight, asks = self._accounts.sent(now, cost, lands=lands)
        if asks:
            self.width.narrow()
        self.width.sent(self._accounts.flying, now)
        self.pace.sent(now, cost, now - max(self._reacted_at, self._began), named=self._named)
        return flight

    def begin(self, flying: int) -> None:
        """Begin in the middle: the server is alive, and `flying` under way may use up what is told as left."""
        self._served = True
        self._accounts.charge(max(0, flying), max(0, flying))

    def unheard(self, sent: int, cost: float) -> Flight:
        """A request that was sent at `sent`, before this learner was there."""
        return Flight(sent, self._accounts.index, self._accounts.number, cost)

    def charge(self, cost: float) -> None:
        """What was sent has cost so much more; negative: less, or it was not sent after all."""
        self._accounts.charge(cost)
        self.pace.charge(cost)

    def heard(self, hints: Hints, flight: Flight, now: int) -> bool:
        """What the answer to a request says; whether a refusal counts as an attempt."""
        self._accounts.heard(hints, flight, now, news=flight.sent > self._reacted_at)
        wait = 0 if not hints.wait else round(hints.wait * TICKS)
        if hints.refused:
            return self._refused(flight.sent, now, wait)
        if wait and not any(one.remaining == 0 and (one.reset_after or one.window) for one in hints.quotas):
            self._hold(now, wait)
        return True

    def landed(self, flight: Flight, now: int, *, answered: bool, contended: bool) -> None:
        """A request's work has ended; `answered`: the server let it pass. `contended`: others wait to be sent."""
        self._last = now
        flying = self._accounts.flying
        self._accounts.landed(flight, now, answered=answered)
        if not answered:
            return
        self._served = True
        fresh = flight.sent > self._reacted_at
        told = self._accounts.telling
        if fresh and self.row:
            self.pace.reopened(flight.sent, self._reacted_at, self.row, named=self._named, told=told)
            self.row = 0
        self.pace.passed(flight.cost, flight.sent, fresh=fresh)
        if fresh:  # an older one says nothing of how many may go after the refusal
            self.width.answered(flying, now - flight.sent, now, contended=contended, told=told)

    # ── refusals ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _refused(self, sent: int, now: int, wait: int) -> bool:
        if sent <= self._reacted_at:
            if wait > 0 and now + wait > self._told_until:
                self._hold(now, wait)
            return False
        counts = not self._served or wait > 0 or (self.row > 0 and self._silence >= _PATIENT)
        if self.row == 0:
            self.pace.closed(sent, named=self._named)
        elif not self._named and self.row < _SLOWER:
            self.pace.slower()
        self.row += 1
        self._reacted_at = now
        self._named = wait > 0
        self.width.narrow()
        if wait:
            self._hold(now, wait)
        else:
            self._be_silent(now)
        return counts

    def _hold(self, now: int, wait: int) -> None:
        """The server has named a time: not before it, and not all processes at once after it."""
        self._silence = wait
        self._told_until = max(self._told_until, now + wait)
        self._until = max(self._until, now + wait + jitter_of(wait, self._random))

    def _be_silent(self, now: int) -> None:
        """It has named none: for ever longer while it refuses."""
        gap = self.pace.gap(1)
        if not self._served:  # it may be down, or not for us, or others take it all
            silence = silence_of(self.row, self._random)
        elif self.row == 1:
            silence = max(gap or _FIRST_SILENCE, self.pace.returned // 16)
        else:
            silence = round(self._silence * (3 if self._silence < _LONG_SILENCE else 1.25))
        self._silence = min(silence, _LONGEST_SILENCE)
        jitter = self._random() / 10 if self._served else 0.0
        self._until = max(self._until, now + round(self._silence * (1 + jitter)))
        self._told_until = self._until
