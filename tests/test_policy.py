"""The decision: what is wanted again, when to stop, how long to wait."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from throttle.backoff import Constant, DecorrelatedJitter, Exponential, FullJitter
from throttle.budget import BudgetPerKey, RetryBudget
from throttle.errors import CounterUnavailable, RetryAfterTooLong, ThrottleError, WaitTooLong
from throttle.hints import Hints
from throttle.policy import Again, Course, HTTPRules, Policy, Stop

ERROR = OSError("broken")


class Half(Random):
    """The middle of each interval."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def refused(wait: float | None = None, **more: Any) -> Hints:
    return Hints(refused=True, retry_after=wait, **more)


def after(course: Course, hints: Hints | None = None, now: float = 0.0, **more: Any) -> Stop | Again:
    return course.after(ERROR, failed=True, hints=hints, now=now, **more)


def course(now: float = 0.0, key: str = "", **options: Any) -> Course:
    return Course(Policy(on=OSError, **options), now, key)


# ── what is wanted ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("on", "error", "wanted"),
    [
        (OSError, ConnectionError(), True),
        (OSError, ValueError(), False),
        ((OSError, KeyError), KeyError(), True),
        ((OSError, KeyError), ValueError(), False),
        ((), OSError(), False),
        (Exception, ValueError(), True),
        (BaseException, ValueError(), True),
        (lambda error: "again" in str(error), ValueError("again"), True),
        (lambda error: "again" in str(error), ValueError("no"), False),
        (tenacity.retry_if_exception_type(OSError), OSError(), True),
        (tenacity.retry_if_exception_type(OSError) | tenacity.retry_if_exception_message("x"), KeyError(), False),
        (None, OSError(), False),
    ],
)
def test_on(on: Any, error: Exception, wanted: bool) -> None:
    assert Policy(on=on).wants(error) is wanted


@pytest.mark.parametrize(
    "error",
    [WaitTooLong(1.0), RetryAfterTooLong(1.0), CounterUnavailable(), asyncio.CancelledError(), KeyboardInterrupt()],
)
@pytest.mark.parametrize("on", [BaseException, Exception, lambda error: pytest.fail("asked")])
def test_never_wanted_nor_shown_to_a_predicate(on: Any, error: BaseException) -> None:
    assert not Policy(on=on).wants(error)


def test_a_group_is_wanted_if_all_leaves_are() -> None:
    policy = Policy(on=OSError)
    assert policy.wants(ExceptionGroup("", [OSError(), ConnectionError()]))
    assert policy.wants(ExceptionGroup("", [OSError(), ExceptionGroup("", [OSError()])]))
    assert not policy.wants(ExceptionGroup("", [OSError(), ExceptionGroup("", [ValueError()])]))
    assert not Policy(on=Exception).wants(ExceptionGroup("", [OSError(), WaitTooLong(1.0)]))
    assert not Policy(on=BaseException).wants(BaseExceptionGroup("", [OSError(), asyncio.CancelledError()]))


def test_a_predicate_sees_the_leaves() -> None:
    seen: list[Exception] = []
    leaves = [OSError(), ValueError()]
    Policy(on=lambda error: seen.append(error) or True).wants(ExceptionGroup("", leaves))
    assert seen == leaves


def test_on_result() -> None:
    policy = Policy(on_result=lambda value: value is None)
    assert policy.wants_result(None)
    assert not policy.wants_result(1)
    assert not Policy(on=OSError).wants_result(None)
    assert Policy(on_result=tenacity.retry_if_result(lambda value: value < 3)).wants_result(2)


# ── what a server said ───────────────────────────────────────────────────────────────────────────────────────────────


def test_hear_listens_or_asks_hints() -> None:
    error = OSError()
    error.retry_after = 3.0  # type: ignore[attr-defined]
    assert Policy().hear(error) == refused(3.0)
    assert Policy(hints=lambda outcome: refused(9.0)).hear(error) == refused(9.0)
    assert Policy(hints=lambda outcome: None).hear(error) is None
    with pytest.raises(TypeError, match=r"hints= gives Hints, as read_hints\(\) does, or None; not 9.0"):
        Policy(hints=lambda outcome: 9.0).hear(error)  # type: ignore[arg-type,return-value]


def test_hints_are_asked_of_each_leaf_but_never_of_throttle() -> None:
    policy = Policy(hints=lambda error: refused(float(str(error))))
    assert policy.hear(ExceptionGroup("", [OSError("1"), OSError("4"), WaitTooLong(9.0)])) == refused(4.0)
    assert policy.hear(WaitTooLong(9.0)) is None


# ── again or stop ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_attempts_count_the_first() -> None:
    steps = course(attempts=3, backoff=Constant(1))
    assert [after(steps) for _ in range(3)] == [Again(1.0, "failed"), Again(1.0, "failed"), Stop("attempts")]
    assert after(course(attempts=1)) == Stop("attempts")


def test_without_attempts_there_is_no_end() -> None:
    steps = course(attempts=None, backoff=Constant(0))
    assert all(after(steps) == Again(0.0, "failed") for _ in range(1000))


def test_the_backoff_draws_for_each_call_anew() -> None:
    policy = Policy(on=OSError, backoff=Exponential(base=1))
    one, two = Course(policy, 0.0), Course(policy, 0.0)
    assert [after(one), after(two), after(one)] == [Again(2.0, "failed"), Again(2.0, "failed"), Again(4.0, "failed")]


@pytest.mark.parametrize(
    ("backoff", "wait", "delay"),
    [
        (Constant(5), 10.0, 10.0 + 2 / 2),  # 1 + w/10 is less than e
        (Constant(0.5), 10.0, 10.0 + 0.5 / 2),  # e is less
        (Constant(0), 10.0, 10.0),
        (Exponential(base=1), 100.0, 100.0 + 2 / 2),  # e(1) = 2
        (FullJitter(base=1), 100.0, 100.0 + 2 / 2),
        (DecorrelatedJitter(base=1), 100.0, 100.0 + 3 / 2),
        (tenacity.wait_fixed(4), 100.0, 100.0 + 4 / 2),
        (tenacity.wait_fixed(4), 0.0, 4.0),
        (Constant(5), 0.0, 5.0),  # a wait of 0 means soon: the backoff's own draw
        (FullJitter(base=1), 0.0, 1.0),
        (Constant(5), None, 5.0),
    ],
)
def test_a_servers_wait_is_never_cut(backoff: Any, wait: float | None, delay: float) -> None:
    steps = course(backoff=backoff, rng=Half(), max_retry_after=None)
    assert after(steps, refused(wait)) == Again(delay, "refused")


def test_a_failure_with_retry_after_waits_too() -> None:
    assert after(course(backoff=Constant(0)), Hints(retry_after=3.0)) == Again(3.0, "failed")
    assert after(course(backoff=Constant(1)), Hints()) == Again(1.0, "failed")


class Plain:
    """A backoff of a user, with no bound."""

    def delays(self, rng: Random | None = None) -> Iterator[float]:
        while True:
            yield 3.0


def test_a_backoff_of_ones_own() -> None:
    assert after(course(backoff=Plain())) == Again(3.0, "failed")
    assert after(course(backoff=Plain(), rng=Half()), refused(60.0)) == Again(61.5, "refused")


@given(st.floats(0, 60), st.integers(0, 2**32))
def test_server_waits_are_kept_and_bounded(wait: float, seed: int) -> None:
    steps = course(backoff=FullJitter(), rng=Random(seed), attempts=None)
    for number in range(1, 8):
        step = after(steps, refused(wait))
        assert isinstance(step, Again)
        assert wait <= step.delay <= wait + max(min(30, 0.5 * 2**number, 1 + wait / 10), 0 if wait else 30)


def test_chance_without_rng() -> None:
    step = after(course(backoff=Constant(10)), refused(10.0))
    assert isinstance(step, Again)
    assert 10 <= step.delay <= 12


def test_over_max_retry_after() -> None:
    assert after(course(max_retry_after=60), refused(60.001)) == Stop("patience", 60.001)
    assert isinstance(after(course(max_retry_after=60), refused(60.0)), Again)
    assert isinstance(after(course(max_retry_after=None), refused(1e6)), Again)
    assert after(course(max_retry_after=0), refused(0.1)) == Stop("patience", 0.1)
    assert after(course(attempts=1), refused(1e6)) == Stop("attempts")


def test_waiting_that_does_not_help() -> None:
    assert after(course(), refused(1.0, retryable=False)) == Stop("waiting does not help")
    assert isinstance(after(course(), Hints(retryable=False)), Again)


def test_a_wait_that_does_not_fit_is_not_begun() -> None:
    steps = course(now=100.0, timeout=10, backoff=Constant(4), attempts=None)
    assert steps.deadline == 110.0
    assert after(steps, now=105.9) == Again(4.0, "failed")
    assert after(steps, now=106.0) == Stop("timeout")
    assert after(steps, refused(20.0), now=100.0) == Stop("timeout")


# ── a gate that waits ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_held_refusal_does_not_sleep() -> None:
    steps = course(attempts=2)
    assert after(steps, refused(5.0), held=True) == Again(0.0, "refused")
    assert after(steps, refused(5.0), held=True) == Stop("attempts")


def test_only_news_count_as_attempts() -> None:
    steps = course(attempts=2)
    assert all(after(steps, refused(5.0), held=True, news=False) == Again(0.0, "refused") for _ in range(10))
    assert steps.number == 1
    assert after(steps, refused(5.0), held=True) == Again(0.0, "refused")
    assert after(steps, refused(5.0), held=True, news=False) == Again(0.0, "refused")
    assert after(steps, refused(5.0), held=True) == Stop("attempts")


def test_what_is_held_must_fit_as_well() -> None:
    assert after(course(timeout=4), refused(5.0), held=True) == Stop("timeout")
    assert after(course(), refused(61.0), held=True, news=False) == Stop("patience", 61.0)


def test_only_refusals_are_held() -> None:
    assert after(course(backoff=Constant(2)), Hints(), held=True, news=False) == Again(2.0, "failed")


# ── the budget ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_budget_ends_it_and_refusals_never_spend_it() -> None:
    budget = RetryBudget(ratio=0, reserve=0.1)
    steps = course(budget=budget, backoff=Constant(0), attempts=None)
    assert isinstance(after(steps, refused()), Again)
    assert isinstance(after(steps), Again)
    assert after(steps) == Stop("budget")
    assert isinstance(after(steps, refused()), Again)


def test_each_call_feeds_it_once() -> None:
    budget = RetryBudget(ratio=1, reserve=0)
    one, two = course(budget=budget), course(budget=budget)
    assert isinstance(after(one), Again)
    assert isinstance(after(two), Again)
    assert after(two) == Stop("budget")


def test_what_stops_for_another_reason_spends_nothing() -> None:
    budget = RetryBudget(ratio=0, reserve=0.1)
    assert after(course(budget=budget, attempts=1)) == Stop("attempts")
    assert after(course(budget=budget, timeout=1, backoff=Constant(5))) == Stop("timeout")
    assert budget.withdraw(0.0)


def test_a_budget_per_key() -> None:
    budget = BudgetPerKey(ratio=0, reserve=0.1)
    assert isinstance(after(course(key="a", budget=budget)), Again)
    assert after(course(key="a", budget=budget)) == Stop("budget")
    assert isinstance(after(course(key="b", budget=budget)), Again)


# ── tenacity's objects ───────────────────────────────────────────────────────────────────────────────────────────────


def test_stop_objects() -> None:
    steps = course(stop=tenacity.stop_after_attempt(2), backoff=Constant(0))
    assert [after(steps), after(steps)] == [Again(0.0, "failed"), Stop("stop")]
    steps = course(stop=tenacity.stop_after_delay(10), backoff=Constant(0), now=50.0)
    assert [after(steps, now=59.9), after(steps, now=60.0)] == [Again(0.0, "failed"), Stop("stop")]
    steps = course(stop=tenacity.stop_after_delay(10) | tenacity.stop_after_attempt(1))
    assert after(steps) == Stop("stop")
    steps = course(stop=lambda state: state.upcoming_sleep > 3, backoff=Constant(4))
    assert after(steps) == Stop("stop")


def test_wait_objects() -> None:
    wait = tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(2)) + tenacity.wait_fixed(10)
    steps = course(backoff=wait)
    assert [after(steps), after(steps)] == [Again(11.0, "failed"), Again(12.0, "failed")]
    steps = course(backoff=tenacity.wait_exponential(multiplier=1), attempts=None)
    assert [after(steps).delay for _ in range(4)] == [1, 2, 4, 8]  # type: ignore[union-attr]
    assert after(course(backoff=lambda state: -1)) == Again(0.0, "failed")
    assert after(course(backoff=lambda state: 7 if state.outcome.exception() is ERROR else 0)) == Again(7.0, "failed")


def test_results_are_told_to_tenacity() -> None:
    steps = Course(Policy(on_result=bool, stop=lambda state: state.outcome.result() == "last"), 0.0)
    assert isinstance(steps.after("first", failed=False, hints=None, now=0.0), Again)
    assert steps.after("last", failed=False, hints=None, now=0.0) == Stop("stop")


def test_tenacity_is_told_of_one_call_in_one_state_and_only_where_it_asks() -> None:
    seen: list[Any] = []

    def stop(state: Any) -> bool:
        seen.append(state)
        return False

    steps = course(stop=stop)
    after(steps)
    after(steps)
    assert seen[0] is seen[1]
    plain = course()
    after(plain)
    assert plain._state is None
    after(steps, refused(1.0), held=True, news=False)  # no attempt, so nothing to tell
    assert len(seen) == 2


def test_a_new_course() -> None:
    steps = Course(Policy(on=OSError, budget=BudgetPerKey()), 0.0)
    assert steps.failure is None
    assert list(steps.policy.budget._budgets) == [""]  # type: ignore[union-attr]


def test_what_is_held_draws_nothing() -> None:
    class Never(Random):
        def uniform(self, a: float, b: float) -> float:
            raise AssertionError("the gate waits in its place")

    assert after(course(rng=Never()), refused(5.0), held=True) == Again(0.0, "refused")


def test_close_lets_go() -> None:
    steps = course(stop=tenacity.stop_never)
    after(steps)
    steps.failure = ERROR
    steps.close()
    assert steps.failure is None
    assert steps._state is None


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def later(*args: Any) -> bool:
    """Gives what is true before it is awaited."""
    return False


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"attempts": 0}, ValueError, "attempts .*at least 1, not 0"),
        ({"attempts": 2.5}, TypeError, "attempts .*not 2.5"),
        ({"attempts": True}, TypeError, "attempts"),
        ({"timeout": 0}, ValueError, "timeout .*above 0, not 0"),
        ({"timeout": math.inf}, ValueError, "timeout"),
        ({"attempt_timeout": -1}, ValueError, "attempt_timeout .*not -1"),
        ({"timeout": "5"}, TypeError, "timeout .*not '5'"),
        ({"max_retry_after": -1}, ValueError, "max_retry_after .*not -1"),
        ({"max_retry_after": math.nan}, ValueError, "max_retry_after"),
        ({"on": 5}, TypeError, "on takes .*not 5"),
        ({"on": (OSError, 5)}, TypeError, "on takes"),
        ({"on": int}, TypeError, "on takes"),
        ({"on": asyncio.CancelledError}, ValueError, "on names CancelledError"),
        ({"on": (OSError, KeyboardInterrupt)}, ValueError, "never retried"),
        ({"on": ThrottleError}, ValueError, "never retried"),
        ({"on": WaitTooLong}, ValueError, "never retried"),
        ({"on_result": ValueError}, TypeError, "on_result takes a function"),
        ({"on_result": 5}, TypeError, "on_result"),
        ({"stop": tenacity.stop_after_attempt}, TypeError, "stop takes a stop of tenacity"),
        ({"stop": 5}, TypeError, r"stop takes a stop of tenacity such as stop_after_delay\(30\), not 5"),
        ({"hints": Hints()}, TypeError, "hints takes a function"),
        ({"on": later}, TypeError, "on takes a plain function, not the async .*later"),
        ({"on": functools.partial(later)}, TypeError, "on takes a plain function"),
        ({"on": tenacity.asyncio.retry.retry_if_exception(later)}, TypeError, "on takes a plain function"),
        ({"on_result": later}, TypeError, "on_result takes a plain function"),
        ({"stop": later}, TypeError, "stop takes a plain function"),
        ({"hints": later}, TypeError, "hints takes a plain function"),
        ({"backoff": later}, TypeError, "backoff takes a plain function"),
        ({"backoff": 1.0}, TypeError, "backoff takes"),
        ({"backoff": FullJitter}, TypeError, "backoff takes"),
        ({"budget": 5}, TypeError, "budget takes"),
        ({"rng": 5}, TypeError, "rng takes"),
        ({"tries": 5}, TypeError, "tries"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Policy(**options)


def test_repr_tells_what_differs() -> None:
    assert repr(Policy()) == "Policy()"
    assert repr(Policy(on=OSError, attempts=3, backoff=Constant(1))) == (
        "Policy(on=<class 'OSError'>, attempts=3, backoff=Constant(seconds=1.0))"
    )


def test_a_policy_is_a_frozen_value() -> None:
    assert Policy(on=OSError, timeout=3) == Policy(on=OSError, timeout=3.0)
    assert hash(Policy(on=OSError)) == hash(Policy(on=OSError))
    with pytest.raises(AttributeError):
        Policy().attempts = 3  # type: ignore[misc]


def test_functions_need_to_be_told_what() -> None:
    with pytest.raises(TypeError, match=r"say what to retry: @retry\(on="):
        Policy().check_function()
    Policy(on=OSError).check_function()
    Policy(on_result=bool).check_function()


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

IDEMPOTENT = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "get"]


@pytest.mark.parametrize("method", IDEMPOTENT)
@pytest.mark.parametrize("status", [502, 503, 504, None])
def test_idempotent_requests_are_sent_again(method: str, status: int | None) -> None:
    assert HTTPRules().wanted(method, status=status, hints=None if status is None else Hints())


@pytest.mark.parametrize("method", ["POST", "PATCH", "CONNECT"])
@pytest.mark.parametrize("status", [502, 503, 504, None])
def test_others_are_not_unless_it_is_safe(method: str, status: int | None) -> None:
    rules = HTTPRules()
    hints = None if status is None else Hints()
    assert not rules.wanted(method, status=status, hints=hints)
    assert rules.wanted(method, status=status, hints=hints, keyed=True)
    assert rules.wanted(method, status=None, sent=False)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_refusals_of_any_method(method: str) -> None:
    assert HTTPRules().wanted(method, status=429, hints=refused())
    assert HTTPRules().wanted(method, status=403, hints=refused(3.0))
    assert not HTTPRules().wanted(method, status=429, hints=refused(retryable=False))


def test_a_status_without_hints_and_hints_without_a_status() -> None:
    assert HTTPRules().wanted("GET", status=503)
    assert not HTTPRules().wanted("POST", hints=refused())


def test_503_with_retry_after_of_any_method() -> None:
    assert HTTPRules().wanted("POST", status=503, hints=Hints(retry_after=3.0))
    assert not HTTPRules().wanted("POST", status=502, hints=Hints(retry_after=3.0))


@pytest.mark.parametrize("status", [200, 304, 400, 404, 500, 501])
def test_other_statuses_are_answers(status: int) -> None:
    assert not HTTPRules().wanted("GET", status=status, hints=Hints())
    assert not HTTPRules().wanted("GET", status=status, hints=Hints(retry_after=1.0))


def test_rules_of_ones_own() -> None:
    rules = HTTPRules(methods=["post"], statuses=[500])
    assert rules == HTTPRules(methods={"POST"}, statuses={500})
    assert rules.wanted("POST", status=500, hints=Hints())
    assert not rules.wanted("GET", status=500, hints=Hints())
    assert not rules.wanted("POST", status=502, hints=Hints())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"methods": "GET"}, TypeError),
        ({"methods": [5]}, TypeError),
        ({"statuses": [5]}, ValueError),
        ({"statuses": [99]}, ValueError),
        ({"statuses": [1000]}, ValueError),
        ({"statuses": ["x"]}, ValueError),
    ],
)
def test_bad_rules(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        HTTPRules(**options)


def test_the_first_and_the_last_status() -> None:
    assert HTTPRules(statuses=[100, 999]).statuses == {100, 999}


@pytest.mark.parametrize(
    ("options", "timed", "prepared", "stateful"),
    [
        ({}, False, False, False),
        ({"timeout": 1}, True, True, False),
        ({"attempt_timeout": 1}, True, True, False),
        ({"timeout": 1, "attempt_timeout": 1}, True, True, False),
        ({"budget": RetryBudget()}, False, True, False),
        ({"hints": lambda outcome: None}, False, True, False),
        ({"stop": tenacity.stop_never}, False, True, True),
        ({"stop": tenacity.stop_never, "budget": RetryBudget()}, False, True, True),
        ({"backoff": tenacity.wait_fixed(1)}, False, False, True),
        ({"backoff": tenacity.wait_fixed(1), "stop": tenacity.stop_never}, False, True, True),
    ],
)
def test_what_a_driver_has_to_prepare(options: dict[str, Any], timed: bool, prepared: bool, stateful: bool) -> None:
    policy = Policy(on=OSError, **options)
    assert (policy.timed, policy.prepared, policy.stateful) == (timed, prepared, stateful)


@pytest.mark.parametrize(
    ("options", "straight"),
    [
        ({}, True),
        ({"budget": RetryBudget()}, True),
        ({"backoff": tenacity.wait_fixed(1)}, True),
        ({"timeout": 1}, False),
        ({"attempt_timeout": 1}, False),
        ({"stop": tenacity.stop_never}, False),
        ({"on_result": lambda value: False}, False),
        ({"hints": lambda outcome: None}, False),
    ],
)
def test_what_has_to_be_looked_at_after_a_success(options: dict[str, Any], straight: bool) -> None:
    assert Policy(on=OSError, **options).straight is straight


def test_who_never_waits_draws_nothing() -> None:
    course = Course(Policy(on=OSError, backoff=Constant(5)), 0.0)
    assert course.after(OSError(), failed=True, hints=None, now=0.0, waits=False) == Again(0.0, "failed")


def test_an_attempt_timeout_of_zero_is_none() -> None:
    with pytest.raises(ValueError, match="attempt_timeout"):
        Policy(on=OSError, attempt_timeout=0)


def test_a_status_alone_is_one_clear_error() -> None:
    with pytest.raises(TypeError, match=r"statuses takes status codes such as \{502, 503\}, not 500"):
        HTTPRules(statuses=500)  # type: ignore[arg-type]
