"""`Throttle.map`: many items through one call, in order of completion, with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar

import anyio

__all__ = ["Mapped", "Results"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Mapped(Generic[Item, Result]):
    """What `map` gives: an async context manager; leaving it cancels and awaits what still runs."""

    def __init__(
        self,
        call: Callable[[Item], Awaitable[Result]],
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        read_ahead: Any,
        return_exceptions: bool,
    ) -> None:
        if isinstance(read_ahead, bool) or not isinstance(read_ahead, int) or read_ahead < 1:
            raise ValueError(f"read_ahead must be a whole number of at least 1, not {read_ahead!r}")
        if not isinstance(items, (AsyncIterable, Iterable)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"items must be an iterable or an async iterable, not {items!r}")
        self._call = call
        self._items = items
        self._results: Results[Item, Result] = Results(return_exceptions)
        self._read_ahead = read_ahead
        self._entered = False

    def __aiter__(self) -> NoReturn:
        raise TypeError("write: async with api.map(fn, items) as results: async for item, result in results: ...")

    async def __aenter__(self) -> Results[Item, Result]:
        if self._entered:
            raise RuntimeError("a map is entered once: call api.map again")
        self._entered = True
        self._room = anyio.Semaphore(self._read_ahead)
        self._results.open(self._room)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._feed)
        return self._results

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group.cancel_scope.cancel()
        try:
            if isinstance(error, anyio.get_cancelled_exc_class()):
                await self._group.__aexit__(kind, error, trace)
            else:
                await self._group.__aexit__(None, None, None)  # the caller's own exception, not a group around it
        finally:
            self._results.close()

    async def _feed(self) -> None:
        try:
            items = _one_by_one(self._items)
            try:
                await self._room.acquire()
                async for item in items:
                    self._results.started()
                    self._group.start_soon(self._one, item)
                    await self._room.acquire()
            finally:
                with anyio.CancelScope(shield=True):
                    await items.aclose()
        except Exception as error:  # what the items raise ends the map, as what a call raises does
            self._results.ended(error)
        else:
            self._results.ended()

    async def _one(self, item: Item) -> None:
        if self._group.cancel_scope.cancel_called:
            return  # not even begun
        try:
            result = await self._call(item)
        except Exception as error:
            self._results.put(item, None, error)
        except BaseExceptionGroup as group:  # on trio: as the map was left, some of it was cancelled and some failed
            cancelled, failed = group.split(anyio.get_cancelled_exc_class())
            if cancelled is None or not isinstance(failed, Exception):
                raise
            raise cancelled from None  # the caller's own exception, not a group of what failed behind it
        else:
            self._results.put(item, result, None)


async def _one_by_one(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncGenerator[Item, None]:
    """The items from either kind of iterable; closing it closes them, if they are a generator."""
    if not isinstance(items, AsyncIterable):
        for item in items:
            yield item
        return
    iterator = aiter(items)
    try:
        async for item in iterator:
            yield item
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


class Results(Generic[Item, Result]):
    """`async for item, result in results`: pairs as they are done; with `return_exceptions` a result may be one."""

    def __init__(self, return_exceptions: bool) -> None:
        self._return_exceptions = return_exceptions
        self._done: deque[tuple[Item, Any, Exception | None]] = deque()
        self._running = 0
        self._fed = False
        self._broken: Exception | None = None

    def open(self, room: anyio.Semaphore) -> None:
        """`room` is given back for each result that is taken."""
        self._room = room
        self._news = anyio.Event()

    def close(self) -> None:
        """The block was left: there is nothing more to come."""
        self._done.clear()
        self._running, self._broken = 0, None
        self.ended()

    def started(self) -> None:
        """One more item is under way."""
        self._running += 1

    def put(self, item: Item, result: Any, error: Exception | None) -> None:
        """One item is done."""
        self._running -= 1
        self._done.append((item, result, error))
        self._news.set()

    def ended(self, error: Exception | None = None) -> None:
        """There are no more items, or they raised `error`."""
        self._fed, self._broken = True, error
        self._news.set()

    def __aiter__(self) -> Results[Item, Result]:
        return self

    async def __anext__(self) -> tuple[Item, Result]:
        while not self._done:
            if self._broken is not None:
                raise self._broken
            if self._fed and not self._running:
                raise StopAsyncIteration
            if self._news.is_set():
                self._news = anyio.Event()
            await self._news.wait()
        item, result, error = self._done.popleft()
        self._room.release()
        if error is None:
            return item, result
        if self._return_exceptions:
            return item, error  # type: ignore[return-value]  # asked for
        if isinstance(error, StopAsyncIteration):  # as it is, it would end the loop without a word: see PEP 479
            raise RuntimeError(f"the call of {item!r} raised StopAsyncIteration") from error
        raise error
