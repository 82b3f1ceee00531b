"""The `Counter` protocol: where counts live. One atomic verb, `book`, that is handed the rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ..algorithms.base import Algorithm
from ..errors import CounterUnavailable
from ..rates import Exact

__all__ = ["Ask", "Booking", "Counter", "Entry", "Outage", "answer", "book_costs"]


class Outage(CounterUnavailable):
    """The store has been there and cannot be reached now: who waits for a permit goes on waiting, and asks again.

    `sent`: whether the question may have been carried out. `waits`: whether those who wait go on.
    """

    def __init__(self, message: str, *, sent: bool = True, waits: bool = True) -> None:
        super().__init__(message)
        self.sent = sent
        self.waits = waits


@dataclass(frozen=True, slots=True)
class Ask:
    """What a limiter asks of the counter for one key.

    - `rule` travels with each ask: the counter knows states, not policy.
    - `costs`: a batch in order of arrival, each booked whole; empty only looks.
    - `within`: the longest wait in ticks that is booked; `None` is any. A cost further away, and all after it, is not
    booked.
    - `ahead`: how long after the first one others are booked, in ticks: those before its instant + `ahead`; `None` is
    any.
    - `give`: permits to give back first (negative: to charge), from a refund or a settled permit.
    - `pause`, `pause_all`: ticks for which nobody of this key, or of any key of this name, is granted; a later end
    wins.
    """

    name: str
    key: str
    rule: Algorithm
    costs: tuple[Exact, ...] = ()
    within: int | None = 0
    give: Exact = 0
    ahead: int | None = None
    pause: int = 0
    pause_all: int = 0


@dataclass(frozen=True, slots=True)
class Booking:
    """The counter's answer; every time in ticks from the instant the counter decided, so that no two clocks are
    compared.

    - `waits`: of each booked cost, in order; shorter than the `costs` asked where one was too far away.
    - `wait`: of the first cost that was not booked, 0 where all were.
    - `remaining` and `reset_after`: after the booking.
    - `paused`: until the last pause of this key ends.
    """

    waits: tuple[int, ...]
    wait: int
    remaining: Exact
    reset_after: int
    paused: int = 0


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


@runtime_checkable
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

    async def clear(self, name: str, key: str | None = None) -> object:
        """Everything that is kept under `name`, or of one `key` of it, as new: counts and pauses."""
        ...

    async def aclose(self) -> None:
        """Let go of what the counter holds open; it opens again by itself when used again."""
        ...


def book_costs(
    asks: Sequence[Ask], rules: Sequence[Algorithm], states: list[Any], now: int, start: int
) -> tuple[tuple[int, ...], int]:
    """Do to `states` (changed in place) what the asks want: give back, then book all costs together from the tick
    `start` on. The waits of the booked ones from `now`, and that of the first that was not.

    What a store does in its own language must equal this.
    """
    if len({len(ask.costs) for ask in asks}) > 1:
        raise ValueError(f"asks of one call have the same costs, not {[ask.costs for ask in asks]}")
    for index, (ask, rule) in enumerate(zip(asks, rules, strict=True)):
        if ask.give > 0:
            states[index] = rule.give(states[index], now, ask.give, None)
        elif ask.give:
            states[index] = rule.book(states[index], now, -ask.give)
    waits: list[int] = []
    at = max(now, start)
    within = min((ask.within for ask in asks if ask.within is not None), default=None)
    ahead = min((ask.ahead for ask in asks if ask.ahead is not None), default=None)
    for costs in zip(*(ask.costs for ask in asks), strict=True):
        at = max(rule.earliest(state, at, cost) for rule, state, cost in zip(rules, states, costs, strict=True))
        wait = at - now
        if (within is not None and wait > within) or (ahead is not None and waits and wait >= waits[0] + ahead):
            return tuple(waits), wait
        for index, cost in enumerate(costs):
            if cost:  # else nothing is taken, whenever that is
                states[index] = rules[index].book(states[index], at, cost)
        waits.append(wait)
    return tuple(waits), 0


def answer(rule: Algorithm, state: Any, now: int, waits: tuple[int, ...], wait: int, paused: int) -> Booking:
    """What a counter answers whose state is `state` after the booking; `paused`: the tick at which a pause ends."""
    return Booking(waits, wait, rule.remaining(state, now), rule.full_at(state, now) - now, max(0, paused - now))
