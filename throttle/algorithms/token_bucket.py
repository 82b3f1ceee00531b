"""The token bucket, kept as one instant: the generic cell rate algorithm (GCRA).

    tokens
    burst |--+                 +-----------  never above the burst
          |  |              /
          |  |           /       refilled evenly at the rate
          |  |        /
        0 |  +-----+              the burst taken at once, then one permit as each token comes
          +--------------------------------> time

So up to burst + rate permits pass in the first period; whoever counts them in windows wants the sliding window.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar

from ..rates import TICKS, Exact, Rate, check_number, exact

__all__ = ["TokenBucketRule"]


def _int(number: Exact) -> Exact:
    """`number` as an int where it is whole, so that the usual path stays in integers."""
    return number.numerator if number.denominator == 1 else number


@dataclass(frozen=True, slots=True)
class TokenBucketRule:
    """`permits` every `ticks`, at most `burst` at once; a Fraction nowhere unless a cost is one.

    The state is one number: the instant at which the bucket is full again (the theoretical arrival time), counted in
    units of 1/permits tick, so that a cost is `cost * ticks` units and one tick is `permits` units: no rounding at all.
    `cost` conforms at `now` if `max(state - now * permits, 0) + cost * ticks <= burst * ticks`.

    Source: ITU-T I.371 (GCRA, virtual scheduling) with T = ticks/permits and tau = (burst - 1) T for a cost of one.
    """

    permits: int
    ticks: int
    burst: Exact
    period: int
    most: Exact = field(init=False, repr=False, compare=False)
    slack: int = field(init=False, repr=False, compare=False)
    """How far the state may be ahead of the time for a cost of one, in units."""
    _depth: int = field(init=False, repr=False, compare=False)

    kind: ClassVar[str] = "token_bucket"
    whole: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "most", self.burst)
        object.__setattr__(self, "_depth", _int(self.burst * self.ticks))
        object.__setattr__(self, "slack", self._depth - self.ticks)

    @classmethod
    def of(cls, rate: Rate, burst: float | None = None) -> TokenBucketRule:
        """The rule of `rate`; `burst` defaults to the permits of the rate, at least 1.

        Raises `ValueError` for a burst that is not above zero.

        >>> TokenBucketRule.of(Rate(10), 20)
        TokenBucketRule(permits=1, ticks=100000000, burst=20, period=1000000000)
        """
        depth = max(exact(rate.permits), 1) if burst is None else exact(check_number("burst", burst, above=True))
        period = exact(rate.per) * TICKS
        pace = Fraction(exact(rate.permits)) / period
        scale = depth.denominator  # makes the units of the whole burst an integer, too
        return cls(pace.numerator * scale, pace.denominator * scale, depth, -(-period // 1))

    @property
    def holds(self) -> bool:
        """Never."""
        return False

    def initial(self, now: int) -> Exact:
        """Full at `now`."""
        return now * self.permits

    def copy(self, state: Exact) -> Exact:
        """The state itself: a number."""
        return state

    def earliest(self, state: Exact, now: int, cost: Exact) -> int:
        """The first tick >= `now` at which the bucket holds `cost` tokens."""
        due = -((self._depth - cost * self.ticks - state) // self.permits)
        return due if due > now and cost else now

    def exact(self, state: Exact) -> bool:
        """Always: nothing but time decides."""
        return True

    def book(self, state: Exact, at: int, cost: Exact) -> Exact:
        """`cost` tokens out of the bucket at `at`, below zero if need be."""
        units = cost * self.ticks
        if units.__class__ is not int:
            units = _int(units)
        since = at * self.permits
        return (state if state > since else since) + units

    def give(self, state: Exact, now: int, amount: Exact, taken: int | None) -> Exact:
        """`amount` tokens back into the bucket, which overflows above its burst."""
        return state - _int(amount * self.ticks)

    def remaining(self, state: Exact, now: int) -> Exact:
        """Tokens in the bucket at `now`."""
        debt = state - now * self.permits
        room = self._depth - debt if debt > 0 else self._depth
        if room <= 0:
            return 0
        return _int(Fraction(room) / self.ticks) if room % self.ticks else room // self.ticks

    def full_at(self, state: Exact, now: int) -> int:
        """The first tick at which the bucket is full."""
        return max(now, -(-state // self.permits))

    def reconfigured(self, rate: Rate, burst: float | None) -> TokenBucketRule:
        """The same bucket at another rate; without `burst` the old one stays."""
        return self.of(rate, self.burst if burst is None else burst)  # type: ignore[arg-type]  # exact is taken, too

    def carry(self, state: Exact, now: int, old: TokenBucketRule) -> Exact:
        """What was missing from the old bucket is missing from the new one."""
        debt = max(state - now * old.permits, 0)
        return now * self.permits + _int(Fraction(debt * self.ticks) / old.ticks)

    def anchored(self, epoch: int) -> TokenBucketRule:
        """The rule itself: a bucket knows no epoch."""
        return self
