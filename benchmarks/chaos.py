"""Processes that share one limit are killed with SIGKILL at random moments: what the survivors and the store say then.

    python benchmarks/chaos.py [sqlite | redis] [--seconds 60] [--seed N]

Four processes take permits of a token bucket and of a quota, both in one store, as fast as they come, and write down
each one as soon as they have it. One of them is killed about every half second and another started; a Redis server is
killed, too, about every five seconds while one lives that has booked, and comes back with nothing in it. Held to:

- no caller sees an error (in Redis: under `on_outage="wait"`);
- no acknowledged permit is lost: the quota has counted each one that was written down (in Redis: but for what others
  booked after the last answer that anybody has seen, one batch for each process and each time the server was killed);
- what the killed had booked and not used, which is lost, is at most two batches for each of them;
- never too many: in any W seconds at most burst + rate x (W + 0.3), as docs/counters.md promises (in Redis: and those
  batches);
- an SQLite file is whole.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from redis_servers import Server  # of the tests
from sqlite_rows import most_within

from throttle import AllOf, FixedWindow, TokenBucket
from throttle.counters import RedisCounter, SQLiteCounter

RATE, BURST, QUOTA = 500, 50, 100_000
PROCESSES, TASKS = 4, 20
BATCH = math.ceil(RATE * 0.02)
LATE = 0.05 + 0.25  # seconds: how late a permit may be used, and how late an answer may come


def counter_of(store: str) -> SQLiteCounter | RedisCounter:
    """`store` is a URL or a path."""
    return RedisCounter(store, timeout=5.0) if store.startswith("redis:") else SQLiteCounter(store)


async def work(store: str, folder: Path, end: float) -> None:
    """One process, until it is killed or it is time."""
    counter = counter_of(store)
    pace = TokenBucket(RATE, burst=BURST, counter=counter, name="pace")
    both = AllOf(pace, quota=FixedWindow(f"{QUOTA}/day", counter=counter, name="quota"))
    notes = os.open(folder / "granted", os.O_WRONLY | os.O_APPEND)

    async def take() -> None:
        while time.time() < end:
            await both.acquire()
            os.write(notes, b"%d\n" % time.time_ns())

    await asyncio.gather(*(take() for _ in range(TASKS)))
    await counter.aclose()


def start(store: str, folder: Path, end: float) -> subprocess.Popen[bytes]:
    with (folder / "errors").open("ab") as errors:
        return subprocess.Popen([sys.executable, __file__, "--work", store, str(folder), str(end)], stderr=errors)


def kill_at_random(
    store: str, server: Server | None, folder: Path, end: float, rng: random.Random
) -> tuple[int, list[float]]:
    """Keep the processes running, and kill one now and then; how many were killed, and when the server was."""
    workers = [start(store, folder, end) for _ in range(PROCESSES)]
    since = [time.time()] * PROCESSES
    killed, restarts, next_restart = 0, [], time.time() + 5
    while time.time() < end - 3:
        time.sleep(rng.uniform(0.2, 1.5))
        victim = rng.randrange(PROCESSES)
        workers[victim].kill()
        workers[victim].wait()
        killed += 1
        workers[victim], since[victim] = start(store, folder, end), time.time()
        remembered = min(since) < time.time() - 5  # where nobody lives who has booked, the store's counts are lost
        if server is not None and remembered and time.time() > next_restart:
            next_restart = time.time() + rng.uniform(3, 7)
            restarts.append(time.time())
            server.kill()
            server.start()
    for worker in workers:
        worker.wait(timeout=60)
    return killed, restarts


async def counted(store: str) -> int:
    """How many permits the quota has seen."""
    counter = counter_of(store)
    (quota,) = await counter.entries("quota")
    await counter.aclose()
    return round(QUOTA - quota.remaining)


def verdict(store: str, folder: Path, killed: int, restarts: list[float]) -> list[str]:
    """Print what happened; what was promised and not kept."""
    errors = (folder / "errors").read_text()
    granted = sorted(int(line) / 1e9 for line in (folder / "granted").read_bytes().splitlines())
    if not granted:
        return [f"no permit at all: {errors}"]
    booked = asyncio.run(counted(store))
    ideal = BURST + RATE * (granted[-1] - granted[0])
    print(f"killed {killed} processes and the store {len(restarts)} times")
    print(f"{len(granted)} permits granted, {len(granted) / ideal:.3f} of the ideal; the quota has counted {booked}")
    failed = [errors] if "Traceback" in errors else []
    forgotten = PROCESSES * BATCH
    if len(granted) - booked > forgotten * len(restarts):
        failed.append(f"{len(granted) - booked} acknowledged permits were lost")
    if booked - len(granted) > (killed + PROCESSES) * 2 * BATCH:
        failed.append(f"{booked - len(granted)} permits were booked and never used")
    for window in (0.1, 1.0, 10.0):
        most = most_within(granted, window)
        bound = BURST + RATE * (window + LATE) + forgotten * most_within(restarts, window + LATE)
        print(f"at most {most} in any {window:g} s; promised: {bound:g}")
        if most > bound:
            failed.append(f"{most} in {window:g} s")
    if not store.startswith("redis:"):
        connection = sqlite3.connect(store)
        (whole,) = connection.execute("PRAGMA integrity_check").fetchone()
        connection.close()
        failed += [] if whole == "ok" else [f"the file is damaged: {whole}"]
    return failed


def chaos(kind: str, seconds: float, seed: int) -> list[str]:
    """One store, from beginning to end."""
    print(f"{kind}, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "granted").touch()
        server = Server() if kind == "redis" else None
        try:
            store = server.url if server else str(folder / "limits.db")
            happened = kill_at_random(store, server, folder, time.time() + seconds, random.Random(seed))
            return verdict(store, folder, *happened)
        finally:
            if server:
                server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", choices=["sqlite", "redis", []], help="both by default")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each store")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        store, folder, end = options.work
        asyncio.run(work(store, Path(folder), float(end)))
        return
    kinds = options.stores or ["sqlite", "redis"]
    failed = [one for kind in kinds for one in chaos(kind, options.seconds, options.seed)]
    sys.exit("\n".join(f"FAILED: {one}" for one in failed) or None)


if __name__ == "__main__":
    main()
