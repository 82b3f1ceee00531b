"""The clients of `goodput.py`, each run in a process of its own: `goodput_clients.py '{"client": "tenacity", ...}'`.

It says "ready", waits for a line, lets all tasks fetch all items, and prints what that took as JSON. An item is done
when its answer is 200, and lost when its client gives up or the time is over. The peers are set up as their manuals
show it, with so many attempts that giving up is their last resort.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx

Get = Callable[[], Awaitable[httpx.Response]]
PATIENCE = 60.0  # seconds that a peer may retry
ATTEMPTS = 50


def throttled(options: dict[str, Any], limiter: Any) -> tuple[httpx.AsyncClient, None]:
    from throttle import ThrottleTransport

    transport = ThrottleTransport(limiter=limiter)
    return httpx.AsyncClient(transport=transport, timeout=30), None


def client_of(options: dict[str, Any]) -> tuple[httpx.AsyncClient, Callable[[Get], Get] | None]:
    """The httpx client, and what is put around each fetch."""
    name = options["client"]
    if name == "throttle, limit given":
        import throttle

        return throttled(options, eval(options["ours"], vars(throttle) | {"TokenBucket": throttle.TokenBucket}))
    if name == "throttle, limit unknown":
        return throttled(options, None)
    if name == "httpx-retries":
        from httpx_retries import Retry, RetryTransport

        retry = Retry(total=ATTEMPTS, backoff_factor=0.5, status_forcelist=[429, 503])
        return httpx.AsyncClient(transport=RetryTransport(retry=retry), timeout=30), None
    return httpx.AsyncClient(timeout=30), AROUND[name](*options["rate"])


def tenacity(*_: float) -> Callable[[Get], Get]:
    from tenacity import retry, stop_after_delay, wait_random_exponential

    return retry(wait=wait_random_exponential(multiplier=0.5, max=10), stop=stop_after_delay(PATIENCE), reraise=True)


def stamina(*_: float) -> Callable[[Get], Get]:
    from stamina import retry

    def wait(error: Exception) -> bool | float:
        if not isinstance(error, httpx.HTTPStatusError):
            return True
        after = error.response.headers.get("Retry-After", "")
        return float(after) if after.replace(".", "", 1).isdigit() else True

    return retry(on=wait, attempts=ATTEMPTS, timeout=PATIENCE)


def aiolimiter(permits: int, per: float) -> Callable[[Get], Get]:
    from aiolimiter import AsyncLimiter

    limiter, again = AsyncLimiter(permits, per), stamina()

    def around(get: Get) -> Get:
        async def limited() -> httpx.Response:
            async with limiter:
                return await get()

        return again(limited)

    return around


def pyrate(permits: int, per: float) -> Callable[[Get], Get]:
    from pyrate_limiter import InMemoryBucket, Limiter, Rate

    limiter, again = Limiter(InMemoryBucket([Rate(permits, int(per * 1000))])), tenacity()

    def around(get: Get) -> Get:
        async def limited() -> httpx.Response:
            await limiter.try_acquire_async("all", blocking=True)
            return await get()

        return again(limited)

    return around


def alone(*_: float) -> Callable[[Get], Get]:
    """A request every now and then: what httpx itself costs where it has to wait in between."""

    def around(get: Get) -> Get:
        async def later() -> httpx.Response:
            await asyncio.sleep(0.02)
            return await get()

        return later

    return around


AROUND: dict[str, Callable[..., Callable[[Get], Get]]] = {
    "httpx alone": alone,
    "tenacity": tenacity,
    "stamina, Retry-After": stamina,
    "aiolimiter + stamina": aiolimiter,
    "pyrate-limiter + tenacity": pyrate,
}


class Watched(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """What an event loop waits with: knows how long the longest turn of the loop was, and costs it next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0.0
        self._woke: float | None = None

    def select(self, timeout: float | None = None) -> Any:
        if self._woke is not None:
            self.longest = max(self.longest, time.perf_counter() - self._woke)
        events = super().select(timeout)
        self._woke = time.perf_counter()
        return events


async def main(options: dict[str, Any], watched: Watched) -> dict[str, Any]:
    client, around = client_of(options)
    done: list[float] = []

    async def get() -> httpx.Response:
        return (await client.get(options["url"])).raise_for_status()

    fetch = get if around is None else around(get)
    items = iter(range(options["items"]))

    async def work() -> None:
        for _ in items:
            with suppress(Exception):  # lost
                await fetch()
                done.append(time.perf_counter() - started)

    async with client:
        print("ready", flush=True)
        sys.stdin.readline()
        await asyncio.sleep(0)
        watched.longest = 0.0  # the wait for that line was a long turn
        started, cpu = time.perf_counter(), time.process_time()
        with suppress(TimeoutError):
            async with asyncio.timeout(options["longest"]), asyncio.TaskGroup() as group:
                for _ in range(options["tasks"]):
                    group.create_task(work())
        cpu = time.process_time() - cpu
    return {
        "wall": max(done, default=0.0), "done": len(done), "lost": options["items"] - len(done), "cpu": cpu,
        "lag": watched.longest,
    }  # fmt: skip


if __name__ == "__main__":
    watched = Watched()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(watched)) as runner:
        print(json.dumps(runner.run(main(json.loads(sys.argv[1]), watched))), flush=True)
