"""Fifty tasks against real servers whose limit nobody told them: all finish, none is lost; and connections are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import httpx
import httpx2
import pytest

import throttle.httpx
import throttle.httpx2
from throttle import Constant, Rate, Retry, Throttle
from throttle.cli.demo import seen, serving

from . import flask_limiter

pytestmark = [pytest.mark.server, pytest.mark.anyio]


@pytest.fixture
def libraries(anyio_backend: str) -> Any:
    """httpx on asyncio and httpx2 on trio: a real server takes real time, so not each with each."""
    return (httpx, throttle.httpx) if anyio_backend == "asyncio" else (httpx2, throttle.httpx2)


async def fifty(client: Any, path: str) -> list[int]:
    """The statuses of fifty requests at once."""
    async with Throttle(False).map(lambda _: client.get(path), range(50)) as results:
        return [response.status_code async for _, response in results]


async def test_slowapi(libraries: Any) -> None:
    http, ours = libraries
    with serving(Rate(20), 5) as url:
        transport = ours.ThrottleTransport(retry=Retry.for_http(attempts=20))
        async with http.AsyncClient(transport=transport, base_url=url) as client:
            assert await fifty(client, "/items/1") == [200] * 50
        granted, refused = await seen(url)
    (counts,) = transport.statistics().values()
    assert len(granted) == 50
    assert (counts.sent, counts.refused, counts.lost) == (50 + len(refused), len(refused), 0)


@pytest.mark.parametrize("strategy", ["fixed-window", "moving-window"])
async def test_flask_limiter_inside_calls(libraries: Any, strategy: str) -> None:
    """The transport passes through; the calls around it pay, wait and retry."""
    http, _ = libraries
    api = Throttle(retry=Retry.for_http(attempts=20), concurrency=10)
    with flask_limiter("20 per 1 second", strategy) as url:
        async with api.wrap(http.AsyncClient(base_url=url)) as client:

            async def get(_: int) -> str:
                response = await client.get("/item")
                return str(response.raise_for_status().text)

            async with api.map(get, range(50)) as results:
                assert [text async for _, text in results] == ["hello"] * 50
            refused = int((await client.get("/refused")).text)
    counts = api.statistics()[""]
    assert (counts.sent, counts.refused, counts.lost) == (50 + refused, refused, 0)


@asynccontextmanager
async def failing_twice() -> AsyncIterator[tuple[str, list[int]]]:
    """A server that fails two of three requests, with bodies; its address, and the requests on each connection."""
    requests: list[int] = []

    async def serve(stream: anyio.abc.ByteStream) -> None:
        number = len(requests)
        requests.append(0)
        async with stream:
            while True:
                try:
                    await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return
                requests[number] += 1
                status = "200 OK" if sum(requests) % 3 == 0 else "502 Bad Gateway"
                await stream.send(f"HTTP/1.1 {status}\r\nContent-Length: 5000\r\n\r\n{'x' * 5000}".encode())

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        yield f"http://127.0.0.1:{port}/", requests
        group.cancel_scope.cancel()


async def test_what_is_put_aside_leaves_its_connection_to_the_next(libraries: Any) -> None:
    http, ours = libraries
    async with failing_twice() as (url, requests):
        transport = ours.ThrottleTransport(retry=Retry.for_http(backoff=Constant(0)))
        async with http.AsyncClient(transport=transport) as client:
            assert [(await client.get(url)).status_code for _ in range(5)] == [200] * 5
    assert requests == [15]
