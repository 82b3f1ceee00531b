"""When a limit is free again: the spellings of a reset, read as seconds from the response.

In the wild a reset is a number of seconds to wait, a Unix time in seconds, milliseconds or finer, a duration as Go
writes it, an RFC 3339 stamp or an HTTP-date (draft-ietf-httpapi-ratelimit-headers-10, appendix; vendors' own pages).
"""

from __future__ import annotations

import re
from functools import lru_cache

from .retry_after import BETWEEN, LONGEST, epoch, http_date, plain_number, wall_clock

__all__ = ["Moment", "Stamp", "duration", "is_plain", "numbers", "reset_in", "resets", "whole_text"]


class Stamp(float):
    """Seconds until a stamp; as stamps and Dates are mostly in whole seconds, late by up to two."""

    __slots__ = ()


class Moment:
    """When a response was made: stamps are counted from the server's own Date (and Age), else from the clock here."""

    __slots__ = ("_age", "_date", "_now", "_reference")

    def __init__(self, now: object = None, date: str | None = None, age: float = 0.0) -> None:
        self._now = now
        self._date = date
        self._age = age
        self._reference: float | None = None

    @property
    def reference(self) -> float:
        """Unix time now, as the server sees it; read when the first stamp needs it."""
        if self._reference is None:
            now = wall_clock(self._now)
            sent = None if self._date is None else http_date(self._date, now)
            self._reference = now if sent is None else sent + self._age
        return self._reference

    def until(self, stamp: float) -> Stamp:
        """Seconds until a Unix time; 0.0 if it is past."""
        wait = stamp - self.reference
        return Stamp(0.0 if wait < 0 else wait if wait < LONGEST else LONGEST)


_MICRO = ("us", "µs", "μs", "Âµs")  # with the two micro signs, and the first one read as Latin-1
_LONG = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}  # seconds of one
_SHORT = {"ms": 1e3, **dict.fromkeys(_MICRO, 1e6), "ns": 1e9}  # how many are a second: dividing keeps 72ms at 0.072
_LONGEST_TEXT = 64
_LONGEST_DURATION = 24  # characters: more than Go ever writes
_MOST = 100
_STEP = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|µs|μs|Âµs|ns|[dhms])")  # the longer unit first
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2}(?:\.[0-9]+)?))?"
    r" ?(?:[Zz]|UTC|([+-])([0-9]{2})(?::?([0-9]{2}))?)"  # "2023-11-14 22:13:50 UTC": as Ruby writes a time
)


def duration(text: str) -> float | None:
    """Seconds of a duration such as 6m0s, 72ms or 4h43m36.314s; None if it is none.

    >>> duration("6m0s"), duration("72ms"), duration("soon")
    (360.0, 0.072, None)
    """
    total, at = 0.0, 0
    if len(text) > _LONGEST_DURATION:
        return None
    while match := _STEP.match(text, at):
        number, unit = float(match[1]), match[2]
        total += number / _SHORT[unit] if unit in _SHORT else number * _LONG[unit]
        at = match.end()
    return min(total, LONGEST) if at == len(text) > 0 else None


@lru_cache(maxsize=64)  # several limits often tell the same one
def _rfc3339(text: str) -> float | None:
    """Unix time of a stamp with its zone, the seconds may be missing; None if it is none."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, sign, hours, minutes = match.groups()
    if not 1 <= int(month) <= 12:
        return None
    stamp = epoch(int(year), int(month) - 1, int(day), int(hour), int(minute), float(second or 0))
    if stamp is None or sign is None:
        return stamp
    offset = 3600 * int(hours) + 60 * int(minutes or 0)
    return stamp - offset if sign == "+" else stamp + offset


def reset_in(number: float, moment: Moment, unit: float = 1.0) -> float:
    """Seconds that a bare number means: below 10**9 a wait in `unit` seconds, above a Unix time in ever finer units.

    No limit lasts 31 years, and 10**9 seconds were over in 2001.

    >>> reset_in(30, Moment()), reset_in(1700000030250, Moment(now=1700000000))
    (30.0, 30.25)
    """
    if number < 1e9:
        return number * unit
    for bound, scale in ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6)):
        if number < bound:
            return moment.until(number / scale)
    return moment.until(number / 1e9)


def _reset(text: str, moment: Moment, unit: float) -> float | None:
    if text[4:5] == "-":
        stamp = (_rfc3339 if len(text) <= _LONGEST_TEXT else _rfc3339.__wrapped__)(text)
    else:
        number = plain_number(text)
        if number is not None:
            return reset_in(number, moment, unit)
        wait = duration(text)
        if wait is not None:
            return wait
        stamp = http_date(text, moment.reference)
    return None if stamp is None else moment.until(stamp)


def resets(values: list[str], moment: Moment, unit: float = 1.0) -> float | None:
    """The longest wait by a reset field; repeated fields may be joined by ", ". None if any of it is unreadable."""
    longest = 0.0
    if is_plain(values):
        return reset_in(float(values[0]), moment, unit)
    for text in whole_text(values):
        wait = _reset(text, moment, unit)
        if wait is None:
            return None
        longest = max(longest, wait)
    return longest


def is_plain(values: list[str]) -> bool:
    """Whether there is one value of a few digits, as nearly always."""
    text = values[0]
    return len(values) == 1 and len(text) <= 15 and text.isdigit() and text.isascii()


_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def numbers(values: list[str]) -> list[float]:
    """The finite numbers of a repeated field; none of them if any is unreadable."""
    if is_plain(values):
        return [float(values[0])]
    found: list[float] = []
    for text in whole_text(values):
        if not _NUMBER.fullmatch(text) or abs(number := float(text)) > LONGEST:
            return []
        found.append(number)
    return found


def whole_text(values: list[str]) -> list[str]:
    """The values of a repeated field one by one, without their parameters; at most 100, for no server tells more."""
    if len(values) == 1 and "," not in values[0]:
        return [values[0].partition(";")[0].strip(" \t")]
    texts: list[str] = []
    for value in values:
        texts += BETWEEN.split(value, _MOST) if "," in value else [value]
        if len(texts) >= _MOST:
            break
    return [text.partition(";")[0].strip(" \t") for text in texts[:_MOST]]
