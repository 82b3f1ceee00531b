"""Rows of retries, and of requests through the transport."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

import httpx
import peers
from measure import Call, Measured, Reach, empty, medians, row, timed, timed_sync

from throttle import Constant, Retry, ThrottleTransport, TokenBucket

POLICY = Retry(on=OSError, attempts=3, backoff=Constant(0))


def nothing() -> None:
    """What a plain call costs that does nothing."""


def failing(times: int) -> Callable[[], Awaitable[object]]:
    """Fails so many times, then succeeds once, and so on; without end if 0."""
    turn = 0

    async def fn() -> None:
        nonlocal turn
        turn += 1
        if not times or turn % (times + 1):
            raise OSError

    return fn


@row("ns", Reach("throttle", most=600, over="bare coroutine", paced=True))
def retry_success() -> Measured:
    """`@retry` of an async function that succeeds"""
    return timed({"bare coroutine": empty, "throttle": POLICY(empty), **peers.retriers(empty, OSError)}, 5_000)


@row("ns", Reach("throttle", most=400, over="bare function", paced=True))
def retry_success_sync() -> Measured:
    """`@retry` of a plain function that succeeds"""
    calls = {"bare function": nothing, "throttle": POLICY(nothing), **peers.sync_retriers(nothing, OSError)}
    return timed_sync(calls, 5_000)


@row("ns", Reach("throttle", most=3600, over="bare coroutine", paced=True))
def retry_once() -> Measured:
    """one failure and one retry with zero wait"""
    calls = {"bare coroutine": empty, "throttle": POLICY(failing(1)), **peers.retriers(failing(1), OSError)}
    return timed(calls, 1_000)


@row("objects", Reach("throttle", most=0))
def retry_garbage() -> Measured:
    """three failures, given up: objects of cyclic garbage each"""

    async def count(call: Call) -> float:
        for _ in range(10):
            await _fail(call)
        gc.collect()
        gc.disable()
        try:
            for _ in range(200):
                await _fail(call)
            return gc.collect() / 200
        finally:
            gc.enable()

    async def _fail(call: Call) -> None:
        try:
            await call()
        except Exception:  # hyx wraps it
            pass

    calls = {"throttle": POLICY(failing(0)), **peers.retriers(failing(0), OSError)}
    return {name: asyncio.run(count(call)) for name, call in calls.items()}


# ── the transport ───────────────────────────────────────────────────────────────────────────────────────────────────


def _flaky() -> httpx.MockTransport:
    turn = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal turn
        turn += 1
        return httpx.Response(200 if turn % 3 == 0 else 502, content=b"ok")

    return httpx.MockTransport(answer)


def _gets(transports: dict[str, Any]) -> dict[str, Call]:
    clients = {name: httpx.AsyncClient(transport=transport) for name, transport in transports.items()}
    return {name: (lambda client=client: client.get("http://host/")) for name, client in clients.items()}


def _microseconds(calls: dict[str, Call]) -> Measured:
    return {name: value / 1000 for name, value in timed(calls, 200).items()}


OK = httpx.MockTransport(lambda request: httpx.Response(200, content=b"ok"))


@row("us", Reach("throttle, a limit", most=4, over="bare", paced=True))
def transport_ok() -> Measured:
    """a GET through MockTransport that is answered with 200"""
    many = TokenBucket(1e9, burst=1e9)
    transports = {
        "bare": OK,
        "throttle, a limit": ThrottleTransport(OK, limiter=many),
        "throttle, learning": ThrottleTransport(OK),
        "throttle, no limit": ThrottleTransport(OK, limiter=False),
    }
    if peers.have("httpx-retries"):
        transports["httpx-retries (no limit)"] = import_module("httpx_retries").RetryTransport(OK)
    return _microseconds(_gets(transports))


@row("us", Reach("throttle", most=0.6, times="three bare requests"))
def transport_retries() -> Measured:
    """502, 502, 200 without waits"""
    bare = _gets({"bare": OK})["bare"]

    async def three() -> None:
        for _ in range(3):
            await bare()

    patient = Retry.for_http(backoff=Constant(0), budget=None)
    transports: dict[str, Any] = {"throttle": ThrottleTransport(_flaky(), limiter=False, retry=patient)}
    if peers.have("httpx-retries"):
        library = import_module("httpx_retries")
        retry = library.Retry(total=4, backoff_factor=0)
        transports["httpx-retries"] = library.RetryTransport(_flaky(), retry=retry)
    return _microseconds({"three bare requests": three, **_gets(transports)})


# ── a real server ───────────────────────────────────────────────────────────────────────────────────────────────────

SERVER = """
import asyncio, sys

class Http(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""

    def data_received(self, data):
        self.buffer += data
        while b"\\r\\n\\r\\n" in self.buffer:
            self.buffer = self.buffer.partition(b"\\r\\n\\r\\n")[2]
            asyncio.get_running_loop().call_later(0.01, self.answer)

    def answer(self):
        self.transport.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")

async def main():
    server = await asyncio.get_running_loop().create_server(Http, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""
TASKS, REQUESTS = 200, 1000


class Server:
    """A server of its own process that answers each request after 10 ms."""

    def __enter__(self) -> str:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        return f"http://127.0.0.1:{int(self._process.stdout.readline())}/"

    def __exit__(self, *exc: object) -> None:
        self._process.communicate()  # the end of its input is the end of it


RATE, BURST, WIDTH = 300, 10, 10


class Hand(httpx.AsyncHTTPTransport):
    """A limit as one writes it by hand, in a few lines that know no fairness, no refusal and no retry."""

    def __init__(self, *, paced: bool) -> None:
        super().__init__()
        self.free = asyncio.Semaphore(10**6 if paced else WIDTH)
        self.paced, self.due = paced, 0.0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async with self.free:
            if self.paced:
                now = time.monotonic()
                self.due = max(self.due, now - BURST / RATE) + 1 / RATE
                await asyncio.sleep(self.due - now)
            return await super().handle_async_request(request)


async def _cpu(client: httpx.AsyncClient, url: str, tasks: int, *, apart: float = 0.0) -> float:
    """CPU microseconds a request of a stream of tasks; each begins so many seconds after the last, at the earliest."""
    left = iter(range(REQUESTS))

    async def worker() -> None:
        for number in left:
            if apart:
                await asyncio.sleep(begun + number * apart - time.monotonic())
            (await client.get(url)).raise_for_status()

    async with client:
        await client.get(url)
        gc.collect()
        start, begun = time.process_time(), time.monotonic()
        await asyncio.gather(*(worker() for _ in range(tasks)))
        return (time.process_time() - start) / REQUESTS * 1e6


@row(
    "us CPU",
    Reach("throttle, 200 tasks, 300/s", most=1.15, times="bare, best of 10 to 100 tasks"),
    Reach("throttle, 200 tasks, 10 at once", most=1.15, times="bare, best of 10 to 100 tasks"),
)
def stream() -> Measured:
    """a stream of 200 tasks on a real server that takes 10 ms: CPU a request (by hand: what the pool costs then)"""
    with Server() as url:

        def bare(tasks: int, *, apart: float = 0.0) -> Callable[[], float]:
            return lambda: asyncio.run(_cpu(httpx.AsyncClient(), url, tasks, apart=apart))

        def ours(**options: Any) -> Callable[[], float]:
            inner = lambda: httpx.AsyncClient(transport=ThrottleTransport(**options))
            return lambda: asyncio.run(_cpu(inner(), url, TASKS))

        def by_hand(*, paced: bool) -> Callable[[], float]:
            return lambda: asyncio.run(_cpu(httpx.AsyncClient(transport=Hand(paced=paced)), url, TASKS))

        found: Measured = medians(
            3,
            {
                **{f"bare, {tasks} tasks": bare(tasks) for tasks in (10, 20, 50, 100, TASKS)},
                "bare, 10 tasks by a timetable of 300/s": bare(WIDTH, apart=1 / RATE),  # what the pace itself costs
                "by hand, 200 tasks, 300/s": by_hand(paced=True),
                "throttle, 200 tasks, 300/s": ours(limiter=TokenBucket(RATE, burst=BURST)),
                "by hand, 200 tasks, 10 at once": by_hand(paced=False),
                "throttle, 200 tasks, 10 at once": ours(limiter=False, concurrency=WIDTH),
            },
        )
    best = min(found.pop(f"bare, {tasks} tasks") for tasks in (10, 20, 50, 100))
    return {"bare, best of 10 to 100 tasks": best, **found}
