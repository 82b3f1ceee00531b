"""Rules and states as text, for a store that outlives the process: exact, and relative to the instant of writing."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import fields
from fractions import Fraction
from functools import lru_cache
from typing import Any

from ..algorithms import FixedWindowRule, SlidingWindowCounterRule, SlidingWindowRule, TokenBucketRule, TwoRateRule
from ..algorithms.sliding_window import Log
from ..rates import TICKS, Exact, seconds

__all__ = ["dump_rule", "dump_state", "load_rule", "load_state", "spell"]

_RULES: dict[str, Any] = {
    rule.kind: rule
    for rule in (FixedWindowRule, SlidingWindowCounterRule, SlidingWindowRule, TokenBucketRule, TwoRateRule)
}


def _plain(number: Exact) -> int | str:
    return number if isinstance(number, int) else str(number)


def _exact(number: int | str) -> Exact:
    return number if isinstance(number, int) else Fraction(number)


@lru_cache(maxsize=1000)
def dump_rule(rule: Any) -> str:
    """A rule as text; equal rules give equal texts.

    >>> text = dump_rule(SlidingWindowRule(limit=100, window=60_000_000_000))
    >>> text
    '["sliding_window", 100, 60000000000, false]'
    >>> load_rule(text)
    SlidingWindowRule(limit=100, window=60000000000, holds=False)
    """
    return json.dumps(_spelled(rule))


def _spelled(rule: Any) -> list[Any]:
    values = [getattr(rule, field.name) for field in fields(rule) if field.init]
    return [rule.kind, *(_spelled(value) if hasattr(value, "kind") else _plain(value) for value in values)]


@lru_cache(maxsize=1000)
def load_rule(text: str) -> Any:
    """The rule of such a text. Raises `ValueError` for any other."""
    try:
        return _read(json.loads(text))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"unreadable rule {text!r}") from error


def _read(values: list[Any]) -> Any:
    kind, *rest = values
    return _RULES[kind](*map(_field, rest))


def _field(value: Any) -> Any:
    return _read(value) if value.__class__ is list else _exact(value)


def dump_state(rule: Any, state: Any, at: int) -> str:
    """A state as text, its instants counted from the tick `at`: read with another `at`, it is moved in time.

    >>> rule = FixedWindowRule(limit=5, window=60)
    >>> dump_state(rule, (120, 3), 130)
    '[-10, 3]'
    >>> load_state(rule, '[-10, 3]', 1000)
    (990, 3)
    """
    return json.dumps(_parts(rule, state, at))


def _parts(rule: Any, state: Any, at: int) -> list[Any]:
    if rule.kind == "token_bucket":  # counted in units of 1/permits tick
        return [_plain(state - at * rule.permits)]
    if rule.kind == "two_rate":
        return _parts(rule.committed, state[0], at) + _parts(rule.peak, state[1], at)
    if rule.kind == "sliding_window":
        weights = [[tick - at, _plain(weight)] for tick, weight in state.weights.items()]
        return [state.since - at, [tick - at for tick in state.ticks], weights]
    start, *counts = state
    return [start - at, *map(_plain, counts)]


def load_state(rule: Any, text: str, at: int) -> Any:
    """The state of such a text. Raises `ValueError` for any other."""
    try:
        return _state(rule, json.loads(text), at)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"unreadable state {text!r}") from error


def _state(rule: Any, parts: list[Any], at: int) -> Any:
    if rule.kind == "token_bucket":
        (units,) = parts
        return _exact(units) + at * rule.permits
    if rule.kind == "two_rate":
        committed, peak = parts
        return _state(rule.committed, [committed], at), _state(rule.peak, [peak], at)
    if rule.kind == "sliding_window":
        since, ticks, weights = parts
        heavy = {tick + at: _exact(weight) for tick, weight in weights}
        used = len(ticks) - len(heavy) + sum(heavy.values())
        return Log(deque(tick + at for tick in ticks), since + at, used, 0, heavy)
    start, *counts = parts
    return (start + at, *map(_exact, counts))


_UNITS = {TICKS: "s", 60 * TICKS: "min", 3600 * TICKS: "h", 86400 * TICKS: "day"}


def spell(rule: Any) -> str:
    """A rule as people say it.

    >>> spell(SlidingWindowRule(100, 60 * TICKS)), spell(FixedWindowRule(3, 90 * TICKS))
    ('100/min', '3 per 90 s')
    """
    if rule.kind == "two_rate":
        return f"{spell(rule.committed)}, peak {spell(rule.peak)}"
    if rule.kind == "token_bucket":
        permits = float(Fraction(rule.permits * rule.period) / rule.ticks)
        return f"{_pace(permits, rule.period)}, burst {float(rule.burst):g}"
    return _pace(rule.limit, rule.window)


def _pace(permits: float, period: int) -> str:
    unit = _UNITS.get(period)
    return f"{permits:g}/{unit}" if unit else f"{permits:g} per {seconds(period):g} s"
