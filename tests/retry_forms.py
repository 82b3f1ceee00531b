"""What the tests of retries share: the forms, functions that fail, and both event loops in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from throttle.backoff import Constant
from throttle.retrying import Retry

AT_ONCE = Constant(0)
Run = Callable[[Callable[[], Awaitable[Any]]], Any]


@pytest.fixture
def run(anyio_backend: str) -> Run:
    """Runs an async function on asyncio and on trio, in virtual time."""
    if anyio_backend == "asyncio":
        from throttle.testing import run_virtual

        return run_virtual
    import trio
    from trio.testing import MockClock

    return lambda fn: trio.run(fn, clock=MockClock(autojump_threshold=0))


class Flaky:
    """Fails with each of `outcomes` that is an exception, returns the others; the last one for ever."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.calls = 0

    def plain(self, *args: Any, **kwargs: Any) -> Any:
        outcome = self.outcomes[min(self.calls, len(self.outcomes) - 1)]
        self.calls += 1
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.plain(*args, **kwargs)


def told(seconds: float) -> OSError:
    error = OSError("slow down")
    error.retry_after = seconds  # type: ignore[attr-defined]
    return error


# One spelling per form: each makes an async function out of a policy and a function.
async def by_call(policy: Retry, fn: Any) -> Any:
    return await policy.call(fn)


async def by_decorator(policy: Retry, fn: Any) -> Any:
    @policy
    async def decorated() -> Any:
        return await fn()

    return await decorated()


async def by_blocks(policy: Retry, fn: Any) -> Any:
    result = None
    async for attempt in policy:
        with attempt:
            result = attempt.result = await fn()
    return result


FORMS = [by_call, by_decorator, by_blocks]
each_form = pytest.mark.parametrize("form", FORMS)
