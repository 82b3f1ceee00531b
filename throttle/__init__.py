"""Client-side rate limits and retries for asyncio and trio: stay under a server's limit, and recover by yourself.

Every name here is loaded when it is first used, so `import throttle` costs next to nothing and starts nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backoff import Constant, DecorrelatedJitter, EqualJitter, Exponential, FullJitter
    from .budget import RetryBudget
    from .bundle import Throttle
    from .combined import AllOf
    from .decisions import Decision
    from .decorators import throttled
    from .errors import (
        CostExceedsBurst,
        CounterUnavailable,
        DeadlineExceeded,
        RetryAfterTooLong,
        ThrottleError,
        WaitTooLong,
    )
    from .httpx import ThrottleTransport
    from .learning import AdaptiveLimiter
    from .limiter import FixedWindow, Limiter, SlidingWindow, SlidingWindowCounter, TokenBucket, TwoRateBucket
    from .permits import Permit, current_permit
    from .rates import Rate
    from .retrying import Retry, retry
    from .transport import by_origin

__version__ = "0.1.0"

# fmt: off
__all__ = [  # noqa: RUF022  # by theme, as one would look for them
    "Rate",
    "Limiter", "Decision", "Permit", "current_permit",
    "TokenBucket", "SlidingWindow", "SlidingWindowCounter", "FixedWindow", "TwoRateBucket", "AllOf", "AdaptiveLimiter",
    "FullJitter", "EqualJitter", "DecorrelatedJitter", "Exponential", "Constant",
    "Retry", "retry", "RetryBudget",
    "throttled", "Throttle", "ThrottleTransport", "by_origin",
    "ThrottleError", "WaitTooLong", "CostExceedsBurst", "RetryAfterTooLong", "DeadlineExceeded", "CounterUnavailable",
]
# fmt: on

_HOMES = {
    "backoff": "Constant DecorrelatedJitter EqualJitter Exponential FullJitter",
    "budget": "RetryBudget",
    "bundle": "Throttle",
    "combined": "AllOf",
    "decisions": "Decision",
    "decorators": "throttled",
    "errors": "CostExceedsBurst CounterUnavailable DeadlineExceeded RetryAfterTooLong ThrottleError WaitTooLong",
    "httpx": "ThrottleTransport",
    "learning": "AdaptiveLimiter",
    "limiter": "FixedWindow Limiter SlidingWindow SlidingWindowCounter TokenBucket TwoRateBucket",
    "permits": "Permit current_permit",
    "rates": "Rate",
    "retrying": "Retry retry",
    "transport": "by_origin",
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names.split():
            value = globals()[name] = getattr(import_module(f".{module}", __name__), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
