"""The tree of errors: what each is, what it knows, and what it says in one line."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import throttle
from throttle import (
    AdaptiveLimiter,
    AllOf,
    Retry,
    RetryBudget,
    SlidingWindow,
    Throttle,
    ThrottleTransport,
    TokenBucket,
    errors,
)
from throttle.counters import MemoryCounter, RedisCounter, SQLiteCounter

SAID = [
    (errors.WaitTooLong(1.5), "the next permit is 1.5 s away, longer than max_wait"),
    (errors.WaitTooLong(1.5, "github"), "the next permit of key 'github' is 1.5 s away, longer than max_wait"),
    (errors.CostExceedsBurst(7, 5), "cost 7 can never be granted: at most 5 at once"),
    (errors.RetryAfterTooLong(90.0, "x"), "the server asks to wait 90 s, longer than max_retry_after"),
    (errors.DeadlineExceeded(30), "the call was not done within its timeout of 30 s"),
    (errors.CounterUnavailable("redis is away"), "redis is away"),
]


@pytest.mark.parametrize(("error", "text"), SAID, ids=lambda value: type(value).__name__)
def test_says_it_in_one_line(error: errors.ThrottleError, text: str) -> None:
    assert str(error) == text
    assert isinstance(error, throttle.ThrottleError)


@pytest.mark.parametrize("error", [error for error, _ in SAID], ids=lambda error: type(error).__name__)
def test_survives_a_trip_to_another_process(error: errors.ThrottleError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert (str(twin), vars(twin)) == (str(error), vars(error))


def test_facts_are_attributes() -> None:
    wait = errors.WaitTooLong(1.5, "k")
    assert (wait.retry_after, wait.key) == (1.5, "k")
    cost = errors.CostExceedsBurst(7, 5, "k")
    assert (cost.cost, cost.burst, cost.key) == (7, 5, "k")
    patience = errors.RetryAfterTooLong(90.0, "k")
    assert (patience.retry_after, patience.key) == (90.0, "k")
    assert errors.DeadlineExceeded(30).timeout == 30


def test_fit_the_language() -> None:
    assert issubclass(errors.CostExceedsBurst, ValueError)
    assert issubclass(errors.DeadlineExceeded, TimeoutError)


@pytest.mark.parametrize("way", [pickle.dumps, copy.deepcopy, copy.copy])
@pytest.mark.parametrize(
    "make",
    [
        lambda: TokenBucket("1/s"),
        lambda: TokenBucket("1/s", counter=SQLiteCounter("limits.db"), name="api"),
        lambda: SlidingWindow("1/s")["ada"],
        lambda: AllOf(TokenBucket("1/s")),
        AdaptiveLimiter,
        lambda: Throttle("1/s"),
        lambda: ThrottleTransport(limiter="1/s"),
        MemoryCounter,
        lambda: SQLiteCounter("limits.db"),
        lambda: RedisCounter("redis://localhost"),
        RetryBudget,
        lambda: Retry.for_http().budget,
    ],
)
def test_what_counts_in_one_process_says_so_when_it_is_to_be_copied(make: Any, way: Any) -> None:
    thing = make()
    with pytest.raises(TypeError, match="cannot be pickled or copied: make one in each process") as raised:
        way(thing)
    assert str(raised.value).startswith(repr(thing))
    with pytest.raises(TypeError, match="make one in each process"):
        pickle.dumps({"config": [thing]})
