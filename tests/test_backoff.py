"""Backoffs: the exact formulas, their bounds, and tenacity's side of them."""

from __future__ import annotations

import math
from itertools import islice
from random import Random
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from throttle.backoff import (
    Backoff,
    Constant,
    DecorrelatedJitter,
    EqualJitter,
    Exponential,
    FullJitter,
    predicate,
    tell_state,
)

GROWING = [FullJitter, EqualJitter, Exponential]
ALL = [*GROWING, DecorrelatedJitter]


class Scripted(Random):
    """Chance as a test wants it: a fraction of each interval, which is kept."""

    def __init__(self, *fractions: float) -> None:
        super().__init__(0)
        self.fractions = list(fractions)
        self.asked: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.asked.append((a, b))
        return a + (b - a) * self.fractions.pop(0)


def first(count: int, backoff: Backoff, rng: Random | None = None) -> list[float]:
    return list(islice(backoff.delays(rng), count))


def test_full_jitter_draws_from_zero_to_e() -> None:
    rng = Scripted(0.0, 0.5, 1.0, 1.0)
    assert first(4, FullJitter(base=1, cap=10), rng) == [0.0, 2.0, 8.0, 10.0]
    assert rng.asked == [(0, 2), (0, 4), (0, 8), (0, 10)]


def test_equal_jitter_keeps_half() -> None:
    rng = Scripted(0.0, 0.5, 1.0, 1.0)
    assert first(4, EqualJitter(base=1, cap=10), rng) == [1.0, 3.0, 8.0, 10.0]
    assert rng.asked == [(0, 1), (0, 2), (0, 4), (0, 5)]


def test_decorrelated_jitter_grows_from_the_last_wait() -> None:
    rng = Scripted(0.5, 1.0, 0.0, 1.0, 1.0)
    assert first(5, DecorrelatedJitter(base=1, cap=10), rng) == [2.0, 6.0, 1.0, 3.0, 9.0]
    assert rng.asked == [(1, 3), (1, 6), (1, 18), (1, 3), (1, 9)]


def test_decorrelated_jitter_is_capped_and_goes_on_from_the_cap() -> None:
    rng = Scripted(1.0, 1.0, 1.0)
    assert first(3, DecorrelatedJitter(base=1, cap=4), rng) == [3.0, 4.0, 4.0]
    assert rng.asked[2] == (1, 12)


@pytest.mark.parametrize(("start", "expected"), [(0, [1, 2, 4, 5]), (1, [2, 4, 5, 5]), (2, [4, 5, 5, 5])])
def test_exponential_counts_from_start(start: int, expected: list[float]) -> None:
    assert first(4, Exponential(base=1, cap=5, start=start)) == expected


def test_constant() -> None:
    assert first(3, Constant(0.25)) == [0.25] * 3
    assert first(2, Constant(0)) == [0.0, 0.0]
    assert Constant(2).bound(7) == 2.0


def test_defaults() -> None:
    assert repr(FullJitter()) == "FullJitter(base=0.5, cap=30.0, factor=2.0, start=1)"
    assert repr(DecorrelatedJitter()) == "DecorrelatedJitter(base=0.5, cap=30.0, factor=3.0)"
    assert repr(Constant(1)) == "Constant(seconds=1.0)"


@pytest.mark.parametrize("kind", ALL)
def test_values_are_equal_hashable_and_frozen(kind: Any) -> None:
    assert kind(base=1) == kind(base=1.0)
    assert hash(kind(base=1)) == hash(kind(base=1.0))
    assert kind(base=1) != kind(base=2)
    with pytest.raises(AttributeError):
        kind().base = 3.0


def test_kinds_differ() -> None:
    assert FullJitter() != EqualJitter()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("option", "value"),
    [(o, v) for o in ("base", "cap") for v in (0, -1, math.inf, math.nan)] + [("factor", 0.9), ("factor", math.inf)],
)
def test_bad_numbers_are_named(kind: Any, option: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{option} of {kind.__name__} must be .*not {value}"):
        kind(**{option: value})


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("value", ["1", None, True])
def test_what_is_no_number_is_a_type_error(kind: Any, value: Any) -> None:
    with pytest.raises(TypeError, match="base of"):
        kind(base=value)


@pytest.mark.parametrize("start", [-1, 0.5, True, None])
def test_bad_start(start: Any) -> None:
    with pytest.raises(ValueError, match="start of FullJitter must be a whole number"):
        FullJitter(start=start)


@pytest.mark.parametrize("seconds", [-0.1, math.inf, math.nan])
def test_bad_constant(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds of Constant"):
        Constant(seconds)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("n", [10**3, 10**6, 10**400])
def test_no_overflow_at_any_n(kind: Any, n: int) -> None:
    assert kind().bound(n) == 30.0
    assert kind(base=1e308, cap=1e308, factor=1e308).bound(n) == 1e308
    assert kind(factor=1).bound(n) == 0.5


def test_decorrelated_survives_a_huge_factor() -> None:
    assert all(
        0 < delay <= 1e300 for delay in first(50, DecorrelatedJitter(base=1, cap=1e300, factor=1e308), Random(1))
    )


@given(
    st.sampled_from(ALL),
    st.floats(1e-3, 1e3),
    st.floats(1e-3, 1e3),
    st.floats(1, 10),
    st.integers(0, 2**32),
)
def test_every_delay_is_within_its_bound(kind: Any, base: float, cap: float, factor: float, seed: int) -> None:
    backoff = kind(base=base, cap=cap, factor=factor)
    for number, delay in enumerate(first(30, backoff, Random(seed)), start=1):
        assert 0 <= delay <= backoff.bound(number) * (1 + 1e-12)
        assert backoff.bound(number) <= cap


@pytest.mark.parametrize("kind", ALL)
def test_a_seed_repeats_itself_and_iterators_share_nothing(kind: Any) -> None:
    backoff = kind()
    alone = first(5, backoff, Random(7))
    one, two = backoff.delays(Random(7)), backoff.delays(Random(7))
    mixed = [(next(one), next(two)) for _ in range(5)]
    assert mixed == [(delay, delay) for delay in alone]


@pytest.mark.parametrize("backoff", [FullJitter(base=1), EqualJitter(base=1), DecorrelatedJitter(base=1)])
def test_chance_comes_from_the_module_by_default(backoff: Any) -> None:
    assert len(set(first(20, backoff))) > 1


def test_all_are_backoffs_and_waits_of_tenacity() -> None:
    for backoff in (FullJitter(), EqualJitter(), DecorrelatedJitter(), Exponential(), Constant(1)):
        assert isinstance(backoff, Backoff)
        assert isinstance(backoff, tenacity.wait.wait_base)


# ── in tenacity ──────────────────────────────────────────────────────────────────────────────────────────────────────


def sleeps_of(wait: Any, attempts: int = 5) -> list[float]:
    slept: list[float] = []

    @tenacity.retry(wait=wait, stop=tenacity.stop_after_attempt(attempts), sleep=slept.append)
    def failing() -> None:
        raise OSError

    with pytest.raises(tenacity.RetryError):
        failing()
    return slept


def test_tenacity_waits_the_same() -> None:
    assert sleeps_of(Exponential(base=1, cap=5)) == [2, 4, 5, 5]
    assert sleeps_of(Constant(0.5)) == [0.5] * 4


@pytest.mark.parametrize("kind", [FullJitter, EqualJitter])
def test_tenacity_draws_within_bounds(kind: Any) -> None:
    for slept in (sleeps_of(kind(base=1, cap=5)) for _ in range(20)):
        assert all(0 <= delay <= bound for delay, bound in zip(slept, [2, 4, 5, 5], strict=True))


def test_tenacity_remembers_the_last_wait_of_each_call() -> None:
    wait = DecorrelatedJitter(base=1, cap=100)
    for slept in (sleeps_of(wait) for _ in range(50)):
        last = 1.0
        for delay in slept:
            assert 1 <= delay <= 3 * last
            last = delay


def test_decorrelated_draws_for_tenacity_from_the_last_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first from the base, whatever a retry state may remember of an earlier use."""
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    assert sleeps_of(DecorrelatedJitter(base=1, cap=20)) == [3, 9, 20, 20]
    state = tell_state(None, number=1, outcome=1, failed=False, started=0.0, now=0.0)
    state.upcoming_sleep = 5.0
    assert DecorrelatedJitter(base=1, cap=20)(state) == 3
    state.attempt_number = 2
    assert DecorrelatedJitter(base=1, cap=20)(state) == 15


def test_waits_add_up() -> None:
    assert sleeps_of(Exponential(base=1, cap=5) + tenacity.wait_fixed(10)) == [12, 14, 15, 15]


# ── tenacity's objects under our policy ──────────────────────────────────────────────────────────────────────────────


def test_state_tells_what_stops_and_waits_ask_for() -> None:
    error = OSError()
    state = tell_state(None, number=1, outcome=error, failed=True, started=100.0, now=101.0)
    again = tell_state(state, number=3, outcome="value", failed=False, started=100.0, now=104.0)
    assert again is state
    assert (state.args, state.kwargs) == ((), {})
    assert (state.attempt_number, state.seconds_since_start) == (3, 4.0)
    assert state.outcome is not None
    assert state.outcome.result() == "value"


def test_predicates_of_tenacity_and_plain_ones() -> None:
    plain = predicate(str.isdigit, failed=False)
    assert plain("1")
    assert not plain("a")
    kind = predicate(tenacity.retry_if_exception_type(OSError), failed=True)
    assert kind(ConnectionError())
    assert not kind(ValueError())
    seen: list[Any] = []

    class Curious(tenacity.retry_base):
        def __call__(self, retry_state: Any) -> bool:
            seen.append((retry_state.attempt_number, retry_state.start_time, retry_state.outcome_timestamp))
            return True

    assert predicate(Curious(), failed=False)(None)
    assert seen == [(1, 0.0, 0.0)]
    result = predicate(tenacity.retry_if_result(lambda value: value is None), failed=False)
    assert result(None)
    assert not result(1)
