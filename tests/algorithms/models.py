"""What each rule means, written as slowly and plainly as can be: Fractions, whole histories, window by window."""

from __future__ import annotations

import copy
from fractions import Fraction
from typing import Protocol

from throttle.algorithms import (
    Algorithm,
    FixedWindowRule,
    SlidingWindowCounterRule,
    SlidingWindowRule,
    TokenBucketRule,
    TwoRateRule,
)
from throttle.rates import Exact


class Model(Protocol):
    """A rule and its state in one; asking changes nothing."""

    def granted(self, now: int, cost: Exact) -> bool: ...
    def book(self, at: int, cost: Exact) -> None: ...
    def give(self, now: int, amount: Exact, taken: int) -> None: ...
    def remaining(self, now: int) -> Exact: ...
    def fresh(self, now: int) -> bool: ...


class Bucket:
    def __init__(self, rule: TokenBucketRule, now: int) -> None:
        self.pace = Fraction(rule.permits, rule.ticks)
        self.burst = self.tokens = Fraction(rule.burst)
        self.at = now

    def level(self, now: int) -> Fraction:
        return min(self.burst, self.tokens + self.pace * (now - self.at))

    def granted(self, now: int, cost: Exact) -> bool:
        return not cost or self.level(now) >= cost

    def book(self, at: int, cost: Exact) -> None:
        self.tokens, self.at = self.level(at) - cost, at

    def give(self, now: int, amount: Exact, taken: int) -> None:
        self.tokens, self.at = min(self.burst, self.level(now) + amount), now

    def remaining(self, now: int) -> Exact:
        return max(self.level(now), Fraction(0))

    def fresh(self, now: int) -> bool:
        return self.level(now) == self.burst


class Buckets:
    def __init__(self, rule: TwoRateRule, now: int) -> None:
        self.both = Bucket(rule.committed, now), Bucket(rule.peak, now)

    def granted(self, now: int, cost: Exact) -> bool:
        return all(bucket.granted(now, cost) for bucket in self.both)

    def book(self, at: int, cost: Exact) -> None:
        for bucket in self.both:
            bucket.book(at, cost)

    def give(self, now: int, amount: Exact, taken: int) -> None:
        for bucket in self.both:
            bucket.give(now, amount, taken)

    def remaining(self, now: int) -> Exact:
        return min(bucket.remaining(now) for bucket in self.both)

    def fresh(self, now: int) -> bool:
        return all(bucket.fresh(now) for bucket in self.both)


class History:
    """Every permit by itself, from the first to the last."""

    def __init__(self, rule: SlidingWindowRule, now: int) -> None:
        self.rule = rule
        self.permits: list[int] = []

    def inside(self, now: int) -> list[int]:
        return [tick for tick in self.permits if tick > now - self.rule.window]

    def granted(self, now: int, cost: Exact) -> bool:
        return not cost or len(self.inside(now)) + cost <= self.rule.limit

    def book(self, at: int, cost: Exact) -> None:
        self.permits += [at] * int(cost)

    def give(self, now: int, amount: Exact, taken: int) -> None:
        for _ in range(int(amount)):
            inside = self.inside(now)
            if inside and taken > now - self.rule.window:
                self.permits.remove(taken if taken in inside else min(inside))

    def remaining(self, now: int) -> Exact:
        return max(self.rule.limit - len(self.inside(now)), 0)

    def fresh(self, now: int) -> bool:
        return not self.inside(now)


class Windows:
    """Aligned windows, one after the other; what is above the limit of one is pushed into the next."""

    def __init__(self, rule: FixedWindowRule | SlidingWindowCounterRule, now: int) -> None:
        self.rule = rule
        self.origin = rule.epoch + getattr(rule, "offset", 0)
        self.index = (now - self.origin) // rule.window
        self.previous = self.count = 0

    def at(self, now: int) -> Windows:
        later = copy.copy(self)
        while later.index < (now - later.origin) // later.rule.window:
            later.index += 1
            later.previous = min(later.count, later.rule.limit)
            later.count -= later.previous
        return later

    def used(self, now: int) -> Fraction:
        return Fraction(self.at(now).count)

    def granted(self, now: int, cost: Exact) -> bool:
        return not cost or self.used(now) + cost <= self.rule.limit

    def book(self, at: int, cost: Exact) -> None:
        self.__dict__.update(vars(self.at(at)))
        self.count += int(cost)

    def give(self, now: int, amount: Exact, taken: int) -> None:
        self.__dict__.update(vars(self.at(now)))
        age = self.index - (taken - self.origin) // self.rule.window
        for _ in range(int(amount)):
            if self.count > (0 if age == 0 else self.rule.limit):
                self.count -= 1
            elif age <= 1 and self.previous:
                self.previous -= 1

    def remaining(self, now: int) -> Exact:
        cost = 0
        while self.granted(now, cost + 1):
            cost += 1
        return cost

    def fresh(self, now: int) -> bool:
        return not self.used(now)


class WeightedWindows(Windows):
    def used(self, now: int) -> Fraction:
        then = self.at(now)
        elapsed = (now - then.origin) % then.rule.window
        return Fraction(then.previous * (then.rule.window - elapsed), then.rule.window) + then.count


def model_of(rule: Algorithm, now: int) -> Model:
    """The model of `rule`, as new."""
    if isinstance(rule, TokenBucketRule):
        return Bucket(rule, now)
    if isinstance(rule, TwoRateRule):
        return Buckets(rule, now)
    if isinstance(rule, SlidingWindowRule):
        return History(rule, now)
    if isinstance(rule, FixedWindowRule):
        return Windows(rule, now)
    assert isinstance(rule, SlidingWindowCounterRule)
    return WeightedWindows(rule, now)
