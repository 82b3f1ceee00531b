"""Everything a response says about limits, as one value: `Hints`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, cast

from .bodies import Said, code_says_so, read_body
from .families import read_limits
from .ietf import Told
from .rates import check_number
from .resets import Moment, numbers, whole_text
from .retry_after import LONGEST, LONGEST_TEXT, decoded, plain_number, wait_in
from .vendors import ERRORS, NO_RETRY, SCOPES, Host, host_entry

__all__ = ["Hints", "Quota", "read_hints"]


@dataclass(frozen=True, slots=True)
class Quota:
    """One limit as a server tells it; each field `None` where not told. `reset_after` and `window` in seconds."""

    name: str | None = None
    limit: float | None = None
    remaining: float | None = None
    reset_after: float | None = None
    window: float | None = None


@dataclass(frozen=True, slots=True)
class Hints:
    """What one response said about limits.

    - `refused`: it was refused for a limit.
    - `retry_after`: seconds of Retry-After and its millisecond forms only.
    - `wait`: how long to hold the next request, in seconds: 0.0 nothing forbids, `None` refused and no time told.
      Left out, it is `retry_after` of a refusal, and 0.0 of anything else.
    - `quotas`: every limit that was told. `scope`: the server's word for what is limited.
    - `retryable`: false when waiting does not help.

    Raises `ValueError` or `TypeError` for a time that is negative, infinite or no number.

    >>> Hints(refused=True, retry_after=2.5).wait
    2.5
    """

    refused: bool = False
    retry_after: float | None = None
    wait: float | None = None
    quotas: tuple[Quota, ...] = ()
    scope: str | None = None
    retryable: bool = True

    def __post_init__(self) -> None:
        if self.wait is None:
            object.__setattr__(self, "wait", self.retry_after if self.refused else 0.0)
        for name, value in (("retry_after", self.retry_after), ("wait", self.wait)):
            if value is not None and not (value.__class__ is float and 0.0 <= value < math.inf):
                check_number(f"{name} of Hints (seconds)", value)


def read_hints(
    status: int,
    headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]],
    *,
    host: str | None = None,
    body: bytes | str | None = None,
    now: float | None = None,
) -> Hints:
    """What a response says about limits, read once; never raises, whatever it is given, and never shortens a wait.

    `headers`: a mapping (also one that repeats names) or pairs. `host`, where known, adds what only a vendor's
    documentation says. `body`: pass it for refusals; some vendors name the limit or the time only there. `now` is Unix
    time (the wall clock if left out); a Date field beats it. All times in seconds.

    Heard are Retry-After (RFC 9110) and its millisecond forms, the IETF RateLimit fields in all drafts, X-RateLimit-*
    and their families, and the vendors' own forms. Refused are 418, 429 and 529; 403 and 503 with Retry-After or a
    spent limit; 413 with Retry-After; and what an error code or message of the server calls so.

    The wait of a refusal is Retry-After, else what the body names, else the longest reset among spent limits, else what
    the body says in words, else what the vendor documents. Of any other answer it is the longest reset among spent
    limits, and Retry-After of an error 5xx; on a success or a redirect Retry-After speaks of something else.

    >>> read_hints(429, {"Retry-After": "2.5"})
    Hints(refused=True, retry_after=2.5, wait=2.5, quotas=(), scope=None, retryable=True)
    >>> headers = {"RateLimit": '"day";r=0;t=50', "RateLimit-Policy": '"day";q=5000;w=86400'}
    >>> read_hints(200, headers).wait
    50.0
    """
    pairs = _pairs(headers)
    fields, telling = _fields(pairs)
    if not (telling or status in _TELLING) and body is None:
        return NOTHING
    if not isinstance(status, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        status = 0  # type: ignore[unreachable]  # whatever it is given
    age = max(0.0, 0.0, *numbers(fields["age"])) if "age" in fields else 0.0
    moment = Moment(now, _first(fields, ("date",)), age)
    said = (None if body is None else read_body(body, status, moment)) or Said()
    if not (telling or status in _TELLING or said.refused or said.told) and said.retryable:
        return NOTHING  # no body, or the page of an outage
    vendor = host_entry(host)
    retry_after = _retry_after(fields, moment)
    told = read_limits(fields, moment, vendor.reset_unit)
    if said.told is not None:
        told.append(said.told)
    refused = _is_refused(status, fields, retry_after, told, said)
    if age and not refused:
        told = []  # from a cache: the numbers are of another time
    return Hints(
        refused=refused,
        retry_after=retry_after,
        wait=(_wait_if_refused if refused else _wait_otherwise)(status, retry_after, told, said, vendor),
        quotas=_quotas(told, refused=refused),
        scope=_first(fields, SCOPES),
        retryable=said.retryable and _first(fields, NO_RETRY) != "false",
    )


NOTHING = Hints()
"""What most responses say."""


_NAME = itemgetter(0)


def tells(status: int, headers: Any) -> bool:
    """Whether `read_hints` has anything to read in `headers` of httpx; if not, without a body it says `NOTHING`."""
    try:
        return status in _TELLING or _plan(tuple(map(_NAME, headers.raw)))[1]
    except Exception:  # too many of them, or no headers of httpx
        return True


# ── fields ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_REFUSALS = (429, 418, 529)
_TELLING = (403, 413, 503, *_REFUSALS)  # statuses that say something without any field
_WORDS = ("limit", "retry", "x-mbx-", *ERRORS)  # one of them is in the name of every field that says something
_LONGEST_NAME = 80
_BESIDE = frozenset({"date", "age"})  # needed to read the others
_TEXTS = frozenset({str, bytes})


def _pairs(headers: Any) -> Sequence[Any]:
    """The fields as pairs; none if there is no way to read them."""
    try:
        raw = getattr(headers, "raw", None)  # httpx: nothing is decoded yet
        if isinstance(raw, list):
            return cast("Sequence[Any]", raw)
        items = getattr(headers, "items", None)
        return list(headers if items is None else items())
    except Exception:  # somebody's own idea of headers
        return []


_LONGEST_NAMES = 8192  # characters of all names together that are worth remembering


@lru_cache(maxsize=256)
def _plan(names: tuple[str | bytes, ...]) -> tuple[tuple[tuple[int, str], ...], bool]:
    """Where the fields of interest stand among these names, and whether any but the date tells something: the answers
    of a server mostly have the same fields in the same order."""
    if sum(map(len, names)) > _LONGEST_NAMES:
        raise ValueError
    found = [(at, known) for at, name in enumerate(names) if (known := _known(name)) is not None]
    return tuple(found), any(known not in _BESIDE for _, known in found)


@lru_cache(maxsize=1024)
def _known(name: str | bytes) -> str | None:
    """The name of a field of interest in lower case, None of all others."""
    if len(name) > _LONGEST_NAME:
        return None
    text = (name if isinstance(name, str) else name.decode("latin-1")).lower()
    return text if text in _BESIDE or any(word in text for word in _WORDS) else None


def _fields(pairs: Sequence[Any]) -> tuple[dict[str, list[str]], bool]:
    """The values of the fields of interest, by their names in lower case; whether any but the date tells something."""
    fields: dict[str, list[str]] = {}
    try:
        plan, telling = _plan(tuple([name for name, _ in pairs]))
        for at, known in plan:
            _, value = pairs[at]
            if known in fields or type(value) not in _TEXTS:
                _add(fields, known, value)
            else:  # nearly always
                fields[known] = [value if type(value) is str else value.decode("latin-1")]
    except Exception:  # not all are pairs with names, or there are too many: one by one
        return _fields_one_by_one(pairs), True
    return fields, telling


def _fields_one_by_one(pairs: Sequence[Any]) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for pair in pairs:
        try:
            name, value = pair
        except (TypeError, ValueError):  # no pair
            continue
        known = _known(name) if isinstance(name, (str, bytes)) else None
        if known is not None:
            _add(fields, known, value)
    return fields


def _add(fields: dict[str, list[str]], known: str, value: Any) -> None:
    """One more value of a field, or several."""
    for one in cast("Sequence[Any]", value) if isinstance(value, (list, tuple)) else (value,):
        text = one if isinstance(one, str) else _text(one)
        if text is not None:
            if known in fields:
                fields[known].append(text)
            else:
                fields[known] = [text]


def _text(value: object) -> str | None:
    if isinstance(value, float) or (type(value) is int and abs(value) < LONGEST):
        return str(value)  # no client does this, but the stand-ins of tests do
    return decoded(value)


def _first(fields: Mapping[str, list[str]], names: Iterable[str]) -> str | None:
    """The value of the first of these fields that says anything."""
    for name in names:
        if name in fields and (value := fields[name][0].strip(" \t")):
            return value
    return None


_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after")  # openai-python; Azure SDKs; AWS SDKs
_WAITS = ("retry-after", *_MILLISECONDS)


def _retry_after(fields: Mapping[str, list[str]], moment: Moment) -> float | None:
    """Retry-After, of several fields the longest; milliseconds first, because the seconds beside them are rounded."""
    if fields.keys().isdisjoint(_WAITS):
        return None
    for name in _MILLISECONDS:
        told = [plain_number(text) for text in whole_text(fields[name])] if name in fields else []
        usable = [number for number in told if number is not None]
        if told and len(usable) == len(told):
            return min(max(usable) / 1000, LONGEST)
    waits: list[float] = []
    room = LONGEST_TEXT
    for value in fields.get("retry-after", ()):
        text = value.strip(" \t")
        wait = plain_number(text)
        if wait is None and text:
            room -= len(text)
            wait = wait_in(text, moment.reference) if room >= 0 else None
        if wait is not None:
            waits.append(min(wait, LONGEST))
    return max(waits, default=None)


# ── what follows ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _is_spent(one: Told) -> bool:
    """Whether a limit has nothing left for a whole request; below zero it is unknown: -1 often means unlimited."""
    return one.remaining is not None and 0 <= one.remaining < 1


def _is_refused(
    status: int, fields: Mapping[str, list[str]], retry_after: float | None, told: list[Told], said: Said
) -> bool:
    if status in _REFUSALS or said.refused:
        return True
    for name in ERRORS:
        if name in fields and any(map(code_says_so, fields[name])):
            return True
    if status == 413:  # RFC 9110 section 15.5.14: temporary only if it says until when
        return retry_after is not None
    return status in (403, 503) and (retry_after is not None or any(map(_is_spent, told)))


_LONGEST_WINDOW = 3600.0  # seconds; of a longer one nobody knows how much has gone by: it bounds nothing


def _time_of(spent: Told, retry_after: float | None) -> float:
    """Seconds until a spent limit gives something again; 0.0 unknown."""
    if spent.reset is not None:
        return spent.reset
    if spent.frees_itself:
        return 0.0
    bound = spent.window if spent.window and spent.window <= _LONGEST_WINDOW else 0.0
    return retry_after or bound


def _wait_if_refused(
    _status: int, retry_after: float | None, told: list[Told], said: Said, vendor: Host
) -> float | None:
    """Retry-After, else what the body names, else the longest reset of what is spent, else what the body's words or the
    documentation say."""
    if retry_after is not None:
        return retry_after
    if said.wait:
        return said.wait
    spent = [one for one in told if (one.remaining is not None and one.remaining < 1) or one.name in said.violated]
    times = [_time_of(one, None) for one in spent] or [one.reset or 0.0 for one in told if one.remaining is None]
    return max(times, default=0.0) or said.spoken or vendor.floor  # a reset that has passed names no time


def _wait_otherwise(
    status: int, retry_after: float | None, told: list[Told], _said: Said, _vendor: Host
) -> float | None:
    """The longest reset of what is spent; Retry-After of a server's error, but not of a success or a redirect."""
    longest = retry_after if status >= 500 and retry_after is not None else 0.0
    for one in told:
        if _is_spent(one):
            longest = max(longest, _time_of(one, retry_after))
    return longest


def _quotas(told: list[Told], *, refused: bool) -> tuple[Quota, ...]:
    quotas: list[Quota] = []
    for one in told:
        remaining = one.remaining
        if remaining is not None and remaining < 0:  # none left where it was refused, else unknown
            remaining = 0.0 if refused else None
        if not (one.limit is remaining is one.reset is one.window is None):
            quotas.append(Quota(one.name, one.limit, remaining, one.reset, one.window))
    return tuple(quotas)
