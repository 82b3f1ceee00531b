"""`Throttle`: limiter, retry, concurrency, events and counts around functions and around what they send."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import tenacity
import trio
import trio.testing
from scripted import HTTP, HTTP2, URL, Http, http, server
from worlds import TrioWorld, nothing_left, virtual

from throttle import (
    AdaptiveLimiter,
    AllOf,
    Constant,
    CostExceedsBurst,
    DeadlineExceeded,
    Rate,
    Retry,
    RetryAfterTooLong,
    RetryBudget,
    SlidingWindow,
    Throttle,
    TokenBucket,
    current_permit,
    retry,
)
from throttle.counters import MemoryCounter
from throttle.events import Admitted, GaveUp, Paused, Refused, Retrying
from throttle.hints import Hints
from throttle.testing import run_virtual

__all__ = ["http"]  # a fixture
AT_ONCE = Retry(on=OSError, backoff=Constant(0))


def now() -> float:
    return asyncio.get_running_loop().time()


class SlowDown(OSError):
    def __init__(self, seconds: float) -> None:
        super().__init__("slow down")
        self.retry_after = seconds


class Answered(OSError):
    """As httpx raises it for a response, without a word about time."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.response = SimpleNamespace(status_code=status, headers={})


# ── around functions ──────────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_decorator_and_call_share_one_limit() -> None:
    api = Throttle(TokenBucket("1/s"))

    @api
    async def double(number: int, *, add: int = 0) -> int:
        """Twice as much."""
        return 2 * number + add

    async def triple(number: int) -> int:
        return 3 * number

    assert await double(1, add=1) == 3
    assert await api.call(triple, 2) == 6
    assert now() == 1
    assert await api.call(double, 3, add=1) == 7  # pays once
    assert now() == 2
    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")


@virtual
async def test_call_takes_whatever_gives_an_awaitable() -> None:
    api = Throttle(TokenBucket("1/s"))

    async def double(number: int) -> int:
        return 2 * number

    def doubled(number: int) -> Any:
        return double(number)

    class Doubler:
        async def double(self, number: int) -> int:
            return 2 * number

        @api
        async def decorated(self, number: int) -> int:
            return 2 * number

        async def __call__(self, number: int) -> int:
            return 2 * number

    ways = [double, doubled, lambda n: double(number=n), functools.partial(double), Doubler().double, Doubler()]
    ways += [Doubler().decorated, functools.partial(Doubler().decorated), Throttle()(double)]
    for number, way in enumerate(ways):
        assert await api.call(way, 4) == 8
        assert now() == number
    for nonsense, says in [(5, "is none"), (None, "is none"), (lambda: 5, "returned 5: write `async def`")]:
        with pytest.raises(TypeError, match=says):
            await api.call(nonsense)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="async generator"):
        await api.call(generator)  # type: ignore[arg-type]


async def generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("function", [lambda: None, print, generator, 5])
def test_the_decorator_is_for_async_functions(function: Any) -> None:
    with pytest.raises(TypeError, match="is for async functions"):
        Throttle()(function)


@virtual
async def test_a_call_made_already_is_one_clear_error() -> None:
    async def work() -> None: ...

    with pytest.raises(TypeError, match="takes the async function and its arguments, not what calling it gave"):
        await Throttle().call(work())  # type: ignore[arg-type]


@virtual
async def test_retry_is_outside_and_every_attempt_pays() -> None:
    api = Throttle(TokenBucket("1/s"), retry=AT_ONCE)

    @api
    async def flaky() -> int:
        times.append(now())
        if len(times) < 3:
            raise OSError("not yet")
        return len(times)

    times: list[float] = []
    assert await flaky() == 3
    assert times == [0, 1, 2]
    counts = api.statistics()[""]
    assert (counts.sent, counts.refused, counts.waited, counts.lost) == (3, 0, 2, 0)


@virtual
async def test_on_result() -> None:
    api = Throttle(retry=Retry(on_result=lambda value: value < 3, backoff=Constant(1), attempts=5))
    values = iter(range(10))

    @api
    async def count() -> int:
        return next(values)

    assert await count() == 3
    assert now() == 3


@virtual
async def test_the_original_exception_and_the_last_result() -> None:
    async def fails() -> None:
        raise error

    async def returns() -> str:
        return "none"

    error = OSError("the original")
    with pytest.raises(OSError) as told:
        await Throttle(retry=AT_ONCE.but(attempts=2)).call(fails)
    assert told.value is error
    endless = Retry(on_result=lambda value: True, attempts=2, backoff=Constant(0))
    assert await Throttle(retry=endless).call(returns) == "none"
    for options in ({"budget": RetryBudget(0, 0)}, {"stop": tenacity.stop_after_attempt(1)}):
        with pytest.raises(OSError) as told:
            await Throttle(retry=AT_ONCE.but(**options)).call(fails)
        assert told.value is error


@virtual
async def test_a_refusal_holds_everybody_and_its_call_keeps_its_place() -> None:
    api = Throttle(TokenBucket("10/s"), retry=AT_ONCE)
    done: list[tuple[str, float]] = []
    refuse = iter([True, False, False, False])

    @api
    async def work(name: str) -> None:
        if next(refuse):
            raise SlowDown(5)
        done.append((name, now()))

    async with asyncio.TaskGroup() as group:
        group.create_task(work("old"))
        await asyncio.sleep(1)
        group.create_task(work("new"))
        group.create_task(work("newer"))
    assert [name for name, _ in done] == ["old", "new", "newer"]
    assert done[0][1] == 5
    counts = api.statistics()[""]
    assert (counts.sent, counts.refused, counts.paused, counts.lost) == (4, 1, 5, 0)


@pytest.mark.parametrize(("status", "times"), [(404, [0, 5, 6, 6, 7, 7, 7, 7]), (None, [0, 5, 6, 7, 8, 9, 10, 11])])
def test_an_error_that_the_server_answered_with_is_an_answer(status: int | None, times: list[float]) -> None:
    """After a pause each answer lets more calls out; an error of nobody knows whom lets the next one probe."""

    class Failed(Exception):
        response = SimpleNamespace(status_code=status, headers={})

    @virtual
    async def play() -> None:
        api = Throttle(TokenBucket("100/s"))
        seen: list[float] = []

        async def work() -> None:
            seen.append(now())
            if now() < 5:
                raise SlowDown(5)
            await asyncio.sleep(1)
            raise Failed

        first = asyncio.create_task(api.call(work))
        await asyncio.sleep(1)
        await asyncio.gather(first, *(api.call(work) for _ in range(7)), return_exceptions=True)
        assert seen == times

    play()


@virtual
async def test_timeout_covers_the_line_and_cannot_be_outlived() -> None:
    api = Throttle(TokenBucket("0.1/s", burst=1), retry=AT_ONCE.but(timeout=4))

    async def work() -> None: ...

    await api.call(work)
    with pytest.raises(DeadlineExceeded):
        await api.call(work)
    assert now() == 0


@virtual
async def test_attempt_timeout_starts_with_the_permit() -> None:
    api = Throttle(TokenBucket("0.1/s", burst=1), retry=Retry(on=OSError, attempt_timeout=1, attempts=2))

    async def work(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return now()

    await api.call(work, 0)
    assert await api.call(work, 0.5) == 10.5
    with pytest.raises(TimeoutError):
        await api.call(work, 2)


@virtual
async def test_who_has_no_patience_is_told_at_once_even_in_line() -> None:
    api = Throttle(TokenBucket("1/s"), retry=AT_ONCE.but(max_retry_after=60))
    calls = iter(range(10))

    @api
    async def work() -> None:
        if next(calls) == 1:
            raise SlowDown(61)

    results = await asyncio.gather(*(work() for _ in range(4)), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), *[RetryAfterTooLong] * 3]
    assert now() == 1
    with pytest.raises(RetryAfterTooLong) as told:
        await work()
    assert told.value.retry_after == 61
    assert api.statistics()[""].lost == 4


@virtual
async def test_hints_of_the_policy_are_what_the_gate_hears() -> None:
    def hear(outcome: Any) -> Hints | None:
        return Hints(refused=True, retry_after=3) if outcome == "busy" else None

    api = Throttle(retry=Retry(on_result=lambda value: value == "busy", hints=hear))
    answers = iter(["busy", SlowDown(50)])

    async def work() -> Any:
        return next(answers)

    assert isinstance(await api.call(work), SlowDown)  # said nothing that this policy hears
    assert 3 <= now() <= 3.06


@virtual
async def test_for_http_around_functions() -> None:
    """The response or error of httpx that a call returns or raises says whether it may be tried again."""

    def answer(request: Any) -> Any:
        return script[min(len(script) - 1, tries)]

    async def work(method: str, *, raises: bool) -> Any:
        nonlocal tries
        async with HTTP.AsyncClient(transport=server(HTTP, answer)) as client:
            try:
                response = await client.request(method, URL)
            finally:
                tries += 1
            if raises:
                response.raise_for_status()
            return response

    api = Throttle(retry=Retry.for_http(attempts=2, backoff=Constant(0)))
    for method, first, twice in [
        ("GET", 502, True),
        ("POST", 502, False),
        ("POST", (429, {"Retry-After": "0"}), True),
        ("GET", "ReadTimeout", True),
        ("POST", "ReadTimeout", False),
        ("POST", "ConnectError", True),
        ("GET", 404, False),
        ("GET", OSError("odd"), False),
    ]:
        for raises in (False, True):
            script, tries = [first, 200], 0
            try:
                await api.call(work, method, raises=raises)
            except Exception:
                assert not twice
            assert tries == (2 if twice else 1)
            await api.limiter.reset()
    script, tries = [(429, {"x-should-retry": "false"})], 0
    await api.call(work, "GET", raises=False)
    assert tries == 1

    async def odd() -> int:
        return 5

    assert await api.call(odd) == 5


@virtual
async def test_an_attempt_that_was_ended_is_tried_again_around_functions() -> None:
    api = Throttle(retry=Retry.for_http(attempts=3, attempt_timeout=1, backoff=Constant(0)))
    calls = iter([5, 5, 0])

    async def work() -> str:
        await asyncio.sleep(next(calls))
        return "done"

    assert await api.call(work) == "done"
    assert now() == 2


# ── concurrency ───────────────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_concurrency_in_all_and_per_key() -> None:
    api = Throttle(TokenBucket("100/s"), concurrency=4, concurrency_per_key=2)
    flying: dict[str, int] = {"a": 0, "b": 0, "c": 0}
    most: dict[str, int] = dict(flying, all=0)

    async def work(item: str) -> None:
        flying[item[0]] += 1
        most[item[0]] = max(most[item[0]], flying[item[0]])
        most["all"] = max(most["all"], sum(flying.values()))
        await asyncio.sleep(1)
        flying[item[0]] -= 1

    items = [f"{key}{number}" for number in range(6) for key in "abc"]
    async with api.map(work, items, key=lambda item: item[0]) as results:
        async for _ in results:
            pass
    assert most == {"a": 2, "b": 2, "c": 2, "all": 4}
    assert now() == 5
    service = api._service
    assert service._concurrency is not None and service._concurrency.used == 0
    assert len(service._key_slots) == 0  # idle keys cost nothing
    assert nothing_left(api.limiter)


@virtual
async def test_a_slow_key_blocks_no_other() -> None:
    api = Throttle(TokenBucket("1/s"), concurrency=3, concurrency_per_key=1)
    done: list[tuple[str, float]] = []

    async def work(item: str) -> None:
        await asyncio.sleep(100 if item == "slow" else 0)
        done.append((item, now()))

    async with api.map(work, ["slow", "slow", "slow", "quick", "quick"], key=lambda item: item) as results:
        async for _ in results:
            pass
    assert done == [("quick", 0), ("quick", 1), ("slow", 100), ("slow", 200), ("slow", 300)]


@pytest.mark.parametrize("fails", [False, True])
def test_no_slot_and_no_permit_leaks_wherever_a_call_is_cancelled(fails: bool) -> None:
    """Three calls under one slot; after each number of passes of the loop, one, two or all of them are cancelled."""

    async def play(passes: int, victims: tuple[int, ...]) -> bool:
        limiter = SlidingWindow("2/s", hold=True)
        policy = Retry(on=OSError, attempts=2, backoff=Constant(0))
        api = Throttle(limiter, concurrency=1, concurrency_per_key=1, retry=policy)

        async def work() -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if fails:
                raise OSError("scripted")

        tasks = [asyncio.create_task(api.call(work)) for _ in range(3)]
        for _ in range(passes):
            await asyncio.sleep(0)
        running = any(not tasks[victim].done() for victim in victims)
        for victim in victims:
            tasks[victim].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(
            isinstance(results[number], OSError) if fails else results[number] is None
            for number in range(3)
            if number not in victims
        )
        service = api._service
        assert service._concurrency is not None
        assert service._concurrency.used == 0
        assert all(slots.used == 0 for slots in service._key_slots.values())
        assert nothing_left(limiter)
        assert current_permit() is None
        await asyncio.sleep(1)
        assert (await limiter.peek()).remaining == 2
        del tasks, results  # a cancelled one holds its frames
        gc.collect(1)
        assert len(service._key_slots) == 0
        return running

    for victims in [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)]:
        running = [run_virtual(play, passes, victims) for passes in range(20)]
        assert sum(running) >= 3


# ── inside a call ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_inside_a_call_its_transport_passes_through(http: Http) -> None:
    @virtual
    async def play() -> None:
        api = Throttle(TokenBucket("1/s"), retry=Retry.for_http(attempts=3, backoff=Constant(0)))
        inner = server(http, 200)
        async with http.AsyncClient(transport=api.transport(inner)) as client:

            @api
            async def both() -> None:
                await client.get(URL)
                await client.get(URL)

            await both()
            await both()
            assert inner.times == [0, 0, 1, 1]  # two permits for four requests
            await client.get(URL)  # outside it pays, by its origin
            await client.get(URL)
            assert inner.times[4:] == [1, 2]
        assert {key: counts.sent for key, counts in api.statistics().items()} == {"": 2, "http://server:80": 2}

    play()


@pytest.mark.parametrize("way", ["raise", "return", "own error"])
def test_inside_a_call_it_observes_once_and_the_call_retries(http: Http, way: str) -> None:
    @virtual
    async def play() -> None:
        events: list[Any] = []
        wanted = {"on_result": lambda value: value.status_code == 429, "on": (http.HTTPStatusError, LookupError)}
        api = Throttle(TokenBucket("1/s"), retry=Retry(**wanted, attempts=3), on_event=events.append)
        inner = server(http, (429, {"Retry-After": "5"}), 200)
        client = api.wrap(http.AsyncClient(transport=inner))

        @api
        async def get() -> Any:
            response = await client.get(URL)
            await asyncio.sleep(2)  # what the server said is as old as its answer
            if way == "raise":
                response.raise_for_status()
            elif way == "own error" and response.status_code == 429:
                raise LookupError("of my own")
            return response

        assert (await get()).status_code == 200
        assert inner.met == 2
        if way == "own error":  # nobody can tell whose it was: the retry backs off before it goes into the line
            assert inner.times[1] >= 5
        else:
            assert inner.times == [0, 5]
        kinds = [Admitted, Refused, Paused, Retrying, Admitted]
        assert [type(event) for event in events] == kinds
        counts = api.statistics()[""]
        assert (counts.sent, counts.refused, counts.paused, counts.lost) == (2, 1, 5, 0)
        await client.aclose()

    play()


@virtual
async def test_inside_a_call_a_503_slows_the_gate_and_a_spent_quota_holds_it() -> None:
    spent = {"X-RateLimit-Limit": "9", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "6"}
    events: list[Any] = []
    api = Throttle(TokenBucket("100/s"), on_event=events.append)
    inner = server(HTTP, 503, (200, spent), 200)
    client = api.wrap(HTTP.AsyncClient(transport=inner))

    @api
    async def get() -> Any:
        return await client.get(URL)

    for _ in range(3):
        await get()
    assert 0.1 <= inner.times[1] <= 0.2
    assert inner.times[2] == inner.times[1] + 6
    assert [type(event) for event in events] == [Admitted, Paused, Admitted, Paused, Admitted]
    await client.aclose()


@virtual
async def test_the_transport_of_another_throttle_does_not_pass_through() -> None:
    one, other = Throttle(TokenBucket("1/s")), Throttle(TokenBucket("0.5/s", burst=1))
    inner = server(HTTP, 200)
    client = other.wrap(HTTP.AsyncClient(transport=inner))

    @one
    async def get() -> None:
        await client.get(URL)

    await asyncio.gather(get(), get())
    assert inner.times == [0, 2]
    await client.aclose()


@virtual
async def test_tasks_of_a_call_are_inside_it_and_what_comes_after_is_not() -> None:
    api = Throttle(TokenBucket("1/s"))
    inner = server(HTTP, 200)
    client = api.wrap(HTTP.AsyncClient(transport=inner))

    @api
    async def several() -> None:
        await asyncio.gather(client.get(URL), client.get(URL))

    await several()
    assert inner.times == [0, 0]
    assert current_permit() is None
    await client.aclose()


@virtual
async def test_each_request_inside_a_call_is_news() -> None:
    api = Throttle(TokenBucket("100/s"))
    client = api.wrap(HTTP.AsyncClient(transport=server(HTTP, (429, {"Retry-After": "1"}), 429)))

    @api
    async def twice() -> None:
        await client.get(URL)
        await asyncio.sleep(2)
        await client.get(URL)

    await twice()
    assert isinstance(api.limiter, TokenBucket)
    assert (await api.limiter.peek()).retry_after > 0
    await client.aclose()


@virtual
async def test_calls_that_send_later_let_the_learner_send_more_at_once() -> None:
    """What a call does before its request says nothing of how many the server takes at once."""
    api = Throttle()
    flying = most = 0

    async def answer(request: Any) -> Any:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0.1)
        flying -= 1
        return HTTP.Response(200)

    client = api.wrap(HTTP.AsyncClient(transport=HTTP.MockTransport(answer)))

    @api
    async def get(number: int) -> None:
        await asyncio.sleep(0.001)
        await client.get(URL)

    await asyncio.gather(*map(get, range(100)))
    assert most >= 16
    await client.aclose()


@virtual
async def test_calls_inside_calls() -> None:
    """The innermost call of a throttle is the one that its transport observes; one of another throttle hides none."""
    api, other = Throttle(TokenBucket("100/s")), Throttle(TokenBucket("100/s"))
    client = api.wrap(HTTP.AsyncClient(transport=server(HTTP, (429, {"Retry-After": "1"}))))

    async def get(item: str) -> None:
        await client.get(URL)

    async def inner() -> None:
        async with api.map(get, ["x"], key=str) as results:
            assert [item async for item, _ in results] == ["x"]

    await api.call(other.call, get, "y")
    await api.call(inner)
    assert {key: (counts.sent, counts.refused) for key, counts in api.statistics().items()} == {"": (2, 1), "x": (1, 1)}
    await client.aclose()


@pytest.mark.parametrize(
    ("api", "waits"),
    [
        (Throttle("2/s"), True),
        (Throttle("9/s"), False),
        (Throttle(False, concurrency=2), True),
        (Throttle(False, concurrency_per_key=2), True),
        (Throttle("9/s", concurrency=3), False),
        (Throttle(TokenBucket("1/s")), False),
    ],
    ids=str,
)
@virtual
async def test_calls_inside_that_may_wait_for_ever_are_warned_of_once(
    api: Throttle, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    @api
    async def inner() -> None: ...

    @api
    async def outer() -> None:
        await asyncio.sleep(0.1)
        await inner()

    async with asyncio.timeout(30):
        await outer()
    assert not caplog.records
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            await asyncio.gather(outer(), outer())
    assert [record.message.partition(" waits for ")[0] for record in caplog.records] == [
        f"a call inside a call of the same {api.limiter!r}"
    ] * waits


@pytest.mark.parametrize(
    "limiter",
    [
        None,
        False,
        "100/s",
        TokenBucket("100/s"),
        AllOf(TokenBucket("100/s"), AdaptiveLimiter()),
        AllOf(AllOf(AdaptiveLimiter()), TokenBucket("100/s")),
        TokenBucket("100/s", counter=MemoryCounter(), name="shared"),
    ],
    ids=str,
)
@virtual
async def test_a_call_inside_does_not_wait_for_the_outer_one_to_come_back(limiter: Any) -> None:
    """Neither where the outer one is the probe after a refusal, nor where a learner lets one go at a time."""
    api = Throttle(limiter)
    replies = iter([1, SlowDown(1), 2, 3, 4, 5])

    @api
    async def page() -> int:
        await asyncio.sleep(0.01)
        match next(replies):
            case SlowDown() as refused:
                raise refused
            case number:
                return number

    @api
    async def pages() -> list[int]:
        return [await page(), await page()]

    async with asyncio.timeout(30):
        with pytest.raises(SlowDown):
            await pages()
        assert await asyncio.gather(pages(), pages()) in ([[2, 4], [3, 5]], [[2, 3], [4, 5]])
        assert await api.call(asyncio.sleep, 0, "still there") == "still there"
    core = api._service._core
    assert all(gate.way_back is None or not gate.way_back.flying for gate in core.gates.values())
    assert nothing_left(api.limiter)


@pytest.mark.parametrize("key", ["", "other"])
@virtual
async def test_a_permit_inside_a_permit_of_a_learner(key: str) -> None:
    limiter = AdaptiveLimiter()
    async with asyncio.timeout(30), limiter.permit(), limiter.permit(key=key), limiter.permit(key=key) as inner:
        assert current_permit() is inner
        await limiter.acquire(key=key)
    assert nothing_left(limiter)


@virtual
async def test_a_task_that_a_call_left_behind_is_outside() -> None:
    api = Throttle(TokenBucket("1/s"))
    inner = server(HTTP, 200)
    client = api.wrap(HTTP.AsyncClient(transport=inner))
    left: list[asyncio.Task[Any]] = []

    @api
    async def start() -> None:
        async def later() -> None:
            await asyncio.sleep(5)
            await asyncio.gather(client.get(URL), client.get(URL))

        left.append(asyncio.create_task(later()))

    await start()
    await left[0]
    assert inner.times == [5, 6]
    await client.aclose()


@virtual
async def test_permit_and_settle_inside_a_call() -> None:
    api = Throttle(TokenBucket("1/s", burst=10))

    @api
    async def ask() -> None:
        permit = current_permit()
        assert permit is not None
        permit.settle(7)
        with pytest.raises(RuntimeError, match="settled already"):
            permit.settle(7)

    await ask()
    assert current_permit() is None
    assert isinstance(api.limiter, TokenBucket)
    assert (await api.limiter.peek()).remaining == 3


def test_transport_and_wrap_of_either_library(http: Http) -> None:
    api = Throttle("1/s")
    assert isinstance(api.transport(http.AsyncHTTPTransport()), http.transport)
    assert isinstance(api.transport(), HTTP.transport)
    client = http.AsyncClient()
    assert api.wrap(client) is client
    assert isinstance(client._transport, http.transport)
    with pytest.raises(ValueError, match="throttled already"):
        Throttle("2/s").wrap(client)
    with pytest.raises(TypeError, match="sync"):
        api.wrap(http.Client())
    with pytest.raises(TypeError, match="sync"):
        api.transport(http.HTTPTransport())
    for nonsense in (5, object(), http.AsyncClient()):
        with pytest.raises(TypeError, match="is no AsyncBaseTransport of httpx"):
            api.transport(nonsense)
    with pytest.raises(TypeError, match="is no AsyncClient of httpx"):
        api.wrap(None)


def test_libraries_that_nobody_uses_are_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    client = HTTP2.AsyncClient()
    assert Throttle("1/s").wrap(client) is client


# ── events and counts ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_events_in_order_and_a_hook_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    events: list[Any] = []

    def hook(event: Any) -> None:
        events.append(event)
        raise RuntimeError("of the hook")

    @virtual
    async def play() -> None:
        api = Throttle(TokenBucket("1/s"), retry=AT_ONCE.but(attempts=3), on_event=hook)
        errors: list[Exception] = [SlowDown(4), OSError("a"), OSError("b")]

        @api
        async def work() -> None:
            if errors:
                raise errors.pop(0)

        with pytest.raises(OSError, match="b"):
            await work()
        await work()
        counts = api.statistics()[""]
        assert (counts.sent, counts.refused, counts.waited, counts.paused, counts.lost) == (4, 1, 6, 4, 1)

    with caplog.at_level(logging.ERROR, "throttle"):
        play()
    kinds = [Admitted, Refused, Paused, Retrying, Admitted, Retrying, Admitted, GaveUp, Admitted]
    assert [type(event) for event in events] == kinds
    assert [event.waited for event in events if isinstance(event, Admitted)] == [0, 4, 1, 1]
    assert [event.number for event in events if isinstance(event, Retrying)] == [1, 2]
    assert {record.exc_info[0] for record in caplog.records if record.exc_info} == {RuntimeError}


@virtual
async def test_calls_that_return_plain_data_end_the_refusals_in_a_row() -> None:
    """One call in fifty is refused without a time: each such pause is a first one, however many there were."""
    pauses: list[float] = []

    def hook(event: Any) -> None:
        if isinstance(event, Paused):
            pauses.append(event.seconds)

    met = 0

    async def work(number: int) -> dict[str, int]:
        nonlocal met
        met += 1
        refused = met % 50 == 0
        await anyio.sleep(0.01)
        if refused:
            raise Answered(429)
        return {"number": number}

    api = Throttle("100/s", retry=AT_ONCE.but(on=Answered), on_event=hook)
    async with api.map(work, range(1000)) as results:
        assert len([pair async for pair in results]) == 1000
    assert api.statistics()[""].refused == met // 50 == 20
    assert max(pauses) <= 0.2
    assert now() < 60


@virtual
async def test_no_secret_shows_in_what_events_print() -> None:
    events: list[Any] = []
    api = Throttle(retry=Retry.for_http(attempts=2, backoff=Constant(0)), on_event=events.append)
    client = api.wrap(HTTP.AsyncClient(transport=server(HTTP, 502)))

    @api
    async def get() -> None:
        (await client.get("http://user:secret@server/?token=secret")).raise_for_status()

    with pytest.raises(HTTP.HTTPStatusError) as told:
        await get()
    assert events[-1].outcome is told.value and "secret" in repr(told.value)
    assert repr(events[1:]) == (
        "[Retrying(key='', number=1, delay=0.0, outcome=<HTTPStatusError>), Admitted(key='', cost=1, waited=0.0), "
        "GaveUp(key='', number=2, outcome=<HTTPStatusError>)]"
    )
    await client.aclose()


@virtual
async def test_statistics_are_a_copy_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("throttle.tally._MOST_KEYS", 3)
    api = Throttle("10/s")

    async def work(item: int) -> None: ...

    async with api.map(work, range(5), key=str) as results:
        async for _ in results:
            pass
    assert list(api.statistics()) == ["2", "3", "4"]
    api.statistics()["2"].sent = 99
    assert api.statistics()["2"].sent == 1


def test_counts_and_slots_are_right_from_several_loops_in_several_threads() -> None:
    api = Throttle(TokenBucket("1000000/s"), concurrency_per_key=1)
    inside: list[int] = []

    async def work(item: int) -> None:
        inside.append(item)
        await asyncio.sleep(0)
        assert inside.pop() == item

    async def play() -> None:
        async with api.map(work, range(500), key=lambda item: "k", read_ahead=10) as results:
            async for _ in results:
                pass

    threads = [threading.Thread(target=asyncio.run, args=(play(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert api.statistics()["k"].sent == 2000


def test_time_in_line_is_right_from_one_program_to_the_next() -> None:
    api = Throttle("1/s")

    async def play() -> None:
        async def work() -> None: ...

        await asyncio.gather(api.call(work), api.call(work))

    for number in (1, 2):
        run_virtual(play)
        assert api.statistics()[""].waited == number
    asyncio.run(api.call(asyncio.sleep, 0))
    assert api.statistics()[""].waited < 2.5  # the other program's clock is not this one's


# ── what it is made of ────────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_every_kind_of_limit() -> None:
    async def work() -> None: ...

    bucket = TokenBucket("1/s")
    for limit, took in [
        (None, 0),
        (False, 0),
        ("1/s", 2),
        (Rate(1), 2),
        (1, 2),
        (bucket, 2),
        (TokenBucket("1/s")["key"], 2),
        (AllOf(TokenBucket("1/s"), b=TokenBucket("9/s")), 2),
        (AllOf(TokenBucket("1/s"))["key"], 2),
    ]:
        api, start = Throttle(limit), now()
        for _ in range(3):
            await api.call(work)
        assert now() - start == took
    assert Throttle(bucket).limiter is bucket
    assert repr(Throttle(False)) == "<Throttle <Unlimited>>"
    assert Throttle(retry=AT_ONCE).retry is AT_ONCE
    assert isinstance(Throttle("1/s").limiter, SlidingWindow)


@virtual
async def test_without_a_limit_pauses_are_shared_still() -> None:
    api = Throttle(False)

    async def work(seconds: float | None) -> None:
        if seconds is not None:
            raise SlowDown(seconds)

    with pytest.raises(SlowDown):
        await api.call(work, 4)
    await api.call(work, None)
    assert now() == 4


@virtual
async def test_a_bound_limiter_keeps_its_key() -> None:
    limiter = TokenBucket("1/s")
    api = Throttle(limiter["all"])

    async def work(item: int) -> None: ...

    async with api.map(work, range(3), key=str) as results:
        async for _ in results:
            pass
    assert now() == 2
    assert list(api.statistics()) == ["all"]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"limiter": True}, TypeError, "limiter=True"),
        ({"limiter": "often"}, ValueError, "often"),
        ({"limiter": object()}, TypeError, "a limiter such as"),
        ({"retry": 5}, TypeError, "retry takes a Retry"),
        ({"retry": Retry}, TypeError, "retry takes a Retry"),
        ({"retry": retry}, TypeError, "retry takes a Retry"),
        ({"retry": Retry(attempts=3)}, TypeError, "say what to retry"),
        ({"concurrency": 0}, ValueError, "not 0"),
        ({"concurrency": "2"}, ValueError, "not '2'"),
        ({"concurrency_per_key": -1}, ValueError, "concurrency_per_key must be a whole number of at least 1, not -1"),
        ({"concurrency_per_key": False}, ValueError, "not False"),
        ({"on_event": "print"}, TypeError, "on_event takes a function of one event, not 'print'"),
        ({"on_event": asyncio.sleep}, TypeError, "on_event takes a plain function, not the async "),
        ({"rate": "10/s"}, TypeError, "rate"),
    ],
)
def test_a_bad_option_is_one_clear_error(options: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        Throttle(**options)


@virtual
async def test_a_cost_that_never_fits() -> None:
    api = Throttle(TokenBucket("1/s"))
    client = api.wrap(HTTP.AsyncClient(transport=server(HTTP, 200)))
    with pytest.raises(CostExceedsBurst):
        await client.get(URL, extensions={"throttle": {"cost": 2}})
    await client.aclose()


@virtual
async def test_outcomes_that_cannot_be_looked_at() -> None:
    class Odd(Exception):
        @property
        def response(self) -> Any:
            raise RuntimeError("not now")

    api = Throttle(retry=Retry.for_http())

    async def work() -> None:
        raise Odd

    with pytest.raises(Odd):
        await api.call(work)
    answer = SimpleNamespace(status_code=200, headers={})

    async def returns() -> Any:
        return answer

    assert await api.call(returns) is answer


def test_on_trio() -> None:
    world = TrioWorld()
    api = Throttle(SlidingWindow("2/s", hold=True, clock=world.clock), concurrency=1, retry=AT_ONCE)
    times: list[float] = []

    @api
    async def work() -> None:
        times.append(round(world.now() - start, 6))
        await trio.sleep(0.25)
        if len(times) == 2:
            raise SlowDown(3)

    async def play() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(work)

    clock = trio.testing.MockClock(autojump_threshold=0)
    start = clock.current_time()
    trio.run(play, clock=clock)
    assert times == [0, 0.25, 3.5, 3.75, 4.75]


@virtual
async def test_a_refusal_of_a_call_that_waited_for_one_inside_it_is_heard_by_all() -> None:
    api, began = Throttle(), asyncio.get_running_loop().time()

    async def inner() -> None:
        await asyncio.sleep(0.1)

    async def outer() -> None:
        await asyncio.gather(api.call(inner), api.call(inner))
        error = OSError("slow down")
        error.retry_after = 5  # type: ignore[attr-defined]
        raise error

    with pytest.raises(OSError, match="slow down"):
        await api.call(outer)
    await api.call(inner)
    assert asyncio.get_running_loop().time() - began >= 5
