"""Processes that share one limit are killed with SIGKILL at random moments: what the survivors and the store say then.

    python benchmarks/chaos.py [--seconds 60] [--seed N]

Four processes take permits of a token bucket and of a day's quota, both in one SQLite file, as fast as they come, and
write down each one as soon as they have it. One of them is killed about every half second and another started. Held to:

- no caller sees an error;
- no acknowledged permit is lost: the quota has counted each one that was written down;
- what the killed had booked and not used, which is lost, is at most two batches for each of them;
- never too many: in any W seconds at most burst + rate x (W + 0.3), as docs/counters.md promises;
- the file is whole.
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

from sqlite_rows import most_within

from throttle import AllOf, FixedWindow, TokenBucket
from throttle.counters import SQLiteCounter

RATE, BURST, QUOTA = 500, 50, 10_000_000
PROCESSES, TASKS = 4, 20
BATCH = math.ceil(RATE * 0.02)
LATE = 0.05 + 0.25  # seconds: how late a permit may be used, and how late an answer may come


def limiter(counter: SQLiteCounter) -> AllOf:
    pace = TokenBucket(RATE, burst=BURST, counter=counter, name="pace")
    return AllOf(pace, quota=FixedWindow(f"{QUOTA} per 30 days", counter=counter, name="quota"))


async def work(folder: Path, end: float) -> None:
    """One process, until it is killed or it is time."""
    both = limiter(SQLiteCounter(folder / "limits.db"))
    notes = os.open(folder / "granted", os.O_WRONLY | os.O_APPEND)

    async def take() -> None:
        while time.time() < end:
            await both.acquire()
            os.write(notes, b"%d\n" % time.time_ns())

    await asyncio.gather(*(take() for _ in range(TASKS)))


def start(folder: Path, end: float) -> subprocess.Popen[bytes]:
    with (folder / "errors").open("ab") as errors:
        return subprocess.Popen([sys.executable, __file__, "--work", str(folder), str(end)], stderr=errors)


def kill_at_random(folder: Path, end: float, rng: random.Random) -> int:
    """Keep the processes running, and kill one now and then; how many were killed."""
    workers = [start(folder, end) for _ in range(PROCESSES)]
    killed = 0
    while time.time() < end - 2:
        time.sleep(rng.uniform(0.2, 1.0))
        victim = rng.randrange(PROCESSES)
        workers[victim].kill()
        workers[victim].wait()
        killed += 1
        workers[victim] = start(folder, end)
    for worker in workers:
        worker.wait(timeout=60)
    return killed


async def counted(folder: Path) -> int:
    """How many permits the quota has seen."""
    async with SQLiteCounter(folder / "limits.db") as counter:
        (quota,) = await counter.entries("quota")
        return round(QUOTA - quota.remaining)


def verdict(folder: Path, killed: int) -> list[str]:
    """Print what happened; what was promised and not kept."""
    granted = sorted(int(line) / 1e9 for line in (folder / "granted").read_bytes().splitlines())
    booked = asyncio.run(counted(folder))
    errors = (folder / "errors").read_text()
    connection = sqlite3.connect(folder / "limits.db")
    (whole,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    ideal = BURST + RATE * (granted[-1] - granted[0])
    print(f"killed {killed} processes; {len(granted)} permits granted, {len(granted) / ideal:.3f} of the ideal")
    print(f"the quota has counted {booked}: {booked - len(granted)} were lost with the killed")
    failed = [errors] if errors else []
    if booked < len(granted):
        failed.append(f"{len(granted) - booked} acknowledged permits were lost")
    if booked - len(granted) > (killed + PROCESSES) * 2 * BATCH:
        failed.append(f"{booked - len(granted)} permits were booked and never used")
    for window in (0.1, 1.0, 10.0):
        most, bound = most_within(granted, window), BURST + RATE * (window + LATE)
        print(f"at most {most} in any {window:g} s; promised: {bound:g}")
        if most > bound:
            failed.append(f"{most} in {window:g} s")
    if whole != "ok":
        failed.append(f"the file is damaged: {whole}")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        asyncio.run(work(Path(options.work[0]), float(options.work[1])))
        return
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "granted").touch()
        killed = kill_at_random(folder, time.time() + options.seconds, random.Random(seed))
        failed = verdict(folder, killed)
    sys.exit("\n".join(f"FAILED: {one}" for one in failed) or None)


if __name__ == "__main__":
    main()
