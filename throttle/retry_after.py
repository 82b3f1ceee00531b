"""Retry-After, read and written (RFC 9110 section 10.2.3): whole seconds, fractions and the three forms of HTTP-date.

Reading is strict, because a lenient reading of a broken text is a wait that nobody asked for: `int` accepts "1_000" and
other scripts' digits, `float` accepts "inf", `email.utils` takes a stamp without a zone for local time. What cannot be
read is `None`, and then the caller's own backoff applies.
"""

from __future__ import annotations

import math
import re
import time
from functools import lru_cache

from .rates import check_number

__all__ = ["format_retry_after", "parse_retry_after"]

LONGEST = 1e15
"""Seconds: no wait is read as more, so that no sum or product of waits ever overflows; any patience ends before."""

# ── HTTP-date (RFC 9110 section 5.6.7) ────────────────────────────────────────────────────────────────────────────────

_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: n for n, name in enumerate(_NAMES)}
_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_BEFORE = tuple(sum(_LENGTHS[:n]) for n in range(12))  # days of the year before each month

_CLOCK = "([0-9]{2}):([0-9]{2}):([0-9]{2})"
_MONTH = f"({'|'.join(_MONTHS)})"
_SHORT_DAY = "(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY = "(?:mon|tues|wednes|thurs|fri|satur|sun)day"
# Case is relaxed as caches do (RFC 9111 section 4.2); the name of the day need not fit the date.
_FIXED = re.compile(f"{_SHORT_DAY}, ([0-9]{{2}}) {_MONTH} ([0-9]{{4}}) {_CLOCK} gmt", re.ASCII | re.IGNORECASE)
_RFC850 = re.compile(f"{_LONG_DAY}, ([0-9]{{2}})-{_MONTH}-([0-9]{{2}}) {_CLOCK} gmt", re.ASCII | re.IGNORECASE)
_ASCTIME = re.compile(f"{_SHORT_DAY} {_MONTH} ([0-9]{{2}}| [0-9]) {_CLOCK} ([0-9]{{4}})", re.ASCII | re.IGNORECASE)


def _days(year: int, month: int, day: int) -> int:
    """Days from 1 January 1970 to a date; `month` counts from 0, and a day beyond its end runs on into the next."""
    past = year - 1
    leap = month > 1 and _is_leap(year)
    return 365 * past + past // 4 - past // 100 + past // 400 + _BEFORE[month] + leap + day - 719_163


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def epoch(year: int, month: int, day: int, hour: int, minute: int, second: float) -> float | None:
    """Unix time of a UTC stamp with `month` 0 to 11; None if it does not exist. Second 60 is a leap second."""
    longest = _LENGTHS[month] + (month == 1 and _is_leap(year))
    if not 1 <= day <= longest or hour > 23 or minute > 59 or second >= 61:
        return None
    return 86400.0 * _days(year, month, day) + 3600 * hour + 60 * minute + second


def _full_year(digits: int, month: int, day: int, clock: float, now: float) -> int:
    """Two digits of a year as the latest year that puts the stamp at most 50 years after `now`."""
    latest = int(now // 31_556_952) + 1970 + 51  # of the mean Gregorian year; never too early
    year = latest - (latest - digits) % 100
    while 86400 * _days(year - 50, month, day) + clock > now:
        year -= 100
    return year


@lru_cache(maxsize=64)  # the answers of one second have the same Date
def _fixdate(text: str) -> float | None:
    match = _FIXED.fullmatch(text)
    if match is None:
        return None
    day, name, year, hour, minute, second = match.groups()
    return epoch(int(year), _MONTHS[name.lower()], int(day), int(hour), int(minute), int(second))


def http_date(text: str, now: float) -> float | None:
    """Unix time of an HTTP-date in any of its three forms, None for everything else; `now` decides two-digit years.

    >>> http_date("Sun, 06 Nov 1994 08:49:37 GMT", 0.0)
    784111777.0
    """
    if len(text) == 29 and (stamp := _fixdate(text)) is not None:
        return stamp
    if match := _RFC850.fullmatch(text):
        day, name, year, hour, minute, second = match.groups()
        clock = 3600 * int(hour) + 60 * int(minute) + int(second)
        year = str(_full_year(int(year), _MONTHS[name.lower()], int(day), clock, now))
    elif match := _ASCTIME.fullmatch(text):
        name, day, hour, minute, second, year = match.groups()
    else:
        return None
    return epoch(int(year), _MONTHS[name.lower()], int(day), int(hour), int(minute), int(second))


# ── Retry-After ───────────────────────────────────────────────────────────────────────────────────────────────────────

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")
# Between the values of repeated fields that a client or proxy joined, but not inside a date. A comma without a space
# may be a decimal comma: that is left unreadable.
# The comma first, then the space: the pattern looks behind only there, and is quick to pass over all other text.
BETWEEN = re.compile(r",(?=[ \t])(?<!mon,|tue,|wed,|thu,|fri,|sat,|sun,|day,)[ \t]+", re.ASCII | re.IGNORECASE)


LONGEST_TEXT = 1000
"""Characters of Retry-After that are read where it is more than one number: no server means so many values."""


def wall_clock(now: object) -> float:
    """`now` if it can be a Unix time, else that of the machine."""
    if isinstance(now, (int, float)) and abs(now) < LONGEST:  # false for NaN, too
        return float(now)
    return time.time()


def decoded(value: object) -> str | None:
    """The text of a field value as clients hand it over; None for what is no text."""
    if isinstance(value, str):
        return value
    return value.decode("latin-1") if isinstance(value, (bytes, bytearray)) else None


def plain_number(text: str) -> float | None:
    """A number of ASCII digits with at most a fraction, None for everything else; infinite beyond all floats."""
    if not (text.isascii() and text.isdigit()) and not _SECONDS.fullmatch(text):
        return None
    if len(text) > 400 and len(text.partition(".")[0].lstrip("0")) > 310:  # beyond all floats, and long to read
        return math.inf
    return float(text)


def parse_retry_after(
    value: str | bytes | None, *, now: float | None = None, date: str | bytes | None = None
) -> float | None:
    """Seconds to wait from now by a Retry-After field, or None if it cannot be read; never raises.

    Whole seconds; a plain fraction as some servers send it; an HTTP-date in all three forms, counted from `date`, the
    response's own Date field, and only if that cannot be read from `now` (Unix time; the wall clock if left out). A
    date in the past is 0.0. Of repeated values joined by ", ", all of them readable, the longest. Numbers too large for
    any use are cut to 10**15. Sources: RFC 9110 sections 10.2.3 and 5.6.7.

    >>> parse_retry_after("120"), parse_retry_after("0.5"), parse_retry_after("soon")
    (120.0, 0.5, None)
    >>> parse_retry_after("Tue, 14 Nov 2023 22:14:20 GMT", date="Tue, 14 Nov 2023 22:13:20 GMT")
    60.0
    """
    text = decoded(value)
    if text is None:
        return None
    text = text.strip(" \t")
    wait = plain_number(text)
    if wait is not None or not text:
        return wait and min(wait, LONGEST)
    reference = wall_clock(now)
    stamp = decoded(date)
    if stamp is not None:
        sent = http_date(stamp.strip(" \t"), reference)
        reference = reference if sent is None else sent
    return wait_in(text, reference)


def wait_in(text: str, reference: float) -> float | None:
    """Seconds from `reference` (Unix time) by the stripped text of a Retry-After field, or None."""
    longest = 0.0
    if len(text) > LONGEST_TEXT:
        return None
    for member in BETWEEN.split(text):
        wait = plain_number(member.rstrip(" \t"))
        if wait is None:
            stamp = http_date(member.rstrip(" \t"), reference)
            if stamp is None:
                return None
            wait = stamp - reference
        longest = max(longest, wait)
    return min(longest, LONGEST)


def format_retry_after(seconds: float) -> str:
    """The text of a Retry-After field: the least whole number of seconds that is not below `seconds`.

    Raises `ValueError` for negative, infinite and NaN values, `TypeError` for what is no number.

    >>> format_retry_after(0.2), format_retry_after(3), format_retry_after(59.000001)
    ('1', '3', '60')
    """
    return str(math.ceil(check_number("seconds of a Retry-After", seconds)))
