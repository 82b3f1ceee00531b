"""`Decision`: a limiter's answer, a value that knows when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from .rates import TICKS, Exact, seconds, ticks_of, wait_of

__all__ = ["Counted", "Counts", "Decision", "decided", "new_decision", "whole_wait"]

_SURE = 1 << 51  # ticks: until then a tick is the one nearest to its own number of seconds, as a float
_FAR = 10**300  # ticks: a float holds them


class Counts(Protocol):
    """What a decision asks of a rule; the state must be a value."""

    def remaining(self, state: Any, now: int) -> Exact:
        """Permits left at `now`."""
        ...

    def full_at(self, state: Any, now: int) -> int:
        """The tick from which the state is as new."""
        ...

    def earliest(self, state: Any, now: int, cost: Any) -> int:
        """The tick from which `cost` is granted."""
        ...


class Decision:
    """What a limiter answers to one ask; true when allowed. All times in seconds from the asking. Frozen.

    >>> refused = Decision(
    ...     allowed=False, remaining=0.0, retry_after=0.25, exact=True, reset_after=1.0, retry_after_whole=1
    ... )
    >>> bool(refused)
    False
    """

    __slots__ = ("_allowed", "_exact", "_facts", "_numbers")
    __match_args__ = ("allowed", "remaining", "retry_after", "exact", "reset_after", "retry_after_whole")

    # Either the numbers, or the facts that each is worked out from when it is asked for: most want only the answer.
    _numbers: tuple[float, float, float, int] | None
    # Time and due are None where a lane decided about one permit: they follow from the rest.
    _facts: tuple[float | None, int, int | None, Counts, Any]

    def __init__(
        self,
        allowed: bool,
        remaining: float,
        retry_after: float,
        exact: bool,
        reset_after: float,
        retry_after_whole: int,
    ) -> None:
        self._allowed = allowed
        self._exact = exact
        self._numbers = (remaining, retry_after, reset_after, retry_after_whole)

    @property
    def allowed(self) -> bool:
        """Whether it may pass."""
        return self._allowed

    @property
    def remaining(self) -> float:
        """Permits left; before the cost for `peek`, after it for the verbs that take."""
        if self._numbers:
            return self._numbers[0]
        _, now, _, rule, state = self._facts
        return float(rule.remaining(state, now))

    @property
    def retry_after(self) -> float:
        """Seconds until it may pass: 0.0 when allowed; else refused one microsecond before, granted at the float
        `now + retry_after` if nothing else happens, unless `exact` is false."""
        if self._numbers:
            return self._numbers[1]
        if self._allowed:
            return 0.0
        time, now, due, rule, state = self._facts
        if due is None or time is None:
            time, due = now / TICKS, rule.earliest(state, now, 1)
        if due < _SURE:
            at = due / TICKS
            if time + (at - time) >= at:
                return at - time  # as `wait_of`, in one go
        return wait_of(time, due)

    @property
    def exact(self) -> bool:
        """Whether `retry_after` is the instant itself and not only a bound."""
        return self._exact

    @property
    def reset_after(self) -> float:
        """Seconds until the limiter is as new."""
        if self._numbers:
            return self._numbers[2]
        _, now, _, rule, state = self._facts
        return seconds(rule.full_at(state, now) - now)

    @property
    def retry_after_whole(self) -> int:
        """The conservative whole number for a header: the least integer n such that a retry n seconds later is
        granted."""
        if self._numbers:
            return self._numbers[3]
        time, now, due, rule, state = self._facts
        if due is None or time is None:
            time, due = now / TICKS, rule.earliest(state, now, 1)
        return 0 if self._allowed else whole_wait(time, now, due)

    def __bool__(self) -> bool:
        return self._allowed

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__)

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, Decision) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        pairs = zip(self.__match_args__, self._values(), strict=True)
        return f"Decision({', '.join(f'{name}={value!r}' for name, value in pairs)})"

    def __reduce__(self) -> tuple[type[Decision], tuple[Any, ...]]:
        return Decision, self._values()


new_decision: Callable[[type[Decision]], Decision] = object.__new__


class Counted(NamedTuple):
    """`Counts` that were looked up already."""

    left: Exact
    full: int

    def remaining(self, state: Any, now: int) -> Exact:
        """What was left."""
        return self.left

    def full_at(self, state: Any, now: int) -> int:
        """The tick that was looked up."""
        return self.full

    def earliest(self, state: Any, now: int, cost: Any) -> int:
        """Was looked up, too: it is among the facts of the decision."""
        raise NotImplementedError


def decided(
    allowed: bool, time: float, now: int, due: int, rule: Counts, state: Any = None, exact: bool = True
) -> Decision:
    """A decision at `now` (which the clock calls `time`): granted at `due`, by a rule whose state is a value."""
    decision = new_decision(Decision)
    decision._allowed = allowed
    decision._exact = exact
    decision._numbers = None
    decision._facts = (time, now, due, rule, state)
    return decision


def whole_wait(time: float, now: int, due: int) -> int:
    """The least whole number of seconds after which `due` has come, for the float sum that a caller would make."""
    due = min(due, _FAR)
    whole = max(0, -((now - due) // TICKS))
    if whole and ticks_of(time + whole - 1) >= due:  # the sum of floats may be a tick off, either way
        return whole - 1
    if ticks_of(time + whole) < due:
        return whole + 1
    return whole
