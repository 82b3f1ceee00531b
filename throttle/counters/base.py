"""The `Counter` protocol: where counts live. One atomic verb, `book`, that is handed the rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..algorithms.base import Algorithm
from ..rates import Exact

__all__ = ["Ask", "Booking", "Counter", "Entry"]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a limiter asks of the counter for one key.

    - `rule` travels with each ask: the counter knows states, not policy.
    - `costs`: a batch in order of arrival, each booked whole; empty only looks.
    - `within`: the longest wait in ticks that is booked; `None` is any. A cost further away, and all after it, is not
    booked.
    - `give`: permits to give back first (negative: to charge), from a refund or a settled permit.
    """

    name: str
    key: str
    rule: Algorithm
    costs: tuple[Exact, ...] = ()
    within: int | None = 0
    give: Exact = 0


@dataclass(frozen=True, slots=True)
class Booking:
    """The counter's answer; every time in ticks from the instant the counter decided, so that no two clocks are
    compared.

    - `waits`: of each booked cost, in order; shorter than the `costs` asked where one was too far away.
    - `wait`: of the first cost that was not booked, 0 where all were.
    - `remaining` and `reset_after`: after the booking.
    """

    waits: tuple[int, ...]
    wait: int
    remaining: Exact
    reset_after: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What a store keeps of one key, as people want to see it.

    - `kind` and `limit`: the rule by which it was booked last, such as `token_bucket` and `10/s, burst 20`.
    - `remaining`: permits that would be granted now.
    - `reset_after` and `paused_for`: seconds until it is as new, and until its pause ends.
    """

    name: str
    key: str
    kind: str
    limit: str
    remaining: float
    reset_after: float
    paused_for: float = 0.0


class Counter(Protocol):
    """A store of counts. `shared` tells whether other processes book in it, too."""

    @property
    def shared(self) -> bool:
        """Whether other processes see the same counts."""
        ...

    async def book(self, asks: Sequence[Ask]) -> Sequence[Booking]:
        """All asks in one atomic step, answers in their order. Several asks are several limits of one call: each cost
        is booked at the latest of its instants in all of them, or in none. A refusal writes nothing."""
        ...

    async def aclose(self) -> None:
        """Let go of what the counter holds open; it opens again by itself when used again."""
        ...
