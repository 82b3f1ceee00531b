"""`AdaptiveLimiter`: a limiter without a rate of its own; each key's `Learner` finds what its server allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .adaptive import Learner
from .core import Core
from .counters.memory import PROCESS
from .limiter import BaseLimiter
from .rates import TICKS, Exact, Rate, check_number, exact
from .waiting import Place, running

if TYPE_CHECKING:
    from .gate import Gate
    from .hints import Hints

__all__ = ["AdaptiveLimiter"]

_PLENTY = 10**18
_SLOWEST = 1e-200  # permits per tick: where floats still have something to divide by


class _Look:
    """A learner looked at ahead of time: its holds and its pace as they are now."""

    __slots__ = ("at", "learner", "next_at")

    def __init__(self, learner: Learner | None, at: int) -> None:
        self.at: int = at
        self.learner: Learner | None = learner
        self.next_at: int = 0

    def earliest(self, cost: Any) -> int:
        """When `cost` would be granted after all that was booked."""
        if self.learner is None:
            return self.at
        return max(self.at, self.next_at, self.learner.earliest(self.at, cost))

    def book(self, cost: Any) -> None:
        """Go on to that instant, and take."""
        self.at = self.earliest(cost)
        self.next_at = self.at + (0 if self.learner is None else self.learner.pace.gap(cost))


class LearningCore(Core):
    """No rule: what was learned at each gate."""

    learns = True

    def __init__(self, initial: Rate | None, minimum: Rate | None, maximum: Rate | None) -> None:
        super().__init__(PROCESS.guard, None)
        _check_order(minimum, initial, maximum)
        self.initial = initial
        self.minimum = minimum
        self.maximum = maximum
        self._version = 0

    def learner(self) -> Learner:
        minimum = 0.0 if self.minimum is None else _per_tick(self.minimum)
        initial = None if self.initial is None else _per_tick(self.initial)
        maximum = None if self.maximum is None else _per_tick(self.maximum)
        return Learner(self.random, initial=initial, minimum=minimum, maximum=maximum)

    def known(self, key: str) -> Learner | None:
        """The learner of `key`, if there is one."""
        gate = self.gates.get(key)
        return None if gate is None else gate.learner

    # ── what a rule answers ───────────────────────────────────────────────────────────────────────────────────────

    @property
    def holds(self) -> bool:
        return False

    @property
    def period(self) -> int:
        return TICKS

    def cost(self, cost: Any) -> Exact:
        return exact(check_number("cost", cost))

    def free(self, cost: Any) -> bool:
        return not cost

    def check(self, cost: Any, key: str) -> None:
        """Nobody knows what can never be granted."""

    def earliest(self, key: str, now: int, cost: Any, place: Place | None) -> int:
        learner = self.known(key)
        return now if learner is None or not cost else learner.earliest(now, cost)

    def look(self, key: str, at: int) -> _Look:
        return _Look(self.known(key), at)

    def version(self) -> int:
        return self._version

    def take(self, key: str, now: int, cost: Any, *, held: bool) -> None:
        self._version += 1
        paced = self.initial is not None or self.maximum is not None
        learner = self.gate(key, now).learner if paced else self.known(key)
        if learner is not None and not held:  # the others are told to the learner by their gate, which hears their end
            learner.sent(now, cost, lands=False)

    def undo(self, key: str, now: int, cost: Any, taken: int, hold: Any) -> None:
        self.change(key, now, cost, 0, taken, hold)

    def end(self, key: str, now: int, cost: Any, hold: Any) -> None:
        """Nothing is held."""

    def change(self, key: str, now: int, before: Any, after: Any, taken: int | None, hold: Any) -> None:
        self._version += 1
        learner = self.known(key)
        if learner is not None:
            learner.charge(after - before)

    def facts(self, key: str, now: int) -> tuple[Exact, int, bool]:
        learner = self.known(key)
        return (_PLENTY, now, False) if learner is None else (learner.remaining(now, _PLENTY), now, False)

    def news(self, gate: Gate, place: Place, hints: Hints, now: int, loop: Any) -> bool:
        learner = gate.learner
        if learner is None or (place.flight is not None and place.probe is not learner):
            return False  # it was sent before a reset
        flight = place.flight or learner.unheard(place.sent, place.cost)  # it has stepped aside for work inside it
        before = learner.held_until()
        counts = learner.heard(hints, flight._replace(sent=place.sent), now)
        if learner.held_until() != before:
            self.stirred(gate.key, now, loop)
        return counts

    def reconfigure(self, rate: Rate) -> None:
        """Begin again from `rate`, at every key."""
        _check_order(self.minimum, rate, self.maximum)
        loop = running()
        with self as now:
            self.initial = rate
            for gate in self.gates.values():
                gate.learner = self.learner()
            self.stirred(None, now, loop)


class AdaptiveLimiter(BaseLimiter):
    """Learns, per key, a limit that nobody published, from what is observed through permits; in memory only.

    `async with limiter.permit() as permit:` and `permit.observe(hints)`; the shells of this package observe by
    themselves. It starts with one request and sends more with each answer. Where answers tell what is left, that is
    spent; where they do not, a refusal makes it probe for what comes back, and go on at that pace.

    `initial`: a rate to begin with; `minimum`, `maximum`: the pace stays between them; rates or their spellings, each
    may be left out. Raises `ValueError` or `TypeError` for what is no rate, or a minimum above the maximum.

    >>> limiter = AdaptiveLimiter()
    >>> limiter.try_acquire_nowait().allowed
    True
    >>> limiter.learned() is None
    True
    """

    _core: LearningCore

    def __init__(
        self,
        *,
        initial: Rate | str | float | None = None,
        minimum: Rate | str | float | None = None,
        maximum: Rate | str | float | None = None,
    ) -> None:
        rates = [None if rate is None else Rate.of(rate) for rate in (initial, minimum, maximum)]
        self._core = LearningCore(*rates)  # pyright: ignore[reportIncompatibleVariableOverride]

    def __repr__(self) -> str:
        known = {key: self.learned(key) for key in list(self._core.gates)[:5]}
        told = ", ".join(f"{key!r}: {rate.permits:.4g} in {rate.per:.4g} s" for key, rate in known.items() if rate)
        return f"<AdaptiveLimiter {{{told}}}>" if told else "<AdaptiveLimiter>"

    def learned(self, key: str = "") -> Rate | None:
        """The limit of `key` as far as it is known: a quota its server tells, else the pace; None before."""
        with self._core:
            learner = self._core.known(key)
            return None if learner is None else learner.learned()

    def reconfigure(self, rate: Rate | str | float, *, burst: float | None = None) -> None:
        """Forget what was learned and begin again from `rate`, at every key.

        Raises `ValueError` for a rate outside of minimum and maximum, and for a `burst`, which has no meaning.
        """
        if burst is not None:
            raise ValueError(f"an AdaptiveLimiter learns its bursts: burst must be left out, not {burst!r}")
        self._core.reconfigure(Rate.of(rate))


def _check_order(minimum: Rate | None, initial: Rate | None, maximum: Rate | None) -> None:
    least = 0.0
    for name, rate in (("minimum", minimum), ("initial", initial), ("maximum", maximum)):
        if rate is not None:
            if rate.per_second < least:
                raise ValueError(f"minimum <= initial <= maximum must hold, but {name} is {rate!r}")
            least = rate.per_second


def _per_tick(rate: Rate) -> float:
    return max(_SLOWEST, float(rate.per_second) / TICKS)
