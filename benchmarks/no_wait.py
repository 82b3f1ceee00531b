"""Rows of what a call costs that need not wait, and of what a key costs that is not used."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module

import peers
from measure import Call, Measured, Reach, apart, empty, medians, resident, row, timed, timed_sync

from throttle import SlidingWindow, TokenBucket
from throttle.testing import VirtualClock

EMPTY = "empty coroutine"


@row(
    "ns",
    Reach("throttle TokenBucket", most=2.5, times=EMPTY),
    Reach("throttle SlidingWindow", most=4, times=EMPTY),
)
def acquire() -> Measured:
    """`await acquire()`, no wait"""

    async def build() -> dict[str, Call]:
        return {
            EMPTY: empty,
            "throttle TokenBucket": TokenBucket(1e9, burst=1e9).acquire,
            "throttle SlidingWindow": SlidingWindow(10**7).acquire,
            **peers.acquirers(1e9, 1e6),
        }

    return timed(asyncio.run(build()), 5_000)


@row("ns", Reach("throttle TokenBucket", most=5, times=EMPTY))
def keyed() -> Measured:
    """`await acquire(key=...)` over 10,000 keys, no wait"""
    limiter = TokenBucket("1000/s")
    keys = [f"key-{index}" for index in range(10_000)]

    async def empties() -> None:
        for _ in keys:
            await empty()

    async def ours() -> None:
        for key in keys:
            await limiter.acquire(key=key)

    async def theirs(acquire: Callable[[str], Awaitable[object]]) -> None:
        for key in keys:
            await acquire(key)

    loops = {EMPTY: empties, "throttle TokenBucket": ours}
    loops |= {name: partial(theirs, call) for name, call in peers.keyed_acquirers(1000, 1000).items()}
    return {name: value / len(keys) for name, value in timed(loops, 1).items()}


@row(
    "ns",
    Reach("throttle, granted", most=500, paced=True),
    Reach("throttle, refused", most=500, paced=True),
)
def try_acquire_nowait() -> Measured:
    """`try_acquire_nowait()`, granted, and refused with the exact `retry_after` (worked out when it is read)"""
    granted, refused = TokenBucket(1e9, burst=1e9), TokenBucket("1/day")
    refused.try_acquire_nowait()
    calls: dict[str, Callable[[], object]] = {
        "throttle, granted": granted.try_acquire_nowait,
        "throttle, refused": refused.try_acquire_nowait,
        "throttle, refused, `retry_after` read": lambda: refused.try_acquire_nowait().retry_after,
    }
    for name, call in peers.try_acquirers(1e9, 1e6).items():
        calls[f"{name}, granted"] = call
    for name, call in peers.try_acquirers(1 / 86400, 1).items():
        call()
        calls[f"{name}, refused"] = call
    return timed({EMPTY: empty}, 5_000) | timed_sync(calls, 5_000)


KEYS = 1_000_000


def _keys_of(who: str) -> tuple[float, float]:
    """Resident bytes of a key that was used once, and of one that is full again after as many uses of a few others."""
    keys = [f"k{index}" for index in range(KEYS)]
    clock = VirtualClock()
    limiter = TokenBucket("1/s", clock=clock)
    hit: Callable[[str], object] = lambda key: limiter.try_acquire_nowait(key=key)
    if who == "limits":
        limits, storage = import_module("limits"), import_module("limits.storage")
        strategy = import_module("limits.strategies").FixedWindowRateLimiter(storage.MemoryStorage())
        item = limits.RateLimitItemPerHour(1)
        hit = lambda key: strategy.hit(item, key)
    gc.collect()
    before = resident()
    for key in keys:
        hit(key)
    used = resident() - before
    for key in keys[:1000] * (KEYS // 1000) if who == "throttle" else ():
        clock.advance(0.001)
        hit(key)
    gc.collect()
    return used / KEYS, (resident() - before) / KEYS


@row("bytes", Reach("throttle, in use", most=150), Reach("throttle, full again", most=15))
def idle_keys() -> Measured:
    """1,000,000 keys used once: resident bytes each, the key's string aside, and when full again (15: allocator)"""
    used, left = apart(_keys_of, "throttle")
    measured = {"throttle, in use": used, "throttle, full again": left}
    if peers.have("limits"):
        measured["limits, in use"] = apart(_keys_of, "limits")[0]
    return measured


@row("ms")
def import_time() -> Measured:
    """import, after asyncio"""

    def once(what: str) -> Callable[[], float]:
        code = f"import asyncio, time; s = time.perf_counter(); import {what}; print(time.perf_counter() - s)"
        return lambda: float(subprocess.check_output([sys.executable, "-c", code])) * 1000

    names = ["tenacity", "throttle", "throttle.limiter", "throttle.retrying"]
    return medians(5, {name: once(name) for name in names})
