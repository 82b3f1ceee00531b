"""The libraries measured beside throttle, and how each is asked for the same thing; missing ones are left out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["acquirers", "have", "keyed_acquirers", "retriers", "sync_retriers", "try_acquirers", "versions"]

Acquire = Callable[[], Awaitable[object]]

NAMES = [
    "aiolimiter", "asynciolimiter", "backoff", "httpx-retries", "hyx", "limits", "pyrate-limiter", "stamina", "tenacity"
]  # fmt: skip


@cache
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


def _pyrate(rate: float, burst: float) -> Any:
    pyrate = import_module("pyrate_limiter")
    bucket = pyrate.InMemoryBucket([pyrate.Rate(int(burst), int(burst / rate * 1000) or 1)])
    return pyrate.Limiter(bucket, buffer_ms=0)


def _limits(rate: float, burst: float, module: str) -> tuple[Any, Any]:
    limits, storage = import_module("limits"), import_module(module + "storage")
    strategies = import_module(module + "strategies")
    return strategies.MovingWindowRateLimiter(storage.MemoryStorage()), limits.RateLimitItemPerSecond(
        int(burst), int(burst / rate) or 1
    )


def acquirers(rate: float, burst: float, *, waiting: bool = False) -> dict[str, Acquire]:
    """`acquire()` of each limiter at `rate` permits a second with `burst`; built in the running loop.

    `waiting`: only those that have a line to wait in.
    """
    found: dict[str, Acquire] = {}
    if have("aiolimiter"):
        found["aiolimiter"] = import_module("aiolimiter").AsyncLimiter(burst, burst / rate).acquire
    if have("asynciolimiter"):
        found["asynciolimiter"] = import_module("asynciolimiter").LeakyBucketLimiter(rate, capacity=int(burst)).wait
    if have("pyrate-limiter"):
        pyrate = _pyrate(rate, burst)
        found["pyrate-limiter"] = lambda: pyrate.try_acquire_async("x", blocking=True)
    if waiting:
        return found
    if have("hyx"):  # raises where others wait
        managers = import_module("hyx.ratelimit.managers")
        found["hyx"] = managers.TokenBucketLimiter(burst, burst / rate, burst).acquire
    if have("limits"):
        strategy, item = _limits(rate, burst, "limits.aio.")
        found["limits"] = lambda: strategy.hit(item, "x")
    return found


def keyed_acquirers(rate: float, burst: float) -> dict[str, Callable[[str], Awaitable[object]]]:
    """`acquire(key)` of those that know keys."""
    found: dict[str, Callable[[str], Awaitable[object]]] = {}
    if have("limits"):
        strategy, item = _limits(rate, burst, "limits.aio.")
        found["limits"] = lambda key: strategy.hit(item, key)
    if have("pyrate-limiter"):
        pyrate = import_module("pyrate_limiter")

        class ByName(pyrate.BucketFactory):  # type: ignore[misc, name-defined]
            """A bucket for each name, as its documentation shows it."""

            def __init__(self) -> None:
                self.clock = pyrate.MonotonicClock()
                self.buckets: dict[str, Any] = {}

            def wrap_item(self, name: str, weight: int = 1) -> Any:
                return pyrate.RateItem(name, self.clock.now(), weight=weight)

            def get(self, item: Any) -> Any:
                bucket = self.buckets.get(item.name)
                if bucket is None:
                    rates = [pyrate.Rate(int(burst), int(burst / rate * 1000) or 1)]
                    bucket = self.buckets[item.name] = pyrate.InMemoryBucket(rates)
                return bucket

        limiter = pyrate.Limiter(ByName())
        found["pyrate-limiter"] = lambda key: limiter.try_acquire_async(key, blocking=True)
    return found


def try_acquirers(rate: float, burst: float) -> dict[str, Callable[[], object]]:
    """A plain call that takes or refuses, and says when to come again where the library can."""
    found: dict[str, Callable[[], object]] = {}
    if have("limits"):
        strategy, item = _limits(rate, burst, "limits.")
        found["limits (and its reset time)"] = lambda: strategy.hit(item, "x") or strategy.get_window_stats(item, "x")
    if have("pyrate-limiter"):
        pyrate = _pyrate(rate, burst)
        found["pyrate-limiter (no time)"] = lambda: pyrate.try_acquire("x", blocking=False)
    return found


def retriers(fn: Callable[[], Awaitable[object]], error: type[Exception]) -> dict[str, Acquire]:
    """`fn` retried by each library: three attempts, no wait."""
    found: dict[str, Any] = _both(fn, error)
    if have("hyx"):
        found["hyx"] = import_module("hyx.retry.api").retry(on=error, attempts=3, backoff=0)(fn)
    return found


def sync_retriers(fn: Callable[[], object], error: type[Exception]) -> dict[str, Callable[[], object]]:
    """The same of a plain function."""
    return _both(fn, error)


def _both(fn: Any, error: type[Exception]) -> dict[str, Any]:
    found: dict[str, Any] = {}
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
    return found
