"""`FakeRateLimitedServer`: it counts as it says, is heard in every style, and follows its script."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
import trio
import trio.testing
from scripted import most_in_any
from worlds import virtual

from throttle import Retry, SlidingWindow, ThrottleTransport
from throttle.hints import read_hints
from throttle.testing import FakeRateLimitedServer, VirtualClock
from throttle.testing.styles import STYLES, Facts

URL = "https://api.example.org/things"
ALGORITHMS = ["moving-window", "fixed-window", "token-bucket"]


async def ask(server: FakeRateLimitedServer, times: int = 1) -> list[httpx.Response]:
    async with httpx.AsyncClient(transport=server) as client:
        return [await client.get(URL) for _ in range(times)]


# ── how it counts ─────────────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_a_moving_window() -> None:
    server = FakeRateLimitedServer(3, 10)
    await asyncio.sleep(8)
    assert [answer.status_code for answer in await ask(server, 4)] == [200, 200, 200, 429]
    await asyncio.sleep(9.5)
    assert (await ask(server))[0].headers["Retry-After"] == "1"
    await asyncio.sleep(0.5)
    assert [answer.status_code for answer in await ask(server, 4)] == [200, 200, 200, 429]
    assert server.accepted == [8, 8, 8, 18, 18, 18]
    assert server.rejected == [8, 17.5, 18]
    assert most_in_any(10, server.accepted) == 3


@virtual
async def test_a_fixed_window() -> None:
    server = FakeRateLimitedServer(3, 10, algorithm="fixed-window")
    await asyncio.sleep(8)
    last = (await ask(server, 4))[-1]
    assert (last.status_code, last.headers["Retry-After"]) == (429, "2")
    await asyncio.sleep(2)
    assert [answer.status_code for answer in await ask(server, 3)] == [200, 200, 200]
    assert server.accepted == [8, 8, 8, 10, 10, 10]


@virtual
async def test_a_token_bucket() -> None:
    server = FakeRateLimitedServer(5, 10, algorithm="token-bucket")
    for _ in range(20):
        await ask(server)
        await asyncio.sleep(1)
    assert server.accepted == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18]


@virtual
async def test_each_key_has_its_own_limit() -> None:
    server = FakeRateLimitedServer(1, 10, key=lambda request: request.headers["X-User"])
    async with httpx.AsyncClient(transport=server) as client:
        answers = [await client.get(URL, headers={"X-User": user}) for user in "aba"]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


# ── how it tells ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("style", STYLES)
def test_what_it_tells_is_heard_and_never_too_short(style: str, algorithm: str) -> None:
    @virtual
    async def play() -> None:
        server = FakeRateLimitedServer(2, 10, style=style, algorithm=algorithm)
        await asyncio.sleep(3.25)
        first, second, refused = await ask(server, 3)
        assert not read_hints(first.status_code, first.headers).refused
        heard = read_hints(refused.status_code, refused.headers, body=refused.content)
        assert heard.refused
        if style == "none":
            assert heard.wait is None
            return
        assert heard.wait is not None
        true = {"moving-window": 10, "fixed-window": 6.75, "token-bucket": 5}[algorithm]
        longest = 10 if style in ("openai", "anthropic") else true  # resets there tell until all is left
        assert true <= heard.wait <= longest + 2  # an HTTP date or epoch is read against a Date of whole seconds
        spent = read_hints(second.status_code, second.headers)
        if spent.quotas:
            assert spent.quotas[0].remaining == 0
            assert spent.wait == pytest.approx(heard.wait, abs=longest - true + 2)
            assert spent.quotas[0].limit == 2
        await asyncio.sleep(true)
        assert (await ask(server))[0].status_code == 200

    play()


@pytest.mark.parametrize("style", STYLES)
def test_a_client_gets_everything_in_the_end(style: str) -> None:
    @virtual
    async def play() -> None:
        server = FakeRateLimitedServer(10, 10, style=style, latency=0.1)
        transport = ThrottleTransport(server, retry=Retry.for_http().but(attempts=10))
        async with httpx.AsyncClient(transport=transport) as client:
            answers = await asyncio.gather(*[client.get(URL) for _ in range(30)])
        assert [answer.status_code for answer in answers] == [200] * 30
        assert len(server.accepted) == 30
        assert server.seen[-1].at < 60

    play()


@pytest.mark.parametrize("style", ["retry-after", "github"])
def test_on_trio_with_its_mock_clock(style: str) -> None:
    async def main() -> None:
        server = FakeRateLimitedServer(3, 10, style=style, latency=0.1)
        async with httpx.AsyncClient(transport=ThrottleTransport(server)) as client, anyio.create_task_group() as group:
            for _ in range(9):
                group.start_soon(client.get, URL)
        assert len(server.accepted) == 9
        assert trio.current_time() == pytest.approx(server.seen[-1].at + 0.05)
        assert 20 <= trio.current_time() < 40

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@virtual
async def test_a_client_under_the_limit_is_never_refused() -> None:
    server = FakeRateLimitedServer(10, 1, latency=0.3)
    limiter = SlidingWindow("10/s", hold=True)
    async with httpx.AsyncClient(transport=ThrottleTransport(server, limiter=limiter)) as client:
        await asyncio.gather(*[client.get(URL) for _ in range(50)])
    assert server.rejected == []


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0, "0s"), (0.02, "20ms"), (6.1, "6.1s"), (360, "6m0s"), (16_716.314, "4h38m36.314s")]
)
def test_durations_as_go_prints_them(seconds: float, told: str) -> None:
    facts = Facts(limit=9, window=1, remaining=1, reset=0, full=seconds, retry_after=0, wall=0)
    assert httpx.Headers(STYLES["openai"].fields(facts))["x-ratelimit-reset-requests"] == told


# ── its script ────────────────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_the_script_comes_first_and_counts_nothing() -> None:
    moved = httpx.Response(301, headers={"Location": "/there"})
    server = FakeRateLimitedServer(1, 10, script=[502, None, moved, httpx.ReadTimeout, httpx.ConnectError("gone")])
    async with httpx.AsyncClient(transport=server) as client:
        assert [(await client.get(URL)).status_code for _ in range(3)] == [502, 200, 301]
        with pytest.raises(httpx.ReadTimeout):
            await client.get(URL)
        with pytest.raises(httpx.ConnectError, match="gone"):
            await client.post(URL)
        server.script.append(503)
        assert [(await client.get(URL)).status_code for _ in range(2)] == [503, 429]
    assert [seen.answer for seen in server.seen] == [502, 200, 301, "ReadTimeout", "ConnectError", 503, 429]
    assert [seen.kind for seen in server.seen] == ["scripted", "accepted", *["scripted"] * 4, "rejected"]
    assert (server.seen[4].method, server.seen[4].url, server.seen[4].at) == ("POST", URL, 0.0)


@virtual
async def test_outages() -> None:
    server = FakeRateLimitedServer(100, 1, outages=[(10, 20), (30, 40, 502)])
    answers: list[Any] = []
    async with httpx.AsyncClient(transport=server) as client:
        for _ in range(10):
            try:
                answers.append((await client.get(URL)).status_code)
            except httpx.ConnectError:
                answers.append("down")
            await asyncio.sleep(5)
    assert answers == [200, 200, "down", "down", 200, 200, 502, 502, 200, 200]


@virtual
async def test_a_script_with_nonsense_is_told() -> None:
    for nonsense in ("502", 99, True, 502.0, ValueError("x").args, dict):
        with pytest.raises(TypeError, match="a script holds statuses, responses of httpx, exceptions and None, not"):
            FakeRateLimitedServer(1, 1, script=[nonsense])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="a script holds"):
            FakeRateLimitedServer(1, 1, outages=[(0, 1, nonsense)])  # type: ignore[list-item]
    server = FakeRateLimitedServer(1, 1)
    server.script.append("later")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not 'later'"):
        await ask(server)


@virtual
async def test_an_outage_that_answers_as_usual_is_none() -> None:
    server = FakeRateLimitedServer(5, 1, outages=[(0, 10, None)], script=[None])
    assert [answer.status_code for answer in await ask(server, 2)] == [200, 200]


@virtual
async def test_latency_and_a_handler_of_ones_own() -> None:
    draws = iter([1.0, 3.0])

    def echo(request: httpx.Request) -> httpx.Response:
        return httpx.Response(201, content=request.content)

    server = FakeRateLimitedServer(5, 10, style="draft-10", latency=lambda: next(draws), handler=echo)
    async with httpx.AsyncClient(transport=server) as client:
        answer = await client.post(URL, content=b"hello")
        assert asyncio.get_running_loop().time() == 1
        await client.post(URL)
    assert (answer.status_code, answer.content) == (201, b"hello")
    assert answer.headers["RateLimit"] == '"default";r=4;t=10'
    assert server.accepted == [0.5, 2.5]


# ── its time ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), trio.run], ids=["asyncio", "trio"])
def test_in_real_time_it_counts_from_the_first_request(run: Callable[..., Any]) -> None:
    async def main() -> None:
        server = FakeRateLimitedServer(1, 3600, style="x-ratelimit-epoch")
        (answer,) = await ask(server)
        assert server.accepted == [pytest.approx(0, abs=5)]
        reset = read_hints(200, answer.headers).wait
        assert reset is not None
        assert 3590 < reset < 3602

    run(main)


@pytest.mark.anyio
async def test_on_a_clock_that_is_given() -> None:
    clock = VirtualClock()
    server = FakeRateLimitedServer(1, 60, clock=clock, latency=2)
    async with anyio.create_task_group() as group:
        group.start_soon(ask, server, 2)
        await clock.run(10)
    assert server.accepted == [1]
    assert server.rejected == [3]
    clock.advance(60)
    async with anyio.create_task_group() as group:
        group.start_soon(ask, server)
        await clock.run(10)
    assert server.accepted == [1, 71]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit must be a whole number of at least 1, not 0"),
        ({"limit": 1.5}, "not 1.5"),
        ({"limit": True}, "not True"),
        ({"window": 0}, "window"),
        ({"window": math.inf}, "inf"),
        ({"latency": -1}, "latency"),
        ({"outages": [(1,)]}, r"an outage is \(start, end\) or \(start, end, answer\) in seconds, not \(1,\)"),
        ({"outages": [(2, 1)]}, r"not \(2, 1\)"),
        ({"outages": (1, 2)}, r"an outage is \(start, end\) or \(start, end, answer\) in seconds, not 1"),
        ({"outages": [("1", 2)]}, r"not \('1', 2\)"),
        ({"outages": [(1, "2")]}, r"not \(1, '2'\)"),
        ({"outages": [(1, 2, 502, 503)]}, r"not \(1, 2, 502, 503\)"),
        ({"style": "draft-99"}, "style is one of 'none', .*; not 'draft-99'"),
        ({"algorithm": ["x"]}, "algorithm is one of 'moving-window', 'fixed-window', 'token-bucket'; not"),
    ],
)
def test_mistakes_are_told(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FakeRateLimitedServer(**{"limit": 1, "window": 1, **options})


@pytest.mark.parametrize("name", ["script", "outages"])
def test_a_list_is_a_list(name: str) -> None:
    options: Any = {name: 429}
    with pytest.raises(TypeError, match=f"{name} is a list, not 429"):
        FakeRateLimitedServer(1, 1, **options)


def test_a_sync_client_is_told() -> None:
    server: Any = FakeRateLimitedServer(1, 1)
    with pytest.raises(TypeError, match=r"is for httpx\.AsyncClient; a sync Client cannot use it"):
        httpx.Client(transport=server).get(URL)
    with pytest.raises(TypeError, match="a sync Client cannot use it"):
        httpx.Client(transport=server).__enter__()
