"""One call under a policy: the policy decides, the clock sleeps, a limiter's line waits.

One step (`Driver.step`) follows each attempt, whatever the form: `driven` awaits a function, `driven_plain` calls one,
and retrying.py hands out blocks. The async forms open a `Call` in the context, where limiters find it (see calls.py).
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .calls import Call, current_call, waits_are_off
from .clock import current_clock
from .errors import DeadlineExceeded, RetryAfterTooLong, ThrottleError, WaitTooLong
from .events import Event, GaveUp, Retrying
from .hints import Hints
from .policy import Again, Course, Policy

if TYPE_CHECKING:
    from anyio import CancelScope

__all__ = ["BREATH", "Driver", "Hooks", "Timer", "driven", "driven_plain"]

T = TypeVar("T")

BREATH = 64  # so many retries in a row without a wait, and other tasks get a turn
_outer, _enter = current_call.get, current_call.set  # bound once: this is the way of every call


@dataclass(frozen=True, kw_only=True, slots=True)
class Hooks:
    """What a bundle or transport adds to a drive.

    - `key`: whose budget it is, and what events are told.
    - `judge(outcome, failed, hints)`: whether to try again, in place of `on` and `on_result`.
    - `discard(result)`: awaited before the next attempt takes the place of a result.
    - `notify(event)`: told of `Retrying`, unless `silent`, and of `GaveUp`; must not raise.
    - `keep`: results are responses: one whose server asks for too much patience is returned, not `RetryAfterTooLong`
      raised; and `judge` also decides whether an attempt that `attempt_timeout` ended may be sent again.
    """

    key: str = ""
    judge: Callable[[Any, bool, Hints | None], bool] | None = None
    discard: Callable[[Any], Awaitable[object]] | None = None
    notify: Callable[[Event], object] | None = None
    silent: bool = False
    keep: bool = False


_NO_HOOKS = Hooks()


# ── one step after each attempt ───────────────────────────────────────────────────────────────────────────────────────


class Driver:
    """One call under way: its course, its `Call`, and what follows each attempt."""

    __slots__ = ("call", "course", "expired", "hooks", "policy", "until")

    def __init__(self, policy: Policy, call: Call, hooks: Hooks = _NO_HOOKS, *, plain: bool = False) -> None:
        self.policy: Policy = policy
        self.call: Call = call
        self.hooks: Hooks = hooks
        self.course: Course = Course(policy, current_clock().now() if policy.prepared else 0.0, hooks.key)
        self.expired: Literal["", "attempt", "call"] = ""  # what timeout has ended the attempt
        self.until: float = math.inf  # the end of `timeout` as the event loop counts
        if policy.hints is not None:
            call.hears = policy.hear
        if policy.timeout is not None:
            call.deadline = self.course.deadline
            if not plain:
                import anyio

                self.until = anyio.current_time() + policy.timeout

    def step(self, outcome: Any, *, failed: bool) -> float | None:
        """Seconds to wait before the next attempt, or None: `outcome` is the caller's. Raises what he gets instead."""
        expired, self.expired = self.expired, ""
        now = self._now() if self.policy.prepared else 0.0
        course, call, heard = self.course, self.call, self.call.outcome is outcome
        if expired == "call" or (isinstance(outcome, WaitTooLong) and self._binding(outcome, now)):
            raise self._gave_up(DeadlineExceeded(self.policy.timeout or 0.0)) from course.failure
        hints = call.hints if heard else None
        if self.hooks.judge is not None:
            hints = hints if heard else self.policy.hear(outcome)
            wanted = self.hooks.judge(outcome, failed, hints)
        else:
            wanted = self.policy.wants(outcome) if failed else self.policy.wants_result(outcome)
            if wanted and not heard:
                hints = self.policy.hear(outcome)
        if not (wanted or (expired and not self.hooks.keep)):
            if isinstance(outcome, ThrottleError):
                self._gave_up(outcome)
            return None
        number = course.number
        held, news = heard and call.held, call.news or not heard
        step = course.after(
            outcome, failed=failed, hints=hints, now=now, held=held, news=news, waits=not waits_are_off()
        )
        failure = outcome if failed else None
        if isinstance(step, Again):
            course.failure = failure
            call.begin()
            if self.hooks.notify is not None and not self.hooks.silent:
                self.hooks.notify(Retrying(self.hooks.key, number, step.delay, outcome))
            return step.delay
        if step.reason == "timeout":
            raise self._gave_up(DeadlineExceeded(self.policy.timeout or 0.0)) from failure
        if step.reason == "patience" and not (self.hooks.keep and not failed):
            raise self._gave_up(RetryAfterTooLong(step.retry_after, self.hooks.key)) from failure
        self._gave_up(outcome)
        return None

    def _now(self) -> float:
        """Seconds on the default clock; under `timeout` the event loop says them, which may run on a test's clock."""
        now = current_clock().now()
        if self.until < math.inf and self.course.deadline is not None:
            import anyio

            now = max(now, self.course.deadline - (self.until - anyio.current_time()))
        return now

    def _binding(self, refused: WaitTooLong, now: float) -> bool:
        """Whether it was this call's own timeout that made a limiter refuse."""
        deadline = self.course.deadline
        return deadline is not None and now + refused.retry_after > deadline

    def _gave_up(self, outcome: T) -> T:
        if self.hooks.notify is not None:
            self.hooks.notify(GaveUp(self.hooks.key, self.course.number, outcome))
        return outcome

    async def attempt(self, fn: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """One attempt within its time."""
        with Timer(self) as timer:
            return await fn(*args, **kwargs)
        raise timer.error()

    def close(self) -> None:
        """Let go of every exception: each holds the frames that hold this."""
        self.course.close()
        self.call.end()


class Timer:
    """Ends an attempt in time. `attempt_timeout` starts with the first permit and stands still in line."""

    __slots__ = ("_before", "_driver", "_due", "_granted", "_left", "_now", "_scope")

    _scope: CancelScope

    def __init__(self, driver: Driver) -> None:
        import anyio

        self._now = anyio.current_time
        self._driver = driver
        self._left = math.inf if driver.policy.attempt_timeout is None else driver.policy.attempt_timeout
        self._granted = False
        self._before = driver.call.waiting, driver.call.granted
        self._due = self._now() + self._left
        self._scope = anyio.CancelScope(deadline=min(self._due, driver.until))

    def __enter__(self) -> Timer:
        self._driver.call.waiting, self._driver.call.granted = self._waiting, self._resume
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._driver.call.waiting, self._driver.call.granted = self._before
        self._scope.__exit__(kind, error, trace)
        if self._scope.cancelled_caught:
            self._driver.expired = "call" if self._now() >= self._driver.until else "attempt"
        return self._scope.cancelled_caught

    def error(self) -> TimeoutError:
        """What an attempt that was ended raises."""
        return TimeoutError(f"an attempt was not done within attempt_timeout={self._driver.policy.attempt_timeout} s")

    def _waiting(self) -> None:
        if self._due < math.inf:
            self._left, self._due = self._due - self._now(), math.inf
            self._scope.deadline = self._driver.until
        if self._before[0] is not None:
            self._before[0]()

    def _resume(self) -> None:
        limit = self._driver.policy.attempt_timeout
        if limit is not None and (not self._granted or self._due == math.inf):
            self._due = self._now() + (self._left if self._granted else limit)
            self._scope.deadline = min(self._due, self._driver.until)
        self._granted = True
        if self._before[1] is not None:
            self._before[1]()


# ── the forms ───────────────────────────────────────────────────────────────────────────────────────────────────


def driven(
    policy: Policy, fn: Callable[..., Awaitable[T]], hooks: Hooks = _NO_HOOKS
) -> Callable[..., Coroutine[Any, Any, T]]:
    """`fn` under `policy`: what `Retry`, the bundle and the transports have in common."""
    judged = policy.on_result is not None or hooks.judge is not None
    patience = policy.max_retry_after

    async def retried(*args: Any, **kwargs: Any) -> T:  # noqa: PLR0912  # in one piece: it is the way of every call
        outer = _outer()
        call = Call()
        call.patience = patience
        driver = Driver(policy, call, hooks) if policy.prepared else None
        attempt = functools.partial(driver.attempt, fn) if driver is not None and policy.timed else fn
        if outer is not None:
            call.inherit(outer)
        _enter(call)
        try:
            while True:
                try:
                    result = await attempt(*args, **kwargs)
                    if not judged:
                        return result
                except Exception as error:
                    driver = driver or Driver(policy, call, hooks)
                    delay = driver.step(error, failed=True)
                    if delay is None:
                        raise
                else:
                    driver = driver or Driver(policy, call, hooks)
                    delay = driver.step(result, failed=False)
                    if delay is None:
                        return result
                    if hooks.discard is not None:
                        await hooks.discard(result)
                if delay or not driver.course.number % BREATH:
                    await current_clock().sleep(delay)
        finally:
            if _outer() is call:  # else the garbage collector ends it, while another call runs
                _enter(outer)  # cheaper than reset(token)
            if driver is not None:
                driver.close()
            elif outer is not None:
                call.end()
            else:
                call.patience = None  # the rest was never set

    return retried


def driven_plain(policy: Policy, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    """`fn(*args, **kwargs)` of a plain function under `policy`; sleeps in its thread."""
    driver = Driver(policy, Call(), plain=True) if policy.prepared else None
    try:
        while True:
            try:
                result = fn(*args, **kwargs)
            except Exception as error:
                driver = driver or Driver(policy, Call(), plain=True)
                delay = driver.step(error, failed=True)
                if delay is None:
                    raise
            else:
                if isinstance(result, CoroutineType):
                    result.close()
                    raise TypeError(f"{fn!r} returned a coroutine: write `async def`, so that it can be retried")
                if policy.on_result is None:
                    return result
                driver = driver or Driver(policy, Call(), plain=True)
                delay = driver.step(result, failed=False)
                if delay is None:
                    return result
            if delay:
                time.sleep(min(delay, 1e9))
    finally:
        if driver is not None:
            driver.close()
