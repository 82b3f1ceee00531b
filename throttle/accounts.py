"""`Accounts`: what is left of every quota that one server tells, against what was sent; a pure machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .ledger import Flight, Ledger
from .rates import TICKS, Rate

if TYPE_CHECKING:
    from .hints import Hints, Quota

__all__ = ["Accounts"]

_MOST = 16  # no server has more quotas


def _apart(quotas: tuple[Quota, ...]) -> list[tuple[str | None, Quota]]:
    """The quotas of one answer, each by a name of its own; without the policies that stand beside a limit of the same
    name and tell nothing of what is left."""
    if len(quotas) < 2:  # nearly always
        return [(quota.name, quota) for quota in quotas]
    telling = {quota.name for quota in quotas if quota.remaining is not None}
    apart: dict[str | None, Quota] = {}
    for place, quota in enumerate(quotas):
        if quota.remaining is not None or quota.name not in telling:
            apart[f"{quota.name} {place}" if quota.name in apart else quota.name] = quota
    return list(apart.items())


class Accounts:
    """The ledgers of one key, by the names of the quotas; `flying` and `cost`: how many are under way, their cost."""

    __slots__ = ("_ledgers", "_random", "cost", "flying", "index", "number", "telling")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._ledgers: dict[str | None, Ledger] = {}
        self.index: float = 0.0  # the cost of everything sent so far ...
        self.number: int = 0  # ... and how many that were
        self.telling: bool = False  # not only refusals say what is left
        self.flying: int = 0
        self.cost: float = 0.0

    def __bool__(self) -> bool:
        return bool(self._ledgers)

    def _sums(self, ledger: Ledger) -> tuple[float, float]:
        """The last index, and what is under way, as `ledger` counts."""
        return (self.index, self.cost) if ledger.by_cost else (self.number, self.flying)

    # ── what may be sent ──────────────────────────────────────────────────────────────────────────────────────────

    def earliest(self, now: int, cost: float) -> int:
        """The tick from which `cost` may be sent."""
        due = now
        if cost:
            for ledger in self._ledgers.values():
                due = max(due, ledger.earliest(now, *self._sums(ledger), cost if ledger.by_cost else 1))
        return due

    def held_until(self, *, jitter: bool = True) -> int:
        """The tick up to which nobody is sent, because a quota is spent, with or without jitter; 0 if none is."""
        sums = self._sums
        return max((one.held_until(sums(one)[0], jitter=jitter) for one in self._ledgers.values()), default=0)

    def doubtful(self) -> bool:
        """Whether others spend a quota, too, and it is better to hear first what they have taken."""
        return any(ledger.doubtful(*self._sums(ledger)) for ledger in self._ledgers.values())

    def left(self, plenty: int) -> int:
        """What is left at least of every quota."""
        known = [(ledger.credit, self._sums(ledger)[0]) for ledger in self._ledgers.values()]
        return min([plenty, *(int(credit - sent) for credit, sent in known if credit is not None)])

    def tightest(self) -> Rate | None:
        """The quota that lets the least through, of those whose window is known."""
        told = [Rate(one.limit, one.window / TICKS) for one in self._ledgers.values() if one.limit and one.window]
        return min(told, key=lambda rate: rate.per_second, default=None)

    # ── what happens ──────────────────────────────────────────────────────────────────────────────────────────────

    def sent(self, now: int, cost: float, *, lands: bool) -> tuple[Flight, bool]:
        """`cost` is sent; and whether it asks for news of a new window: nobody should follow before its answer."""
        self.charge(cost, cost > 0)
        asks = [ledger.sent(self._sums(ledger)[0]) for ledger in self._ledgers.values()]
        if lands:
            self.flying += 1
            self.cost += cost
        return Flight(now, self.index, self.number, cost), any(asks)

    def charge(self, cost: float, number: int = 0) -> None:
        """So much more was sent than was said."""
        self.index += cost
        self.number += number

    def heard(self, hints: Hints, flight: Flight, now: int, *, news: bool) -> None:
        """What an answer says is left; `news`: a refusal is none of a flight that was reacted to."""
        if hints.refused and news:
            for ledger in self._ledgers.values():
                ledger.refused()
        self.telling = self.telling or (bool(hints.quotas) and not hints.refused)
        for name, quota in _apart(hints.quotas):
            if name not in self._ledgers:
                if len(self._ledgers) >= _MOST:
                    del self._ledgers[next(iter(self._ledgers))]
                self._ledgers[name] = Ledger(self._random, quota.name)
            ledger = self._ledgers[name]
            ledger.heard(quota, flight, now, *self._sums(ledger), hints.retry_after, refused=hints.refused)

    def landed(self, flight: Flight, now: int, *, answered: bool) -> None:
        """A request's work has ended; `answered`: the server let it pass."""
        self.flying -= 1
        self.cost -= flight.cost
        if answered:
            for ledger in self._ledgers.values():
                ledger.passed(flight.sent, now, flight.cost if ledger.by_cost else 1)
