"""`timeout` and `attempt_timeout`, and retry and limiter together: one path for every outcome. In virtual time."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from retry_forms import AT_ONCE, Flaky, Run, each_form, run, told

from throttle.backoff import Constant
from throttle.calls import Call, current_call
from throttle.decorators import throttled
from throttle.driving import Hooks, driven
from throttle.errors import DeadlineExceeded, RetryAfterTooLong, WaitTooLong
from throttle.events import Event, GaveUp, Retrying
from throttle.hints import Hints
from throttle.limiter import TokenBucket
from throttle.retrying import Retry
from throttle.testing import run_virtual

__all__ = ["run"]  # a fixture


class Slow:
    """Takes so many seconds at each call, then fails or returns."""

    def __init__(self, *seconds: float, error: Exception | None = None) -> None:
        self.seconds = list(seconds)
        self.error = error
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        await anyio.sleep(self.seconds[min(self.calls, len(self.seconds)) - 1])
        if self.error is not None:
            raise self.error
        return "done"


# ── timeout ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@each_form
def test_timeout_interrupts(run: Run, form: Any) -> None:
    slow = Slow(100)

    async def main() -> None:
        start = anyio.current_time()
        with pytest.raises(DeadlineExceeded) as caught:
            await form(Retry(on=OSError, timeout=5), slow)
        assert anyio.current_time() - start == pytest.approx(5)
        assert caught.value.__cause__ is None
        assert caught.value.timeout == 5

    run(main)
    assert slow.calls == 1


@each_form
def test_its_cause_is_the_last_failure(run: Run, form: Any) -> None:
    error = OSError("first")

    async def once_then_slow() -> None:
        if calls.append(1) or len(calls) == 1:  # type: ignore[func-returns-value]
            raise error
        await anyio.sleep(100)

    calls: list[int] = []

    async def main() -> None:
        start = anyio.current_time()
        with pytest.raises(DeadlineExceeded) as caught:
            await form(Retry(on=OSError, timeout=5, backoff=Constant(1)), once_then_slow)
        assert anyio.current_time() - start == pytest.approx(5)
        assert caught.value.__cause__ is error

    run(main)


@each_form
def test_a_wait_that_does_not_fit_is_not_begun(run: Run, form: Any) -> None:
    error = told(10)

    async def main() -> None:
        start = anyio.current_time()
        with pytest.raises(DeadlineExceeded) as caught:
            await form(Retry(on=OSError, timeout=5), Flaky(error))
        assert anyio.current_time() == start
        assert caught.value.__cause__ is error

    run(main)


@each_form
def test_in_time_is_in_time(run: Run, form: Any) -> None:
    assert run(lambda: form(Retry(on=OSError, timeout=5, attempt_timeout=4), Slow(3))) == "done"


@each_form
def test_timeout_is_for_each_call(run: Run, form: Any) -> None:
    policy = Retry(on=OSError, timeout=5)

    async def main() -> None:
        for _ in range(3):
            assert await form(policy, Slow(4)) == "done"

    run(main)


@each_form
def test_a_result_that_keeps_asking_for_more_time(run: Run, form: Any) -> None:
    async def main() -> None:
        with pytest.raises(DeadlineExceeded) as caught:
            await form(Retry(on_result=lambda value: value is None, timeout=5, backoff=Constant(3)), Flaky(None))
        assert caught.value.__cause__ is None

    run(main)


# ── attempt_timeout ──────────────────────────────────────────────────────────────────────────────────────────────────


@each_form
def test_an_attempt_that_is_ended_is_retried_whatever_on_says(run: Run, form: Any) -> None:
    slow = Slow(100, 1)

    async def main() -> float:
        start = anyio.current_time()
        assert await form(Retry(on=KeyError, attempt_timeout=5, backoff=AT_ONCE), slow) == "done"
        return anyio.current_time() - start

    assert run(main) == pytest.approx(6)


@each_form
def test_the_last_one_raises_timeout_error(run: Run, form: Any) -> None:
    slow = Slow(100)

    async def main() -> None:
        with pytest.raises(TimeoutError, match="attempt_timeout=5") as caught:
            await form(Retry(on=KeyError, attempts=2, attempt_timeout=5, backoff=AT_ONCE), slow)
        assert type(caught.value) is TimeoutError

    run(main)
    assert slow.calls == 2


@each_form
def test_a_timeout_of_the_functions_own_is_asked_about(run: Run, form: Any) -> None:
    flaky = Flaky(TimeoutError("mine"))

    async def main() -> None:
        with pytest.raises(TimeoutError, match="mine"):
            await form(Retry(on=KeyError, attempt_timeout=5), flaky)

    run(main)
    assert flaky.calls == 1


@each_form
def test_the_inner_calls_ended_attempt_is_no_news_to_the_outer(run: Run, form: Any) -> None:
    slow = Slow(100)
    inner = Retry(on=KeyError, attempts=1, attempt_timeout=2)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await form(Retry(on=KeyError, attempt_timeout=50), lambda: inner.call(slow))

    run(main)
    assert slow.calls == 1


@each_form
def test_both_timeouts(run: Run, form: Any) -> None:
    slow = Slow(100)

    async def main() -> None:
        start = anyio.current_time()
        with pytest.raises(DeadlineExceeded) as caught:
            await form(Retry(on=KeyError, attempts=None, timeout=10, attempt_timeout=4, backoff=AT_ONCE), slow)
        assert anyio.current_time() - start == pytest.approx(10)
        assert type(caught.value.__cause__) is TimeoutError

    run(main)
    assert slow.calls == 3


@each_form
def test_a_group_around_the_end_of_an_attempt(run: Run, form: Any) -> None:
    """On trio a task group wraps what a cancelled child raises besides."""

    async def failing() -> None:
        try:
            await anyio.sleep(100)
        finally:
            raise OSError

    async def grouped() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(failing)
            await anyio.sleep(100)

    async def main() -> None:
        with pytest.raises((ExceptionGroup, TimeoutError)):
            await form(Retry(on=KeyError, attempts=1, attempt_timeout=5), grouped)

    run(main)


# ── in line ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@each_form
def test_attempt_timeout_starts_with_the_permit_and_not_in_line(form: Any) -> None:
    limiter = TokenBucket("1/s", burst=1)

    async def work() -> str:
        async with limiter.permit():
            await anyio.sleep(0.5)
        return "done"

    async def main() -> float:
        for _ in range(10):
            with limiter._core as now:
                limiter._core.take("", now, 1, held=False)  # a line of ten seconds
        start = anyio.current_time()
        assert await form(Retry(on=OSError, attempts=1, attempt_timeout=1), work) == "done"
        return anyio.current_time() - start

    assert run_virtual(main) == pytest.approx(10.5)


@pytest.mark.parametrize("timeout", [None, 99])
def test_the_timer_stands_still_in_each_line(run: Run, timeout: float | None) -> None:
    """What a limiter tells a call: `waiting()`, `granted()`."""
    one = Retry(on=OSError, attempts=1, attempt_timeout=3, timeout=timeout)

    async def main() -> None:
        async def work(*steps: tuple[float, str]) -> str:
            call = current_call.get()
            assert call is not None
            assert call.waiting is not None
            assert call.granted is not None
            for seconds, then in steps:
                await anyio.sleep(seconds)
                {"waiting": call.waiting, "granted": call.granted}[then]()
            await anyio.sleep(2.5)
            return "done"

        assert await one.call(work, (2, "granted")) == "done"  # starts anew with the first permit
        assert await one.call(work, (2, "waiting"), (20, "granted")) == "done"
        assert await one.call(work, (0, "waiting"), (9, "granted"), (0.2, "waiting"), (9, "granted")) == "done"
        assert await one.call(work, (0, "granted"), (0.4, "granted")) == "done"
        assert await one.call(work, (0, "waiting"), (1, "waiting"), (9, "granted")) == "done"
        for steps in [
            [(0, "granted"), (0.6, "granted")],
            [(0, "granted"), (0.6, "waiting"), (9, "granted")],  # the second time it goes on with what was left
        ]:
            with pytest.raises(TimeoutError):
                await one.call(work, *steps)

    run(main)


def test_the_outer_timer_stands_still_in_an_inner_calls_line(run: Run) -> None:
    async def work() -> str:
        call = current_call.get()
        assert call is not None
        assert call.waiting is not None
        assert call.granted is not None
        call.waiting()
        await anyio.sleep(50)
        call.granted()
        return "done"

    async def main() -> None:
        outer = Retry(on=OSError, attempts=1, attempt_timeout=3)
        for inner in (Retry(on=OSError), Retry(on=OSError, attempt_timeout=2), Retry(on=OSError, timeout=99)):
            assert await outer.call(inner.call, work) == "done"

    run(main)


def test_without_attempt_timeout_nobody_is_told(run: Run) -> None:
    async def work() -> tuple[Any, Any]:
        call = current_call.get()
        assert call is not None
        return call.waiting, call.granted

    assert run(lambda: Retry(on=OSError).call(work)) == (None, None)


def test_what_is_left_of_timeout_bounds_each_acquire() -> None:
    limiter = TokenBucket("1/min", burst=1)

    async def main() -> None:
        await limiter.acquire()
        start = anyio.current_time()
        with pytest.raises(DeadlineExceeded) as caught:
            await Retry(on=OSError, timeout=30).call(limiter.acquire)
        assert anyio.current_time() == start
        assert caught.value.__cause__ is None
        with pytest.raises(WaitTooLong):
            await Retry(on=OSError, timeout=300).call(limiter.acquire, max_wait=5)
        await Retry(on=OSError, timeout=70).call(limiter.acquire)

    run_virtual(main)


def test_the_outer_timeout_bounds_an_inner_calls_acquire() -> None:
    limiter = TokenBucket("1/min", burst=1)

    async def main() -> None:
        await limiter.acquire()
        start = anyio.current_time()
        with pytest.raises(DeadlineExceeded) as caught:
            await Retry(on=OSError, timeout=30).call(Retry(on=OSError, timeout=300).call, limiter.acquire)
        assert caught.value.timeout == 30
        assert anyio.current_time() == start

    run_virtual(main)


# ── one path ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_refused_call_goes_back_into_the_line() -> None:
    flaky = Flaky(told(3), told(4), "done")
    events: list[Event] = []

    async def main() -> float:
        start = anyio.current_time()
        policy = Retry(on=OSError, backoff=Constant(100))  # would wait 100 s by itself
        assert await driven(policy, throttled("100/s")(flaky), Hooks(notify=events.append))() == "done"
        return anyio.current_time() - start

    assert run_virtual(main) == pytest.approx(7, abs=0.1)
    assert [event.delay for event in events if isinstance(event, Retrying)] == [0.0, 0.0]


def test_a_failure_that_is_no_refusal_sleeps_by_itself() -> None:
    flaky = Flaky(OSError(), "done")

    async def main() -> float:
        start = anyio.current_time()
        await Retry(on=OSError, backoff=Constant(5)).call(throttled("100/s")(flaky))
        return anyio.current_time() - start

    assert run_virtual(main) == pytest.approx(5, abs=0.1)


def test_old_news_do_not_count_as_attempts() -> None:
    """Ten calls refused in one flight: one reaction; whose refusal was no news has all its attempts left."""
    refusals = [0]

    @throttled("1000/s")
    async def work() -> str:
        await anyio.sleep(0.01)
        if anyio.current_time() - start < 1:
            refusals[0] += 1
            raise told(2)
        return "done"

    start = 0.0

    async def main() -> None:
        nonlocal start
        start = anyio.current_time()
        policy = Retry(on=OSError, attempts=2)
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(policy.call, work)
        assert 2 <= anyio.current_time() - start < 4

    run_virtual(main)
    assert refusals[0] >= 2


@each_form
def test_the_gate_hears_by_the_hints_of_the_retry(form: Any) -> None:
    """A refusal that only `hints=` knows is news for everybody, and waits in the line."""
    refused: list[float] = []

    @throttled(TokenBucket("1000/s"))
    async def work() -> float:
        if not refused:
            refused.append(anyio.current_time())
            raise ValueError("limit")
        return anyio.current_time()

    def hints(outcome: Any) -> Hints | None:
        return Hints(refused=True, retry_after=7.0) if isinstance(outcome, ValueError) else None

    async def main() -> None:
        policy = Retry(on=ValueError, hints=hints, backoff=AT_ONCE)
        times: list[float] = []

        async def other() -> None:
            await anyio.sleep(1)
            times.append(await work())

        async with anyio.create_task_group() as group:
            group.start_soon(other)
            times.append(await form(policy, work))
        own, later = (at - refused[0] for at in times)
        assert 7 <= own <= later < 7.5  # the retry goes ahead

    run_virtual(main)


def test_what_a_gate_heard_is_not_asked_again() -> None:
    asked: list[Any] = []

    async def refused() -> str:
        call = current_call.get()
        assert call is not None
        if not asked:
            asked.append("once")
            call.hear("no", Hints(refused=True, retry_after=1.0), held=False, news=True)
            return "no"
        return "yes"

    async def main() -> float:
        start = anyio.current_time()
        policy = Retry(on_result=lambda value: value == "no", hints=lambda value: pytest.fail("asked"), backoff=AT_ONCE)
        assert await policy.call(refused) == "yes"
        return anyio.current_time() - start

    assert run_virtual(main) == pytest.approx(1)


def test_a_pause_beyond_ones_patience() -> None:
    limiter = TokenBucket("10/s")

    async def main() -> None:
        limiter.pause(100)
        with pytest.raises(RetryAfterTooLong):
            await Retry(on=OSError, max_retry_after=60).call(limiter.acquire)

    run_virtual(main)


def test_deadlines_are_told_as_giving_up(run: Run) -> None:
    events: list[Event] = []

    async def main() -> None:
        with pytest.raises(DeadlineExceeded) as caught:
            await driven(Retry(on=OSError, timeout=1), Slow(50), Hooks(key="k", notify=events.append))()
        assert events == [GaveUp("k", 1, caught.value)]

    run(main)


# ── after the call ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_task_that_was_left_behind_is_bound_by_nothing() -> None:
    import asyncio

    limiter = TokenBucket("1/min", burst=1)
    tasks: list[asyncio.Task[None]] = []

    async def leave() -> None:
        tasks.append(asyncio.create_task(later()))

    async def later() -> None:
        await asyncio.sleep(100)
        await limiter.acquire()
        await limiter.acquire()

    async def main() -> None:
        for policy in (Retry(on=OSError, timeout=5, attempt_timeout=3), Retry(on=OSError)):
            await policy.call(leave)
            await policy.but(timeout=50).call(policy.call, leave)
        await asyncio.gather(*tasks)

    run_virtual(main)


def garbage(kind: type[Exception], work: Callable[[], Any]) -> int:
    """How many more exceptions there are when `work` has raised one."""

    def count() -> int:
        return sum(type(thing) is kind for thing in gc.get_objects())

    async def main() -> int:
        more = -1
        for _ in range(2):  # what the first round loads is not counted
            gc.collect()
            before = count()
            with contextlib.suppress(kind):
                await work()
            more = count() - before
        return more

    gc.disable()
    try:
        return int(run_virtual(main))
    finally:
        gc.enable()


@each_form
def test_an_attempt_that_was_ended_leaves_no_garbage(form: Any) -> None:
    policy = Retry(on=KeyError, attempts=2, attempt_timeout=1, backoff=AT_ONCE)
    assert garbage(TimeoutError, lambda: form(policy, Slow(10))) == 0


@each_form
def test_a_timeout_leaves_no_garbage(form: Any) -> None:
    policy = Retry(on=OSError, timeout=5, backoff=Constant(1))
    assert garbage(DeadlineExceeded, lambda: form(policy, Slow(2, error=OSError()))) == 0


@each_form
def test_what_a_limiter_heard_leaves_no_garbage(form: Any) -> None:
    class Marked(OSError):
        retry_after = 0.5

    @throttled("100/s")
    async def work() -> None:
        raise Marked

    assert garbage(Marked, lambda: form(Retry(on=OSError, attempts=2), work)) == 0


def test_a_call_that_ended_holds_nothing() -> None:
    call = Call()
    call.deadline, call.patience = 5.0, 6.0
    call.hear("outcome", Hints(), held=True, news=False)
    call.end()
    assert (call.deadline, call.patience, call.waiting, call.granted) == (None, None, None, None)
    assert call.outcome != "outcome"


def test_inherited_bounds() -> None:
    outer, inner = Call(), Call()
    waiting: Callable[[], None] = lambda: None
    outer.waiting = outer.granted = waiting
    inner.deadline = 5.0
    inner.inherit(outer)
    assert (inner.deadline, inner.waiting, inner.granted) == (5.0, waiting, waiting)
    outer.deadline = 9.0
    inner.inherit(outer)
    assert inner.deadline == 5.0
    outer.deadline = 2.0
    inner.inherit(outer)
    assert inner.deadline == 2.0
