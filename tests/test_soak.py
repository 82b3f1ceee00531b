"""A short soak of each limiter, and exactness over a year; `make soak` runs ten million permits over a week."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from soak import KINDS, AnyWindow, Line, soak

from throttle import AllOf, FixedWindow, SlidingWindow, TokenBucket, TwoRateBucket
from throttle.algorithms import (
    Algorithm,
    FixedWindowRule,
    SlidingWindowCounterRule,
    SlidingWindowRule,
    TokenBucketRule,
    TwoRateRule,
)
from throttle.rates import TICKS, Rate
from throttle.testing import run_virtual


@pytest.mark.parametrize("kind", list(KINDS))
def test_an_hour_with_cancellations_and_pauses(kind: str) -> None:
    done = soak(kind, 2500, 3600, seed=7)
    assert done.granted >= 2500
    assert done.cancelled > 20
    assert done.paused > 1
    assert done.memory[-1] - done.memory[2] < 3000


def test_the_watchers_see_one_permit_too_many() -> None:
    window, line = AnyWindow(3, 100), Line(1, 10, 2)
    for at in (0, 0, 99):
        window.grant(at)
    with pytest.raises(AssertionError, match="4 permits in 99 ns"):
        window.grant(99)
    for at in (0, 0, 10):
        line.grant(at)
    with pytest.raises(AssertionError, match="permits too many at 15"):
        line.grant(15)


# ── a year at three a second ────────────────────────────────────────────────────────────────────────────────────────

HOUR, YEAR = 3600, 365 * 86400
EXACT: list[Algorithm] = [
    TokenBucketRule.of(Rate(3), 3),
    TwoRateRule.of(Rate(3), 3, Rate(7), 3),
    SlidingWindowRule.of(Rate(3)),
    FixedWindowRule.of(Rate(3)),
]


@pytest.mark.parametrize("rule", [*EXACT, SlidingWindowCounterRule.of(Rate(3))], ids=lambda rule: str(rule.kind))
@pytest.mark.parametrize("start", [0, 1_700_000_000 * TICKS + 123_456_789])
def test_one_second_of_a_saturated_rule_is_as_the_next(rule: Algorithm, start: int) -> None:
    """Tick for tick, and so is a year: nothing is rounded from one to the other that could add up."""
    state, now = rule.initial(start), start
    grants: list[tuple[int, ...]] = []  # (since the start, remaining, until the next, until full) of each
    while now < start + 70 * TICKS:
        now = rule.earliest(state, now, 1)
        state = rule.book(state, now, 1)
        looks = [rule.earliest(state, now, cost) - now for cost in (1, 2, 3)]
        grants.append((now - start, int(rule.remaining(state, now)), *looks, rule.full_at(state, now) - now))
    period = 1 if rule in EXACT else 2
    first, *later = (
        [(at - since, *rest) for at, *rest in grants if 0 <= at - since < period * TICKS]
        for since in (4 * TICKS, 34 * TICKS, 64 * TICKS)
    )
    assert all(again == first for again in later)
    assert len(first) == 3 if rule in EXACT else 3 < len(first) <= 6


@pytest.mark.parametrize(
    "limiter",
    [
        lambda: TokenBucket("3/s", burst=3 * HOUR),
        lambda: TwoRateBucket("3/s", burst=3 * HOUR, peak="9/s", peak_burst=3 * HOUR),
        lambda: SlidingWindow(f"{3 * HOUR}/h"),
        lambda: FixedWindow(f"{3 * HOUR}/h"),
        lambda: AllOf(TokenBucket("3/s", burst=3 * HOUR), SlidingWindow(f"{3 * HOUR}/h")),
    ],
)
def test_a_year_of_waiting_is_a_year(limiter: Callable[[], Any]) -> None:
    """Through the limiter, the line, the timer and the floats of the clock: within one permit, that is a third of a
    second."""

    async def main() -> None:
        waits = limiter()
        await waits.acquire(3 * HOUR)
        loop = asyncio.get_running_loop()
        start = loop.time()
        for _ in range(YEAR // HOUR):
            await waits.acquire(3 * HOUR)
        assert loop.time() - start == pytest.approx(YEAR, abs=1 / 3)

    run_virtual(main)
