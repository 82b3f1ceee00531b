"""Processes that share one limit through a real Redis on loopback, beside limits, throttled-py, pyrate-limiter and
redis-rate-limiters, in one run.

    python benchmarks/shared.py [--seconds S] [--json FILE] [--markdown FILE] [--only WHO,WHO]

With --markdown the rows of SQLite (`sqlite_rows.py`) are measured, too, and all is written there.

Each process runs 50 tasks that take permits as fast as they come. Of a row: permits granted over burst + rate x time;
the most in any second over burst + rate; the most that a process got over the least; commands of the server a permit;
CPU of all client processes a permit. "20 ms" goes through a proxy that adds them to each round trip. The speed of one
process, where the rate is no bound, is the median of three runs of two seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import date
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sqlite_rows
from sqlite_rows import answers, most_within, table, work

from throttle import TokenBucket
from throttle.counters import RedisCounter

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from redis_servers import Server

Acquire = Callable[[], Awaitable[object]]


def throttle_acquire(url: str, rate: float, burst: int) -> Acquire:
    return TokenBucket(rate, burst=burst, counter=RedisCounter(url), name="bench").acquire


def limits_acquire(url: str, rate: float, burst: int) -> Acquire:
    """It cannot wait: asked again after a millisecond. A window of the burst's length has the same rate."""
    limits, strategies = import_module("limits"), import_module("limits.aio.strategies")
    store = import_module("limits.storage").storage_from_string(f"async+{url}", implementation="redispy")
    limiter = strategies.MovingWindowRateLimiter(store)
    item = limits.RateLimitItemPerSecond(max(1, round(rate)), 1)

    async def acquire() -> None:
        while not await limiter.hit(item, "bench"):  # noqa: ASYNC110  # it has no other way
            await asyncio.sleep(0.001)

    return acquire


def throttled_acquire(url: str, rate: float, burst: int) -> Acquire:
    throttled = import_module("throttled.asyncio")
    quota = import_module("throttled").per_sec(round(rate), burst=burst)
    limiter = throttled.Throttled(
        key="bench", using="gcra", quota=quota, store=throttled.RedisStore(server=url), timeout=30
    )
    return limiter.limit  # type: ignore[no-any-return]


def pyrate_acquire(url: str, rate: float, burst: int) -> Acquire:
    pyrate, asyncio_redis = import_module("pyrate_limiter"), import_module("redis.asyncio")
    made: list[Any] = []

    async def acquire() -> None:
        if not made:
            made.append(None)
            window = max(1, round(burst / rate * 1000))
            rates = [pyrate.Rate(max(1, round(rate * window / 1000)), window)]
            bucket = await pyrate.RedisBucket.init(rates, asyncio_redis.Redis.from_url(url), "bench")
            made[0] = pyrate.Limiter(bucket)
        while made[0] is None:  # noqa: ASYNC110  # another task makes it
            await asyncio.sleep(0.001)
        await made[0].try_acquire_async("x", blocking=True)

    return acquire


def redis_rate_limiters_acquire(url: str, rate: float, burst: int) -> Acquire:
    limiters, asyncio_redis = import_module("limiters"), import_module("redis.asyncio")
    client = asyncio_redis.Redis.from_url(url)
    bucket = limiters.AsyncTokenBucket(client, "bench", burst, 1 / rate, 1, max_sleep=60)

    async def acquire() -> None:
        async with bucket:
            pass

    return acquire


WHO: dict[str, Callable[[str, float, int], Acquire]] = {
    "throttle": throttle_acquire,
    "limits": limits_acquire,
    "throttled-py": throttled_acquire,
    "pyrate-limiter": pyrate_acquire,
    "redis-rate-limiters": redis_rate_limiters_acquire,
}


class Delay:
    """A proxy that adds half of `trip` seconds to each way, on a thread of its own."""

    def __init__(self, port: int, trip: float) -> None:
        self.target, self.half, self.port = port, trip / 2, 0
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._main(ready)), daemon=True).start()
        ready.wait(10)

    async def _main(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await server.serve_forever()

    async def _serve(self, reader: Any, writer: Any) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer), return_exceptions=True)

    async def _copy(self, source: Any, target: Any) -> None:
        loop = asyncio.get_running_loop()
        while data := await source.read(65536):
            loop.call_later(self.half, target.write, data)
        loop.call_later(self.half, target.close)


def commands(server: Server) -> int:
    """What clients have sent: the scripts; where there are none, everything (what a script does is counted, too)."""
    with server.client() as client:
        calls = {name: int(one["calls"]) for name, one in client.info("commandstats").items()}
    scripts = sum(calls.get(f"cmdstat_{name}", 0) for name in ("eval", "evalsha"))
    return scripts or sum(calls.values())


def measure(who: str, rate: float, burst: int, seconds: float, trip: float = 0.0, processes: int = 4) -> dict[str, Any]:
    """One row."""
    server = Server()
    try:
        url = server.url if not trip else f"redis://127.0.0.1:{Delay(server.port, trip).port}"
        start = time.time() + 4  # when all have imported what they need
        command = [sys.executable, __file__, "--work", who, url, "50", str(rate), str(burst)]
        command += [str(start), str(start + seconds)]
        before = commands(server)
        found = answers(command, processes, seconds + 40)
        asked = commands(server) - before
    finally:
        server.close()
    times = sorted(moment for one in found for moment in one["times"])
    counts = [len(one["times"]) for one in found]
    return {
        "of ideal": len(times) / (burst + rate * seconds),
        "worst second": most_within(times, 1.0) / (burst + rate) if times else 0.0,
        "commands/permit": asked / max(1, len(times)),
        "fairness": max(counts) / max(1, min(counts)),
        "CPU us/permit": sum(one["cpu"] for one in found) / max(1, len(times)) * 1e6,
        "errors": sum(len(one["errors"]) for one in found),
    }


async def speed(acquire: Acquire, tasks: int, seconds: float = 2.0) -> tuple[float, float, int]:
    """Decisions a second, the 99th percentile of one in ms, and the tasks that ended in an error."""
    took: list[float] = []
    await acquire()
    end = time.perf_counter() + seconds

    async def take() -> None:
        before = time.perf_counter()
        while before < end:
            await acquire()
            now = time.perf_counter()
            took.append(now - before)
            before = now

    done = await asyncio.gather(*(take() for _ in range(tasks)), return_exceptions=True)
    took.sort()
    return len(took) / seconds, took[len(took) * 99 // 100] * 1000, sum(isinstance(one, Exception) for one in done)


def speeds(who: str, tasks: int) -> dict[str, Any]:
    found = []
    for _ in range(3):
        server = Server()
        try:

            async def main(url: str = server.url) -> tuple[float, float, int]:
                return await speed(WHO[who](url, 1e6, 1_000_000), tasks)

            found.append(asyncio.run(main()))
        finally:
            server.close()
    rate, p99, errors = sorted(found)[1]
    return {f"decisions/s, {tasks} tasks": rate, f"p99 ms, {tasks} tasks": p99, f"errors, {tasks} tasks": errors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", default=",".join(WHO), help="names, with commas between")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="measure SQLite, too, and write the tables there")
    parser.add_argument("--work", nargs=7, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable()
    if options.work:
        who, url, tasks, rate, burst, start, end = options.work
        acquire = WHO[who](url, float(rate), int(burst))
        print(json.dumps(asyncio.run(work(acquire, int(tasks), float(start), float(end), lag=False))))
        return
    rows = {
        "4 x 50 on 500/s": (500.0, 50, 0.0), "the same at 20 ms": (500.0, 50, 0.02), "100/s, burst 1": (100.0, 1, 0.0)
    }  # fmt: skip
    results: dict[str, dict[str, Any]] = {}
    for who in options.only.split(","):
        print(f"... {who}", file=sys.stderr, flush=True)
        found: dict[str, Any] = {}
        for tasks in (64, 512):
            found |= attempt(lambda who=who, tasks=tasks: speeds(who, tasks), f"{tasks} tasks")
        for row, (rate, burst, trip) in rows.items():
            one = attempt(lambda who=who, r=rate, b=burst, t=trip: measure(who, r, b, options.seconds, t), row)
            found |= {f"{row}: {name}": value for name, value in one.items()}
        results[who] = found
    print("\n".join(table("Redis", results)))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.markdown:
        sqlite = sqlite_rows.rows(4, 50, 500.0, options.seconds)
        tables = [*table("Redis", results, REACH), "", *table("SQLite: 4 x 50 on 500/s", sqlite, SQLITE_REACH)]
        options.markdown.write_text("\n".join([head(), "", *tables]) + "\n")


REACH = {
    "decisions/s, 64 tasks": "≥ 120,000",
    "p99 ms, 64 tasks": "≤ 8",
    "decisions/s, 512 tasks": "≥ 120,000",
    "p99 ms, 512 tasks": "≤ 8",
    "4 x 50 on 500/s: of ideal": "≥ 0.995",
    "4 x 50 on 500/s: worst second": "≤ 1.05",
    "4 x 50 on 500/s: commands/permit": "≤ 0.12",
    "4 x 50 on 500/s: fairness": "≤ 1.08",
    "4 x 50 on 500/s: CPU us/permit": "≤ 200",
    "the same at 20 ms: of ideal": "≥ 0.99",
    "100/s, burst 1: of ideal": "≥ 0.98",
}
SQLITE_REACH = {"of ideal": "≥ 0.995", "fairness": "≤ 1.1", "lag max ms": "≤ 10"}
PACKAGES = ["redis", "hiredis", *(name for name in WHO if name != "throttle")]


def head() -> str:
    """Where and when, and how to read it."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} missing")
    server = Server()
    try:
        with server.client() as client:
            found.append(f"server {client.info('server')['redis_version']}")
    finally:
        server.close()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    method = (__doc__ or "").split("\n\n")[-1].strip()
    return f"# Shared limits\n\n{date.today()}, {machine} at the end; {', '.join(found)}.\n\n{method}"


def attempt(measured: Callable[[], dict[str, Any]], what: str) -> dict[str, Any]:
    """A peer that fails is a row that says so."""
    try:
        return measured()
    except Exception as error:
        print(f"    {what}: {error!r}"[:200], file=sys.stderr)
        return {f"{what} failed": type(error).__name__}


if __name__ == "__main__":
    main()
