"""The retry budget: its rule, its window, its memory."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttle.budget import BudgetPerKey, RetryBudget


def granted(budget: RetryBudget, at: float, asks: int) -> int:
    return sum(budget.withdraw(at) for _ in range(asks))


def test_reserve_is_there_from_the_start() -> None:
    assert granted(RetryBudget(), 0.0, 150) == 100
    assert granted(RetryBudget(ratio=0, reserve=0.3), 0.0, 150) == 3


@pytest.mark.parametrize(
    ("ratio", "calls", "retries"), [(0.1, 30, 3), (0.29, 100, 29), (0.7, 10, 7), (1 / 3, 4, 1), (2, 3, 6)]
)
def test_ratio_is_exact(ratio: float, calls: int, retries: int) -> None:
    budget = RetryBudget(ratio=ratio, reserve=0)
    for _ in range(calls):
        budget.deposit(0.0)
    assert granted(budget, 0.0, 100) == retries


def test_both_add_up() -> None:
    budget = RetryBudget(ratio=0.5, reserve=0.1)
    for _ in range(4):
        budget.deposit(0.0)
    assert granted(budget, 0.0, 10) == 3


def test_retries_come_back_after_ten_seconds() -> None:
    budget = RetryBudget(ratio=0, reserve=0.2)
    assert [budget.withdraw(at) for at in (0.0, 4.0, 9.0, 9.999, 10.0, 10.1, 13.9, 14.0)] == [
        True, True, False, False, True, False, False, True,
    ]  # fmt: skip


def test_calls_count_for_ten_seconds() -> None:
    budget = RetryBudget(ratio=1, reserve=0)
    budget.deposit(0.0)
    budget.deposit(5.0)
    assert granted(budget, 9.9, 5) == 2
    assert not budget.withdraw(20.0)


def test_nothing_is_ever_allowed_by_zero() -> None:
    budget = RetryBudget(ratio=0, reserve=0)
    budget.deposit(0.0)
    assert not budget.withdraw(0.0)


@given(
    st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=200),
    st.sampled_from([0, 0.1, 0.5, 1]),
    st.sampled_from([0, 0.1, 0.5]),
)
def test_never_more_than_promised_and_hardly_less(
    steps: list[tuple[float, bool]], ratio: float, reserve: float
) -> None:
    budget = RetryBudget(ratio=ratio, reserve=reserve)
    now, calls, retries = 0.0, deque[float](), deque[float]()

    def most(window: float) -> float:
        return ratio * sum(at > now - window for at in calls) + reserve * 10

    for wait, is_call in steps:
        now += wait
        if is_call:
            budget.deposit(now)
            calls.append(now)
        elif budget.withdraw(now):
            retries.append(now)
            assert sum(at > now - 10 for at in retries) <= most(10) + 1e-9
        else:
            assert sum(at > now - 10.11 for at in retries) + 1 > most(9.89) - 1e-9


def test_memory_is_constant() -> None:
    budget = RetryBudget(ratio=1, reserve=100)
    for step in range(50_000):
        budget.deposit(step / 1000)
        budget.withdraw(step / 1000)
    assert len(budget._calls._entries) <= 102
    assert len(budget._retries._entries) <= 102


def test_time_that_goes_back_a_little_stands_still_and_far_is_another_clock() -> None:
    budget = RetryBudget(ratio=0, reserve=0.1)
    assert budget.withdraw(100.0)
    assert not budget.withdraw(99.5)
    assert not budget.withdraw(109.9)
    assert budget.withdraw(0.0)
    assert not budget.withdraw(1.0)


def test_calls_on_another_clock_share_nothing_with_those_before() -> None:
    budget = RetryBudget(ratio=1, reserve=0)
    for _ in range(3):
        budget.deposit(100.0)
    assert budget.idle(0.0)
    budget.deposit(100.05)
    assert budget.withdraw(100.05)
    assert not budget.withdraw(100.05)


def test_idle_is_as_new() -> None:
    budget = RetryBudget()
    assert budget.idle(0.0)
    budget.deposit(0.0)
    assert not budget.idle(9.9)
    assert budget.idle(10.0)
    budget.withdraw(10.0)
    assert not budget.idle(19.9)
    assert budget.idle(20.0)


@pytest.mark.parametrize("option", ["ratio", "reserve"])
@pytest.mark.parametrize("value", [-1, math.inf, math.nan])
@pytest.mark.parametrize("kind", [RetryBudget, BudgetPerKey])
def test_bad_numbers(kind: Any, option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        kind(**{option: value})


def test_repr() -> None:
    assert repr(RetryBudget()) == "RetryBudget(ratio=0.1, reserve=10.0)"
    assert repr(BudgetPerKey(reserve=1)) == "BudgetPerKey(ratio=0.1, reserve=1)"


def test_threads_share_one() -> None:
    budget = RetryBudget(ratio=0, reserve=100)
    taken: list[int] = []
    threads = [threading.Thread(target=lambda: taken.append(granted(budget, 0.0, 500))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 1000


def test_each_key_has_its_own() -> None:
    budgets = BudgetPerKey(ratio=0, reserve=0.1)
    assert budgets.of("a", 0.0) is budgets.of("a", 1.0)
    assert budgets.of("a", 1.0).withdraw(1.0)
    assert not budgets.of("a", 1.0).withdraw(1.0)
    assert budgets.of("b", 1.0).withdraw(1.0)


def test_each_new_key_looks_at_the_oldest_two_only_and_keeps_those_in_use() -> None:
    budgets = BudgetPerKey()
    for key in "abcd":
        budgets.of(key, 0.0)
        budgets.of(key, 0.0).deposit(0.0)
    assert sorted(budgets._budgets) == list("abcd")  # all in use
    budgets.of("e", 15.0)
    assert len(budgets._budgets) == 4 - 2 + 1  # all idle, and two were seen


def test_idle_keys_are_given_back() -> None:
    budgets = BudgetPerKey()
    for number in range(1000):
        budgets.of(f"key {number}", number).deposit(number)
    assert len(budgets._budgets) <= 12
    assert "key 999" in budgets._budgets


def test_events_counted_together_leave_together_on_the_safe_side() -> None:
    calls, retries = RetryBudget(ratio=1, reserve=0), RetryBudget(ratio=0, reserve=0.3)
    for at in (0.0, 0.05, 0.09):
        calls.deposit(at)
        retries.withdraw(at)
    assert [calls.withdraw(9.99), calls.withdraw(10.0)] == [True, False]  # with the first of the calls
    assert [retries.withdraw(10.05), retries.withdraw(10.1)] == [False, True]  # with the last of the retries
    assert retries.idle(30.0)
    assert calls.idle(30.0)


def test_a_grain_is_a_tenth_of_a_second_from_its_first_event() -> None:
    calls = RetryBudget(ratio=1, reserve=0)
    for at in (0.0, 0.1):
        calls.deposit(at)
    assert calls.withdraw(10.05)  # the second call is not in the first one's entry
    apart, chain = RetryBudget(ratio=0, reserve=0.2), RetryBudget(ratio=0, reserve=0.3)
    assert [apart.withdraw(at) for at in (0.0, 0.1, 10.0)] == [True, True, True]
    assert [chain.withdraw(at) for at in (0.0, 0.09, 0.18, 10.1)] == [True, True, True, True]


def test_a_call_that_comes_out_of_order_is_forgotten_with_the_first_of_its_grain() -> None:
    for last, allowed in ((None, False), (0.15, True)):
        calls = RetryBudget(ratio=1, reserve=0)
        for at in (0.0, 0.09, 0.05):
            calls.deposit(at)
        if last is not None:
            calls.deposit(last)
        assert calls.withdraw(10.0) == allowed


def test_a_second_back_is_the_same_clock() -> None:
    budget = RetryBudget(ratio=0, reserve=0.1)
    assert [budget.withdraw(at) for at in (5.0, 4.0, 3.9)] == [True, False, True]


def test_bad_numbers_are_named_in_full() -> None:
    with pytest.raises(ValueError, match=r"^ratio of RetryBudget must be"):
        RetryBudget(ratio=-1)
    with pytest.raises(ValueError, match=r"^reserve \(retries per second\) of RetryBudget must be"):
        RetryBudget(reserve=-1)


def test_what_each_key_gets_by_default() -> None:
    assert repr(BudgetPerKey()) == "BudgetPerKey(ratio=0.1, reserve=10.0)"
