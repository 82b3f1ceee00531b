"""The fixed window: a count that starts again at aligned instants, as most published quotas do."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from ..rates import TICKS, Exact, Rate, check_number, exact
from .windows import no_burst, window_of

__all__ = ["FixedWindowRule"]


@dataclass(frozen=True, slots=True)
class FixedWindowRule:
    """At most `limit` permits in each window of `window` ticks; windows start at `origin` plus whole windows.

    The state is (start of the window, count). What is charged above the limit is owed by the windows that follow: k
    windows later the count is `max(0, count - k * limit)`. Up to twice the limit passes around the edge of two windows.
    """

    limit: int
    window: int
    offset: int = 0
    epoch: int = 0

    kind: ClassVar[str] = "fixed_window"
    whole: ClassVar[bool] = True

    @classmethod
    def of(cls, rate: Rate, offset: float = 0.0) -> FixedWindowRule:
        """The rule of `rate`, made whole by `window_of`; windows start `offset` seconds after the Unix epoch's.

        >>> FixedWindowRule.of(Rate(5000, per=3600), offset=1.5)
        FixedWindowRule(limit=5000, window=3600000000000, offset=1500000000, epoch=0)
        """
        shift = exact(check_number("offset (seconds)", offset, least=-math.inf))
        return cls(*window_of(rate), round(shift * TICKS))

    @property
    def most(self) -> int:
        """The limit."""
        return self.limit

    @property
    def period(self) -> int:
        """The window."""
        return self.window

    def _start(self, now: int) -> int:
        return now - (now - self.epoch - self.offset) % self.window

    def _roll(self, state: tuple[int, Exact], now: int) -> tuple[int, Exact]:
        """The state in the window of `now`; a clock that goes back stays in the later window."""
        start, count = state
        if now - start < self.window:
            return state
        passed = (now - start) // self.window
        return start + passed * self.window, max(count - passed * self.limit, 0)

    @property
    def holds(self) -> bool:
        """Never."""
        return False

    def initial(self, now: int) -> tuple[int, Exact]:
        """Nothing taken in the window of `now`."""
        return self._start(now), 0

    def copy(self, state: tuple[int, Exact]) -> tuple[int, Exact]:
        """The state itself: a value."""
        return state

    def earliest(self, state: tuple[int, Exact], now: int, cost: Exact) -> int:
        """`now` if its window has room for `cost`, else the start of the first window that has."""
        start, count = self._roll(state, now)
        over = count + cost - self.limit
        due = start if over <= 0 else start - (-over // self.limit) * self.window
        return due if due > now and cost else now

    def exact(self, state: tuple[int, Exact]) -> bool:
        """Always: nothing but time decides."""
        return True

    def book(self, state: tuple[int, Exact], at: int, cost: Exact) -> tuple[int, Exact]:
        """`cost` counted in the window of `at`."""
        start, count = self._roll(state, at)
        return start, count + cost

    def give(self, state: tuple[int, Exact], now: int, amount: Exact, taken: int | None) -> tuple[int, Exact]:
        """`amount` off this window's count; if taken in an earlier one, only off what is owed above the limit."""
        start, count = self._roll(state, now)
        back = count if taken is None or taken >= start else max(count - self.limit, 0)
        return start, count - min(amount, back)

    def remaining(self, state: tuple[int, Exact], now: int) -> Exact:
        """What the window of `now` has left."""
        start, count = self._roll(state, now)
        return max(self.limit - count, 0) if start <= now else 0

    def full_at(self, state: tuple[int, Exact], now: int) -> int:
        """The start of the first window in which nothing is counted or owed."""
        start, count = self._roll(state, now)
        return max(now, start - (-count // self.limit) * self.window)

    def reconfigured(self, rate: Rate, burst: float | None) -> FixedWindowRule:
        """Windows of another rate, aligned in the same way."""
        no_burst("fixed window", burst)
        limit, window = window_of(rate)
        return replace(self, limit=limit, window=window)

    def carry(self, state: tuple[int, Exact], now: int, old: FixedWindowRule) -> tuple[int, Exact]:
        """What was counted in the old window of `now` counts in the new one."""
        start, count = old._roll(state, now)
        return self._start(max(start, now)), count

    def anchored(self, epoch: int) -> FixedWindowRule:
        """The same windows on a clock that read `epoch` ticks at the Unix epoch."""
        return replace(self, epoch=epoch)
