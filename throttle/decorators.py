"""`throttled`: a limiter around an async function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from .limiter import Bound
from .policy import is_async
from .service import LimiterLike, Service, check_plain

__all__ = ["throttled"]

P = ParamSpec("P")
T = TypeVar("T")


def throttled(
    limiter: LimiterLike,
    *,
    cost: Any = 1,
    key: str | Callable[..., str] | None = None,
    max_wait: float | None = None,
    settle: Callable[[Any], Any] | None = None,
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Decorate an async function so that each call waits for a permit of `limiter`: a limiter, or a rate for it alone.

    - `cost`, `key`: values, or callables of the call's arguments.
    - `max_wait`: seconds; raises `WaitTooLong` as `acquire` does.
    - `settle`: called with the result, gives the true cost.

    A rate or its spelling means a `SlidingWindow` that holds each permit until the call ends. What the result or the
    exception says about limits (Retry-After of a response, say) holds back everybody of that key. Raises `TypeError` at
    decoration for anything but an async function, `ValueError` or `TypeError` for a bad option.

    >>> import asyncio
    >>> @throttled("100/s")
    ... async def double(x):
    ...     return 2 * x
    >>> asyncio.run(double(21))
    42
    """
    given: Any = limiter
    if given is None or isinstance(given, bool) or callable(given):
        raise TypeError('@throttled needs a limiter or a rate: @throttled("10/s")')
    service = Service(limiter)
    service.check(cost=cost, key="" if key is None else key, max_wait=max_wait)
    check_plain(settle=settle)
    if key is not None and isinstance(limiter, Bound):
        raise TypeError(f"{limiter!r} is bound to its key and takes no other, not {key!r}")
    if not (settle is None or callable(settle)):
        raise TypeError(f"settle takes a function of the result that gives the true cost, not {settle!r}")

    def decorate(fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        check_async(fn, "@throttled")

        @functools.wraps(fn)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return await service.attempt(
                lambda: fn(*args, **kwargs),
                key="" if key is None else key(*args, **kwargs) if callable(key) else key,
                cost=cost(*args, **kwargs) if callable(cost) else cost,
                max_wait=max_wait,
                settle=settle,
            )

        return call

    return decorate


def check_async(fn: Any, who: str) -> None:
    """Refuse what is not an async function, in words that help."""
    if inspect.isasyncgenfunction(fn):
        raise TypeError(f"{who} is for async functions; {fn!r} is an async generator: throttle each step inside it")
    if inspect.iscoroutine(fn):
        fn.close()  # or Python complains, too, that it was never awaited
        raise TypeError(f"{who} takes the async function and its arguments, not what calling it gave: {fn!r}")
    if isinstance(fn, (staticmethod, classmethod)):
        raise TypeError(f"{who} is for async functions, not {fn!r}: put @staticmethod and @classmethod outermost")
    if not is_async(fn):
        raise TypeError(f"{who} is for async functions, and {fn!r} is none: write `async def`")
