"""No limit at all: the rule of a key that only pauses and concurrency hold back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..rates import TICKS, Exact, Rate

__all__ = ["UnlimitedRule"]


@dataclass(frozen=True, slots=True)
class UnlimitedRule:
    """Grants everything at once and remembers nothing."""

    kind: ClassVar[str] = "unlimited"
    most: Exact = 10**18
    period: int = TICKS
    whole: ClassVar[bool] = False
    holds: bool = False

    def initial(self, now: int) -> int:
        """Nothing is remembered."""
        return 0

    def copy(self, state: int) -> int:
        """The state itself."""
        return state

    def earliest(self, state: int, now: int, cost: Exact) -> int:
        """Now."""
        return now

    def exact(self, state: int) -> bool:
        """Always."""
        return True

    def book(self, state: int, at: int, cost: Exact) -> int:
        """Nothing is taken."""
        return state

    def give(self, state: int, now: int, amount: Exact, taken: int | None) -> int:
        """Nothing was taken."""
        return state

    def remaining(self, state: int, now: int) -> Exact:
        """As much as anybody may ask for."""
        return self.most

    def full_at(self, state: int, now: int) -> int:
        """Now."""
        return now

    def reconfigured(self, rate: Rate, burst: float | None) -> UnlimitedRule:
        """There is no rate to change."""
        raise TypeError("there is no limit here to reconfigure: give the limiter a rate at construction")

    def carry(self, state: int, now: int, old: object) -> int:
        """Nothing to carry."""
        return state

    def anchored(self, epoch: int) -> UnlimitedRule:
        """The rule itself."""
        return self
