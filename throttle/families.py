"""X-RateLimit-* and all its relatives: limits told by several fields whose names say which part each tells.

The general form is `[vendor-]RateLimit-{part}[-{name}]` or `[vendor-]RateLimit-{name}-{part}`, with `Rate-Limit` for
`RateLimit` as some write it. Fields of one vendor and name are one limit. Forms that do not fit are in `vendors`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice

from .ietf import PIECES, Told, named_limits, nameless_limit, policies, with_policies
from .resets import Moment, duration, is_plain, numbers, resets, whole_text
from .structured import parse_list
from .vendors import FIELDS, SCOPES

__all__ = ["read_limits"]

# ── names of fields ───────────────────────────────────────────────────────────────────────────────────────────────────

_FIELD = re.compile(r"(?:([a-z0-9-]+?)-)?rate-?limit(?:-(.+))?")
_PARTS = {
    "limit": "limit",
    "max": "limit",
    "remaining": "remaining",
    "used": "used",
    "observed": "used",
    "reset": "reset",
    "resettime": "reset",
    "reset-at": "reset",
    "reset-after": "after",
    "policy": "policy",
    "name": "name",
    "window": "window",
    "period": "window",
    "interval": "window",
    "interval-seconds": "window",
    "interval-milliseconds": "window-ms",
    "interval-ms": "window-ms",
}
_BEFORE = re.compile(f"({'|'.join(sorted(_PARTS, reverse=True))})(?:-(.+))?")
_AFTER = re.compile("(.+)-(limit|max|remaining|used|reset|interval-ms)")
_COUNTED = re.compile("x-mbx-(.+)")  # binance-spot-api-docs: X-MBX-USED-WEIGHT-1M tells the window in its name only

_WINDOW = re.compile("(?:.*-)?([0-9]*)(s|sec|second|secondly|m|min|minute|h|hour|hourly|d|day|daily)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


Place = tuple[tuple[str, str], str]  # the family of a field and the name of its limit; the part it tells


@lru_cache(maxsize=1024)
def _place(field: str) -> Place | None:
    """Where a field belongs; None for what tells of no limit."""
    place = _triple(field)
    return None if place is None else (place[:2], place[2])


def _triple(field: str) -> tuple[str, str, str] | None:
    if known := FIELDS.get(field):
        return known
    match = None if field in SCOPES else _FIELD.fullmatch(field)
    if match is None:
        counted = _COUNTED.fullmatch(field)
        return ("x-mbx", counted[1], "count") if counted else None
    family, rest = match[1] or "", match[2]
    if rest is None:
        return family, "", "all"
    if part := _BEFORE.fullmatch(rest):
        return family, part[2] or "", _PARTS[part[1]]
    if part := _AFTER.fullmatch(rest):
        return family, part[1], _PARTS[part[2]]
    return family, rest, "pairs"


@lru_cache(maxsize=1024)
def _window_of(name: str) -> float | None:
    """Seconds of the window that a limit's name tells: minute, daily, order-count-10s, 24hour."""
    match = _WINDOW.fullmatch(name)
    return int(match[1][:9] or 1) * _SECONDS[match[2][0]] if match else None


# ── values ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_SHARE = re.compile(r"(?:([A-Za-z][\w-]*)=)?([0-9]{1,15})/([0-9]{1,15})", re.ASCII)
_PAIR = re.compile(r"[ \t]*([a-z]+)=([\w.-]+)[ \t]*", re.ASCII)
_KEYS = {"b": "name", "q": "limit", "total": "limit", "r": "remaining", "remaining": "remaining"} | dict.fromkeys(
    ("t", "reset", "resets"), "reset"
)


_ROW = ("limit", "remaining", "reset")
_COUNTS = ("limit", "remaining", "used")
_OF_ONE = frozenset({*_COUNTS, "reset", "after", "window", "window-ms"})  # parts told by a number


class _Reader:
    """Reads the fields of one response one by one into limits."""

    __slots__ = ("combined", "moment", "others", "policies", "several", "told", "unit")

    def __init__(self, moment: Moment, unit: float) -> None:
        self.moment = moment
        self.unit = unit
        self.told: dict[tuple[str, str], Told] = {}  # by family and name
        self.combined: list[tuple[str, list[str]]] = []
        self.policies: dict[str, list[Told]] = {}
        self.several: list[tuple[str, str]] = []  # of these more than one limit was told
        self.others: list[Told] = []

    def read(self, key: tuple[str, str], part: str, values: list[str]) -> None:
        """A field that is more than one number of a limit."""
        family, name = key
        if part == "policy":
            self.policies.setdefault(family, []).extend(policies(", ".join(values)))
        elif part == "all":
            self.combined.append((family, values))
        elif part == "name":
            self.of((family, "")).name = values[0].strip(" \t") or None
        elif part == "count":
            self.others.append(Told(name, window=_window_of(name)))
        elif part == "share":
            self.others += _shares(", ".join(values))
        else:
            self.others += _pairs(name, ", ".join(values), self.moment)

    def of(self, key: tuple[str, str]) -> Told:
        told = self.told.get(key)
        if told is None:
            told = self.told[key] = Told(key[1] or None)
        return told

    def part(self, key: tuple[str, str], part: str, values: list[str]) -> None:
        """One number of a limit; of repeated fields the more careful one."""
        told = self.told.get(key) or self.of(key)
        if part in _COUNTS and is_plain(values):  # nearly always
            setattr(told, part, float(values[0]))
        elif part in ("reset", "after"):
            wait = resets(values, self.moment, self.unit)
            if wait is not None:
                setattr(told, part, max(wait, getattr(told, part) or 0.0))
        elif part in ("window", "window-ms"):
            window = _span(values, 0.001 if part == "window-ms" else 1.0)
            told.window = window or told.window
        elif part == "limit" and ";" in (text := values[0] if len(values) == 1 else ", ".join(values)):
            self.policy_list(key[0], told, text)
        elif found := numbers(values):
            if part == "limit" and len(found) > 1:
                self.several.append(key)
            number = max(found) if part == "used" else min(found)
            if part == "remaining" or number >= 0:
                setattr(told, part, number)

    def policy_list(self, family: str, told: Told, text: str) -> None:
        """A limit with its policies behind it, as up to draft 03: `100, 100;w=10, 1000;w=3600`."""
        first, _, others = text.partition(",")
        number = numbers([first.partition(";")[0].strip(" \t")])
        if number and number[0] >= 0 and text.count(",") + text.count(";") <= PIECES and parse_list(text) is not None:
            told.limit = number[0]
            self.policies.setdefault(family, []).extend(policies(others.strip(" \t")))

    def side_by_side(self, fields: Mapping[str, list[str]]) -> None:
        """Limits told as `1, 15000` with as many numbers in each field (Brave Search): not a field that was repeated,
        of which the limit would be the same."""
        for key in self.several:
            places = {_place(field): values for field, values in islice(fields.items(), _MOST)}
            columns = [whole_text(places.get((key, part), [])) for part in _ROW]
            if len(set(columns[0])) < len(columns[0]) or len(set(map(len, columns))) > 1:
                continue
            del self.told[key]
            for number, row in enumerate(zip(*columns, strict=True)):
                for part, text in zip(_ROW, row, strict=True):
                    self.part((f"{key[0]} {number}", key[1]), part, [text])

    def limits(self) -> list[Told]:
        """All limits that were told, each once."""
        found: list[Told] = []
        for family, values in self.combined:
            found += self.one_field(family, values)
        told = self.told
        for (_, name), one in told.items():
            _complete(one, name)
        if len(told) > 1:
            _lend_resets(told)
        found = _merged(found, told) if found or len(told) > 1 else list(told.values())
        if self.policies:
            found = with_policies(found, [policy for family in self.policies.values() for policy in family])
        return _told_something(found + self.others)

    def one_field(self, family: str, values: list[str]) -> list[Told]:
        """A RateLimit field; or a lone number under such a name (Zendesk), which is the limit."""
        text = values[0] if len(values) == 1 else ", ".join(values)
        if text[:1] == '"':
            return named_limits(text, self.moment)
        told = nameless_limit(text, self.moment)
        if told is not None:
            return [told]
        if ";" not in text and (number := numbers(values)) and min(number) >= 0:
            self.of((family, "")).limit = min(number)
            return []
        return named_limits(text, self.moment)


_GROUPS = 50  # limits that one field lists in the forms of vendors


def _span(values: list[str], unit: float) -> float | None:
    """A window: a number in `unit` seconds, or a duration such as 1s."""
    found = numbers(values)
    wait = max(found) * unit if found else duration(values[0].strip(" \t"))
    return wait if wait and wait > 0 else None


def _shares(text: str) -> list[Told]:
    """`2/80` (Shopify), `api-usage=18/5000; api-bursts=1/750` (Salesforce): used of all."""
    found: list[Told] = []
    for share in re.split("[;,]", text[:2000])[:_GROUPS]:
        if match := _SHARE.match(share.strip(" \t")):
            used, limit = float(match[2]), float(match[3])
            found.append(Told(match[1], limit=limit, remaining=max(limit - used, 0.0), used=used))
    return found


def _pairs(name: str, text: str, moment: Moment) -> list[Told]:
    """`total=100; remaining=99; resets=41` (Zendesk), `b=per_hour;q=100;r=90;t=3600,b=per_day;...` (Auth0)."""
    found: list[Told] = []
    for group in text[:2000].split(",")[:_GROUPS]:
        told = Told(name or None)
        for pair in group.split(";"):
            match = _PAIR.fullmatch(pair)
            part = _KEYS.get(match[1]) if match else None
            if match is None or part is None:
                continue
            if part == "name":
                told.name = match[2]
            elif part == "reset":
                told.reset = resets([match[2]], moment)
            elif (number := numbers([match[2]])) and number[0] >= 0:
                setattr(told, part, number[0])
        found.append(told)
    return [told for told in found if told.limit is not None or told.remaining is not None]


# ── from parts to limits ──────────────────────────────────────────────────────────────────────────────────────────────


def _complete(told: Told, name: str) -> None:
    """What follows from the parts that were told."""
    if told.after is not None:
        told.reset = told.after
    if told.limit is None and told.used is not None and told.remaining is not None and told.remaining >= 0:
        told.limit = told.used + told.remaining
    if told.window is None and name:
        told.window = _window_of(name)


def _lend_resets(told: Mapping[tuple[str, str], Told]) -> None:
    """A reset without a name belongs to the limits with a name that tell none: in its own family, if it tells nothing
    else (OpenAlex); in any, if the numbers are the same, for then it is the same limit (Kong)."""
    by_numbers: dict[tuple[float | None, float | None], float | None] = {
        (own.limit, own.remaining): own.reset
        for (_, name), own in told.items()
        if not name and own.limit is not None and own.remaining is not None
    }
    for (family, name), own in told.items():
        if name and own.reset is None:
            nameless = told.get((family, ""))
            alone = nameless is not None and nameless.limit is None and nameless.remaining is None
            own.reset = nameless.reset if nameless and alone else by_numbers.get((own.limit, own.remaining))


def _merged(found: list[Told], told: Mapping[tuple[str, str], Told]) -> list[Told]:
    """All limits, once each: RateLimit, RateLimit-* and X-RateLimit-* with the same numbers spell the same one."""
    merged = list(found)
    of_name: dict[str, list[Told]] = {"": [limit for limit in found if limit.name is None]}
    for (family, name), new in told.items():
        same = of_name.setdefault(name, []) if family in ("", "x") else []
        twin = next((old for old in same if _agree(old, new)), None)
        if twin is None:
            same.append(new)
            merged.append(new)
        else:
            twin.limit = new.limit if twin.limit is None else twin.limit
            twin.remaining = new.remaining if twin.remaining is None else twin.remaining
            twin.window = twin.window or new.window
            twin.reset = max((reset for reset in (twin.reset, new.reset) if reset is not None), default=None)
    return merged


def _agree(one: Told, other: Told) -> bool:
    """Whether they may be the same limit: no number contradicts."""
    return (one.limit is None or other.limit is None or one.limit == other.limit) and (
        one.remaining is None or other.remaining is None or one.remaining == other.remaining
    )


def _told_something(found: list[Told]) -> list[Told]:
    """Without those that tell nothing; a reset alone counts only where nothing else is told."""
    full = [told for told in found if told.limit is not None or told.remaining is not None or told.window]
    return full or [told for told in found if told.reset is not None]


_MOST = 60  # fields: no server sends so many


def read_limits(fields: Mapping[str, list[str]], moment: Moment, unit: float = 1.0) -> list[Told]:
    """Every limit that the fields (lower-case name -> values) tell; `unit` seconds are one in a reset counting down."""
    reader = _Reader(moment, unit)
    for field, values in islice(fields.items(), _MOST):
        place = _place(field)
        if place is None:
            continue
        key, part = place
        if part in _OF_ONE:
            reader.part(key, part, values)
        else:
            reader.read(key, part, values)
    if reader.several:
        reader.side_by_side(fields)
    return reader.limits()
