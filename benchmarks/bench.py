"""Every figure of the in-memory limiters and the retry driver, side by side with the peers, in one run.

    python benchmarks/bench.py [--json FILE] [--markdown FILE] [ROW...]

Each row is a function below; its numbers are medians of repeated rounds on this machine, and its ratio is against the
first line of the row. Wall time depends on the machine; the ratios are what to read.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
from peers import acquirers, have, retriers, versions

import throttle
from throttle import Constant, Retry, SlidingWindow, ThrottleTransport, TokenBucket

Measured = dict[str, float]
ROWS: dict[str, tuple[str, Callable[[], Measured]]] = {}
ROUNDS = 7


def row(unit: str) -> Callable[[Callable[[], Measured]], Callable[[], Measured]]:
    """A row of the table; its docstring's first line is its title."""

    def add(fn: Callable[[], Measured]) -> Callable[[], Measured]:
        ROWS[fn.__name__] = (unit, fn)
        return fn

    return add


async def empty() -> None:
    """What a call costs that does nothing."""


def timed(calls: dict[str, Callable[[], Awaitable[object]]], times: int) -> Measured:
    """Nanoseconds a call, the median of rounds that take turns, so that a slow moment hits everybody."""

    async def once(call: Callable[[], Awaitable[object]]) -> float:
        start = time.perf_counter_ns()
        for _ in range(times):
            await call()
        return (time.perf_counter_ns() - start) / times

    async def rounds() -> Measured:
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(ROUNDS):
            for name, call in calls.items():
                gc.collect()
                taken[name].append(await once(call))
        return {name: statistics.median(values) for name, values in taken.items()}

    return asyncio.run(rounds())


@row("ns")
def acquire() -> Measured:
    """await acquire(), no wait"""

    async def build() -> dict[str, Callable[[], Awaitable[object]]]:
        return {
            "empty coroutine": empty,
            "throttle TokenBucket": TokenBucket(1e9, burst=1e9).acquire,
            "throttle SlidingWindow": SlidingWindow(10**7).acquire,
            **acquirers(1e9, 1e6),
        }

    return timed(asyncio.run(build()), 10_000)


@row("ns")
def keyed() -> Measured:
    """acquire(key=...), 10,000 keys, no wait"""
    limiter = TokenBucket("1000/s")
    keys = [f"key-{index}" for index in range(10_000)]

    async def once(with_key: bool) -> float:
        start = time.perf_counter_ns()
        for key in keys:
            if with_key:
                await limiter.acquire(key=key)
            else:
                await empty()
        return (time.perf_counter_ns() - start) / len(keys)

    async def rounds(with_key: bool) -> float:
        return statistics.median([await once(with_key) for _ in range(ROUNDS * 3)])

    return {"empty coroutine": asyncio.run(rounds(False)), "throttle TokenBucket": asyncio.run(rounds(True))}


@row("ns")
def try_acquire_nowait() -> Measured:
    """try_acquire_nowait(), granted and refused with the exact retry_after"""
    granted, refused = TokenBucket(1e9, burst=1e9), TokenBucket("1/day")
    refused.try_acquire_nowait()

    def each(call: Callable[[], object]) -> float:
        taken = []
        for _ in range(ROUNDS):
            start = time.perf_counter_ns()
            for _ in range(20_000):
                call()
            taken.append((time.perf_counter_ns() - start) / 20_000)
        return statistics.median(taken)

    base = timed({"empty coroutine": empty}, 20_000)
    return base | {"granted": each(granted.try_acquire_nowait), "refused": each(refused.try_acquire_nowait)}


@row("us/permit")
def waiters() -> Measured:
    """100,000 waiters on one limiter, drained at 200,000/s: wall time a permit"""

    async def drain(acquire: Callable[[], Awaitable[object]]) -> float:
        start = time.perf_counter()
        await asyncio.gather(*(acquire() for _ in range(100_000)))
        return (time.perf_counter() - start) * 10

    async def one(name: str) -> float:
        calls = {"throttle TokenBucket": TokenBucket(200_000, burst=1000).acquire}
        return await drain((calls | acquirers(200_000, 1000))[name])

    names = ["throttle TokenBucket"] + [name for name in ("aiolimiter", "asynciolimiter") if have(name)]
    return {name: asyncio.run(one(name)) for name in names}


@row("of ideal")
def cancelled() -> Measured:
    """10,000 waiters at 5,000/s, half of them cancelled: time of the rest over the ideal"""

    async def run() -> float:
        limiter = TokenBucket(5000, burst=1)
        start = time.perf_counter()
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(10_000)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return (time.perf_counter() - start) / (5000 / 5000)

    return {"throttle TokenBucket": asyncio.run(run())}


@row("of asked")
def saturated() -> Measured:
    """permits delivered of those due: 1000/s burst 100 for 3 s, and 10,000/s for 2 s"""

    async def run(rate: float, burst: float, seconds: float) -> float:
        limiter = TokenBucket(rate, burst=burst)
        done = 0
        start = time.perf_counter()

        async def worker() -> None:
            nonlocal done
            while time.perf_counter() - start < seconds:
                await limiter.acquire()
                done += 1

        workers = [asyncio.create_task(worker()) for _ in range(50)]
        await asyncio.sleep(seconds)
        count, elapsed = done, time.perf_counter() - start
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return count / (burst + rate * elapsed)

    return {"1000/s, burst 100": asyncio.run(run(1000, 100, 3)), "10,000/s": asyncio.run(run(10_000, 10_000, 2))}


@row("bytes/key")
def idle_keys() -> Measured:
    """1,000,000 keys used once: bytes each, without the caller's own strings"""
    import tracemalloc

    keys = [f"k{index}" for index in range(1_000_000)]
    limiter = TokenBucket("1/hour")
    gc.collect()
    tracemalloc.start()
    for key in keys:
        limiter.try_acquire_nowait(key=key)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return {"throttle TokenBucket": used / len(keys)}


@row("ns")
def retry_success() -> Measured:
    """an async function that succeeds, decorated with a retry"""
    policy = Retry(on=OSError, attempts=3, backoff=Constant(0))
    return timed({"bare coroutine": empty, "throttle": policy(empty), **retriers(empty, OSError)}, 5_000)


@row("ns")
def retry_once() -> Measured:
    """one failure, one retry with zero wait (the price of one retry)"""

    def failing() -> Callable[[], Awaitable[object]]:
        turn = 0

        async def fn() -> None:
            nonlocal turn
            turn += 1
            if turn % 2:
                raise OSError

        return fn

    policy = Retry(on=OSError, attempts=3, backoff=Constant(0))
    peers = {name: call for name, call in retriers(failing(), OSError).items() if name != "backoff"}
    return timed({"throttle": policy(failing()), **peers}, 1_000)


@row("us")
def transport() -> Measured:
    """a GET through httpx's MockTransport: bare, with a limit, and 502, 502, 200 without waits"""
    ok = httpx.MockTransport(lambda request: httpx.Response(200, content=b"ok"))
    turn = 0

    def flaky(request: httpx.Request) -> httpx.Response:
        nonlocal turn
        turn += 1
        return httpx.Response(200 if turn % 3 == 0 else 502, content=b"ok")

    patient = Retry.for_http(backoff=Constant(0), budget=None)
    clients = {
        "bare": httpx.AsyncClient(transport=ok),
        "throttle, limit": httpx.AsyncClient(transport=ThrottleTransport(ok, limiter=TokenBucket(1e9, burst=1e9))),
        "throttle, 502 502 200": httpx.AsyncClient(
            transport=ThrottleTransport(httpx.MockTransport(flaky), limiter=False, retry=patient)
        ),
    }
    calls = {name: (lambda client=client: client.get("http://host/")) for name, client in clients.items()}
    return {name: value / 1000 for name, value in timed(calls, 500).items()}


@row("ms")
def import_time() -> Measured:
    """import, after asyncio"""

    def once(what: str) -> float:
        code = f"import asyncio, time; s = time.perf_counter(); import {what}; print(time.perf_counter() - s)"
        runs = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(ROUNDS)]
        return statistics.median(runs) * 1000

    return {"tenacity": once("tenacity"), "throttle": once("throttle"), "throttle.limiter": once("throttle.limiter")}


def table(results: dict[str, Measured]) -> str:
    """The results as a Markdown table."""
    lines = ["| what | who | measured | ratio |", "|---|---|---|---|"]
    for name, measured in results.items():
        unit, fn = ROWS[name]
        title = (fn.__doc__ or name).splitlines()[0]
        first = next(iter(measured.values()))
        for who, value in measured.items():
            lines.append(f"| {title} | {who} | {value:,.3g} {unit} | {value / first:.2f} |")
            title = ""
    return "\n".join(lines)


def head() -> str:
    """Machine, versions and date."""
    peers = ", ".join(f"{name} {found}" for name, found in versions().items())
    return (
        f"# Results\n\n{datetime.now(UTC):%Y-%m-%d}, {platform.python_implementation()} {platform.python_version()}, "
        f"{platform.machine()}, throttle {throttle.__version__}, httpx {httpx.__version__}; {peers}.\n\n"
        "Made by `make bench`. The ratio is against the first line of each row.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    options = parser.parse_args()
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    logging.disable()  # peers log every retry
    results = {}
    for name in options.rows or ROWS:
        print(f"... {name}", file=sys.stderr, flush=True)
        results[name] = ROWS[name][1]()
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(f"{head()}\n{table(results)}\n")


if __name__ == "__main__":
    main()
