"""The exact sliding window: a log of what was taken, never more than the limit in ANY window."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..rates import Exact, Rate
from .windows import no_burst, window_of

__all__ = ["Log", "SlidingWindowRule"]


@dataclass(slots=True)
class Log:
    """What one key has taken: the ticks in order of time, the weights that are not 1, what is held by running work, and
    the sum of it all."""

    ticks: deque[int]
    since: int  # what was dropped from the log still counts before this tick
    used: Exact = 0
    held: Exact = 0
    # Most take one permit: only other weights are kept.
    weights: dict[int, Exact] = field(default_factory=dict[int, Exact])

    def weight(self, tick: int) -> Exact:
        """What was taken at `tick`, which is in the log."""
        return self.weights.get(tick, 1) if self.weights else 1

    def weigh(self, tick: int, weight: Exact) -> None:
        """`tick`, which is in the log, has that weight from now on."""
        if weight != 1:
            self.weights[tick] = weight
        else:
            self.weights.pop(tick, None)

    def drop(self, horizon: int, window: int) -> None:
        """Forget what is not younger than `horizon`."""
        ticks, weights = self.ticks, self.weights
        while ticks and ticks[0] <= horizon:
            tick = ticks.popleft()
            self.used -= weights.pop(tick, 1) if weights else 1
            self.since = tick + window

    def take_out(self, index: int, amount: Exact) -> Exact:
        """Lighten the entry at `index` by up to `amount`; what is left of the amount."""
        tick = self.ticks[index]
        weight = self.weight(tick)
        out = min(amount, weight)
        self.weigh(tick, weight - out if out < weight else 1)
        if out == weight:
            del self.ticks[index]
        self.used -= out
        return amount - out


@dataclass(frozen=True, slots=True)
class SlidingWindowRule:
    """At most `limit` permits in any `window` ticks; a window is half-open: taken at t is free at t + window.

    With `holds` a permit is held while its work runs and logged when the work ends (`hold`, `end`); until then it
    counts as if it ended now, so that `earliest` may be only a bound (see `exact`).
    """

    limit: int
    window: int
    holds: bool = False

    kind: ClassVar[str] = "sliding_window"
    whole: ClassVar[bool] = True

    @classmethod
    def of(cls, rate: Rate, hold: bool = False) -> SlidingWindowRule:
        """The rule of `rate`, made whole by `window_of`.

        >>> SlidingWindowRule.of(Rate(100, per=60))
        SlidingWindowRule(limit=100, window=60000000000, holds=False)
        """
        if not isinstance(hold, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"hold must be True or False, not {hold!r}")
        return cls(*window_of(rate), hold)

    @property
    def most(self) -> int:
        """The limit."""
        return self.limit

    @property
    def period(self) -> int:
        """The window."""
        return self.window

    def initial(self, now: int) -> Log:
        """An empty log."""
        return Log(deque(), now - self.window)

    def copy(self, state: Log) -> Log:
        """A log of its own."""
        return Log(state.ticks.copy(), state.since, state.used, state.held, state.weights.copy())

    def earliest(self, state: Log, now: int, cost: Exact) -> int:
        """The first tick >= `now` whose window has room for `cost`: when the oldest entries that are in the way end."""
        if not cost:
            return now
        now = max(now, state.since)
        over = state.used + cost - self.limit
        if over <= 0:
            return now
        tick = now
        for tick in state.ticks:
            over -= state.weight(tick)
            if over <= 0:
                due = tick + self.window
                return due if due > now else now
        return max(now, tick) + self.window  # what is held is in the way: it ends now at the earliest

    def exact(self, state: Log) -> bool:
        """Whether `earliest` is an instant and not only a bound: false while work is running."""
        return not state.held

    def book(self, state: Log, at: int, cost: Exact) -> Log:
        """`cost` logged at `at`, or with the last entry if that is later."""
        if not cost:
            return state
        ticks = state.ticks
        if ticks and ticks[0] <= at - self.window:
            state.drop(at - self.window, self.window)
        state.used += cost
        if ticks and ticks[-1] >= at:
            at = ticks[-1]
            state.weigh(at, state.weight(at) + cost)
        else:
            ticks.append(at)
            if cost != 1:
                state.weights[at] = cost
        return state

    def give(self, state: Log, now: int, amount: Exact, taken: int | None) -> Log:
        """`amount` out of the entry of `taken`, then out of the oldest: they end first, so no window overflows.

        What was taken a window ago or earlier is free already: nothing is given for it.
        """
        horizon = now - self.window
        state.drop(horizon, self.window)
        if taken is not None:
            if taken <= horizon:
                return state
            for back, tick in enumerate(reversed(state.ticks), 1):
                if tick <= taken:
                    if tick == taken:
                        amount = state.take_out(-back, amount)
                    break
        while amount > 0 and state.ticks:
            amount = state.take_out(0, amount)
        return state

    def hold(self, state: Log, at: int, cost: Exact) -> Log:
        """`cost` held from `at` until `end`."""
        state.used += cost
        state.held += cost
        return state

    def end(self, state: Log, now: int, cost: Exact) -> Log:
        """Work that held `cost` has ended: its window starts now."""
        state.used -= cost
        state.held -= cost
        return self.book(state, now, cost)

    def held(self, state: Log) -> Exact:
        """What running work holds."""
        return state.held

    def remaining(self, state: Log, now: int) -> Exact:
        """What the window that ends at `now` has room for."""
        if now < state.since:
            return 0
        free = self.limit - state.used
        horizon = now - self.window
        if state.ticks and state.ticks[-1] <= horizon:
            free += state.used - state.held
        else:
            for tick in state.ticks:
                if tick > horizon:
                    break
                free += state.weight(tick)
        return max(free, 0)

    def full_at(self, state: Log, now: int) -> int:
        """The first tick at which the window is empty; while work is running, a window from now."""
        free = state.ticks[-1] + self.window if state.ticks else state.since
        return max(free, now + self.window if state.held else now)

    def reconfigured(self, rate: Rate, burst: float | None) -> SlidingWindowRule:
        """The same kind of window at another rate."""
        no_burst("sliding window", burst)
        limit, window = window_of(rate)
        return replace(self, limit=limit, window=window)

    def carry(self, state: Log, now: int, old: SlidingWindowRule) -> Log:
        """The same log; a longer window counts again what the log still remembers."""
        return state

    def anchored(self, epoch: int) -> SlidingWindowRule:
        """The rule itself: these windows are not aligned."""
        return self
