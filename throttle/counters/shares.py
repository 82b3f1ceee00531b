"""`LocalShare`: what a process may use of each limit while the shared store is away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from ..rates import check_number, exact

__all__ = ["LocalShare", "share_of"]


@dataclass(frozen=True, slots=True)
class LocalShare:
    """While the store is away, each process counts for itself up to `share` of each limit (above 0, at most 1).

    The limit holds if the shares of all processes come to no more than 1: `LocalShare(1 / processes)`. What was used is
    charged when the store is back.

    >>> LocalShare(0.25)
    LocalShare(share=0.25)
    """

    share: float

    def __post_init__(self) -> None:
        if check_number("share", self.share, above=True) > 1:
            raise ValueError(f"share must be above 0 and at most 1, not {self.share!r}")


def share_of(rule: Any, share: float) -> Any:
    """The same rule at that share of its rate, with a burst of at least 1."""
    part = Fraction(exact(share))
    if rule.kind == "token_bucket":
        pace, burst = Fraction(rule.permits) / rule.ticks * part, max(Fraction(rule.burst) * part, Fraction(1))
        scale = burst.denominator
        whole = burst.numerator if scale == 1 else burst
        return replace(rule, permits=pace.numerator * scale, ticks=pace.denominator * scale, burst=whole)
    if rule.kind == "two_rate":
        return replace(rule, committed=share_of(rule.committed, share), peak=share_of(rule.peak, share))
    limit = int(rule.limit * part)
    if limit >= 1:
        return replace(rule, limit=limit)
    return replace(rule, limit=1, window=int(rule.window / (rule.limit * part)))
