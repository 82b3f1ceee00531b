"""The `Algorithm` protocol: a rule as a pure machine; (state, now, cost) in, an instant or a new state out.

Time is whole ticks (nanoseconds), permits are exact rationals; no clock is read and nothing is rounded in favour of
the caller. A machine is frozen and shared; the state of one key is a value that only its machine reads. `book` and its
like return the state to keep from now on: the argument changed in place, or another value; the one passed in is not to
be used again. Looking (`earliest`, `exact`, `remaining`, `full_at`) changes nothing. A clock that stands still or goes
back frees nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from ..rates import Exact, Rate

__all__ = ["Algorithm"]


class Algorithm(Protocol):
    """One rule. Monotone: what is granted at an instant is granted at every later one if nothing else happens."""

    kind: ClassVar[str]
    """The name of the rule, as its file is called: `token_bucket`."""

    whole: ClassVar[bool]
    """Whether costs must be whole numbers."""

    @property
    def most(self) -> Exact:
        """The largest cost that can ever be granted."""
        ...

    @property
    def period(self) -> int:
        """Ticks of the rate's own period."""
        ...

    @property
    def holds(self) -> bool:
        """Whether a permit is held while its work runs; such a rule also has `hold`, `end` and `held`."""
        ...

    def initial(self, now: int) -> Any:
        """The state of a key that was never used."""
        ...

    def copy(self, state: Any) -> Any:
        """The same state, free to be booked on for looking ahead."""
        ...

    def earliest(self, state: Any, now: int, cost: Exact) -> int:
        """The first tick >= `now` at which `cost` <= `most` is granted, if nothing else happens; `now` for no cost."""
        ...

    def exact(self, state: Any) -> bool:
        """Whether `earliest` is the instant itself and not only a bound."""
        ...

    def book(self, state: Any, at: int, cost: Exact) -> Any:
        """`cost` taken at `at`, whether or not the rule allows it: what is over delays who comes next."""
        ...

    def give(self, state: Any, now: int, amount: Exact, taken: int | None) -> Any:
        """`amount` of what was taken at `taken` given back at `now`; never makes more than `most` available.

        `None`: nobody knows when it was taken; then it is given so that no limit can be exceeded by it.
        """
        ...

    def remaining(self, state: Any, now: int) -> Exact:
        """Permits that would be granted at `now`, never below 0."""
        ...

    def full_at(self, state: Any, now: int) -> int:
        """The first tick from which the state equals `initial`: it need not be kept then; `now` if it is so already."""
        ...

    def reconfigured(self, rate: Rate, burst: float | None) -> Algorithm:
        """The same rule at another rate; without `burst` the old one stays.

        Raises `ValueError` where `burst` has no meaning.
        """
        ...

    def carry(self, state: Any, now: int, old: Any) -> Any:
        """`state` of the machine `old` in terms of this one: what was used stays used."""
        ...

    def anchored(self, epoch: int) -> Algorithm:
        """The same rule on a clock that read `epoch` ticks at the Unix epoch; only aligned windows care."""
        ...
