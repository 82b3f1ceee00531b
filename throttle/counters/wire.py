"""What is sent to the Lua of the Redis counter, what it answers and what it keeps: plain numbers, in microseconds."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from hashlib import sha1
from importlib.resources import files
from itertools import groupby
from typing import Any, NamedTuple

from ..algorithms import FixedWindowRule, SlidingWindowCounterRule, SlidingWindowRule, TokenBucketRule
from ..algorithms.base import Algorithm
from ..algorithms.sliding_window import Log
from ..rates import TICKS, Exact, exact
from .base import Ask, Booking, Entry
from .states import spell

__all__ = ["RESET", "TICK", "Leg", "arguments", "bookings", "entry_of", "legs_of", "script_of"]

TICK = 1000
"""Ticks (nanoseconds) in a microsecond, in which the server counts."""
_ROOM = 2**50  # numbers below it are exact in Lua, and so are their sums


class Leg(NamedTuple):
    """One limit of the script: its kind, its numbers, and what it calls a permit. A two-rate limit has two."""

    kind: str
    suffix: str
    numbers: tuple[int, ...]
    unit: int  # how many it counts for one permit

    def units(self, cost: Exact) -> int:
        """A cost as it counts; never less."""
        return math.ceil(cost * self.unit)

    def back(self, amount: Exact) -> int:
        """An amount to give back as it counts; never more, a charge never less."""
        return math.floor(amount * self.unit)


def legs_of(rule: Algorithm) -> tuple[Leg, ...]:
    """The legs of a rule. Raises `ValueError` where the numbers of a rule are too large to be exact to within 1e-9."""
    known: Any = rule  # every rule is frozen
    legs: tuple[Leg, ...] = _legs_of(known)
    return legs


@lru_cache(maxsize=1000)
def _legs_of(rule: Any) -> tuple[Leg, ...]:
    if rule.kind == "token_bucket":
        return (_bucket(rule, "token_bucket"),)
    if rule.kind == "two_rate":
        return _bucket(rule.committed, "two_rate"), _bucket(rule.peak, "two_rate.peak")
    window = -(-rule.window // TICK)
    if rule.limit * window > 2**53:
        raise ValueError(f"{rule.limit} permits in {rule.window} ns are too many for this counter to be exact")
    if rule.kind == "fixed_window":
        return (Leg("fixed_window", "fixed_window", (rule.limit, window, rule.offset // TICK), 1),)
    return (Leg(rule.kind, rule.kind, (rule.limit, window), 1),)


def _bucket(rule: Any, suffix: str) -> Leg:
    pace = Fraction(rule.permits * TICK) / rule.ticks  # permits in a microsecond
    burst = Fraction(rule.burst)
    most = int(_ROOM // (burst * burst.denominator))
    near = pace.limit_denominator(max(1, most))
    if abs(near - pace) > pace / 10**9:
        raise ValueError(f"burst {float(burst):g} at {float(pace) * 1e6:g}/s is too large for this counter to be exact")
    finer = burst.denominator
    while finer < 1000 * burst.denominator and burst * near.denominator * finer * 10 < _ROOM // 1000:
        finer *= 10  # fractions of a permit, too
    unit = near.denominator * finer
    return Leg("token_bucket", suffix, (near.numerator * finer, unit, int(burst * unit)), unit)


def entry_of(
    name: str, key: str, kind: str, texts: Sequence[str], log: Sequence[str], since: int, now: int
) -> Entry | None:
    """What people want to see of a record, or of the two of a two-rate limit; None where it is as new, or older than
    the reset at `since`."""
    rules: list[Any] = []
    facts: list[tuple[Exact, int]] = []
    for text in texts:
        version, _, *numbers = [int(number) for number in text.split()] or [0, 0]
        if not numbers or version < since:
            return None
        rule, state = _read(kind, numbers, log)
        facts.append((rule.remaining(state, now), rule.full_at(state, now) - now))
        rules.append(_in_ticks(rule))
    paused = max(0, int(texts[0].split()[1]) - now)
    limit = spell(rules[0]) if len(rules) == 1 else f"{spell(rules[0])}, peak {spell(rules[1])}"
    remaining, reset_after = min(fact[0] for fact in facts), max(fact[1] for fact in facts)
    return Entry(name, key, kind, limit, float(remaining), reset_after / 1e6, paused / 1e6)


def _read(kind: str, numbers: list[int], log: Sequence[str]) -> tuple[Any, Any]:
    if kind in ("token_bucket", "two_rate"):
        permits, unit, depth, at, rest = numbers
        return TokenBucketRule(permits, unit, exact(Fraction(depth, unit)), 10**6), at * permits + rest
    if kind == "fixed_window":
        return FixedWindowRule(*numbers[:3]), (numbers[3], numbers[4])
    if kind == "sliding_window_counter":
        return SlidingWindowCounterRule(*numbers[:2]), (numbers[2], numbers[3], numbers[4])
    limit, window, since, used, last, _ = numbers
    pairs = [(int(one.split()[0]), int(one.split()[1])) for one in log] or ([(last, used)] if used else [])
    weights: dict[int, Exact] = {tick: weight for tick, weight in pairs if weight != 1}
    return SlidingWindowRule(limit, window), Log(deque(tick for tick, _ in pairs), since, used, 0, weights)


def _in_ticks(rule: Any) -> Any:
    """The rule as its limiter has it, to be spelled."""
    if rule.kind == "token_bucket":
        return replace(rule, ticks=rule.ticks * TICK, period=TICKS)
    return replace(rule, window=rule.window * TICK)


@lru_cache(maxsize=100)
def script_of(kinds: frozenset[str]) -> tuple[str, str]:
    """The script for limits of these kinds, and its SHA-1."""
    return _script("kinds", *sorted(kinds), "book")


def _script(*names: str) -> tuple[str, str]:
    here = files("throttle.counters")
    text = "".join(here.joinpath(f"{name}.lua").read_text() for name in names)
    return text, sha1(text.encode(), usedforsecurity=False).hexdigest()


RESET = _script("reset")


def arguments(asks: Sequence[Ask], legs: Sequence[tuple[Leg, ...]], floors: Sequence[str]) -> list[str | int]:
    """ARGV of one booking."""
    within = min((ask.within for ask in asks if ask.within is not None), default=None)
    ahead = min((ask.ahead for ask in asks if ask.ahead is not None), default=None)
    groups = [
        (sum(1 for _ in same), costs) for costs, same in groupby(zip(*(ask.costs for ask in asks), strict=True))
    ]
    arguments: list[str | int] = [
        "" if within is None else within // TICK,
        "" if ahead is None else -(-ahead // TICK),
        sum(map(len, legs)),
        len(groups),
    ]
    for count, costs in groups:
        arguments.append(count)
        arguments.extend(leg.units(cost) for cost, its in zip(costs, legs, strict=True) for leg in its)
    floor = iter(floors)
    for ask, its in zip(asks, legs, strict=True):
        for leg in its:
            told = (leg.back(ask.give), -(-ask.pause // TICK), -(-ask.pause_all // TICK))
            arguments += [leg.kind, *leg.numbers, *told, next(floor)]
    return arguments


def bookings(answer: Sequence[Any], legs: Sequence[tuple[Leg, ...]]) -> list[Booking]:
    """The answers to the asks that have these legs."""
    zeros, rest, wait = answer[0], _text(answer[1]), int(answer[2]) * TICK
    waits = (0,) * zeros
    if rest:
        waits += tuple(int(one) * TICK for one in rest.split())
    booked: list[Booking] = []
    place = 3
    for its in legs:
        facts: list[tuple[Exact, int, int]] = []
        for leg in its:
            remaining, reset_after, paused = map(int, _text(answer[place]).split())
            left = remaining if leg.unit == 1 else Fraction(remaining, leg.unit)
            facts.append((left, reset_after * TICK, paused * TICK))
            place += 2
        least, longest, paused = (min(one[0] for one in facts), max(one[1] for one in facts), facts[0][2])
        booked.append(Booking(waits, wait, least, longest, paused))
    return booked


def _text(value: Any) -> str:
    return value if isinstance(value, str) else value.decode()
