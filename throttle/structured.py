"""Structured field values (RFC 9651): Lists and Dictionaries as the rate-limit fields need them, read strictly.

The grammar decides, not the intent: one character out of place and the whole field is malformed, which is `None` here.
Repeated field lines are to be joined by ", " first. A Decimal becomes a float (its 15 digits fit).
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Callable

__all__ = ["Date", "Display", "Member", "Parameters", "Token", "Value", "parse_dictionary", "parse_list"]


class Token(str):
    """A word without quotes; a String is a plain `str`."""

    __slots__ = ()


class Display(str):
    """A Display String: text beyond ASCII."""

    __slots__ = ()


class Date(int):
    """Seconds since the Unix epoch, written @1700000000; an Integer is a plain `int`."""

    __slots__ = ()


Bare = int | float | str | bytes | bool
Parameters = dict[str, Bare]
Value = Bare | list[tuple[Bare, Parameters]]
Member = tuple[Value, Parameters]


class _Malformed(ValueError):
    pass


_KEY = r"[a-z*][a-z0-9_\-.*]*"
_INTEGER = r"-?[0-9]{1,15}(?![0-9.])"
_BARE = re.compile(
    rf"""
      (?P<integer>{_INTEGER})
    | "(?P<string>[\ !#-\[\]-~]*(?:\\["\\][\ !#-\[\]-~]*)*)"
    | (?P<token>[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*)
    | (?P<decimal>-?[0-9]{{1,12}}\.[0-9]{{1,3}}(?![0-9]))
    | \?(?P<boolean>[01])
    | :(?P<binary>(?:[A-Za-z0-9+/]+={{0,2}})?):
    | @(?P<date>{_INTEGER})
    | %"(?P<display>(?:[\ !#$&-~]|%[0-9a-f]{{2}})*)"
    """,
    re.VERBOSE,
)
# ;key, ;key=5 (the usual case, in one step) or ;key= before another value
_PARAMETER = re.compile(rf"; *({_KEY})(?:=(?:({_INTEGER})|()))?")
_NAME = re.compile(rf"({_KEY})(=?)")
_NEXT = re.compile(r"[ \t]*(?:,[ \t]*(?=[^ \t])|\Z)")
_SPACES = re.compile(" *")
_ESCAPE = re.compile(rb"%(..)")


def _binary(text: str) -> bytes:
    digits = text.rstrip("=")
    if len(digits) % 4 == 1:
        raise _Malformed
    return a2b_base64(digits + "=" * (-len(digits) % 4))


def _display(text: str) -> Display:
    data = _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), text.encode())
    try:
        return Display(data.decode())
    except UnicodeDecodeError:
        raise _Malformed from None


def _string(text: str) -> str:
    return text.replace("\\\\", "\0").replace('\\"', '"').replace("\0", "\\")  # a String holds no NUL


_READ: dict[str, Callable[[str], Bare]] = {
    "integer": int,
    "string": _string,
    "token": Token,
    "decimal": float,
    "boolean": "1".__eq__,
    "binary": _binary,
    "date": Date,
    "display": _display,
}


def _bare(text: str, at: int) -> tuple[Bare, int]:
    match = _BARE.match(text, at)
    if match is None:
        raise _Malformed
    kind = match.lastgroup or ""
    return _READ[kind](match[kind]), match.end()


def _parameters(text: str, at: int) -> tuple[Parameters, int]:
    parameters: Parameters = {}
    while match := _PARAMETER.match(text, at):
        key, integer, other = match.groups()
        at = match.end()
        if integer is not None:
            parameters[key] = int(integer)
        elif other is not None:
            parameters[key], at = _bare(text, at)
        else:
            parameters[key] = True
    return parameters, at


def _inner_list(text: str, at: int) -> tuple[list[tuple[Bare, Parameters]], int]:
    items: list[tuple[Bare, Parameters]] = []
    while True:
        spaces = _SPACES.match(text, at)
        start, at = at, spaces.end() if spaces else at
        if text[at : at + 1] == ")":
            return items, at + 1
        if items and start == at:
            raise _Malformed
        value, at = _bare(text, at)
        parameters, at = _parameters(text, at)
        items.append((value, parameters))


def _member(text: str, at: int) -> tuple[Member, int]:
    value: Value
    if text[at : at + 1] == "(":
        value, at = _inner_list(text, at + 1)
    else:
        value, at = _bare(text, at)
    parameters, at = _parameters(text, at)
    return (value, parameters), at


def _next(text: str, at: int) -> int:
    match = _NEXT.match(text, at)
    if match is None:
        raise _Malformed
    return match.end()


def parse_list(text: str) -> list[Member] | None:
    """The members of a List, each a value and its parameters; None if the text is malformed.

    >>> parse_list('"day";r=0;t=50, gold')
    [('day', {'r': 0, 't': 50}), ('gold', {})]
    """
    text = text.strip(" ")
    members: list[Member] = []
    at = 0
    try:
        while at < len(text):
            member, at = _member(text, at)
            members.append(member)
            at = _next(text, at)
    except _Malformed:
        return None
    return members


def parse_dictionary(text: str) -> dict[str, Member] | None:
    """The members of a Dictionary, of a repeated key the last; None if the text is malformed.

    >>> parse_dictionary("limit=100, remaining=0, soft")
    {'limit': (100, {}), 'remaining': (0, {}), 'soft': (True, {})}
    """
    text = text.strip(" ")
    members: dict[str, Member] = {}
    at = 0
    try:
        while at < len(text):
            name = _NAME.match(text, at)
            if name is None:
                return None
            if name[2]:
                members[name[1]], at = _member(text, name.end())
            else:
                parameters, at = _parameters(text, name.end())
                members[name[1]] = (True, parameters)
            at = _next(text, at)
    except _Malformed:
        return None
    return members
