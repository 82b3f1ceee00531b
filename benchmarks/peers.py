"""The libraries measured beside throttle, and how each is asked for the same thing; missing ones are named."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

Acquire = Callable[[], Awaitable[object]]

NAMES = [
    "aiolimiter", "asynciolimiter", "backoff", "httpx-retries", "hyx", "limits", "pyrate-limiter", "stamina", "tenacity"
]  # fmt: skip


def versions() -> dict[str, str]:
    """The installed version of each peer; "missing" where it is not there."""
    found = {}
    for name in NAMES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def have(name: str) -> bool:
    return versions()[name] != "missing"


def acquirers(rate: float, burst: float) -> dict[str, Acquire]:
    """`acquire()` of each limiter at `rate` permits a second with `burst`; built in the running loop."""
    found: dict[str, Acquire] = {}
    if have("aiolimiter"):
        limiter = import_module("aiolimiter").AsyncLimiter(burst, burst / rate)
        found["aiolimiter"] = limiter.acquire
    if have("asynciolimiter"):
        found["asynciolimiter"] = import_module("asynciolimiter").LeakyBucketLimiter(rate, capacity=int(burst)).wait
    if have("pyrate-limiter"):
        pyrate = import_module("pyrate_limiter")
        bucket = pyrate.InMemoryBucket([pyrate.Rate(int(burst), int(burst / rate * 1000) or 1)])
        pyrate_limiter = pyrate.Limiter(bucket)
        found["pyrate-limiter"] = lambda: pyrate_limiter.try_acquire_async("x", blocking=True)
    if have("limits"):
        limits, storage = import_module("limits"), import_module("limits.aio.storage")
        strategy = import_module("limits.aio.strategies").MovingWindowRateLimiter(storage.MemoryStorage())
        item = limits.RateLimitItemPerSecond(int(burst), int(burst / rate) or 1)
        found["limits (hit only)"] = lambda: strategy.hit(item, "x")
    return found


def retriers(fn: Callable[[], Awaitable[object]], error: type[Exception]) -> dict[str, Acquire]:
    """`fn` retried by each library: three attempts, no wait."""
    found: dict[str, Acquire] = {}
    if have("tenacity"):
        tenacity = import_module("tenacity")
        found["tenacity"] = tenacity.retry(
            retry=tenacity.retry_if_exception_type(error), stop=tenacity.stop_after_attempt(3), reraise=True
        )(fn)
    if have("stamina"):
        found["stamina"] = import_module("stamina").retry(on=error, attempts=3, wait_initial=0, wait_jitter=0)(fn)
    if have("backoff"):
        backoff = import_module("backoff")
        found["backoff"] = backoff.on_exception(backoff.constant, error, interval=0, jitter=None, max_tries=3)(fn)
    if have("hyx"):
        found["hyx"] = import_module("hyx.retry.api").retry(on=error, attempts=3, backoff=0)(fn)
    return found
