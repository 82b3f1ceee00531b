"""`Throttle`: limiter, retry, concurrency and events in one object, around functions, items and httpx clients."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .decorators import check_async
from .events import Event
from .guard import Local
from .limiter import BaseLimiter, Bound
from .policy import is_async
from .service import LimiterLike, Service, check_plain
from .tally import KeyStatistics

if TYPE_CHECKING:
    from .mapping import Mapped
    from .retrying import Retry

__all__ = ["Throttle"]

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")
Client = TypeVar("Client")

_NO_KEYS: dict[Service, str] = {}
_item_key: ContextVar[dict[Service, str]] = ContextVar("throttle_item_key", default=_NO_KEYS)  # of the item mapped here


class Throttle(Local):
    """Limiter, retry and concurrency in one: retry is outside, the limiter inside, so every attempt pays a permit.

    - `limiter`: a limiter or a rate (then a `SlidingWindow` that holds each permit until the call ends); None learns
      what servers say, False is no limit.
    - `retry`: a `Retry`, or None for no retry. `Retry.for_http()` goes by the response or error of httpx that a call
      returned or raised, and by its request.
    - `concurrency`, `concurrency_per_key`: calls at once; slot and permit are granted together. A call inside a call
      takes a slot and a permit of its own: where the outer calls have all slots, or hold all permits, the inner ones
      wait for ever. A warning is logged where one has to wait.
    - `on_event`: called with the frozen records of `throttle.events`; what it raises is logged.

    >>> import asyncio
    >>> api = Throttle("100/s", concurrency=10)
    >>> @api
    ... async def double(x):
    ...     return 2 * x
    >>> async def main():
    ...     async with api.map(double, range(4)) as results:
    ...         return sorted([result async for item, result in results])
    >>> asyncio.run(main())
    [0, 2, 4, 6]
    """

    def __init__(
        self,
        limiter: LimiterLike | bool | None = None,
        *,
        retry: Retry | None = None,
        concurrency: int | None = None,
        concurrency_per_key: int | None = None,
        on_event: Callable[[Event], object] | None = None,
    ) -> None:
        self._service = Service(
            limiter,
            retry=retry,
            concurrency=concurrency,
            concurrency_per_key=concurrency_per_key,
            on_event=on_event,
        )
        if retry is not None and retry.http is None:
            retry.check_function()

    def __repr__(self) -> str:
        return f"<Throttle {self.limiter!r}>"

    @property
    def limiter(self) -> BaseLimiter | Bound:
        """The limiter behind it."""
        return self._service.limiter

    @property
    def retry(self) -> Retry | None:
        """The retry policy around it."""
        return self._service.retry

    def __call__(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Decorate an async function: `@api`. Raises `TypeError` at decoration for anything else."""
        check_async(fn, "@Throttle(...)")

        @functools.wraps(fn)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return await self._service.run(lambda: fn(*args, **kwargs), key=_item_key.get().get(self._service, ""))

        call.__throttle__ = self._service  # type: ignore[attr-defined]  # so that `call` and `map` do not pay twice
        return call

    async def call(self, fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """`await fn(*args, **kwargs)` under limiter, concurrency and retry.

        Raises `TypeError` for what is no function, or returns nothing that can be awaited.
        """
        work = _awaiting(fn, "Throttle.call")
        if self._pays(fn):
            return await work(*args, **kwargs)
        return await self._service.run(lambda: work(*args, **kwargs))

    def map(
        self,
        fn: Callable[[Item], Awaitable[T]],
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        key: Callable[[Item], str] | None = None,
        read_ahead: int = 1000,
        return_exceptions: bool = False,
    ) -> Mapped[Item, T]:
        """`async with api.map(fn, items) as results: async for item, result in results: ...`, in order of completion.

        Items come from any iterable, sync or async; at most `read_ahead` of them are under way or waiting to be taken,
        so memory is bounded. `key` gives each item's key. Leaving the block cancels and awaits what runs; the first
        exception ends it, unless `return_exceptions` hands exceptions out as results. Raises `TypeError` or
        `ValueError` that names a bad argument.
        """
        from .mapping import Mapped

        work = _awaiting(fn, "Throttle.map")
        if not (key is None or callable(key)):
            raise TypeError(f"key takes a function of an item that gives its key, not {key!r}")
        check_plain(key=key)
        pays = self._pays(fn)

        async def one(item: Item) -> T:
            ours = "" if key is None else key(item)
            if pays:  # each item in a task and a context of its own
                _item_key.set({**_item_key.get(), self._service: ours})
                return await work(item)
            return await self._service.run(lambda: work(item), key=ours)

        return Mapped(one, items, read_ahead=read_ahead, return_exceptions=return_exceptions)

    def _pays(self, fn: Any) -> bool:
        """Whether `fn` is decorated with this very throttle: then each call pays by itself."""
        while isinstance(fn, functools.partial):
            fn = fn.func
        return getattr(fn, "__throttle__", None) is self._service

    def transport(self, inner: Any = None) -> Any:
        """An httpx transport under this very limiter, retry and concurrency, keyed by origin.

        Inside a call of this `Throttle` it passes through: it observes and pauses, but neither pays nor retries.
        `inner` is a transport of httpx (the default) or httpx2; it gives one of the same library.
        """
        from .httpx import ThrottleTransport
        from .transport import face_of

        face = ThrottleTransport if inner is None else face_of(inner, "BaseTransport")
        return face._of(self._service, inner)

    def wrap(self, client: Client) -> Client:
        """Put this throttle in front of an `httpx.AsyncClient` (or httpx2) that exists; the client is returned.

        Its own transport, mounts and proxies are kept. Raises `TypeError` for anything else, a sync client included,
        and `ValueError` for a client that is throttled already.
        """
        from .transport import wrap_client

        return wrap_client(client, self._service)

    def statistics(self) -> dict[str, KeyStatistics]:
        """What happened so far, by key: see `KeyStatistics` in `throttle.tally`."""
        return self._service.statistics()


def _awaiting(fn: Callable[P, Awaitable[T]], who: str) -> Callable[P, Awaitable[T]]:
    """`fn` as it is if it is an async function; of any other callable the result is looked at before it is awaited."""
    if is_async(fn):
        return fn
    if inspect.isasyncgenfunction(fn) or not callable(fn):
        check_async(fn, who)

    def looked_at(*args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        result = fn(*args, **kwargs)
        if not inspect.isawaitable(result):
            raise TypeError(f"{who} is for async functions, and {fn!r} returned {result!r}: write `async def`")
        return result

    return looked_at
