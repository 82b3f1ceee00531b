"""`Throttle.map`: order of completion, bounded memory, and an end without anything left behind, however it comes."""

from __future__ import annotations

import asyncio
import functools
import gc
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from worlds import nothing_left, virtual

from throttle import Constant, Retry, Throttle, TokenBucket
from throttle.testing import run_virtual


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture
def run(anyio_backend: str) -> Any:
    """Runs an async function on asyncio and on trio, in virtual time."""
    if anyio_backend == "asyncio":
        return run_virtual
    return lambda fn: trio.run(fn, clock=trio.testing.MockClock(autojump_threshold=0))


class Items:
    """An async generator that knows how far it came and whether it was closed."""

    def __init__(self, *items: Any, every: float = 0.0) -> None:
        self.items, self.every = items, every
        self.taken = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            for item in self.items:
                if self.every:
                    await anyio.sleep(self.every)
                self.taken += 1
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            await anyio.sleep(0.01)
            self.closed = True


class Iterated:
    """An async iterator that is no generator: there is nothing to close."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __aiter__(self) -> Iterated:
        return self

    async def __anext__(self) -> int:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return self.left


async def sleep_for(seconds: float) -> float:
    await anyio.sleep(abs(seconds))
    if seconds < 0:
        raise LookupError(f"{seconds}")
    return seconds * 10


async def collected(mapped: Any) -> list[Any]:
    async with mapped as results:
        return [pair async for pair in results]


@pytest.mark.parametrize("items", [lambda: [3, 1, 2], lambda: iter((3, 1, 2)), lambda: Items(3, 1, 2)])
def test_pairs_come_in_order_of_completion(run: Any, items: Any) -> None:
    async def play() -> None:
        assert await collected(Throttle(False).map(sleep_for, items())) == [(1, 10), (2, 20), (3, 30)]

    run(play)


@pytest.mark.parametrize("items", [[], (), Items(), Iterated(0), {}])
def test_no_items(run: Any, items: Any) -> None:
    async def play() -> None:
        assert await collected(Throttle(False).map(sleep_for, items)) == []

    run(play)


def test_any_kind_of_function(run: Any) -> None:
    class Worker:
        async def method(self, item: int) -> int:
            return item + 1

    async def add(number: int, item: int) -> int:
        return item + number

    async def play() -> None:
        api = Throttle(False)
        for fn in (Worker().method, functools.partial(add, 1), lambda item: add(1, item), api(Worker().method)):
            assert sorted(await collected(api.map(fn, Iterated(3)))) == [(0, 1), (1, 2), (2, 3)]

    run(play)


@virtual
async def test_items_come_while_others_are_done() -> None:
    items = Items(1, 1, 1, every=2)
    async with Throttle(False).map(sleep_for, items) as results:
        assert [now() async for _ in results] == [3, 5, 7]
    assert items.closed


# ── bounded memory ────────────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_no_more_are_read_than_read_ahead() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    async def work(number: int) -> int:
        return number

    async with Throttle(False).map(work, items(), read_ahead=7) as results:
        await asyncio.sleep(10)
        assert taken == 7
        for number in range(3):
            await anext(results)
            await asyncio.sleep(1)
            assert taken == 8 + number
        assert len([pair async for pair in results]) == 97


def test_a_hundred_thousand_items_in_bounded_memory() -> None:
    async def work(number: int) -> bytes:
        return bytes(1000)

    async def play() -> None:
        count = 0
        async with Throttle(False).map(work, range(100_000), read_ahead=100) as results:
            async for _ in results:
                count += 1
                if count == 2_000:
                    gc.collect()
                    tracemalloc.start()
                if count == 4_000:  # the first objects of a run may be caches
                    most.append(tracemalloc.get_traced_memory()[1])
                    tracemalloc.stop()
                    break  # the rest would tell nothing new

    most: list[int] = []
    run_virtual(play)
    assert most[0] < 2_000_000


# ── ends ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_leaving_early_cancels_and_awaits_what_runs(run: Any) -> None:
    async def play() -> None:
        ended: list[Any] = []
        items = Items(1, 50, 60, 70)

        async def work(seconds: float) -> None:
            try:
                await anyio.sleep(seconds)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)  # takes its time to end
                ended.append(seconds)

        api = Throttle(TokenBucket("1000/s"))
        start = anyio.current_time()
        async with api.map(work, items, read_ahead=3) as results:
            async for _ in results:
                break
        assert sorted(ended) == [1, 50, 60]
        assert round(anyio.current_time() - start, 6) == 3
        assert items.closed and items.taken <= 4
        assert nothing_left(api.limiter)
        assert [pair async for pair in results] == []  # there is nothing more to come

    run(play)


def test_results_that_nobody_took_are_gone(run: Any) -> None:
    async def play() -> None:
        async with Throttle(False).map(sleep_for, [1, 2, 3]) as results:
            await anyio.sleep(10)
        assert [pair async for pair in results] == []

    run(play)


def test_the_first_exception_ends_it_as_it_is(run: Any) -> None:
    async def play() -> None:
        ended: list[float] = []
        error = LookupError("of a call")

        async def work(seconds: float) -> float:
            try:
                await anyio.sleep(seconds)
                if seconds == 2:
                    raise error
                return seconds
            finally:
                ended.append(seconds)

        seen: list[float] = []
        with pytest.raises(LookupError) as told:
            async with Throttle(False).map(work, [5, 1, 2, 3]) as results:
                async for item, _ in results:
                    seen.append(item)
        assert told.value is error
        assert seen == [1]
        assert sorted(ended) == [1, 2, 3, 5]

    run(play)


def test_a_call_cannot_end_the_loop_without_a_word(run: Any) -> None:
    async def empty(_: int) -> Any:
        return await anext(Iterated(0))

    async def play() -> None:
        with pytest.raises(RuntimeError, match=r"^the call of 7 raised StopAsyncIteration$") as told:
            await collected(Throttle(False).map(empty, [7, 8]))
        assert isinstance(told.value.__cause__, StopAsyncIteration)
        [(_, error)] = await collected(Throttle(False).map(empty, [7], return_exceptions=True))
        assert isinstance(error, StopAsyncIteration)

    run(play)


def test_what_fails_behind_the_block_is_not_told(run: Any) -> None:
    """Calls with tasks of their own are cancelled and fail at once: on trio in one group."""

    async def fails_late() -> None:
        try:
            await anyio.sleep(9)
        finally:
            raise OSError("late")

    async def work(number: int) -> int:
        if number:
            async with anyio.create_task_group() as group:
                group.start_soon(fails_late)
                await anyio.sleep(9)
        return number

    async def play() -> None:
        with pytest.raises(LookupError, match="own"):
            async with Throttle(False).map(work, [1, 2, 0]) as results:
                async for _ in results:
                    raise LookupError("own")

    run(play)


class Exit(BaseException):
    """As SystemExit, which asyncio does not wait for."""


def test_what_ends_the_program_ends_it(run: Any) -> None:
    """Also from a task of a call that is cancelled."""

    async def exits() -> None:
        try:
            await anyio.sleep(9)
        finally:
            raise Exit

    async def work(_: int) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(exits)
            await anyio.sleep(9)

    async def play() -> None:
        with pytest.raises(BaseExceptionGroup) as told:
            async with Throttle(False).map(work, [1]):
                await anyio.sleep(0.1)
        assert told.value.split(Exit)[1] is None

    run(play)


def test_exceptions_as_results(run: Any) -> None:
    async def play() -> None:
        pairs = await collected(Throttle(False).map(sleep_for, [3, -2, 1], return_exceptions=True))
        assert [item for item, _ in pairs] == [1, -2, 3]
        assert isinstance(pairs[1][1], LookupError)

    run(play)


@pytest.mark.parametrize("return_exceptions", [False, True])
def test_items_that_raise_end_it(run: Any, return_exceptions: bool) -> None:
    def sync() -> Iterator[float]:
        yield 0.5
        yield 100
        raise OSError("of the items")

    async def play() -> None:
        for items in (sync(), Items(0.5, 100, OSError("of the items"), every=0.5)):
            seen: list[float] = []
            with pytest.raises(OSError, match="of the items"):
                async with Throttle(False).map(sleep_for, items, return_exceptions=return_exceptions) as results:
                    async for item, _ in results:
                        seen.append(item)
            assert seen in ([], [0.5])  # at once, or what was done before
            assert anyio.current_time() < trio_start + 10

    trio_start = 0.0

    async def timed() -> None:
        nonlocal trio_start
        trio_start = anyio.current_time()
        await play()

    run(timed)


def test_items_whose_end_raises(run: Any) -> None:
    async def items() -> AsyncIterator[float]:
        try:
            yield 0.1
            await anyio.sleep(100)
        finally:
            raise OSError("of the end")

    async def play() -> None:
        async with Throttle(False).map(sleep_for, items()) as results:
            assert await anext(results) == (0.1, 1)

    run(play)


def test_the_blocks_own_exception_is_passed_on_as_it_is(run: Any) -> None:
    class Own(BaseException):
        pass

    async def play() -> None:
        for error in (ValueError("mine"), KeyboardInterrupt(), Own()):
            with pytest.raises(type(error)) as told:
                async with Throttle(False).map(sleep_for, [1, 2, 3]) as results:
                    async for _ in results:
                        raise error
            assert told.value is error

    run(play)


def test_cancelled_from_outside(run: Any) -> None:
    async def play() -> None:
        ended: list[float] = []

        async def work(seconds: float) -> None:
            try:
                await anyio.sleep(seconds)
            finally:
                ended.append(seconds)

        api = Throttle(TokenBucket("1/s"))
        items = Items(100, 200)
        with anyio.move_on_after(0.5) as scope:
            async with api.map(work, items) as results:
                async for _ in results:
                    pass
        assert scope.cancelled_caught
        assert ended == [100]  # the second was in line
        assert items.closed
        assert nothing_left(api.limiter)

    if run is run_virtual:  # under trio our clock is the real one
        run(play)


@virtual
async def test_cancelled_in_the_manner_of_asyncio() -> None:
    async def play() -> None:
        await collected(Throttle(False).map(sleep_for, [100]))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await play()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(play(), 1)
    task = asyncio.create_task(play())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled() and task.cancelling() == 1
    current = asyncio.current_task()
    assert current is not None and current.cancelling() == 0
    assert len(asyncio.all_tasks()) == 1
    assert now() == 3


def test_it_may_be_left_by_a_generator_that_is_closed(run: Any) -> None:
    ended: list[float] = []

    async def work(seconds: float) -> float:
        try:
            await anyio.sleep(seconds)
            return seconds
        finally:
            ended.append(seconds)

    async def pairs() -> AsyncIterator[Any]:
        async with Throttle(False).map(work, [1, 100]) as results:
            async for pair in results:
                yield pair

    async def play() -> None:
        generator = pairs()
        assert await anext(generator) == (1, 1)
        await generator.aclose()  # type: ignore[attr-defined]
        assert ended == [1, 100]

    run(play)


def test_several_may_take_results(run: Any) -> None:
    async def play() -> None:
        seen: list[float] = []

        async def take(results: Any) -> None:
            async for item, _ in results:
                seen.append(item)

        async with (
            Throttle(False).map(sleep_for, [1, 2, 3, 4]) as results,
            anyio.create_task_group() as group,
        ):
            group.start_soon(take, results)
            group.start_soon(take, results)
        assert seen == [1, 2, 3, 4]

    run(play)


# ── keys, limits, retries ─────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_each_item_has_its_key() -> None:
    times: dict[str, list[float]] = {"a": [], "b": []}

    async def work(item: str) -> None:
        times[item[0]].append(now())

    @Throttle(TokenBucket("1/s"))
    async def other(item: str) -> None:
        await work(item)

    api = Throttle(TokenBucket("1/s"))
    for fn in (work, api(work), functools.partial(api(work)), lambda item: work(item=item)):
        start = now()
        await collected(api.map(fn, ["a1", "a2", "b1", "a3", "b2"], key=lambda item: item[0]))
        assert times == {"a": [start, start + 1, start + 2], "b": [start, start + 1]}
        times["a"].clear()
        times["b"].clear()
        await asyncio.sleep(10)
    assert set(api.statistics()) == {"a", "b"}


@virtual
async def test_a_retry_around_our_own_function_keeps_the_key() -> None:
    api = Throttle(TokenBucket("1/s"))
    tries: list[float] = []

    @Retry(on=OSError, attempts=2, backoff=Constant(0))
    @api
    async def work(item: str) -> str:
        tries.append(now())
        if len(tries) == 1:
            raise OSError("once")
        return item

    assert await collected(api.map(work, ["x"], key=str)) == [("x", "x")]
    assert tries == [0, 1]
    assert api.statistics()["x"].sent == 2 and list(api.statistics()) == ["x"]


@virtual
async def test_each_item_is_tried_again() -> None:
    api = Throttle(TokenBucket("100/s"), retry=Retry(on=OSError, attempts=2, backoff=Constant(1)))
    tried: set[int] = set()

    async def work(item: int) -> int:
        if item not in tried:
            tried.add(item)
            raise OSError("once")
        return item

    assert sorted(await collected(api.map(work, range(5)))) == [(n, n) for n in range(5)]
    assert api.statistics()[""].sent == 10


@virtual
async def test_a_key_that_is_none_of_them() -> None:
    async def work(item: int) -> int:
        return item

    for key, error, says in [
        (lambda item: item, TypeError, "a key is a str, not 1"),
        (lambda item: item.name, AttributeError, "name"),
    ]:
        with pytest.raises(error, match=says):
            await collected(Throttle().map(work, [1], key=key))


@pytest.mark.parametrize(
    ("fn", "items", "options", "error", "says"),
    [
        (sleep_for, 5, {}, TypeError, "items must be an iterable or an async iterable, not 5"),
        (sleep_for, None, {}, TypeError, "items"),
        (sleep_for, [], {"read_ahead": 0}, ValueError, "read_ahead must be a whole number of at least 1, not 0"),
        (sleep_for, [], {"read_ahead": 1.5}, ValueError, "1.5"),
        (sleep_for, [], {"read_ahead": True}, ValueError, "True"),
        (sleep_for, [], {"key": "k"}, TypeError, "key takes a function of an item"),
        (sleep_for, [], {"key": sleep_for}, TypeError, "key takes a plain function, not the async "),
        (sleep_for, [], {"keys": str}, TypeError, "keys"),
        (5, [], {}, TypeError, "is for async functions"),
        (Items.__aiter__, [], {}, TypeError, "async generator"),
    ],
)
def test_a_bad_argument_is_one_clear_error(fn: Any, items: Any, options: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        Throttle().map(fn, items, **options)


@virtual
async def test_a_function_that_returns_nothing_to_await() -> None:
    with pytest.raises(TypeError, match=r"returned 6: write `async def`"):
        await collected(Throttle().map(lambda item: item + 1, [5]))  # type: ignore[arg-type, return-value]


@virtual
async def test_it_is_entered_and_once() -> None:
    mapped = Throttle(False).map(sleep_for, [1])
    with pytest.raises(TypeError, match=r"write: async with api\.map"):
        async for _ in mapped:  # type: ignore[attr-defined]
            pass
    assert await collected(mapped) == [(1, 10)]
    with pytest.raises(RuntimeError, match="entered once"):
        await collected(mapped)
