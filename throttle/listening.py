"""`listen`: what a server said about limits, found on an exception or a returned value of whatever client."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from urllib.parse import urlsplit

from .decisions import Decision
from .errors import ThrottleError
from .hints import Hints, read_hints

__all__ = ["attribute", "leaves_of", "listen", "longest", "wait_told"]


def listen(outcome: Any) -> Hints | None:
    """What a server said on an exception or a returned value, or None; whatever it is given, it does not raise.

    Its `retry_after` (a finite number of seconds >= 0, or a timedelta), else its `response` or the object itself with
    `status_code` or `status` and `headers`: httpx, aiohttp, requests, openai and their like. Of an exception group the
    leaf with the longest wait. Errors of throttle itself are no server's words.

    >>> error = OSError("slow down")
    >>> error.retry_after = 2.5
    >>> listen(error).wait
    2.5
    """
    try:
        return _listen(outcome)
    except Exception:  # somebody's object that cannot even be looked at: the outcome counts, not our curiosity
        return None


def _listen(outcome: Any) -> Hints | None:
    leaves = leaves_of(outcome)
    if leaves:
        return longest(listen(leaf) for leaf in leaves)
    if type(outcome).__module__ == "builtins" and not getattr(outcome, "__dict__", None):
        return None  # most outcomes are a dict, a list, a plain OSError
    if isinstance(outcome, (ThrottleError, Decision)):
        return None
    if isinstance(outcome, Hints):
        return outcome
    told = _seconds(attribute(outcome, "retry_after"))
    if told is not None:
        return Hints(refused=True, retry_after=told)
    response = attribute(outcome, "response")
    heard = None if response is None else _read(response)
    return _read(outcome) if heard is None else heard


def attribute(thing: Any, name: str) -> Any:
    """An attribute of somebody's object, None where there is none or looking at it fails."""
    try:
        return getattr(thing, name, None)
    except Exception:  # a property of somebody's object: httpx raises RuntimeError for what is not there yet
        return None


def _seconds(value: Any) -> float | None:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, Decimal):  # as a Decimal, NaN cannot be compared
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)) or not 0 <= value < math.inf:
        return None
    return float(value) if value < 1e300 else 1e300  # an int may be larger than any float


def _read(response: Any) -> Hints | None:
    status = attribute(response, "status_code")
    if status is None:
        status = attribute(response, "status")
    if isinstance(status, bool) or not isinstance(status, int):
        return None
    headers = attribute(response, "headers")
    if not _are_headers(headers):
        return None
    return read_hints(int(status), headers, host=_host(response))


def _are_headers(headers: Any) -> bool:
    """Whether it is a mapping, or pairs."""
    if issubclass(type(headers), (list, tuple)):
        return all(type(pair) is tuple and len(pair) == 2 for pair in headers)  # pyright: ignore[reportUnknownArgumentType]
    return callable(getattr(type(headers), "items", None))  # pyright: ignore[reportUnknownArgumentType]


def _host(response: Any) -> str | None:
    """The host that answered, from `url`, or from the request's on aiohttp's errors; some vendors' fields need it."""
    url = attribute(response, "url")
    if url is None:
        url = attribute(attribute(response, "request_info"), "url")
    host = attribute(url, "host")
    if host is None and isinstance(url, str):
        try:
            host = urlsplit(url).hostname
        except ValueError:
            return None
    return host if isinstance(host, str) else None


def leaves_of(outcome: Any) -> tuple[BaseException, ...]:
    """What an exception group holds (groups again, perhaps); nothing of anything else."""
    if not issubclass(type(outcome), BaseExceptionGroup):
        return ()
    leaves: tuple[BaseException, ...] = outcome.exceptions
    return leaves


def wait_told(hints: Hints) -> float:
    """The wait that the server asked for; 0.0 also where it named none."""
    wait = hints.wait if hints.refused or hints.retry_after is None else hints.retry_after
    return wait or 0.0


def longest(heard: Iterable[Hints | None]) -> Hints | None:
    """What several outcomes said at once: the longest wait, refused if one was, retryable if all are."""
    told = [hints for hints in heard if hints is not None]
    if len(told) < 2:
        return told[0] if told else None
    most = max(told, key=lambda hints: (wait_told(hints), hints.refused))
    refused = any(hints.refused for hints in told)
    wait = wait_told(most) if refused and not most.refused else most.wait
    return replace(most, refused=refused, wait=wait, retryable=all(hints.retryable for hints in told))
