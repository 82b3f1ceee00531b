"""Where counts live: one atomic verb, handed the rule."""

from .base import Ask, Booking, Counter
from .memory import MemoryCounter

__all__ = ["Ask", "Booking", "Counter", "MemoryCounter"]
