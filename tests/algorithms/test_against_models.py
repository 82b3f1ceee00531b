"""Every rule against its slow model, tick by tick, over random histories of takes, charges and refunds."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttle.algorithms import (
    Algorithm,
    FixedWindowRule,
    SlidingWindowCounterRule,
    SlidingWindowRule,
    TokenBucketRule,
    TwoRateRule,
)
from throttle.rates import TICKS, Exact, Rate

from .models import Model, model_of

small = st.integers(1, 6)
periods = st.integers(1, 12)
bursts = small | st.builds(Fraction, st.integers(1, 12), st.integers(1, 4))


@st.composite
def buckets(draw: st.DrawFn) -> TokenBucketRule:
    """Buckets whose ticks are coarse, so that every tick can be looked at."""
    rate = Rate(draw(small), per=draw(periods) / TICKS)
    return TokenBucketRule.of(rate, draw(bursts))  # type: ignore[arg-type]  # Fractions are taken, too


@st.composite
def two_rates(draw: st.DrawFn) -> TwoRateRule:
    committed, peak = sorted((draw(buckets()), draw(buckets())), key=lambda rule: Fraction(rule.permits, rule.ticks))
    return TwoRateRule(committed, peak)


rules: st.SearchStrategy[Algorithm] = st.one_of(
    buckets(),
    two_rates(),
    st.builds(SlidingWindowRule, small, periods),
    st.builds(FixedWindowRule, small, periods, st.integers(-5, 5), st.integers(-50, 50)),
    st.builds(SlidingWindowCounterRule, small, periods, st.integers(-50, 50)),
)
amounts = st.integers(0, 8) | st.builds(Fraction, st.integers(1, 9), st.integers(2, 5))
steps = st.lists(
    st.tuples(st.sampled_from(["take", "take", "take", "charge", "give"]), st.integers(0, 15), amounts), max_size=25
)


class Pair:
    """A rule with its state beside its model; whatever is done is done to both."""

    def __init__(self, rule: Algorithm, now: int) -> None:
        self.rule, self.state, self.model = rule, rule.initial(now), model_of(rule, now)
        self.taken: list[list[Any]] = []

    def do(self, what: str, now: int, amount: Exact) -> None:
        if what == "give":
            for entry in self.taken[-1:]:
                amount = min(amount, entry[1])
                entry[1] -= amount
                self.state = self.rule.give(self.state, now, amount, entry[0])
                self.model.give(now, amount, entry[0])
        elif what == "charge" or (amount <= self.rule.most and self.granted(now, amount)):
            self.state = self.rule.book(self.state, now, amount)
            self.model.book(now, amount)
            self.taken.append([now, amount])

    def granted(self, now: int, cost: Exact) -> bool:
        granted = self.rule.earliest(self.state, now, cost) == now
        assert granted == self.model.granted(now, cost)
        return granted


def first(now: int, model: Model, cost: Exact) -> int:
    """The first tick that the model grants, looked for one by one."""
    while not model.granted(now, cost):
        now += 1
    return now


@given(rules, st.integers(-20, 20), steps)
def test_every_tick_as_the_model_has_it(rule: Algorithm, now: int, history: list[tuple[str, int, Exact]]) -> None:
    pair = Pair(rule, now)
    for what, pause, amount in history:
        now += pause
        pair.do(what, now, amount.__ceil__() if rule.whole else amount)
        before = rule.copy(pair.state)
        most = int(rule.most)
        for cost in {0, min(1, most), most // 2, most} if rule.whole else {0, 1 * rule.most, rule.most / Fraction(3)}:
            due = first(now, pair.model, cost)
            assert rule.earliest(pair.state, now, cost) == due
            assert rule.earliest(pair.state, due, cost) == due  # granted at it, as at every later tick
            assert rule.earliest(pair.state, due + 3, cost) == due + 3
        assert rule.remaining(pair.state, now) == pair.model.remaining(now)
        assert 0 <= rule.remaining(pair.state, now) <= rule.most
        full = now
        while not pair.model.fresh(full):
            full += 1
        assert rule.full_at(pair.state, now) == full
        assert rule.exact(pair.state)
        assert pair.state == before  # asking and refusing change nothing


@given(rules, st.integers(-20, 20), steps, st.integers(0, 15), amounts)
def test_a_refund_at_once_restores_and_a_copy_is_independent(
    rule: Algorithm, now: int, history: list[tuple[str, int, Exact]], pause: int, amount: Exact
) -> None:
    pair = Pair(rule, now)
    for what, wait, cost in history:
        now += wait
        pair.do(what, now, cost.__ceil__() if rule.whole else cost)
    now += pause
    amount = amount.__ceil__() if rule.whole else amount
    kept, other = rule.copy(pair.state), rule.copy(pair.state)
    other = rule.give(rule.book(other, now, amount), now, amount, now)
    assert pair.state == kept
    for later in range(now, now + 40, 3):
        assert rule.remaining(other, later) == rule.remaining(kept, later)
        assert rule.earliest(other, later, rule.most) == rule.earliest(kept, later, rule.most)


@given(rules, steps, st.integers(1, 20))
def test_a_clock_that_goes_back_frees_nothing(
    rule: Algorithm, history: list[tuple[str, int, Exact]], back: int
) -> None:
    """What counts at a later tick is not forgotten for an earlier one."""
    pair, now = Pair(rule, 0), 0
    for what, wait, cost in history:
        now += wait
        pair.do(what, now, cost.__ceil__() if rule.whole else cost)
    left = rule.remaining(pair.state, now)
    assert rule.remaining(pair.state, now - back) <= left
    assert rule.earliest(pair.state, now - back, rule.most) <= rule.earliest(pair.state, now, rule.most)


REAL = [
    TokenBucketRule.of(Rate(10), 20),
    TokenBucketRule.of(Rate(7, per=3), 2.5),
    TokenBucketRule.of(Rate(0.1)),
    TwoRateRule.of(Rate(10), 20, Rate(50), 5),
    SlidingWindowRule.of(Rate(40, per=4)),
    FixedWindowRule.of(Rate(40, per=3), offset=0.7),
    SlidingWindowCounterRule.of(Rate(40, per=3)),
]


@pytest.mark.parametrize("rule", REAL, ids=lambda rule: str(rule.kind))
def test_long_traces_in_real_ticks(rule: Algorithm) -> None:
    """Refused one tick before, granted at it; a thousand steps on nanoseconds."""
    follow(rule, seed=1, steps=1000)


def follow(rule: Algorithm, seed: int, steps: int) -> None:
    """A random trace of `steps`, some of them late, some charged above what is left."""
    chance, now = random.Random(seed), 0
    state, model = rule.initial(now), model_of(rule, now)
    for _ in range(steps):
        if chance.random() < 0.5:
            now += round(chance.expovariate(2.0) * TICKS)
        cost: Exact = chance.randint(1, max(1, int(rule.most) // 3))
        if not rule.whole and chance.random() < 0.1:
            cost = Fraction(chance.randint(1, 9), 10)
        due = rule.earliest(state, now, cost)
        assert model.granted(due, cost)
        assert due == now or not model.granted(due - 1, cost)
        if chance.random() < 0.9:
            now = due
        state = rule.book(state, now, cost)
        model.book(now, cost)
        if chance.random() < 0.2:
            state = rule.give(state, now, 1, now)
            model.give(now, 1, now)
        assert rule.remaining(state, now) == model.remaining(now)
        full = rule.full_at(state, now)
        assert model.fresh(full)
        assert full == now or not model.fresh(full - 1)
