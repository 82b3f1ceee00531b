"""The core of several limits in one shared store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .algorithms.base import Algorithm
from .clock import Clock
from .combinedcore import CombinedCore, Member
from .core import Core
from .counters.base import Ask, Booking
from .rates import Exact
from .sharedcore import SharedCore

__all__ = ["SharedCombinedCore"]


class SharedCombinedCore(SharedCore, CombinedCore):
    """Several limits in one shared store, booked together in one step."""

    def __init__(self, members: list[Member], clock: Clock | None) -> None:
        CombinedCore.__init__(self, members, clock)
        parts = self._parts()
        names = [_bound(part.name, member.bound) for member, part in zip(members, parts, strict=True)]
        self.prepare(parts[0].counter, _joined(names))
        check = getattr(self.counter, "check_together", None)
        if check is not None:
            check([name for name, _ in self.names(None)])

    def _parts(self) -> list[SharedCore]:
        return [member.core for member in self.members if isinstance(member.core, SharedCore)]

    def rules(self) -> list[Algorithm]:
        return [rule for part in self._parts() for rule in part.rules()]

    def amounts(self, cost: Any) -> tuple[Exact, ...]:
        parts = zip(self._parts(), cost, strict=True)
        return tuple(amount for part, one in parts for amount in part.amounts(one))

    def kept(self, now: int, taken: int) -> list[bool]:
        return [one for part in self._parts() for one in part.kept(now, taken)]

    def asks(self, key: str, now: int, costs: Sequence[Any], **terms: Any) -> list[Ask]:
        asks: list[Ask] = []
        for index, (member, part) in enumerate(zip(self.members, self._parts(), strict=True)):
            asks += part.asks(member.key(key), now, [cost[index] for cost in costs], **terms)
        terms |= self.told_pauses(key, now)  # its own: they are kept beside the counts of the members, and cost nothing
        return [*asks, Ask(self.name, key, asks[0].rule, (0,) * len(costs), **terms)]

    def counts(self, bookings: Iterator[Booking]) -> list[Booking]:
        found = [one for part in self._parts() for one in part.counts(bookings)]
        next(bookings)  # of its own pauses
        return found

    def untell(self, asks: Sequence[Ask], *, again: bool) -> None:
        super().untell(asks, again=again)
        for part in self._parts():
            part.untell(asks, again=again)

    def untold(self, key: str, now: int) -> bool:
        parts = zip(self.members, self._parts(), strict=True)
        return super().untold(key, now) or any(part.untold(member.key(key), now) for member, part in parts)

    def give_back(self, key: str, amounts: tuple[Exact, ...]) -> None:
        for member, part in zip(self.members, self._parts(), strict=True):
            here = len(part.rules())
            part.give_back(member.key(key), amounts[:here])
            amounts = amounts[here:]

    def names(self, key: str | None) -> list[tuple[str, str | None]]:
        parts = zip(self.members, self._parts(), strict=True)
        names = [name for member, part in parts for name in part.names(None if key is None else member.key(key))]
        return [*names, (self.name, key)]

    def member_stirred(self, member: Core, key: str | None, now: int, loop: Any) -> None:
        """Members and combination wait for the same store, each in a line of its own."""


def _bound(name: str, key: str | None) -> str:
    return name if key is None else f"{name}[{key}]"


def _joined(names: list[str]) -> str:
    """A name for all of them, on the node of a cluster where the first is."""
    first = names[0] if "{" in names[0] else f"{{{names[0]}}}"
    return "+".join([first, *names[1:]])
