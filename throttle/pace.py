"""`Pace`: how fast to send where nothing but refusals tells the limit; a pure machine.

Between two moments at which nothing was left, as much has passed as came back: that is the limit, whether the server
counts by bucket or by window. So each refusal is a measurement, and in between the pace creeps up to find the next.
What came back while the server was full is not seen; then more tells what has passed of late.
Instants are ticks, rates permits per tick.
"""

from __future__ import annotations

from collections import deque

from .rates import TICKS

__all__ = ["Pace"]

_ANY = 3  # permits that are more than chance
_FEW = 5  # permits that tell a pace
_SOME = 8  # permits that make a measurement, and tell a limit that has changed
_MANY = 20  # permits that make it a good one
_CREEPS = (  # from so many permits measured on it grows by so much a second, and at most by so much with each permit
    (_MANY, 0.03, 0.002),
    (_SOME, 0.3, 0.005),
    (_ANY, 2.0, 0.1),
    (0, 2.0, 1.0),
)
_CALM = 12  # permits; if more pass in more than a second, and nothing is refused, the limit has changed
_RESERVE = 0.98  # the share of what was measured that is used
_LEAST = 1e-15  # permits per tick: about one in twelve days; less only where that was given
_LONGEST = 1e30  # ticks: what takes longer is never granted


class Pace:
    """The pace of one key, kept between `minimum` and `maximum`; there is none before something was learned."""

    __slots__ = (
        "_burst", "_emptied", "_free", "_guessed", "_log", "_maximum", "_minimum", "_opened", "_passed", "_refill",
        "_seen", "_slack", "_span", "_store", "next_at", "rate", "returned",
    )  # fmt: skip

    def __init__(self, initial: float | None = None, minimum: float = 0.0, maximum: float | None = None) -> None:
        self._minimum = max(minimum, min([_LEAST, *(rate for rate in (initial, maximum) if rate is not None)]))
        self._maximum = maximum
        self.rate: float | None = None  # permits per tick
        self.next_at: int = -(1 << 62)  # it lets the next one go
        self.returned: int = 0  # it took so long until something came back, when nobody had said how long
        self._slack = 0  # so late it may be and catch up
        self._opened = -1  # something was left again from then on ...
        self._passed = 0.0  # ... and so much has passed since
        self._emptied = -1  # nothing was left ...
        self._refill = 0.0  # ... and so much has passed since
        self._log: deque[tuple[int, float]] = deque(maxlen=2 * _MANY)  # (sent, cost) of the last of it
        self._store = 0.0  # so much more than its pace the server lets pass at once, at most
        self._free = 0.0  # what may go without a pace after a pause that the server has named ...
        self._burst = 0.0  # ... because so much passed at once before it
        self._guessed = False  # the rate is only what passed on average
        self._seen = 0.0  # so much has passed in the last times that were measured ...
        self._span = 0  # ... in so many ticks
        given = maximum if initial is None else initial
        if given is not None:
            self._set(given)
            self._seen, self._span = float(_MANY), self.gap(_MANY)  # as if it had been measured

    def _set(self, rate: float) -> None:
        self.rate = max(rate if self._maximum is None else min(rate, self._maximum), self._minimum)

    def gap(self, cost: float) -> int:
        """How many ticks `cost` takes at this pace; 0 without one."""
        return 0 if self.rate is None else round(max(-_LONGEST, min(cost / self.rate, _LONGEST)))

    # ── sending ───────────────────────────────────────────────────────────────────────────────────────────────────

    def earliest(self, now: int, cost: float) -> int:
        """The tick from which `cost` may be sent."""
        return now if self.rate is None or self._free >= cost else max(now, self.next_at)

    def sent(self, now: int, cost: float, calm: int, *, named: bool) -> None:
        """`cost` is sent; the last refusal is `calm` ticks ago, and `named` how long to wait."""
        if self._opened < 0:
            self._opened = now
        if self._free >= cost:
            self._free -= cost
        elif self.rate is not None and cost:
            self._creep(now, calm, self.gap(cost), named=named)
            self.charge(cost, max(self.next_at, now - self._slack))

    def charge(self, cost: float, since: int | None = None) -> None:
        """`cost` more was sent, at `since`, than was said."""
        if self.rate is not None:
            self.next_at = (self.next_at if since is None else since) + self.gap(cost)

    def _creep(self, now: int, calm: int, gap: int, *, named: bool) -> None:
        """Try a little more, the faster the less is known; only while the pace is what holds back."""
        if self.rate is None or now - self.next_at > 2 * gap:
            return
        growth, most = next((growth, most) for known, growth, most in _CREEPS if self._seen >= known)
        if named and self._seen >= _MANY:
            growth = 0.02  # a refusal costs a whole pause
        growth = min(growth * min(gap, TICKS) / TICKS, most)
        if not named:
            quiet = min(calm / TICKS, 10.0, self._refill / _CALM)
            growth += 0.05 * quiet**4 * min(gap / TICKS, 0.1)
        self._set(self.rate * (1 + growth))

    def idle(self, ticks: int) -> None:
        """Nobody asked for so long: that says nothing about the limit."""
        self._opened += ticks
        if self._emptied >= 0:
            self._emptied += ticks

    # ── measuring ─────────────────────────────────────────────────────────────────────────────────────────────────

    def passed(self, cost: float, sent: int, *, fresh: bool) -> None:
        """The server let `cost` pass; `fresh`: it was sent after the last reaction to a refusal."""
        self._passed += cost
        if fresh:
            self._refill += cost
            self._log.append((sent, cost))

    def closed(self, at: int, *, named: bool) -> None:
        """Nothing is left at `at`; `named`: the last refusal had named how long to wait."""
        if self._emptied < 0:
            self._store = max(0.0, self._passed - 1)
        if self.rate is not None:
            measured = _RESERVE * self._measure(at, named=named)
            least = 0.0 if self._guessed else self.rate * (0.5 if self._seen >= _ANY else 0.7)
            self._set(min(self.rate * 0.95, max(measured, least)))
            self._guessed = False
        self._emptied, self._refill = at, 0.0
        self._log.clear()

    def _measure(self, at: int, *, named: bool) -> float:
        """Permits per tick that came back, at least: over the last times, unless this time tells of another limit."""
        passed, ticks = max(self._refill, 0.5), max(at - (self._opened if self._emptied < 0 else self._emptied), 1)
        if named:  # a full bucket may have come on top, and what has overflown in the pause is not seen
            self._seen = max(0.0, self._passed - self._burst)
            return max(passed / ticks, self._seen / max(at - self._opened, TICKS // 100))
        now, before = max(passed / ticks, self._lately(at)), self._seen / max(self._span, 1)
        if self._guessed or (passed >= _SOME and not 0.7 * before <= now <= 1.5 * before):
            self._seen, self._span = 0.0, 0
        elif passed >= _SOME and now > before:  # what has passed is the least that the server allows
            self._span = round(self._seen / now)
        elif now < 0.8 * before:  # chance, or a lower limit
            self._seen, self._span = self._seen / 2, self._span // 2
        self._seen, self._span = self._seen + passed, self._span + round(passed / now)
        if self._seen > 2 * _MANY:
            self._seen, self._span = self._seen / 2, self._span // 2
        return self._seen / max(self._span, 1)

    def _lately(self, at: int) -> float:
        """Permits per tick that have passed of late, less what the server may have had in store: where that is little,
        what comes back to it while the pace is too slow is lost, and no measure of its limit."""
        rate = 0.0
        if self._passed >= _MANY:  # the pace was right for long; a long silence before it says nothing against it
            rate = 0.75 * self._passed / max(at - self._opened, 1)
        passed, log = -self._store, sorted(self._log, reverse=True)
        for sent, cost in log:
            if passed >= _FEW:
                rate = max(rate, passed / max(log[0][0] - sent, TICKS // 100))
            passed += cost
        return rate

    # ── after refusals ────────────────────────────────────────────────────────────────────────────────────────────

    def slower(self) -> None:
        """Another refusal in a row."""
        if self.rate is not None:
            self._set(self.rate * 0.8)

    def reopened(self, at: int, refused_at: int, row: int, *, named: bool, told: bool) -> None:
        """The first request passes after `row` refusals, the last at `refused_at`: something has come back by `at`.

        `named`: the server had said when. `told`: it says what is left, so that no pace is needed.
        """
        if self._passed:  # else it has only begun, and nothing is learned
            if not named:
                self.returned = at - self._emptied
            came_back = at if named else (at + refused_at) // 2  # somewhere between the last two requests
            average = self._passed / max(came_back - self._opened, 1)
            if self.rate is not None and row > 1:
                self._set(max(self.rate, min(average, self.rate * 2)))
            elif self.rate is None and not told:
                self._set(max(average, 1 / max(at - refused_at, 1)))
                self._guessed = True
                self.next_at = at + self.gap(1)  # a probe that passed is no reason to hurry
                self._seen, self._span = (0.0, 0) if named else (self._passed, at - self._opened)
                self._slack = TICKS // 50 if self._passed > _SOME else 0  # it has a burst: no need to be strict
            if named:
                self._burst = min(self._passed, self._burst) if self._burst else self._passed
                self._free = max(0.0, self._burst * 0.8 - 1)
        self._opened, self._passed = at, 0.0
