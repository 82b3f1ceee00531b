"""The library against real rate-limited servers: a known limit is never exceeded, an unknown one is recovered from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest

import throttle
import throttle.httpx2
from throttle import AllOf, Rate, Retry, SlidingWindow, Throttle, ThrottleTransport, TokenBucket
from throttle.cli.demo import seen, serving

from . import flask_limiter, needs_nginx, nginx

pytestmark = [pytest.mark.server, pytest.mark.anyio]


async def fetched(count: int, get: Callable[[], Awaitable[Any]]) -> list[int]:
    """The statuses of `count` requests at once."""
    statuses: list[int] = []

    async def one(_: int) -> None:
        statuses.append((await get()).status_code)

    async with Throttle(False).map(one, range(count)) as done:
        async for _ in done:
            pass
    return statuses


@pytest.mark.parametrize("http", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_slowapi_never_refuses_a_known_limit(http: Any) -> None:
    face = throttle.httpx2.ThrottleTransport if http is httpx2 else ThrottleTransport
    with serving(Rate(20), 5) as url:
        async with http.AsyncClient(transport=face(limiter="20/s", concurrency=10), base_url=url) as client:
            assert await fetched(45, lambda: client.get("/items/1")) == [200] * 45
        granted, refused = await seen(url)
    assert (len(granted), refused) == (45, [])


async def test_slowapi_per_key_and_in_all() -> None:
    with serving(Rate(20), 5) as url:
        limiter = AllOf(SlidingWindow("20/s", hold=True)["all"], SlidingWindow("15/s", hold=True))
        keys = iter(["a", "b"] * 15)
        async with httpx.AsyncClient(transport=ThrottleTransport(limiter=limiter), base_url=url) as client:
            statuses = await fetched(30, lambda: client.get("/items/1", extensions={"throttle": {"key": next(keys)}}))
        assert statuses == [200] * 30
        assert (await seen(url))[1] == []


@pytest.mark.parametrize("strategy", ["fixed-window", "moving-window"])
async def test_flask_limiter_never_refuses_a_known_limit(strategy: str) -> None:
    with flask_limiter("20 per 1 second", strategy) as url:
        async with httpx.AsyncClient(transport=ThrottleTransport(limiter="20/s"), base_url=url) as client:
            assert await fetched(45, lambda: client.get("/item")) == [200] * 45
            assert (await client.get("/refused")).text == "0"


async def test_flask_limiter_twice_as_fast_as_allowed_loses_nothing() -> None:
    with flask_limiter("20 per 1 second", "moving-window") as url:
        async with httpx.AsyncClient(transport=ThrottleTransport(limiter="40/s"), base_url=url) as client:
            assert await fetched(45, lambda: client.get("/item")) == [200] * 45
            refused = int((await client.get("/refused")).text)
    assert refused <= 10  # what the answers say is left is heard before the crowd is sent


@needs_nginx
async def test_nginx_never_refuses_a_known_limit(tmp_path: Path) -> None:
    with nginx(tmp_path, rate=50, burst=10) as socket:
        inner = httpx.AsyncHTTPTransport(uds=socket)
        transport = ThrottleTransport(inner, limiter=TokenBucket("40/s", burst=5))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert await fetched(60, lambda: client.get("/item")) == [200] * 60
        assert transport.statistics()["http://test:80"].refused == 0


@needs_nginx
@pytest.mark.parametrize("status", [429, 503])
async def test_nginx_that_says_no_time_is_recovered_from(tmp_path: Path, status: int) -> None:
    with nginx(tmp_path, rate=50, burst=5, status=status) as socket:
        retry = Retry.for_http(attempts=30)
        transport = ThrottleTransport(httpx.AsyncHTTPTransport(uds=socket), retry=retry, concurrency=20)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert await fetched(40, lambda: client.get("/item")) == [200] * 40
