"""Every refusal and failure that throttle raises.

ThrottleError
├── WaitTooLong         refused: it would have to wait longer than max_wait
├── CostExceedsBurst    (also ValueError) can never be granted
├── RetryAfterTooLong   the server asks for more patience than allowed
├── DeadlineExceeded    (also TimeoutError) timeout is over; __cause__ is the last failure
└── CounterUnavailable  the shared counter cannot be reached
"""

from __future__ import annotations

__all__ = [
    "CostExceedsBurst",
    "CounterUnavailable",
    "DeadlineExceeded",
    "RetryAfterTooLong",
    "ThrottleError",
    "WaitTooLong",
]


class ThrottleError(Exception):
    """Base of every error that throttle raises by itself; never retried, never pauses a limiter."""


class WaitTooLong(ThrottleError):
    """Raised by `acquire` when the permit cannot come within `max_wait` seconds; nothing was taken.

    `retry_after` is the wait in seconds as the line stood, `key` the key that was asked for.

    >>> WaitTooLong(1.5, "github")
    WaitTooLong(1.5, 'github')
    """

    def __init__(self, retry_after: float, key: str = "") -> None:
        super().__init__(retry_after, key)
        self.retry_after = retry_after
        self.key = key

    def __str__(self) -> str:
        where = f" of key {self.key!r}" if self.key else ""
        return f"the next permit{where} is {self.retry_after:.6g} s away, longer than max_wait"


class CostExceedsBurst(ThrottleError, ValueError):
    """Raised when a cost is above what the limiter can ever grant at once: waiting would never end.

    `cost` is what was asked, `burst` the most that can be granted (both in permits), `key` the key asked for.
    """

    def __init__(self, cost: object, burst: object, key: str = "") -> None:
        super().__init__(cost, burst, key)
        self.cost = cost
        self.burst = burst
        self.key = key

    def __str__(self) -> str:
        return f"cost {self.cost} can never be granted: at most {self.burst} at once"


class RetryAfterTooLong(ThrottleError):
    """Raised when the server asks for a longer wait than `max_retry_after`; `retry_after` is its wait in seconds.

    `key` is the key that it holds back. Nothing was waited for: come back after `retry_after`.
    """

    def __init__(self, retry_after: float, key: str = "") -> None:
        super().__init__(retry_after, key)
        self.retry_after = retry_after
        self.key = key

    def __str__(self) -> str:
        return f"the server asks to wait {self.retry_after:.6g} s, longer than max_retry_after"


class DeadlineExceeded(ThrottleError, TimeoutError):
    """Raised when the `timeout` of a whole call is over; `__cause__` is the last failure, if there was one.

    `timeout` is what was allowed, in seconds.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout)
        self.timeout = timeout

    def __str__(self) -> str:
        return f"the call was not done within its timeout of {self.timeout:.6g} s"


class CounterUnavailable(ThrottleError):
    """Raised when the store of a shared counter cannot be reached and its `on_outage` does not wait."""
