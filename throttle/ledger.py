"""`Ledger`: what one quota of a server still allows, kept from what its answers tell; a pure machine.

Instants are ticks. Requests are counted by their place in the order in which they were sent: `index` is the cost of
everything sent up to and including one. In order, an answer with `remaining` r to the request i allows sending up to
r + i; of several answers in one window the lowest counts, so that answers out of order, and other processes, are heard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .rates import TICKS
from .resets import Stamp
from .silence import jitter_of

if TYPE_CHECKING:
    from .hints import Quota

__all__ = ["Flight", "Ledger"]

_COSTS = ("token", "byte", "cost", "credit", "point", "unit", "weight")  # what is counted by cost; the rest by request
_LONGEST_LOG = 10_000  # permits of a moving window that are remembered one by one
_ROUNDED = 3.0  # seconds by which a stamp in whole seconds, less a Date in whole seconds, may be late at most ...
_DOUBT = 2 * TICKS  # ... and mostly is at most
_LONGEST_TRIAL = 20 * TICKS  # longer windows lose little by such a doubt
_LATE = TICKS // 20  # an answer may always wait for so long on its way
_MARGIN = 200  # a slot of a moving window is taken to come back later by one in so many


class Flight(NamedTuple):
    """A request as it was sent: when, its index by cost and by number, and its cost."""

    sent: int
    upto: float
    number: int
    cost: float


class Ledger:
    """One quota. `limit` and `window` (ticks) as far as they are known."""

    __slots__ = (
        "_before", "_declared", "_foreign", "_foreign_until", "_jitter", "_least", "_log", "_opened", "_random",
        "_trial", "_tried", "_trusts", "_used", "by_cost", "credit", "limit", "moving", "reset_at", "window",
    )  # fmt: skip

    def __init__(self, random: Callable[[], float], name: str | None) -> None:
        self.by_cost: bool = name is not None and any(word in name.lower() for word in _COSTS)  # else by request
        self._random = random
        self._jitter = 0  # after a reset
        self.limit: float | None = None
        self.window: int | None = None
        self.credit: float | None = None  # the index up to which may be sent; None: nobody knows, one may ask
        self.reset_at: int = 0
        self.moving: bool = False  # permits come back one by one
        self._declared = False  # the window was told, or tried with success
        self._trial = 0  # the window that is tried
        self._tried = False  # one was, in vain
        self._trusts = True  # what was told has not been too short
        self._opened = 0  # the answer that came first in this window
        self._least = 0.0  # the least that was left in this window
        self._log: deque[tuple[int, float]] = deque()  # (answered, cost) of what passed within the window
        self._used = 0.0  # the cost of those
        self._foreign = 0.0  # what others have used within a window at most ...
        self._foreign_until = 0  # ... which is taken to last until then ...
        self._before = 0.0  # ... and what it was before that

    # ── what may be sent ──────────────────────────────────────────────────────────────────────────────────────────

    def earliest(self, now: int, index: float, flying: float, cost: float) -> int:
        """The tick from which `cost` may be sent after `index`, with `flying` under way."""
        if self.moving:
            return self._slot(now, flying, cost)
        if self.credit is None or index + cost <= self.credit:
            return now
        return max(now, self.reset_at + self._jitter)

    def held_until(self, index: float, *, jitter: bool = True) -> int:
        """The tick up to which nothing is left after `index`, with or without jitter; 0 while something is."""
        if self.moving or self.credit is None or index + 1 <= self.credit:
            return 0
        return self.reset_at + self._jitter * jitter

    def _slot(self, now: int, flying: float, cost: float) -> int:
        """When enough of a moving window has come back."""
        assert self.limit is not None
        assert self.window is not None
        over = self._used + flying + self._foreign + cost - self.limit
        late = self.window + self.window // _MARGIN
        for answered, amount in self._log:
            if over <= 0 and answered + late > now:
                break
            over -= amount
            if over <= 0:
                return max(now, answered + late)
        return now if over <= 0 or not self._log else max(now, self._log[-1][0] + late)

    def doubtful(self, index: float, flying: float) -> bool:
        """Whether others spend the same, and if they send as much as is under way here, too, another would be too many:
        better hear first what they have taken."""
        if not flying or self.credit is None or max(self._before, self._foreign) <= 1 + (self.limit or 0.0) / 50:
            return False
        return (self.moving or index < self.credit) and self.credit - index < flying + 2

    def sent(self, index: float) -> bool:
        """`index` was sent; whether it asks for news of a new window: nobody should follow before its answer."""
        if self.moving or self.credit is None or index <= self.credit:
            return False
        self.credit = None
        return True

    # ── what answers tell ─────────────────────────────────────────────────────────────────────────────────────────

    def passed(self, sent: int, now: int, cost: float) -> None:
        """`cost` that was asked for at `sent` was granted, by an answer of this moment."""
        if self.window is None or self.limit is None or self.limit > _LONGEST_LOG:
            return
        self._log.append((now, cost))
        self._used += cost
        self._forget(2 * sent - now - _LATE)  # answers that are on their way tell of what was counted before

    def _forget(self, now: int) -> None:
        """What passed a window ago counts no more."""
        assert self.window is not None
        while self._log and self._log[0][0] + self.window + self.window // _MARGIN <= now:
            self._used -= self._log.popleft()[1]

    def refused(self) -> None:
        """A refusal is news: if this one asked for news of a new window, it asked too early."""
        if self.credit is None:
            self._trusts, self._tried, self._declared = False, True, False

    def heard(
        self,
        quota: Quota,
        flight: Flight,
        now: int,
        total: float,
        flying: float,
        retry_after: float | None = None,
        *,
        refused: bool = False,
    ) -> None:
        """The answer of `now` to a request; `total`: the last index; `flying`: cost under way, its own included.

        `retry_after` of an answer that let it pass is no command, but often tells the reset better than a stamp does.
        """
        sent, index, cost = flight.sent, flight.upto, flight.cost
        if not self.by_cost:
            index, cost = flight.number, 1
        left, reset = quota.remaining, self._reset(quota, None if refused else retry_after)
        if left is None or (reset is None and self.window is None):
            return  # without a time nothing can be held
        told = now + round(reset * TICKS) if reset is not None else self.reset_at
        if reset is None and self.credit is None:
            told = now + (self.window or 0)
        if self.credit is None and sent >= self.reset_at:
            told = self._judge(told, refused=refused)
        self._share(left, flying - cost if refused else flying, now)
        if self.moving:
            self.credit = left + index
        elif self.credit is None or (sent >= self.reset_at and told > self.reset_at):
            late = _DOUBT if isinstance(reset, Stamp) else 0
            self.moving = not refused and self._moves(left, sent, now, told - now, late, flying)
            self._opens(left, index, now, told, late)
        else:
            self._least = min(self._least, left)
            if flying <= cost:  # all is answered: what was told out of order is put right
                self.credit = self._least + total
            else:
                self.credit = min(self.credit, left + index)
            if told > now and self._trusts:
                self.reset_at = min(self.reset_at, told)

    def _reset(self, quota: Quota, retry_after: float | None) -> float | None:
        """The seconds until the reset as they are told; limit and window are noted."""
        self.limit = quota.limit or self.limit
        if quota.window:
            self._declared = True
            self.window = round(quota.window * TICKS)
        left, reset = quota.remaining, quota.reset_after
        if reset is None or not retry_after or not self._trusts or left is None or left + 1 < (self.limit or 0):
            return reset
        return max(reset - _ROUNDED, min(reset, retry_after))

    def _judge(self, told: int, *, refused: bool) -> int:
        """One has asked for news of a new window; what is told of the reset, or what is known better."""
        if refused:
            told = max(told, self._opened + (self.window or 0))
        elif self._trial:
            self.window, self._declared = self._trial, True
        self._trial = 0
        return told

    def _share(self, left: float, flying: float, now: int) -> None:
        """What others have used within the last window, at least: what comes back of that is theirs."""
        if self.window is None or self.limit is None or self.limit > _LONGEST_LOG:
            return  # what we have used is not known
        if now > self._foreign_until:
            self._before, self._foreign = self._foreign, 0.0
        foreign = max(0.0, self.limit - left - self._used - flying)
        if foreign >= self._foreign:
            self._foreign, self._foreign_until = foreign, now + self.window

    def _moves(self, left: float, sent: int, now: int, wait: int, late: int, flying: float) -> bool:
        """Whether, where a window was to open, little is left or just what our own count says has come back, and the
        rest sooner than a window later: then permits come back one by one."""
        if self.reset_at == 0 or self.limit is None or self.window is None or not self._log:
            return False
        if left >= self.limit - 1 or wait >= (self.window + late if late else self.window * 3 // 4):
            return False
        late_at = 2 * now - sent  # it counts on the way there: up to so much sooner than is known here
        least, most = (sum(cost for at, cost in self._log if at + self.window > then) for then in (late_at, sent))
        used, about = self.limit - flying - left, 1 + self.limit / 10
        return left < self.limit / 2 or least - about <= used <= most + about

    def _opens(self, left: float, index: float, now: int, told: int, late: int) -> None:
        """The first answer of a window, which may have been opened by this very request; `late`: the reset that is
        told may be, by so much."""
        self.credit, self.reset_at, self._least = left + index, told, left
        self._jitter = jitter_of(max(told - now, 0), self._random)
        if self._declared and self.window is not None:
            self.reset_at = min(told, now + self.window)  # told resets are rounded, often up
        elif self.limit is not None and told > now:
            if left >= self.limit - 1:  # windows of the clock, or that others have opened, are longer than they look
                self.window, self._opened = max(self.window or 0, told - now), now
                if not self._trusts:
                    self.reset_at = max(told, now + self.window)
            if left >= self.limit * 3 / 4:
                self._try(now, told, late)

    def _try(self, now: int, told: int, late: int) -> None:
        """Windows are whole seconds: after the least that may be meant, one may ask."""
        window = (told - now - late) // TICKS * TICKS + TICKS
        if self.window is not None:  # told when it was opened: what others have opened is no longer
            window = min(window, self.window)
        if late and not self._tried and TICKS <= window < told - now <= _LONGEST_TRIAL:
            self._trial, self.reset_at = window, now + window
