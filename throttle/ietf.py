"""The RateLimit and RateLimit-Policy fields in every form of draft-ietf-httpapi-ratelimit-headers, 03 to 10.

Drafts 08 to 10 send a List of named limits (`"day";r=100;t=36000`) and one of policies (`"day";q=5000;w=86400`), draft
07 a Dictionary (`limit=100, remaining=50, reset=5`), 04 to 07 nameless policies (`100;w=60`). What is malformed is
ignored: the whole field if the grammar is broken (RFC 9651), one item if only that item breaks a rule.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from .resets import Moment, reset_in
from .structured import Member, Token, Value, parse_dictionary, parse_list

__all__ = ["Told", "named_limits", "nameless_limit", "policies", "with_policies"]


@dataclass(slots=True)
class Told:
    """One limit, as far as it was told; filled in field by field."""

    name: str | None = None
    limit: float | None = None
    remaining: float | None = None
    reset: float | None = None  # seconds
    window: float | None = None  # seconds
    used: float | None = None
    after: float | None = None  # a reset that is relative by its name: it beats the other
    partition: object = None
    frees_itself: bool = False  # its own requests end and free it: there is no time to wait for


PIECES = 120
"""More list members and parameters than this in one field are not read: no server has so many limits."""


def _members(text: str) -> list[Member]:
    if text.count(",") + text.count(";") > PIECES:
        return []
    return parse_list(text) or []


def _whole(value: Value | None) -> float | None:
    """A non-negative Integer, and nothing that only looks like one: neither 1.0 nor true nor a date."""
    return float(value) if type(value) is int and value >= 0 else None


def _name(value: Value) -> str | None:
    """The name of an item; a Token is taken for a String, as the drafts' own examples have it."""
    return str(value) if type(value) is str or isinstance(value, Token) else None


_NAMELESS = ("limit", "remaining", "reset")


def nameless_limit(text: str, moment: Moment) -> Told | None:
    """The limit of draft 07; None if it is not of that form: `quota;t=1` is a Dictionary, too, but without Integers."""
    if text.count(",") + text.count(";") > PIECES:
        return None
    members = parse_dictionary(text)
    if not members:
        return None
    limit, remaining, reset = [_whole(members[key][0]) if key in members else None for key in _NAMELESS]
    if limit is None and remaining is None and reset is None:
        return None
    return Told(limit=limit, remaining=remaining, reset=None if reset is None else reset_in(reset, moment))


_ONE = re.compile(r'"([ !#-\[\]-~]*)"; ?r=([0-9]{1,15}); ?t=([0-9]{1,15})')


def named_limits(text: str, moment: Moment) -> list[Told]:
    """The limits of drafts 08 to 10; of two with one name and partition the tighter."""
    if match := _ONE.fullmatch(text):  # nearly always
        return [Told(match[1], remaining=float(match[2]), reset=reset_in(float(match[3]), moment))]
    found: dict[tuple[str, object], Told] = {}
    for value, parameters in _members(text):
        name, remaining, reset = _name(value), _whole(parameters.get("r")), _whole(parameters.get("t"))
        broken = (remaining is None and "r" in parameters) or (reset is None and "t" in parameters)
        if name is None or broken or (remaining is None and reset is None):
            continue
        told = Told(name, remaining=remaining, partition=parameters.get("pk"))
        told.reset = None if reset is None else reset_in(reset, moment)
        before = found.get((name, told.partition))
        if before is None or _tightness(told) < _tightness(before):
            found[name, told.partition] = told
    return list(found.values())


def _tightness(told: Told) -> tuple[float, float]:
    return (float("inf") if told.remaining is None else told.remaining), -(told.reset or 0.0)


def policies(text: str) -> list[Told]:
    """The policies of a RateLimit-Policy field, and those that draft 03 appends to RateLimit-Limit (nameless)."""
    return (_policies if len(text) <= _SHORT else _policies.__wrapped__)(text)


_SHORT = 500  # characters of a policy that is worth remembering


@lru_cache(maxsize=256)
def _policies(text: str) -> list[Told]:
    """Read once: a server's policies stay the same from answer to answer; nobody changes them."""
    found: list[Told] = []
    for value, parameters in _members(text):
        nameless = _whole(value)
        name = None if nameless is not None else _name(value)
        limit = _whole(parameters.get("q")) if nameless is None else nameless
        key = "w" if "w" in parameters or nameless is None else "window"  # as before the IETF's drafts
        window = _whole(parameters.get(key)) or None
        if limit is None or (name is None and nameless is None) or (window is None and key in parameters):
            continue
        told = Told(name, limit, window=window, partition=parameters.get("pk"))
        told.frees_itself = parameters.get("qu") == "concurrent-requests"
        found.append(told)
    return found


def with_policies(limits: list[Told], told: list[Told]) -> list[Told]:
    """The limits with what their policies add; a policy that belongs to none of them stands by itself.

    By name and partition; a limit or policy without partition joins the only one of its name. Without names (drafts up
    to 07) the policy whose quota is the limit's.
    """
    by_name: dict[object, list[Told]] = {}
    for policy in told:
        by_name.setdefault(policy.limit if policy.name is None else policy.name, []).append(policy)
    joined: set[int] = set()
    for limit in limits:
        candidates = by_name.get(limit.limit if limit.name is None else limit.name, [])
        if own := _policy_of(limit, candidates):
            limit.limit, limit.window, limit.frees_itself = own.limit, own.window, own.frees_itself
            joined.add(id(own))
    return limits + [policy for policy in told if id(policy) not in joined]


def _policy_of(limit: Told, candidates: list[Told]) -> Told | None:
    if limit.name is None:
        return candidates[0] if candidates else None
    for policy in candidates:
        if policy.partition == limit.partition:
            return policy
    if len(candidates) == 1 and (limit.partition is None or candidates[0].partition is None):
        return candidates[0]
    return None
