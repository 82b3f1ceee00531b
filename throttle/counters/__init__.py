"""Where counts live: one atomic verb, handed the rule."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import Ask, Booking, Counter, Entry
from .memory import MemoryCounter

if TYPE_CHECKING:
    from .redis import RedisCounter
    from .shares import LocalShare
    from .sqlite import SQLiteCounter

__all__ = ["Ask", "Booking", "Counter", "Entry", "LocalShare", "MemoryCounter", "RedisCounter", "SQLiteCounter"]

_HOMES = {"LocalShare": "shares", "RedisCounter": "redis", "SQLiteCounter": "sqlite"}  # loaded when first used


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
