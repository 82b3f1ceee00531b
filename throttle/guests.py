"""Heads of combined lines at the gate of a member: they hold no place in its line, and yet are not left waiting for
ever."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from .waiting import Place

if TYPE_CHECKING:
    from .gate import Gate

__all__ = ["Guests"]


class _Guest(NamedTuple):
    since: int  # refused here from this tick on
    cost: Any


class Guests:
    """Whom a gate refuses although they are the first of a combined line.

    One that was refused for longer than the gate's own period is favoured, the oldest first: the gate keeps free what
    it costs for the tick at which the other members grant it, too, and lets others pass where that does not delay it.
    """

    __slots__ = ("_first", "_guests", "_until")

    def __init__(self) -> None:
        self._guests: dict[Place, _Guest] = {}  # in the order in which they came
        self._first: Place | None = None  # who is favoured ...
        self._until = 0  # ... before this tick, if nobody comes or goes

    def __len__(self) -> int:
        return len(self._guests)

    def from_elsewhere(self, gate: Gate | None) -> bool:
        """Whether there are others than the head of `gate`."""
        return any(guest.home.gate is not gate for guest in self._guests)

    def favoured(self, gate: Gate, now: int) -> Place | None:
        """The oldest of those refused for longer than the gate's period."""
        if not self._guests:
            return None
        if now >= self._until or (self._first is not None and self._first.home.dead()):
            self._first, self._until = None, 1 << 200
            for place, guest in list(self._guests.items()):
                if place.home.dead():
                    del self._guests[place]
                elif now <= guest.since + gate.core.period:
                    self._until = guest.since + gate.core.period + 1
                    break
                elif self._first is None or place < self._first:
                    self._first = place
        return self._first

    def spare(self, gate: Gate, now: int, cost: Any) -> bool:
        """Whether `cost` taken now does not delay who is favoured."""
        first = self.favoured(gate, now)
        if first is None:
            return True
        at = max(first.at, now)
        look = gate.core.look(gate.key, now)
        look.book(cost)
        look.at = max(look.at, at)
        return bool(look.earliest(self._guests[first].cost) <= at)

    def due(self, gate: Gate, now: int, cost: Any, guest: Place | None) -> int:
        """When a head of a combined line (None: somebody who only asks) would pass `gate`: not before those in its
        line, unless it is favoured."""
        first = self.favoured(gate, now)
        if not gate.line or (first is not None and first is guest):
            due: int = max(gate.held_until(), gate.core.earliest(gate.key, now, cost, guest))
            if gate.learner is not None:
                due = gate.slower(now, cost, due)
                if gate.learner.full():
                    return max(due, now + gate.core.period)  # it is told when an answer comes
            if due > now or first is None or first is guest or self.spare(gate, now, cost):
                return due
        known = self._guests.get(guest) if guest is not None else None
        insists = (known.since if known else now) + gate.core.period + 1
        if insists <= now:
            return now + gate.core.period  # others are favoured before it; it is told when they have gone
        due = gate.forecast.whole(gate, now).earliest(cost) if gate.line else insists
        return due if now < due < insists else insists

    def add(self, guest: Place, cost: Any, now: int) -> None:
        """`guest` is refused."""
        if guest not in self._guests:
            self._guests[guest] = _Guest(now, cost)

    def drop(self, gate: Gate, guest: Place, now: int) -> None:
        """`guest` waits no more; if it was favoured, those go on that it held back."""
        self._guests.pop(guest, None)
        if guest is self._first:
            self.doubt()
            gate.stir()
            first = self.favoured(gate, now)
            self.tell([first] if first is not None else None)

    def replan(self, gate: Gate, guest: Place) -> None:
        """`guest` is to be granted at another time: if it is favoured, more or fewer may pass before it."""
        if guest is self._first:
            gate.stir()

    def doubt(self) -> None:
        """Look again who is favoured."""
        self._first, self._until = None, 0

    def tell(self, guests: Iterable[Place] | None = None) -> None:
        """They, or all, may pass now: have them look."""
        for guest in self._guests if guests is None else guests:
            guest.home.soon(guest.home.ring)
