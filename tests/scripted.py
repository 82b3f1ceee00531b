"""Servers that follow a script, for httpx and httpx2: what they answer, when it comes, and what was asked of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

import throttle.httpx
import throttle.httpx2

URL = "http://server/"


class Http:
    """One of the two libraries, and the transport for it."""

    def __init__(self, library: ModuleType, transport: Any) -> None:
        self.library = library
        self.transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)

    def client(self, inner: Any, /, *, client: Any = None, **options: Any) -> Any:
        """A client that sends through a ThrottleTransport."""
        return self.AsyncClient(transport=self.transport(inner, **options), **(client or {}))


HTTP = Http(httpx, throttle.httpx.ThrottleTransport)
HTTP2 = Http(httpx2, throttle.httpx2.ThrottleTransport)


@pytest.fixture(params=[HTTP, HTTP2], ids=["httpx", "httpx2"])
def http(request: pytest.FixtureRequest) -> Http:
    return request.param


class Body:
    """The body of a response that counts what is read of it. `every`: seconds before each chunk."""

    def __init__(self, *chunks: bytes, every: float = 0.0, error: Exception | None = None) -> None:
        self.chunks, self.every, self.error = chunks, every, error
        self.read = 0
        self.ended = self.closed = False

    async def chunk_by_chunk(self) -> AsyncIterator[bytes]:
        try:
            for chunk in self.chunks:
                if self.every:
                    await asyncio.sleep(self.every)
                self.read += 1
                yield chunk
            if self.error is not None:
                raise self.error
        finally:
            self.ended = True

    def stream(self, http: Http) -> Any:
        body = self

        class Stream(http.AsyncByteStream):
            def __aiter__(self) -> AsyncIterator[bytes]:
                return body.chunk_by_chunk()

            async def aclose(self) -> None:
                body.closed = True

        return Stream()


def server(http: Http, *script: Any, lag: float = 0.0, eager: bool = True) -> Any:
    """A transport that answers with each of `script` in turn, the last one for ever.

    An answer is a status, or (status, headers) or (status, headers, body), an exception type of the library by its
    name, an exception, or a function of the request that gives one of these. `eager`: it reads the request's body.
    """

    class Server(http.AsyncBaseTransport):
        def __init__(self) -> None:
            self.times: list[float] = []
            self.bodies: list[bytes] = []
            self.urls: list[str] = []
            self.entered = self.closed = 0
            self.now: Callable[[], float] = lambda: asyncio.get_running_loop().time()

        @property
        def met(self) -> int:
            return len(self.times)

        async def handle_async_request(self, request: Any) -> Any:
            answer = script[min(self.met, len(script) - 1)]
            self.times.append(self.now())
            self.urls.append(str(request.url))
            if eager:
                self.bodies.append(b"".join([chunk async for chunk in request.stream]))
            if lag:
                await asyncio.sleep(lag)
            if callable(answer) and not isinstance(answer, type):
                answer = answer(request)
            if isinstance(answer, str):
                answer = getattr(http, answer)("scripted")
            if isinstance(answer, Exception):
                raise answer
            status, headers, body = (*answer, b"")[:3] if isinstance(answer, tuple) else (answer, {}, b"")
            if isinstance(body, Body):
                return http.Response(status, headers=headers, stream=body.stream(http))
            return http.Response(status, headers=headers, content=body)

        async def __aenter__(self) -> Any:
            self.entered += 1
            return self

        async def aclose(self) -> None:
            self.closed += 1

    return Server()


class Window:
    """A server's rule: `limit` in each window of `seconds`; it refuses with Retry-After, or without a word."""

    def __init__(self, limit: int, seconds: float, *, tells: bool = True) -> None:
        self.limit, self.seconds, self.tells = limit, seconds, tells
        self.granted: list[float] = []
        self.refused: list[float] = []

    def __call__(self, request: Any) -> Any:
        now = asyncio.get_running_loop().time()
        start = now // self.seconds * self.seconds
        if sum(at >= start for at in self.granted) < self.limit:
            self.granted.append(now)
            return 200
        self.refused.append(now)
        return 429, {"Retry-After": str(math.ceil(start + self.seconds - now))} if self.tells else {}


def most_in_any(seconds: float, times: list[float]) -> int:
    """The most of `times` that fall in any window of that length (its end not included)."""
    times = sorted(times)
    return max((sum(start <= at < start + seconds - 1e-9 for at in times) for start in times), default=0)
