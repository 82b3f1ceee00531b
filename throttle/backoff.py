"""How long to wait before trying again: the three published jitters and the plain ones, as endless seconds.

    e(n) = min(cap, base * factor**n), n counted from `start`

Formulas after Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015) and its simulator. Each
class is also a `tenacity.wait.wait_base`: `tenacity.retry(wait=FullJitter())` works, and waits of both add up freely.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import count, repeat
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tenacity import Future, RetryCallState
from tenacity.retry import retry_base
from tenacity.wait import wait_base

from .rates import check_number

if TYPE_CHECKING:
    from random import Random

__all__ = [
    "Backoff",
    "Constant",
    "DecorrelatedJitter",
    "EqualJitter",
    "Exponential",
    "FullJitter",
    "predicate",
    "tell_state",
]

_FAR = 10**300  # an exponent that still fits a float


@runtime_checkable
class Backoff(Protocol):
    """A sequence of delays. Its `bound(number)`, if it has one, limits the jitter put on top of a server's own wait."""

    def delays(self, rng: Random | None = None) -> Iterator[float]:
        """Endless seconds to wait before the first retry, the second, ...; a new iterator for each call."""
        ...


def _grown(base: float, cap: float, factor: float, n: int) -> float:
    try:
        return min(cap, base * factor ** min(n, _FAR))
    except OverflowError:
        return cap


def _check(backoff: Any) -> None:
    """Keep every number of a frozen backoff as a float, checked: seconds above zero, a factor of at least 1."""
    name = type(backoff).__name__
    for field in fields(backoff):
        value = getattr(backoff, field.name)
        if field.name == "start":
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"start of {name} must be a whole number of at least 0, not {value!r}")
            continue
        least, above = (1.0, False) if field.name == "factor" else (0.0, field.name != "seconds")
        checked = float(check_number(f"{field.name} of {name}", value, least=least, above=above))
        object.__setattr__(backoff, field.name, checked)


class _Waits(wait_base):
    """What all share: a retry state of tenacity has the number of the attempt that failed, from 1."""

    @abstractmethod
    def bound(self, number: int) -> float:
        """The longest that the delay before retry `number` (from 1) can be, in seconds."""

    @abstractmethod
    def _draw(self, bound: float, rng: Any) -> float:
        """One delay, given its bound."""

    def __call__(self, retry_state: RetryCallState) -> float:
        """The delay for tenacity, in seconds; nothing is kept between calls."""
        return self._draw(self.bound(retry_state.attempt_number), random)


@dataclass(frozen=True)
class _Growing(_Waits):
    base: float = 0.5
    cap: float = 30.0
    factor: float = 2.0
    start: int = 1

    def __post_init__(self) -> None:
        _check(self)

    def bound(self, number: int) -> float:
        """e(n) for retry `number` (from 1), in seconds; never overflows."""
        return _grown(self.base, self.cap, self.factor, self.start + number - 1)

    def delays(self, rng: Random | None = None) -> Iterator[float]:
        """Endless seconds; a new iterator for each call. Chance comes from `rng`, by default the module `random`."""
        return (self._draw(self.bound(number), rng or random) for number in count(1))


@dataclass(frozen=True)
class FullJitter(_Growing):
    """Waits U(0, e(n)): the least total work, and a delay of almost nothing is possible. The default of `Retry`.

    `base` and `cap` in seconds, above 0; `factor` of at least 1; `start` is the n of the first retry. Raises
    `ValueError` for other numbers, `TypeError` for what is no number. Source: Brooker 2015, "full jitter".

    >>> from random import Random
    >>> delays = FullJitter(base=1, cap=8).delays(Random(1))
    >>> [round(next(delays), 2) for _ in range(4)]
    [0.27, 3.39, 6.11, 2.04]
    """

    def _draw(self, bound: float, rng: Any) -> float:
        return float(rng.uniform(0.0, bound))


@dataclass(frozen=True)
class EqualJitter(_Growing):
    """Waits e(n)/2 + U(0, e(n)/2): never less than half.

    `base` and `cap` in seconds, above 0; `factor` of at least 1; `start` is the n of the first retry. Raises
    `ValueError` for other numbers, `TypeError` for what is no number. Source: Brooker 2015, "equal jitter".

    >>> delays = EqualJitter(base=1, cap=4, start=2).delays()
    >>> all(2 <= next(delays) <= 4 for _ in range(100))
    True
    """

    def _draw(self, bound: float, rng: Any) -> float:
        half = bound / 2
        return half + float(rng.uniform(0.0, half))


@dataclass(frozen=True)
class Exponential(_Growing):
    """Waits e(n) without chance: for one client alone; many of them would come back together.

    `base` and `cap` in seconds, above 0; `factor` of at least 1; `start` is the n of the first retry. Raises
    `ValueError` for other numbers, `TypeError` for what is no number.

    >>> from itertools import islice
    >>> list(islice(Exponential(base=1, cap=10).delays(), 5))
    [2.0, 4.0, 8.0, 10.0, 10.0]
    """

    def _draw(self, bound: float, rng: Any) -> float:
        return bound


@dataclass(frozen=True)
class DecorrelatedJitter(_Waits):
    """Waits s = min(cap, U(base, factor * s)), s starting from `base`: grows from the last wait, not from a count.

    `base` and `cap` in seconds, above 0; `factor` of at least 1. Raises `ValueError` for other numbers, `TypeError` for
    what is no number. Source: Brooker 2015, "decorrelated jitter".

    >>> from random import Random
    >>> delays = DecorrelatedJitter(base=1, cap=10).delays(Random(1))
    >>> [round(next(delays), 2) for _ in range(4)]
    [1.27, 3.38, 7.98, 6.85]
    """

    base: float = 0.5
    cap: float = 30.0
    factor: float = 3.0

    def __post_init__(self) -> None:
        _check(self)

    def bound(self, number: int) -> float:
        """The longest that the delay before retry `number` (from 1) can be, in seconds; never overflows."""
        return _grown(self.base, self.cap, self.factor, number)

    def _draw(self, bound: float, rng: Any) -> float:
        """The wait after one of `bound` seconds."""
        return min(self.cap, float(rng.uniform(self.base, self.factor * bound)))

    def delays(self, rng: Random | None = None) -> Iterator[float]:
        """Endless seconds; a new iterator for each call. Chance comes from `rng`, by default the module `random`."""
        sleep = self.base
        while True:
            sleep = self._draw(sleep, rng or random)
            yield sleep

    def __call__(self, retry_state: RetryCallState) -> float:
        """The delay for tenacity, in seconds, from the last one as the retry state remembers it."""
        last = retry_state.upcoming_sleep if retry_state.attempt_number > 1 else self.base
        return self._draw(min(self.cap, max(self.base, last)), random)


@dataclass(frozen=True)
class Constant(_Waits):
    """Waits the same number of seconds each time; 0 is allowed. Raises `ValueError` for a negative or infinite one.

    >>> next(Constant(0.25).delays())
    0.25
    """

    seconds: float

    def __post_init__(self) -> None:
        _check(self)

    def bound(self, number: int) -> float:
        """The constant, in seconds."""
        return self.seconds

    def _draw(self, bound: float, rng: Any) -> float:
        return bound

    def delays(self, rng: Random | None = None) -> Iterator[float]:
        """The constant without end."""
        return repeat(self.seconds)


# ── tenacity's own strategies, told what they ask for ─────────────────────────────────────────────────────────────────


def tell_state(
    state: RetryCallState | None, *, number: int, outcome: Any, failed: bool, started: float, now: float
) -> RetryCallState:
    """The retry state of one call, made at its first failure, as tenacity's wait and stop objects read it."""
    if state is None:
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]  # no tenacity loop stands behind it
        state.start_time = started
    state.attempt_number = number
    state.outcome = Future(number)
    if failed:
        state.outcome.set_exception(outcome)
    else:
        state.outcome.set_result(outcome)
    state.outcome_timestamp = now
    return state


def predicate(test: Callable[[Any], object], *, failed: bool) -> Callable[[Any], object]:
    """`test` of an exception (`failed`) or a result; tenacity's `retry_if_*` objects are asked in their own way."""
    if not isinstance(test, retry_base):
        return test

    def ask(outcome: Any) -> object:
        return test(tell_state(None, number=1, outcome=outcome, failed=failed, started=0.0, now=0.0))

    return ask
