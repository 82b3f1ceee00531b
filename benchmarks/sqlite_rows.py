"""Processes that share one limit through an SQLite file, beside pyrate-limiter's SQLiteBucket, in one run.

    python benchmarks/sqlite_rows.py [--seconds S] [--processes P] [--tasks T] [--json FILE]

Each process runs tasks that take permits as fast as they come. What is told of a row:

- of ideal: permits granted over burst + rate x time, by the clock they share;
- worst second: the most permits in any second, over burst + rate: what the limit allows there at most;
- fairness: the most that a process got over the least;
- lag: how late a process's event loop woke from a sleep of 5 ms, the worst and the 99th percentile of all processes;
- CPU: of all processes, a permit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from peers import NAMES, have

from throttle import TokenBucket
from throttle.counters import SQLiteCounter

BURST = 50


def throttle_acquire(path: str, rate: float) -> Callable[[], Awaitable[object]]:
    return TokenBucket(rate, burst=BURST, counter=SQLiteCounter(path), name="bench").acquire


def pyrate_acquire(path: str, rate: float) -> Callable[[], Awaitable[object]]:
    """Its bucket counts windows: the same rate in windows of the length that BURST permits take, at least 1 ms."""
    pyrate = import_module("pyrate_limiter")
    window = max(1, round(BURST / rate * 1000))
    rates = [pyrate.Rate(round(rate * window / 1000), window)]
    bucket = pyrate.SQLiteBucket.init_from_file(rates, db_path=path, use_file_lock=True)
    limiter = pyrate.Limiter(bucket)
    return lambda: limiter.try_acquire_async("x", blocking=True)


WHO = {"throttle": throttle_acquire, "pyrate-limiter": pyrate_acquire}


async def work(
    acquire: Callable[[], Awaitable[object]], tasks: int, start: float, end: float, *, lag: bool = True
) -> dict[str, Any]:
    """What one process got between two instants of the wall clock; to measure the `lag`, too, takes CPU of its own."""
    times: list[float] = []
    lags: list[float] = []

    async def take() -> None:
        while True:
            await acquire()
            now = time.time()
            if now >= end:
                return
            times.append(now)

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            lags.append(time.perf_counter() - before - 0.005)

    await asyncio.sleep(max(0.0, start - time.time()))
    cpu = time.process_time()
    workers = [asyncio.create_task(take()) for _ in range(tasks)]
    if lag:
        workers.append(asyncio.create_task(watch()))
    await asyncio.sleep(max(0.0, end - time.time()))
    used = time.process_time() - cpu
    for task in workers:
        task.cancel()
    done = await asyncio.gather(*workers, return_exceptions=True)
    errors = [repr(error) for error in done if isinstance(error, Exception)]
    return {"times": times, "lags": lags, "cpu": used, "errors": errors}


def measure(who: str, processes: int, tasks: int, rate: float, seconds: float) -> dict[str, float]:
    """One row."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.time() + 4  # when all have imported what they need
        command = [sys.executable, __file__, "--work", who, f"{folder}/limits.db", str(tasks), str(rate)]
        command += [str(start), str(start + seconds)]
        found = answers(command, processes, seconds + 40)
    times = sorted(moment for one in found for moment in one["times"])
    counts = [len(one["times"]) for one in found]
    lags = sorted(lag for one in found for lag in one["lags"])
    return {
        "of ideal": len(times) / (BURST + rate * seconds),
        "worst second": most_within(times, 1.0) / (BURST + rate),
        "fairness": max(counts) / max(1, min(counts)),
        "lag max ms": lags[-1] * 1000,
        "lag p99 ms": lags[len(lags) * 99 // 100] * 1000,
        "CPU us/permit": sum(one["cpu"] for one in found) / max(1, len(times)) * 1e6,
        "errors": sum(len(one["errors"]) for one in found),
    }


def answers(command: list[str], processes: int, timeout: float) -> list[Any]:
    """What so many processes of one command print; none of them outlives this."""
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    end = time.monotonic() + timeout
    try:
        return [json.loads(process.communicate(timeout=max(1.0, end - time.monotonic()))[0]) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()


def most_within(times: list[float], window: float) -> int:
    """The most of the sorted `times` in any half-open window."""
    most, first = 0, 0
    for last, moment in enumerate(times):
        while times[first] <= moment - window:
            first += 1
        most = max(most, last - first + 1)
    return most


async def per_second(acquire: Callable[[], Awaitable[object]], tasks: int, seconds: float) -> float:
    """Permits a second where the rate is no bound."""
    count, end = 0, time.perf_counter() + seconds

    async def take() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await acquire()
            count += 1

    await asyncio.gather(*(take() for _ in range(tasks)))
    return count / seconds


def speed(who: str, tasks: int) -> float:
    """The median of three."""
    taken = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:

            async def main(path: str = f"{folder}/limits.db") -> float:
                return await per_second(WHO[who](path, 1e7), tasks, 2.0)

            taken.append(asyncio.run(main()))
    return statistics.median(taken)


def rows(processes: int, tasks: int, rate: float, seconds: float) -> dict[str, dict[str, Any]]:
    """Who, what, figure."""
    results: dict[str, dict[str, Any]] = {}
    for who in ["throttle", *(who for who in WHO if who in NAMES and have(who))]:
        print(f"... {who}, SQLite", file=sys.stderr, flush=True)
        results[who] = measure(who, processes, tasks, rate, seconds)
        results[who] |= {f"permits/s, {tasks} tasks": speed(who, tasks) for tasks in (1, 64)}
    return results


def table(what: str, results: dict[str, dict[str, Any]], reach: dict[str, str] | None = None) -> list[str]:
    """The lines of a Markdown table; with a column of what is to be reached where that is given."""
    ends = ["to reach"] if reach else []
    lines = [f"| {' | '.join([what, *results, *ends])} |", "|---" * (1 + len(results) + len(ends)) + "|"]
    for name in dict.fromkeys(name for one in results.values() for name in one):
        values = [one.get(name, "-") for one in results.values()]
        cells = [value if isinstance(value, str) else f"{value:,.4g}" for value in values]
        lines.append(f"| {' | '.join([name, *cells, *([reach.get(name, '')] if reach else [])])} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--work", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable()
    if options.work:
        who, path, tasks, rate, start, end = options.work
        print(json.dumps(asyncio.run(work(WHO[who](path, float(rate)), int(tasks), float(start), float(end)))))
        return
    results = rows(options.processes, options.tasks, options.rate, options.seconds)
    what = f"SQLite: {options.processes} processes x {options.tasks} tasks on {options.rate:g}/s, burst {BURST}"
    print("\n".join(table(what, results)))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
