"""`Retry`: try a call again under a policy, as a decorator, a call or a loop of blocks. driving.py does the work."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from .budget import BudgetPerKey, RetryBudget
from .calls import Call, current_call
from .clock import current_clock
from .driving import BREATH, Driver, Hooks, Timer, driven, driven_plain
from .hints import Hints
from .policy import FORM, HTTPRules, Policy, is_async

if TYPE_CHECKING:
    from random import Random
    from typing import Unpack

    from tenacity import RetryCallState
    from tenacity.retry import retry_base
    from tenacity.stop import stop_base
    from tenacity.wait import wait_base

    from .backoff import Backoff

__all__ = ["Attempt", "Attempts", "Hooks", "Retry", "RetryOptions", "driven", "retry"]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_NOTHING: Any = object()


class RetryOptions(TypedDict, total=False):
    """The options of `Retry`."""

    on: type[BaseException] | tuple[type[BaseException], ...] | Callable[[Any], object] | retry_base | None
    on_result: Callable[[Any], object] | retry_base | None
    attempts: int | None
    timeout: float | None
    attempt_timeout: float | None
    backoff: Backoff | wait_base
    max_retry_after: float | None
    budget: RetryBudget | BudgetPerKey | None
    stop: Callable[[RetryCallState], object] | stop_base | None
    hints: Callable[[Any], Hints | None] | None
    rng: Random | None


class Attempt:
    """One attempt of `async for attempt in Retry(...)`: `with attempt: ...`.

    `number` counts from 1. `result`, if it is set in the block, is shown to `on_result`.
    """

    def __init__(self, driver: Driver) -> None:
        self.number: int = driver.course.number
        self.result: Any = _NOTHING
        self._driver = driver
        self._timer: Timer | None = None
        self._outer: Call | None = None
        self._state = "new"
        self._delay: float | None = None

    def __repr__(self) -> str:
        return f"<Attempt {self.number}>"

    def __enter__(self) -> Attempt:
        if self._state != "new":
            raise RuntimeError("an attempt is entered once; the next one comes from the loop")
        self._state = "entered"
        driver = self._driver
        self._outer = current_call.get()
        if self._outer is not None:
            driver.call.inherit(self._outer)
        current_call.set(driver.call)
        if driver.policy.timed:
            self._timer = Timer(driver)
            self._timer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if current_call.get() is self._driver.call:  # else the garbage collector ends it, while another call runs
            current_call.set(self._outer)
        self._state = "ended"
        outcome: BaseException | None = error
        try:
            if self._timer is not None:
                outcome = self._end(self._timer, kind, error, trace)
            if isinstance(outcome, Exception):
                self._delay = self._driver.step(outcome, failed=True)
            elif outcome is None and self.result is not _NOTHING:
                self._delay = self._driver.step(self.result, failed=False)
            if self._delay is None and outcome is not error and outcome is not None:
                raise outcome
            return self._delay is not None
        finally:
            del outcome, error  # or what is raised here would hold itself, by its traceback
            if self._delay is None:
                self._driver.close()

    def _end(self, timer: Timer, *exc: Any) -> BaseException | None:
        """What the block ended with: its own exception, what a scope left of it, or that its time was over."""
        try:
            return timer.error() if timer.__exit__(*exc) else exc[1]
        except BaseException as left:  # trio takes the cancellation out of an exception group
            return left


class Attempts:
    """The attempts of one `async for`: each but the last is followed by the wait that its policy decides."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._driver: Driver | None = None
        self._last: Attempt | None = None

    def __aiter__(self) -> Attempts:
        return self

    async def __anext__(self) -> Attempt:
        last = self._last
        if last is None:
            call = Call()
            call.patience = self._policy.max_retry_after
            self._driver = Driver(self._policy, call)
        elif last._state != "ended":
            raise RuntimeError("write `async for attempt in Retry(...):` and, inside, `with attempt:` around the work")
        elif last._delay is None:
            raise StopAsyncIteration
        elif last._delay or not last.number % BREATH:
            try:
                await current_clock().sleep(last._delay)
            except BaseException:  # cancelled: no attempt will let go of the last failure
                last._driver.close()
                raise
        assert self._driver is not None
        self._last = Attempt(self._driver)
        return self._last


# ── what users see ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True, repr=False)
class Retry(Policy):
    """Try again: `@policy`, `await policy.call(fn, ...)`, or `async for attempt in policy:` with `with attempt:` in it.

    - `on`: exception type, tuple or predicate; of an exception group all leaves must match. `on_result`: predicate of
      the value. Functions need one of them (`TypeError`). Cancellation and throttle's own errors are never retried.
    - `attempts`: how many in all, the first included; None is no limit of their number. When they, the `budget` (a
      `RetryBudget`) or `stop` (an object of tenacity) end it: the original exception, or the last result.
    - `timeout` (seconds) covers line, waits and attempts: `DeadlineExceeded`, its `__cause__` the last failure, at the
      end or as soon as the next wait cannot fit. `attempt_timeout` (seconds) starts when a limiter grants the permit;
      what it ends is retried whatever `on` says, and raises `TimeoutError` if it was the last.
    - `backoff`: `FullJitter()` and its like, or a wait object of tenacity. What a server said (see `throttle.hints`, or
      `hints`, a callable of the exception or value) goes first: its wait w becomes w + U(0, min(e(n), 1 + w/10))
      seconds, e(n) the backoff's longest. Over `max_retry_after` seconds (None: no cap): `RetryAfterTooLong` at once.
      Where a limiter has heard the refusal, the call goes back into its line instead of sleeping.
    - `rng`: a `random.Random` to draw from.

    Frozen; one object serves any number of tasks. Raises `ValueError` or `TypeError` that names a bad option.

    >>> import asyncio
    >>> from throttle import Constant
    >>> policy = Retry(on=OSError, attempts=3, backoff=Constant(0))
    >>> async def main():
    ...     async for attempt in policy:
    ...         with attempt:
    ...             if attempt.number < 3:
    ...                 raise OSError("not yet")
    ...             return attempt.number
    >>> asyncio.run(main())
    3
    """

    def __call__(self, function: F) -> F:
        """Decorate an async function, or a plain one (no `attempt_timeout` then: `ValueError`)."""
        self.check_function()
        given: Any = function
        if not callable(given) or isinstance(given, (type, staticmethod, classmethod)):
            raise TypeError(f"a function is retried, not {function!r}; put @staticmethod and @classmethod outermost")
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(f"{function!r} is a generator: use `async for attempt in Retry(...)` inside it")
        if is_async(function):
            return functools.wraps(function)(driven(self, function))  # type: ignore[return-value]
        if self.attempt_timeout is not None:
            raise ValueError(f"attempt_timeout={self.attempt_timeout} cannot end a plain function: write `async def`")

        @functools.wraps(function)
        def retried(*args: Any, **kwargs: Any) -> Any:
            return driven_plain(self, function, args, kwargs)

        return retried  # type: ignore[return-value]

    async def call(self, fn: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """`await fn(*args, **kwargs)`, tried again under this policy."""
        self.check_function()
        return await driven(self, fn)(*args, **kwargs)

    def __aiter__(self) -> Attempts:
        """The attempts of one call: `async for attempt in policy:` and, inside, `with attempt:`."""
        self.check_function()
        return Attempts(self)

    def but(self, **changes: Unpack[RetryOptions]) -> Retry:
        """A copy with other options.

        >>> Retry(on=OSError).but(attempts=3)
        Retry(on=<class 'OSError'>, attempts=3)
        """
        return replace(self, **changes)

    @classmethod
    def for_http(
        cls,
        *,
        methods: Collection[str] = HTTPRules().methods,
        statuses: Collection[int] = HTTPRules().statuses,
        **options: Unpack[RetryOptions],
    ) -> Retry:
        """The policy of a transport: 5 attempts, `max_retry_after` 60 s, one `RetryBudget` per key.

        Retried are refusals for a limit, of any method; 502, 503, 504 (or `statuses`) and transport errors of GET,
        HEAD, OPTIONS, TRACE, PUT, DELETE (or `methods`), of any request with an Idempotency-Key or that never left; and
        a 503 with Retry-After, of any method. Nothing of it where the server says no (`x-should-retry: false`).
        Servers that count minutes and tell dates or stamps in whole seconds may name 61: see `max_retry_after`.

        >>> Retry.for_http(attempts=3, statuses=[500, 503]).http.statuses == {500, 503}
        True
        """
        given = {"on", "on_result"} & options.keys()
        if given:
            raise TypeError(f"for_http has rules of its own: no {' or '.join(sorted(given))}")
        options.setdefault("budget", BudgetPerKey())
        return cls(http=HTTPRules(methods, statuses), **options)


def retry(*bare: Any, **options: Unpack[RetryOptions]) -> Retry:
    """`@retry(on=ConnectionError, attempts=5)`: a `Retry` of these options, to decorate with; see there.

    Raises `TypeError` that shows the form for a bare `@retry`, and if neither `on` nor `on_result` is given.

    >>> @retry(on=ConnectionError, attempts=5)
    ... async def fetch():
    ...     return "fetched"
    >>> import asyncio
    >>> asyncio.run(fetch())
    'fetched'
    """
    if bare:
        raise TypeError(f"retry takes options by name, no function: {FORM}")
    policy = Retry(**options)
    policy.check_function()
    return policy
