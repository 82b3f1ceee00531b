"""The straight way of a first attempt: what it hands over, what a cancellation leaves, permits that no gate knows."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import httpx
import pytest

from throttle import AllOf, Constant, Decision, Retry, SlidingWindow, ThrottleTransport, TokenBucket, WaitTooLong
from throttle.hints import Hints
from throttle.testing import VirtualClock, run_virtual

URL = "https://server/"


def client(handler: Any, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=ThrottleTransport(httpx.MockTransport(handler), **options))


LIMITS = [lambda: TokenBucket("10/s"), lambda: SlidingWindow("10/s", hold=True), lambda: SlidingWindow("10/s")]


@pytest.mark.parametrize("make", LIMITS)
def test_a_transport_error_of_the_first_attempt_is_retried(make: Any) -> None:
    met: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        met.append(request.url.path)
        if len(met) == 1:
            raise httpx.ConnectError("no")
        return httpx.Response(200)

    async def main() -> Any:
        limiter = make()
        async with client(handle, limiter=limiter, retry=Retry.for_http(backoff=Constant(0))) as api:
            assert (await api.get(URL)).status_code == 200
            told = api._transport.statistics()  # type: ignore[attr-defined]
        return met, told["https://server:443"].sent, (await limiter.peek(key="https://server:443")).remaining

    assert run_virtual(main) == (["/", "/"], 2, 8.0)


@pytest.mark.parametrize("make", LIMITS)
def test_a_cancelled_first_attempt_ends_its_permit(make: Any) -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(1000)
        raise AssertionError

    async def main() -> None:
        limiter = make()
        async with client(hang, limiter=limiter) as api:
            call = asyncio.create_task(api.get(URL))
            await asyncio.sleep(1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert (await limiter.peek(key="https://server:443")).exact  # nothing is held any longer
        await asyncio.sleep(2)
        assert (await limiter.peek(key="https://server:443")).remaining == 10
        assert not limiter._core.gates

    run_virtual(main)


def test_a_permit_without_a_gate_tells_those_who_combine() -> None:
    async def main() -> None:
        held = SlidingWindow("1/s", hold=True)
        both = AllOf(held)
        async with held.permit():
            waiting = asyncio.create_task(both.acquire())
            await asyncio.sleep(3)
            assert not waiting.done()
        before = asyncio.get_running_loop().time()
        await waiting
        assert asyncio.get_running_loop().time() - before == pytest.approx(1)

    run_virtual(main)


def test_a_permit_of_another_clock_ends_without_a_trace() -> None:
    held = SlidingWindow("1/h", hold=True)

    async def main() -> Any:
        permit = held.permit()
        await permit.__aenter__()
        return permit

    permit = run_virtual(main)
    with pytest.raises(StopIteration):
        permit.__aexit__(None, None, None).send(None)
    assert held.try_acquire_nowait()


def test_a_quota_told_on_the_straight_way_is_heard() -> None:
    sent: list[float] = []

    async def handle(request: httpx.Request) -> httpx.Response:
        sent.append(asyncio.get_running_loop().time())
        told = {"X-RateLimit-Limit": "10", "X-RateLimit-Remaining": str(max(0, 3 - len(sent)))}
        await asyncio.sleep(0.5)
        return httpx.Response(200, headers={**told, "X-RateLimit-Reset": "30"})

    async def main() -> list[float]:
        async with client(handle, limiter=TokenBucket("10/s")) as api:
            await api.get(URL)
            others = [asyncio.create_task(api.get(URL)) for _ in range(6)]
            await asyncio.sleep(10)
            for task in others:
                task.cancel()
        return sent

    assert len(run_virtual(main)) <= 3  # by our own count there were ten


def test_an_outer_retry_is_told_when_an_attempt_starts() -> None:
    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(3)
        return httpx.Response(200)

    async def main() -> int:
        async with client(slow, limiter=TokenBucket("1/s", burst=1)) as api:

            @Retry(on=OSError, attempt_timeout=5)
            async def twice() -> int:
                await asyncio.sleep(1)  # before its permit: does not count
                return (await api.get(URL)).status_code + (await api.get(URL)).status_code

            with pytest.raises(TimeoutError):
                await twice()

            @Retry(on=OSError, attempt_timeout=5)
            async def once() -> int:
                await asyncio.sleep(4)
                return (await api.get(URL)).status_code

            return await once()

    assert run_virtual(main) == 200


def test_tasks_left_behind_by_ended_attempts_hold_nothing() -> None:
    """A chain of tasks, each begun inside the last one's attempt, keeps no more than the last ended permit."""

    async def main() -> int:
        limiter = TokenBucket(1e6)
        depth = 0

        async def link(left: int) -> None:
            nonlocal depth
            await asyncio.sleep(0)  # the block around has ended
            async with limiter.permit() as permit:
                above = permit._outer
                depth = 0
                while above is not None:
                    above, depth = above._outer, depth + 1
                if left:
                    tasks.append(asyncio.create_task(link(left - 1)))

        tasks = [asyncio.create_task(link(50))]
        for task in tasks:
            await task
        return depth

    assert run_virtual(main) <= 1


def test_real_time_is_read_without_a_detour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("throttle.rulecore.modules", {})  # no trio, which may run on another clock

    async def main() -> None:
        limiter = SlidingWindow("2/h", hold=True)
        async with client(lambda request: httpx.Response(403), limiter=limiter) as api:
            assert [(await api.get(URL)).status_code for _ in range(2)] == [403, 403]
            assert not limiter._core.gates
            refused = await limiter.peek(key="https://server:443")
            assert not refused
            assert refused.exact
            assert 3500 < refused.retry_after <= 3600
            with pytest.raises(WaitTooLong):
                await api.get(URL, extensions={"throttle": {"max_wait": 1}})
            assert api._transport.statistics()["https://server:443"].sent == 2  # type: ignore[attr-defined]

    asyncio.run(main())


def test_the_hints_of_a_policy_hear_each_response_once() -> None:
    heard: list[int] = []

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200 if len(heard) == 2 else 502, content=b"rate limit exceeded")

    def hear(response: Any) -> Hints:
        heard.append(response.status_code)
        return Hints()

    async def main() -> None:
        retry = Retry.for_http(backoff=Constant(0), hints=hear)
        async with client(handle, limiter=TokenBucket("10/s"), retry=retry) as api:
            assert (await api.get(URL)).status_code == 200

    run_virtual(main)
    assert heard == [502, 502, 200]


def test_decisions_are_values() -> None:
    limiter = TokenBucket("2/s", burst=1, clock=VirtualClock())
    first, second = limiter.try_acquire_nowait(), limiter.try_acquire_nowait()
    assert first == Decision(True, 0.0, 0.0, True, 0.5, 0) != second
    assert first != "a decision"
    assert eval(repr(second)) == second
    assert len({first, second, copy.copy(first), pickle.loads(pickle.dumps(second))}) == 2
    with pytest.raises(AttributeError):
        first.allowed = False  # type: ignore[misc]


def test_who_expects_less_expects_it_once() -> None:
    gate = TokenBucket("1/s")._core.gate("", 0)
    gate.expect_less()
    back = gate.way_back
    gate.expect_less()
    assert gate.way_back is back is not None


def test_a_crowd_is_served_in_several_turns_of_the_loop() -> None:
    async def main() -> None:
        limiter = TokenBucket("1/day", burst=400)
        limiter.pause(5)
        order: list[int] = []

        async def one(number: int) -> None:
            await limiter.acquire()
            order.append(number)

        crowd = [asyncio.create_task(one(number)) for number in range(400)]
        await asyncio.sleep(5)
        served: list[int] = []
        for _ in range(12):
            await asyncio.sleep(0)
            served.append(len(order))
        await asyncio.gather(*crowd)
        assert order == list(range(400))
        assert 0 < served[0] < 400 or len(set(served)) > 2
        assert asyncio.get_running_loop().time() == pytest.approx(5, abs=1e-6)

    run_virtual(main)
