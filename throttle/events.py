"""Frozen records handed to `on_event`; keys only, never a header's value, a token or a URL with its credentials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .hints import Hints

__all__ = ["Admitted", "Event", "GaveUp", "Paused", "Refused", "Retrying"]


@dataclass(frozen=True, slots=True)
class Admitted:
    """A permit was granted to `key` for `cost`, after `waited` seconds in line."""

    key: str
    cost: Any
    waited: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The server refused a call of `key` for a limit, and said `hints`."""

    key: str
    hints: Hints

    def __repr__(self) -> str:
        """The numbers; names and scopes are a server's own words, which may tell whose limit it is."""
        return f"Refused(key={self.key!r}, wait={self.hints.wait}, quotas={len(self.hints.quotas)})"


@dataclass(frozen=True, slots=True)
class Paused:
    """Everybody of `key` is held back for `seconds`."""

    key: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Retrying:
    """Attempt `number` (from 1) of a call of `key` failed with `outcome` and is tried again after `delay` seconds.

    `outcome` is the exception or the result; `delay` is 0.0 when the call goes back into the line instead of sleeping.
    """

    key: str
    number: int
    delay: float
    outcome: Any

    def __repr__(self) -> str:
        return f"Retrying(key={self.key!r}, number={self.number}, delay={self.delay}, outcome={_kind(self.outcome)})"


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Attempt `number` of a call of `key` was the last; `outcome` is what its caller gets."""

    key: str
    number: int
    outcome: Any

    def __repr__(self) -> str:
        return f"GaveUp(key={self.key!r}, number={self.number}, outcome={_kind(self.outcome)})"


def _kind(outcome: Any) -> str:
    """What an outcome is, not what it says: the text of an exception may hold a URL with credentials."""
    return f"<{type(outcome).__name__}>"


Event = Admitted | Refused | Paused | Retrying | GaveUp
