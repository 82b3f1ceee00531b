"""Two rates after RFC 2698: a committed rate with its burst, and a peak rate that spreads the burst out."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar, Literal

from ..rates import TICKS, Exact, Rate, check_number, exact
from .token_bucket import TokenBucketRule

__all__ = ["TwoRateMeter", "TwoRateRule"]

Color = Literal["green", "yellow", "red"]
State = tuple[Exact, Exact]


@dataclass(frozen=True, slots=True)
class TwoRateRule:
    """Two token buckets; admits what the RFC marks green: what both of them hold, taken from both.

    Source: RFC 2698, section 3 (color-blind mode).
    """

    committed: TokenBucketRule
    peak: TokenBucketRule
    most: Exact = field(init=False, repr=False, compare=False)
    period: int = field(init=False, repr=False, compare=False)

    kind: ClassVar[str] = "two_rate"
    whole: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "most", min(self.committed.most, self.peak.most))
        object.__setattr__(self, "period", max(self.committed.period, self.peak.period))
        if self.peak.permits * self.committed.ticks < self.committed.permits * self.peak.ticks:
            rate, peak = self._spell(self.committed), self._spell(self.peak)
            raise ValueError(f"peak must be at least the rate: {peak} is below {rate}")

    @staticmethod
    def _spell(rule: TokenBucketRule) -> str:
        return f"{float(Fraction(rule.permits * TICKS, rule.ticks)):g}/s"

    @classmethod
    def of(cls, rate: Rate, burst: float | None, peak: Rate, peak_burst: float | None = None) -> TwoRateRule:
        """The rule of both rates; each burst defaults to the permits of its rate, at least 1.

        Raises `ValueError` for a peak below the rate.

        >>> TwoRateRule.of(Rate(10), 20, Rate(50), 5).most
        5
        """
        if peak_burst is not None:
            check_number("peak_burst", peak_burst, above=True)
        return cls(TokenBucketRule.of(rate, burst), TokenBucketRule.of(peak, peak_burst))

    @property
    def holds(self) -> bool:
        """Never."""
        return False

    def initial(self, now: int) -> State:
        """Both buckets full at `now`."""
        return self.committed.initial(now), self.peak.initial(now)

    def copy(self, state: State) -> State:
        """The state itself: a value."""
        return state

    def earliest(self, state: State, now: int, cost: Exact) -> int:
        """The first tick >= `now` at which both buckets hold `cost`."""
        return self.peak.earliest(state[1], self.committed.earliest(state[0], now, cost), cost)

    def exact(self, state: State) -> bool:
        """Always: nothing but time decides."""
        return True

    def book(self, state: State, at: int, cost: Exact) -> State:
        """`cost` out of both buckets at `at`."""
        return self.committed.book(state[0], at, cost), self.peak.book(state[1], at, cost)

    def give(self, state: State, now: int, amount: Exact, taken: int | None) -> State:
        """`amount` back into both buckets."""
        return self.committed.give(state[0], now, amount, taken), self.peak.give(state[1], now, amount, taken)

    def remaining(self, state: State, now: int) -> Exact:
        """What both buckets hold at `now`."""
        return min(self.committed.remaining(state[0], now), self.peak.remaining(state[1], now))

    def full_at(self, state: State, now: int) -> int:
        """The first tick at which both buckets are full."""
        return max(self.committed.full_at(state[0], now), self.peak.full_at(state[1], now))

    def reconfigured(self, rate: Rate, burst: float | None) -> TwoRateRule:
        """Another committed rate, and burst if given, under the same peak."""
        return TwoRateRule(self.committed.reconfigured(rate, burst), self.peak)

    def carry(self, state: State, now: int, old: TwoRateRule) -> State:
        """What was missing from each bucket is missing from the new one."""
        return self.committed.carry(state[0], now, old.committed), self.peak.carry(state[1], now, old.peak)

    def anchored(self, epoch: int) -> TwoRateRule:
        """The rule itself: buckets know no epoch."""
        return self


class TwoRateMeter:
    """Marks each packet green, yellow or red by the two rate three color marker of RFC 2698; exact, and reads no clock.

    `cir` and `pir` are the committed and the peak rate in units (bytes, permits) per second, `cbs` and `pbs` the sizes
    of their buckets in units; all above zero and `pir >= cir`, else `ValueError`. Numbers are the rationals of their
    decimal spelling; Fractions are taken as they are. Both buckets start full (section 3); `tc` and `tp` are what they
    hold.

    >>> meter = TwoRateMeter(cir=1000, cbs=2000, pir=2000, pbs=4000)
    >>> [meter.mark(1500, at=0.0) for _ in range(3)]
    ['green', 'yellow', 'red']
    >>> meter.tc, meter.tp
    (500, 1000)
    """

    __slots__ = ("_at", "cbs", "cir", "pbs", "pir", "tc", "tp")

    def __init__(
        self, cir: float | Fraction, cbs: float | Fraction, pir: float | Fraction, pbs: float | Fraction
    ) -> None:
        self.cir: Exact = _exact("cir", cir, above=True)
        self.cbs: Exact = _exact("cbs", cbs, above=True)
        self.pir: Exact = _exact("pir", pir, above=True)
        self.pbs: Exact = _exact("pbs", pbs, above=True)
        if self.pir < self.cir:
            raise ValueError(f"pir must be at least cir (RFC 2698, section 1): pir={pir!r} is below cir={cir!r}")
        self.tc: Exact = self.cbs
        self.tp: Exact = self.pbs
        self._at: Exact | None = None

    def __repr__(self) -> str:
        return f"TwoRateMeter(cir={self.cir}, cbs={self.cbs}, pir={self.pir}, pbs={self.pbs})"

    def mark(self, size: float | Fraction, at: float | Fraction, color: Color | None = None) -> Color:
        """The color of a packet of `size` units at `at` seconds: color-blind, or aware of the `color` it came with.

        Time never goes back: an earlier `at` counts as the last one. Red takes nothing, yellow only from the peak
        bucket.
        Raises `ValueError` for a negative size and an unknown color. Source: RFC 2698, section 3.
        """
        if color not in (None, "green", "yellow", "red"):
            raise ValueError(f'color must be "green", "yellow", "red" or None, not {color!r}')
        units = _exact("size", size)
        self._fill(_exact("at (seconds)", at, least=-float("inf")))
        if color == "red" or self.tp < units:
            return "red"
        self.tp -= units
        if color == "yellow" or self.tc < units:
            return "yellow"
        self.tc -= units
        return "green"

    def _fill(self, at: Exact) -> None:
        passed = 0 if self._at is None else at - self._at
        if passed >= 0:
            self._at = at
            self.tc = min(self.cbs, self.tc + self.cir * passed)
            self.tp = min(self.pbs, self.tp + self.pir * passed)


def _exact(what: str, number: float | Fraction, *, least: float = 0.0, above: bool = False) -> Exact:
    return exact(check_number(what, number, least=least, above=above))
