"""`Retry` in its forms: decorator, call, blocks, plain functions; what is raised at the end, what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import inspect
import math
import threading
import time
import weakref
from collections.abc import Iterator
from random import Random
from typing import Any

import anyio
import httpx
import pytest
import tenacity
from retry_forms import AT_ONCE, Flaky, Run, by_blocks, each_form, run, told

from throttle.backoff import Constant, Exponential
from throttle.budget import BudgetPerKey, RetryBudget
from throttle.calls import current_call, no_waits
from throttle.driving import Hooks, driven
from throttle.errors import DeadlineExceeded, RetryAfterTooLong, WaitTooLong
from throttle.events import Event, GaveUp, Retrying
from throttle.hints import Hints
from throttle.retrying import Retry, retry
from throttle.testing import run_virtual

__all__ = ["run"]  # a fixture

# ── every async form ─────────────────────────────────────────────────────────────────────────────────────────────────


@each_form
def test_tries_until_it_works(run: Run, form: Any) -> None:
    flaky = Flaky(OSError(1), OSError(2), "done")
    assert run(lambda: form(Retry(on=OSError, backoff=AT_ONCE), flaky)) == "done"
    assert flaky.calls == 3


@each_form
def test_the_original_exception_at_the_end(run: Run, form: Any) -> None:
    errors = [OSError(number) for number in range(5)]
    flaky = Flaky(*errors)
    with pytest.raises(OSError) as caught:
        run(lambda: form(Retry(on=OSError, attempts=3, backoff=AT_ONCE), flaky))
    assert caught.value is errors[2]
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert flaky.calls == 3


@each_form
def test_one_attempt_is_no_retry(run: Run, form: Any) -> None:
    flaky = Flaky(OSError())
    with pytest.raises(OSError):
        run(lambda: form(Retry(on=OSError, attempts=1), flaky))
    assert flaky.calls == 1


@each_form
def test_what_is_not_wanted_goes_through(run: Run, form: Any) -> None:
    flaky = Flaky(OSError(), ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        run(lambda: form(Retry(on=OSError, backoff=AT_ONCE), flaky))
    assert flaky.calls == 2


@each_form
def test_results_are_judged(run: Run, form: Any) -> None:
    flaky = Flaky(None, None, "done")
    assert run(lambda: form(Retry(on_result=lambda value: value is None, backoff=AT_ONCE), flaky)) == "done"
    assert flaky.calls == 3


@each_form
def test_the_last_result_at_the_end(run: Run, form: Any) -> None:
    flaky = Flaky(1, 2, 3, 4)
    assert run(lambda: form(Retry(on_result=lambda value: value < 10, attempts=3, backoff=AT_ONCE), flaky)) == 3


@each_form
def test_waits_follow_the_backoff(run: Run, form: Any) -> None:
    async def main() -> float:
        start = anyio.current_time()
        await form(Retry(on=OSError, backoff=Exponential(base=1, cap=5)), Flaky(OSError(), OSError(), OSError(), 1))
        return anyio.current_time() - start

    assert run(main) == pytest.approx(2 + 4 + 5)


@each_form
def test_waits_of_the_server_go_first(run: Run, form: Any) -> None:
    async def main() -> float:
        start = anyio.current_time()
        await form(Retry(on=OSError, backoff=AT_ONCE), Flaky(told(3), told(7.5), 1))
        return anyio.current_time() - start

    assert run(main) == pytest.approx(10.5)


@each_form
def test_too_much_patience_asked(run: Run, form: Any) -> None:
    error = told(61)
    flaky = Flaky(error)
    with pytest.raises(RetryAfterTooLong) as caught:
        run(lambda: form(Retry(on=OSError), flaky))
    assert caught.value.retry_after == 61
    assert caught.value.__cause__ is error
    assert flaky.calls == 1


@each_form
def test_throttle_errors_are_never_retried(run: Run, form: Any) -> None:
    flaky = Flaky(WaitTooLong(1.0))
    with pytest.raises(WaitTooLong):
        run(lambda: form(Retry(on=Exception, backoff=AT_ONCE), flaky))
    assert flaky.calls == 1


@each_form
def test_exits_are_never_retried(run: Run, form: Any) -> None:
    class Exit(BaseException):
        pass

    flaky = Flaky(Exit())
    with pytest.raises(Exit):
        run(lambda: form(Retry(on=lambda error: pytest.fail("asked"), backoff=AT_ONCE), flaky))
    assert flaky.calls == 1


@each_form
def test_cancellation_is_never_retried(run: Run, form: Any) -> None:
    calls: list[int] = []

    async def slow() -> None:
        calls.append(1)
        await anyio.sleep(100)

    async def main() -> float:
        start = anyio.current_time()
        with anyio.move_on_after(1):
            await form(Retry(on=BaseException, backoff=AT_ONCE, timeout=50, attempt_timeout=20), slow)
        return anyio.current_time() - start

    assert run(main) == pytest.approx(1)
    assert len(calls) == 1


@each_form
def test_a_wait_can_be_cancelled(run: Run, form: Any) -> None:
    async def main() -> bool:
        with anyio.move_on_after(1) as scope:
            await form(Retry(on=OSError, backoff=Constant(10)), Flaky(OSError()))
        return scope.cancelled_caught

    assert run(main)


@each_form
def test_groups_are_retried_when_all_leaves_match(run: Run, form: Any) -> None:
    flaky = Flaky(ExceptionGroup("", [told(2), told(4)]), ExceptionGroup("", [OSError(), ValueError()]))

    async def main() -> None:
        start = anyio.current_time()
        with pytest.raises(ExceptionGroup):
            await form(Retry(on=OSError, backoff=AT_ONCE), flaky)
        assert anyio.current_time() - start == pytest.approx(4)

    run(main)
    assert flaky.calls == 2


@each_form
def test_the_budget_ends_it(run: Run, form: Any) -> None:
    policy = Retry(on=OSError, attempts=None, backoff=AT_ONCE, budget=RetryBudget(ratio=0, reserve=0.3))
    flaky = Flaky(OSError("last"))
    with pytest.raises(OSError, match="last"):
        run(lambda: form(policy, flaky))
    assert flaky.calls == 4


@each_form
def test_stops_of_tenacity(run: Run, form: Any) -> None:
    flaky = Flaky(OSError("last"))
    policy = Retry(on=OSError, stop=tenacity.stop_after_attempt(2), backoff=tenacity.wait_fixed(1))
    with pytest.raises(OSError, match="last"):
        run(lambda: form(policy, flaky))
    assert flaky.calls == 2


@each_form
def test_no_waits(form: Any) -> None:
    async def main() -> None:
        await form(Retry(on=OSError, backoff=Constant(1000)), Flaky(OSError(), told(50), 1))

    before = time.monotonic()
    with no_waits(), no_waits():
        asyncio.run(main())
    assert time.monotonic() - before < 5


@each_form
def test_without_waits_there_is_nothing_that_does_not_fit(run: Run, form: Any) -> None:
    flaky = Flaky(OSError(), told(50), "done")
    with no_waits():
        assert run(lambda: form(Retry(on=OSError, backoff=Constant(1000), timeout=5), flaky)) == "done"


@each_form
def test_many_retries_without_a_wait_let_others_run(run: Run, form: Any) -> None:
    async def main() -> int:
        flaky = Flaky(OSError())
        with anyio.move_on_after(0):
            await form(Retry(on=OSError, attempts=None, backoff=AT_ONCE), flaky)
        return flaky.calls

    assert run(main) <= 64


@each_form
def test_tasks_share_nothing(run: Run, form: Any) -> None:
    policy = Retry(on=OSError, attempts=3, backoff=Constant(1))
    results: list[str] = []

    async def one() -> None:
        results.append(await form(policy, Flaky(OSError(), OSError(), "done")))

    async def main() -> float:
        start = anyio.current_time()
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(one)
        return anyio.current_time() - start

    assert run(main) == pytest.approx(2)
    assert results == ["done"] * 20


@each_form
def test_hints_replaces_listening(run: Run, form: Any) -> None:
    async def main() -> float:
        start = anyio.current_time()
        policy = Retry(on_result=bool, hints=lambda told: Hints(refused=True, retry_after=float(told)), backoff=AT_ONCE)
        await form(policy, Flaky(2, 3, 0))
        return anyio.current_time() - start

    assert run(main) == pytest.approx(5)


# ── the context ──────────────────────────────────────────────────────────────────────────────────────────────────────


@each_form
def test_each_call_is_in_the_context_while_it_runs(run: Run, form: Any) -> None:
    seen: list[Any] = []

    async def look() -> str:
        seen.append(current_call.get())
        if len(seen) < 3:
            raise OSError
        return "done"

    async def main() -> None:
        await form(Retry(on=OSError, backoff=AT_ONCE, max_retry_after=33), look)
        assert current_call.get() is None

    run(main)
    assert seen[0] is seen[1] is seen[2]
    assert seen[0] is not None
    assert seen[0].patience is None  # over: what was left behind is bound by nothing


@each_form
def test_a_call_in_a_call_has_its_own_and_the_outer_bounds(run: Run, form: Any) -> None:
    async def inner() -> Any:
        return current_call.get(), current_call.get().deadline, current_call.get().patience  # type: ignore[union-attr]

    async def outer() -> Any:
        mine = current_call.get()
        assert mine is not None
        theirs = await form(Retry(on=OSError, timeout=50, max_retry_after=7), inner)
        assert theirs[0] is not mine
        assert theirs[1] == mine.deadline
        assert theirs[2] == 7
        assert current_call.get() is mine
        wide = await form(Retry(on=OSError), inner)
        assert wide[1] == mine.deadline

    run(lambda: form(Retry(on=OSError, timeout=20), outer))


# ── the decorator ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_decorated_function_looks_like_itself() -> None:
    @retry(on=OSError)
    async def fetch(url: str, *, deep: bool = False) -> str:
        """Fetch it."""
        return url

    assert fetch.__name__ == "fetch"
    assert fetch.__doc__ == "Fetch it."
    assert inspect.iscoroutinefunction(fetch)
    assert str(inspect.signature(fetch)) == "(url: 'str', *, deep: 'bool' = False) -> 'str'"
    assert asyncio.run(fetch("a", deep=True)) == "a"


def test_methods_partials_and_callable_objects() -> None:
    class Client:
        calls = 0

        @retry(on=OSError, backoff=AT_ONCE)
        async def get(self, x: int) -> int:
            self.calls += 1
            if self.calls < 2:
                raise OSError
            return x

        @staticmethod
        @retry(on=OSError, backoff=AT_ONCE)
        async def static(x: int) -> int:
            return x

    client = Client()
    assert asyncio.run(client.get(3)) == 3
    assert client.calls == 2
    assert asyncio.run(Client.static(4)) == 4
    again = Retry(on=OSError, backoff=AT_ONCE)
    flaky = Flaky(OSError(), 5)
    assert asyncio.run(again(functools.partial(flaky, 1))()) == 5
    assert asyncio.run(again(Flaky(OSError(), 6))()) == 6


def test_call_takes_lambdas_and_arguments() -> None:
    async def add(a: int, *, b: int) -> int:
        return a + b

    policy = Retry(on=OSError)
    assert asyncio.run(policy.call(add, 1, b=2)) == 3
    assert asyncio.run(policy.call(lambda: add(1, b=3))) == 4


@pytest.mark.parametrize("bare", [lambda: retry(len), retry, lambda: retry(attempts=3), lambda: Retry(attempts=3)(len)])
def test_the_form_is_shown(bare: Any) -> None:
    with pytest.raises(TypeError, match=r"@retry\(on=ConnectionError, attempts=5\)"):
        bare()


def test_a_policy_without_a_rule_drives_no_function() -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="say what to retry"):
            await Retry().call(Flaky(1))
        with pytest.raises(TypeError, match="say what to retry"):
            aiter(Retry())

    asyncio.run(main())


def test_what_cannot_be_decorated() -> None:
    async def stream() -> Any:
        yield 1

    def plain() -> Iterator[int]:
        yield 1

    policy = Retry(on=OSError)
    for generator in (stream, plain):
        with pytest.raises(TypeError, match="is a generator"):
            policy(generator)
    for thing in (5, int, staticmethod(plain), classmethod(plain)):
        with pytest.raises(TypeError, match="a function is retried"):
            policy(thing)  # type: ignore[type-var]


def test_unknown_options() -> None:
    with pytest.raises(TypeError, match="tries"):
        retry(on=OSError, tries=3)  # type: ignore[call-arg]


def test_but_copies() -> None:
    policy = Retry(on=OSError, attempts=3, rng=Random(1))
    assert policy.but(attempts=4) == Retry(on=OSError, attempts=4, rng=policy.rng)
    assert policy.attempts == 3
    with pytest.raises(ValueError, match="attempts"):
        policy.but(attempts=0)
    assert repr(policy.but(rng=None, on=(OSError, KeyError))) == (
        "Retry(on=(<class 'OSError'>, <class 'KeyError'>), attempts=3)"
    )


def test_for_http() -> None:
    policy = Retry.for_http()
    assert (policy.attempts, policy.max_retry_after) == (5, 60.0)
    assert isinstance(policy.budget, BudgetPerKey)
    assert policy.budget is not Retry.for_http().budget
    assert policy.http is not None
    assert policy.http.wanted("GET", status=503, hints=Hints())
    custom = Retry.for_http(attempts=2, methods=["POST"], statuses=[500], budget=None, timeout=9)
    assert (custom.attempts, custom.budget, custom.timeout) == (2, None, 9.0)
    assert custom.http is not None
    assert custom.http.wanted("POST", status=500, hints=Hints())
    assert custom.but(attempts=3).http == custom.http
    with pytest.raises(TypeError, match="no on or on_result"):
        Retry.for_http(on=httpx.TransportError, on_result=bool)


# ── blocks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_attempts_are_numbered(run: Run) -> None:
    async def main() -> list[str]:
        seen = []
        async for attempt in Retry(on=OSError, attempts=3, backoff=AT_ONCE):
            seen.append(repr(attempt))
            with attempt:
                if attempt.number < 3:
                    raise OSError
        return seen

    assert run(main) == ["<Attempt 1>", "<Attempt 2>", "<Attempt 3>"]


def test_a_block_can_be_left(run: Run) -> None:
    async def by_return() -> int:
        async for attempt in Retry(on=OSError, backoff=AT_ONCE):
            with attempt:
                if attempt.number < 2:
                    raise OSError
                return attempt.number
        return -1

    async def by_break() -> int:
        async for attempt in Retry(on=OSError, backoff=AT_ONCE):
            with attempt:
                break
        return attempt.number

    assert run(by_return) == 2
    assert run(by_break) == 1


def test_a_result_is_judged_only_if_it_is_set(run: Run) -> None:
    async def main() -> int:
        count = 0
        async for attempt in Retry(on_result=lambda value: value is None, backoff=AT_ONCE):
            with attempt:
                count += 1
        return count

    assert run(main) == 1


def test_a_result_without_on_result_ends_it(run: Run) -> None:
    assert run(lambda: by_blocks(Retry(on=OSError), Flaky(None))) is None


def test_a_loop_without_blocks_is_told_the_form() -> None:
    async def main() -> None:
        async for _ in Retry(on=OSError):
            pass

    with pytest.raises(RuntimeError, match="with attempt:"):
        asyncio.run(main())


def test_a_loop_can_be_taken_up_again() -> None:
    async def main() -> list[int]:
        seen = []
        loop = aiter(Retry(on=OSError, attempts=3, backoff=AT_ONCE))
        for _ in range(2):
            async for attempt in loop:
                seen.append(attempt.number)
                with attempt:
                    if attempt.number < 3:
                        raise OSError
                    continue
        return seen

    assert asyncio.run(main()) == [1, 2, 3]


def test_an_attempt_is_entered_once() -> None:
    async def main() -> None:
        async for attempt in Retry(on=OSError):
            with attempt:
                pass
            with pytest.raises(RuntimeError, match="entered once"):
                attempt.__enter__()

    asyncio.run(main())


def test_the_loop_counts_from_the_start_each_time() -> None:
    policy = Retry(on=OSError, attempts=2, backoff=AT_ONCE)

    async def main() -> None:
        for _ in range(3):
            assert await by_blocks(policy, Flaky(OSError(), "done")) == "done"

    asyncio.run(main())


# ── plain functions ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    sleeps: list[float] = []
    monkeypatch.setattr(time, "sleep", sleeps.append)
    return sleeps


def test_plain_functions(slept: list[float]) -> None:
    flaky = Flaky(OSError(), told(7), "done")
    assert Retry(on=OSError, backoff=Constant(1), rng=Random(1))(flaky.plain)() == "done"
    assert slept[0] == 1
    assert 7 <= slept[1] <= 8
    assert flaky.calls == 3


def test_plain_functions_end_as_the_others(slept: list[float]) -> None:
    last = OSError("last")
    with pytest.raises(OSError, match="last") as caught:
        Retry(on=OSError, attempts=2, backoff=AT_ONCE)(Flaky(OSError(), last).plain)()
    assert caught.value is last
    with pytest.raises(ValueError, match="no"):
        Retry(on=OSError)(Flaky(ValueError("no")).plain)()
    with pytest.raises(RetryAfterTooLong):
        Retry(on=OSError)(Flaky(told(1000)).plain)()
    assert Retry(on_result=lambda value: value < 9, attempts=3, backoff=AT_ONCE)(Flaky(1, 2, 3).plain)() == 3
    assert Retry(on_result=lambda value: value < 2, backoff=AT_ONCE)(Flaky(1, 2, 3).plain)() == 2
    assert slept == []


def test_a_plain_wait_that_does_not_fit_is_not_begun(slept: list[float]) -> None:
    error = OSError()
    with pytest.raises(DeadlineExceeded) as caught:
        Retry(on=OSError, timeout=5, backoff=Constant(10))(Flaky(error).plain)()
    assert caught.value.__cause__ is error
    assert caught.value.timeout == 5
    assert slept == []
    assert Retry(on=OSError, timeout=5, backoff=Constant(1))(Flaky(error, 1).plain)() == 1
    assert slept == [1]


def test_a_very_long_plain_wait_is_no_overflow(slept: list[float]) -> None:
    assert Retry(on=OSError, max_retry_after=None, backoff=AT_ONCE)(Flaky(told(1e300), 1).plain)() == 1
    assert slept == [1e9]


def test_plain_functions_have_no_attempt_timeout() -> None:
    with pytest.raises(ValueError, match=r"attempt_timeout=3\.0 cannot end a plain function"):
        retry(on=OSError, attempt_timeout=3)(len)


def test_a_coroutine_out_of_a_plain_function() -> None:
    @retry(on=OSError)
    def forgot() -> Any:
        return Flaky(1)()

    with pytest.raises(TypeError, match="write `async def`"):
        forgot()


def test_plain_functions_keep_their_arguments() -> None:
    assert retry(on=OSError)(lambda a, *, b: a + b)(1, b=2) == 3


def test_threads_share_a_policy(slept: list[float]) -> None:
    policy = Retry(on=OSError, attempts=3, backoff=Constant(1), budget=RetryBudget())
    done: list[Any] = []
    threads = [
        threading.Thread(target=lambda: done.append(policy(Flaky(OSError(), OSError(), 1).plain)())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [1] * 8
    assert slept == [1] * 16


# ── what is left behind ──────────────────────────────────────────────────────────────────────────────────────────────

POLICIES = [
    Retry(on=OSError, attempts=2, backoff=AT_ONCE),
    Retry(on=OSError, attempts=2, backoff=tenacity.wait_fixed(0), stop=tenacity.stop_after_attempt(2)),
    Retry(on=OSError, attempts=2, backoff=AT_ONCE, timeout=50, attempt_timeout=20),
    Retry(on=OSError, timeout=5, backoff=Constant(10)),
    Retry(on=OSError, max_retry_after=0.5),
]


@pytest.mark.parametrize("policy", POLICIES)
@each_form
def test_giving_up_leaves_no_garbage(form: Any, policy: Retry) -> None:
    alive: weakref.WeakSet[Exception] = weakref.WeakSet()

    class Marked(OSError):
        retry_after = 1.0

        def __init__(self, text: str) -> None:
            super().__init__(text)
            alive.add(self)

    async def failing() -> None:
        raise Marked("x")

    async def main(limit: float) -> int:
        for _ in range(3):  # what the first round loads is not counted
            alive.clear()
            with contextlib.suppress(Exception), anyio.move_on_after(limit):
                await form(policy, failing)
        return len(alive)

    gc.disable()  # what is still alive hangs in a circle
    try:
        assert run_virtual(main, math.inf) == 0
        assert run_virtual(main, 0.5) == 0, "cancelled while it waits"
    finally:
        gc.enable()


@pytest.mark.parametrize("policy", POLICIES[:1])
def test_plain_functions_leave_no_garbage(policy: Retry) -> None:
    class Marked(OSError):
        pass

    def failing() -> None:
        raise Marked

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(Marked):
            policy(failing)()
        assert not [thing for thing in gc.get_objects() if isinstance(thing, Marked)]
    finally:
        gc.enable()


# ── hooks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_events_are_told() -> None:
    events: list[Event] = []
    errors = [OSError(number) for number in range(3)]
    policy = Retry(on=OSError, attempts=3, backoff=Exponential(base=1))
    with no_waits(), pytest.raises(OSError):
        asyncio.run(driven(policy, Flaky(*errors), Hooks(key="k", notify=events.append))())
    assert events == [Retrying("k", 1, 0.0, errors[0]), Retrying("k", 2, 0.0, errors[1]), GaveUp("k", 3, errors[2])]


def test_what_was_not_wanted_is_no_giving_up() -> None:
    events: list[Event] = []
    with pytest.raises(ValueError, match="no"):
        asyncio.run(driven(Retry(on=OSError), Flaky(ValueError("no")), Hooks(notify=events.append))())
    assert events == []


def test_events_of_impatience() -> None:
    events: list[Event] = []
    with pytest.raises(RetryAfterTooLong) as caught:
        asyncio.run(driven(Retry(on=OSError), Flaky(told(99)), Hooks(key="k", notify=events.append))())
    assert events == [GaveUp("k", 1, caught.value)]
    assert caught.value.key == "k"


def test_a_judge_takes_the_place_of_on() -> None:
    seen: list[Any] = []

    def judge(outcome: Any, failed: bool, hints: Hints | None) -> bool:
        seen.append((outcome, failed, hints))
        return outcome != "good"

    error = told(1)
    policy = Retry.for_http(backoff=AT_ONCE)
    with no_waits():
        assert asyncio.run(driven(policy, Flaky(error, "bad", "good"), Hooks(judge=judge))()) == "good"
    assert seen == [(error, True, Hints(refused=True, retry_after=1.0)), ("bad", False, None), ("good", False, None)]


def test_results_are_discarded_before_the_next_attempt_only() -> None:
    discarded: list[Any] = []

    async def discard(result: Any) -> None:
        discarded.append(result)

    hooks = Hooks(judge=lambda outcome, failed, hints: True, discard=discard)
    policy = Retry.for_http(attempts=3, backoff=AT_ONCE)
    assert asyncio.run(driven(policy, Flaky("a", OSError(), "c"), hooks)()) == "c"
    assert discarded == ["a"]


class Response:
    def __init__(self, retry_after: float) -> None:
        self.retry_after = retry_after


@pytest.mark.parametrize("keep", [True, False])
def test_a_response_that_asks_for_too_much(keep: bool) -> None:
    response = Response(99.0)
    hooks = Hooks(judge=lambda outcome, failed, hints: True, keep=keep)
    coroutine = driven(Retry.for_http(), Flaky(response), hooks)()
    if keep:
        assert asyncio.run(coroutine) is response
    else:
        with pytest.raises(RetryAfterTooLong) as caught:
            asyncio.run(coroutine)
        assert caught.value.__cause__ is None


def test_the_context_of_a_call_is_the_callers() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def set_it() -> None:
        variable.set(5)

    async def main() -> int:
        await Retry(on=OSError).call(set_it)
        return variable.get()

    assert asyncio.run(main()) == 5
