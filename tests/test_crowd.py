"""A crowd of requests at once: they begin a few turns of the loop apart, so that answers come back in between."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint
from scripted import HTTP, URL
from worlds import nothing_left

from throttle import TokenBucket
from throttle.gate import Gate
from throttle.testing import run_virtual


class Near:
    """A server whose answers take so many turns of the loop, and no time."""

    def __init__(self, turns: int) -> None:
        self.turns, self.inside, self.most, self.order = turns, 0, 0, []  # type: ignore[var-annotated]

    async def __call__(self, request: Any) -> Any:
        self.order.append(int(request.url.params["n"]))
        self.inside += 1
        self.most = max(self.most, self.inside)
        for _ in range(self.turns):
            await checkpoint()
        self.inside -= 1
        return HTTP.Response(200)


async def crowd(server: Near, number: int, limiter: Any) -> None:
    async with HTTP.client(HTTP.MockTransport(server), limiter=limiter) as client, anyio.create_task_group() as group:
        for n in range(number):
            group.start_soon(client.get, f"{URL}?n={n}")
    if limiter is not False:
        assert nothing_left(limiter)


def by_asyncio(main: Any) -> None:
    asyncio.run(main())


@pytest.mark.parametrize("run", [by_asyncio, trio.run, run_virtual])
def test_a_near_server_is_never_met_by_the_whole_crowd(run: Any) -> None:
    async def main() -> None:
        server = Near(6)
        await crowd(server, 60, TokenBucket("100/s"))
        assert server.most <= 8
        server = Near(6)
        await crowd(server, 60, False)
        assert server.most <= 8

    run(main)


def test_a_far_server_is_met_by_all_that_may_go_in_the_same_instant() -> None:
    async def main() -> None:
        at: list[float] = []

        async def far(_: Any) -> Any:
            at.append(asyncio.get_running_loop().time())
            await asyncio.sleep(1)
            return HTTP.Response(200)

        async with HTTP.client(HTTP.MockTransport(far), limiter="50/s") as client:
            await asyncio.gather(*(client.get(URL) for _ in range(60)))
        assert at == [0.0] * 50 + [2.0] * 10  # those windows start with the answers

    run_virtual(main)


def test_who_stands_in_a_crowd_hears_a_refusal_before_it_is_sent() -> None:
    async def main() -> None:
        sent = 0

        async def busy(_: Any) -> Any:
            nonlocal sent
            sent += 1
            return HTTP.Response(429, headers={"Retry-After": "5"}) if sent == 3 else HTTP.Response(200)

        async with HTTP.client(HTTP.MockTransport(busy), limiter="100/s") as client:
            tasks = [asyncio.create_task(client.get(URL)) for _ in range(60)]
            await asyncio.sleep(1)
            assert sent < 8
            assert [(await task).status_code for task in tasks] == [200] * 60

    run_virtual(main)


def test_one_that_leaves_the_crowd_delays_nobody() -> None:
    async def main() -> None:
        server = Near(2)
        limiter = TokenBucket("100/s")
        async with HTTP.client(HTTP.MockTransport(server), limiter=limiter) as client:
            tasks = [asyncio.create_task(client.get(f"{URL}?n={n}")) for n in range(40)]
            for turn in range(30):
                await asyncio.sleep(0)
                tasks[10 + turn].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [one.status_code for one in results[:10]] == [200] * 10  # type: ignore[union-attr]
        assert server.order == sorted(server.order)
        assert nothing_left(limiter)

    asyncio.run(main())


def test_answers_that_come_together_let_no_two_go_together() -> None:
    """httpcore offers its first idle connection to each request that comes before it is taken, a turn later."""

    async def main() -> None:
        looking, most = 0, 0

        async def pool(_: Any) -> Any:
            nonlocal looking, most
            looking += 1
            if asyncio.get_running_loop().time() > 0:  # the first few are no crowd
                most = max(most, looking)
            await asyncio.sleep(0)
            looking -= 1
            await asyncio.sleep(1)
            return HTTP.Response(200)

        async with HTTP.client(HTTP.MockTransport(pool), limiter=False, concurrency=8) as client:
            await asyncio.gather(*(client.get(URL) for _ in range(40)))
        assert asyncio.get_running_loop().time() == 5
        assert most == 1

    run_virtual(main)


def test_a_crowd_at_a_steady_rate_takes_one_look_each(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, ring = 0, Gate.ring

    def counted(gate: Gate, loop: Any) -> None:
        nonlocal looks
        looks += 1
        ring(gate, loop)

    monkeypatch.setattr(Gate, "ring", counted)

    async def main() -> None:
        await crowd(Near(6), 60, TokenBucket("10/s", burst=1))

    run_virtual(main)
    assert looks <= 65


def test_a_few_at_once_are_no_crowd() -> None:
    async def main() -> None:
        server = Near(6)
        await crowd(server, 4, TokenBucket("100/s"))
        assert server.most == 4

    asyncio.run(main())


def test_hints_of_a_crowd_correct_a_limit_that_others_use_too() -> None:
    """100 a second is given; another process has used 90 of them: hardly more than the rest is refused."""

    async def main() -> None:
        refused = used = 0

        async def shared(_: Any) -> Any:
            nonlocal refused, used
            used += 1
            left = max(0, 10 - used)
            refused += used > 10
            headers = {"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": str(left), "X-RateLimit-Reset": "9"}
            return HTTP.Response(200 if used <= 10 else 429, headers=headers)

        async with HTTP.client(HTTP.MockTransport(shared), limiter="100/s") as client:
            tasks = [asyncio.create_task(client.get(URL)) for _ in range(100)]
            await asyncio.sleep(1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert refused == 0
        assert used == 10

    run_virtual(main)
