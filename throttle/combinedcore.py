"""The core of several limiters as one, and its members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .clock import Clock, ticks_of
from .core import Core
from .gate import Gate
from .limiter import BaseLimiter, Bound
from .rates import Exact
from .waiting import Place

if TYPE_CHECKING:
    from .hints import Hints

__all__ = ["CombinedCore", "Member"]


class Member:
    """One member: its name, its core, and the key it keeps, if it was bound to one."""

    __slots__ = ("bound", "core", "limiter", "name")

    def __init__(self, name: str | None, limiter: BaseLimiter | Bound) -> None:
        self.name: str | None = name
        self.limiter: BaseLimiter | Bound = limiter
        self.bound: str | None = limiter.key if isinstance(limiter, Bound) else None
        self.core: Core = (limiter.limiter if isinstance(limiter, Bound) else limiter)._core

    def bind(self, key: str) -> Member:
        """The same, bound to `key`."""
        return Member(self.name, Bound(self.limiter.limiter if isinstance(self.limiter, Bound) else self.limiter, key))

    def key(self, key: str) -> str:
        return key if self.bound is None else self.bound


class _Look:
    """All members looked at ahead of time, together."""

    __slots__ = ("_looks", "at")

    def __init__(self, looks: list[Any], at: int) -> None:
        self._looks = looks
        self.at: int = at

    def earliest(self, cost: tuple[Any, ...]) -> int:
        at = self.at
        for look, one in zip(self._looks, cost, strict=True):
            if one:
                look.at = max(look.at, self.at)
                at = max(at, look.earliest(one))
        return at

    def book(self, cost: tuple[Any, ...]) -> None:
        self.at = self.earliest(cost)
        for look, one in zip(self._looks, cost, strict=True):
            if one:
                look.at = max(look.at, self.at)
                look.book(one)


class CombinedCore(Core):
    """The core over the cores of its members; a cost is a tuple, one for each."""

    combines = True

    def __init__(self, members: list[Member], clock: Clock | None) -> None:
        super().__init__(members[0].core.guard, clock)
        self.members = members
        for member in members:
            member.core.watch(self)

    def _each(self, key: str, cost: tuple[Any, ...]) -> list[tuple[Core, str, Any]]:
        """Core, key and cost of each member that is asked for something."""
        parts = zip(self.members, cost, strict=True)
        return [(member.core, member.key(key), one) for member, one in parts if not member.core.free(one)]

    def tell(self, clock: Clock, time: float) -> int:
        for member in self.members:
            member.core.tell(clock, time)
        return super().tell(clock, time)

    @property
    def holds(self) -> bool:
        return any(member.core.holds for member in self.members)

    @property
    def period(self) -> int:
        return max(member.core.period for member in self.members)

    def version(self) -> int:
        return sum(member.core.version() for member in self.members)

    def seal(self) -> int:
        return self.version()

    def cost(self, cost: Any) -> tuple[Any, ...]:
        if not isinstance(cost, Mapping):
            return tuple(member.core.cost(cost) for member in self.members)
        costs: dict[Any, Any] = {**cost}
        amounts = tuple(member.core.cost(costs.pop(member.name, 1) if member.name else 1) for member in self.members)
        if costs:
            names = sorted(member.name for member in self.members if member.name)
            raise ValueError(f"cost names {next(iter(costs))!r}, which is no member; members are {names}")
        return amounts

    def free(self, cost: Any) -> bool:
        return all(member.core.free(one) for member, one in zip(self.members, cost, strict=True))

    def check(self, cost: Any, key: str) -> None:
        for member, one in zip(self.members, cost, strict=True):
            member.core.check(one, member.key(key))

    def earliest(self, key: str, now: int, cost: Any, place: Place | None) -> int:
        if place is not None:
            self.check(cost, key)  # a member may have been reconfigured
        return max([now, *(core.admission(k, now, one, place) for core, k, one in self._each(key, cost))])

    def look(self, key: str, at: int) -> _Look:
        looks: list[Any] = []
        for member in self.members:
            core, member_key = member.core, member.key(key)
            gate = core.gates.get(member_key)
            held = gate.held_until() if gate else core.paused_until
            look = core.look(member_key, max(at, held))
            for place in gate.line if gate else ():
                look.book(place.cost)
            looks.append(look)
        return _Look(looks, at)

    def due(self, key: str, now: int, cost: Any) -> tuple[int, bool]:
        due, exact = super().due(key, now, cost)
        own, gates = self.gates.get(key), [member.core.gates.get(member.key(key)) for member in self.members]
        return due, exact and not any(gate.untold(own) for gate in gates if gate)

    def take(self, key: str, now: int, cost: Any, *, held: bool) -> Any:
        parts = list(zip(self.members, cost, strict=True))
        holds = [  # also for nothing, where it may be settled for more
            None if m.core.free(one) and not (held and m.core.holds) else m.core.take(m.key(key), now, one, held=held)
            for m, one in parts
        ]
        for core, member_key, _ in self._each(key, cost):
            gate = core.gates.get(member_key)
            if gate is not None:
                gate.overtaken(now)
        return holds

    def undo(self, key: str, now: int, cost: Any, taken: int, hold: Any) -> None:
        self.change(key, now, cost, self.cost(0), taken, hold)

    def end(self, key: str, now: int, cost: Any, hold: Any) -> None:
        for member, one, own in zip(self.members, cost, hold, strict=True):
            if member.core.holds:
                member.core.end(member.key(key), now, one, own)

    def change(self, key: str, now: int, before: Any, after: Any, taken: int | None, hold: Any) -> Any:
        holds = hold or (None,) * len(self.members)
        return [
            own if was == is_ else member.core.change(member.key(key), now, was, is_, taken, own)
            for member, was, is_, own in zip(self.members, before, after, holds, strict=True)
        ]

    def facts(self, key: str, now: int) -> tuple[Exact, int, bool]:
        facts = [member.core.facts(member.key(key), now) for member in self.members]
        return min(fact[0] for fact in facts), max(fact[1] for fact in facts), all(fact[2] for fact in facts)

    def forget(self, key: str, place: Place) -> None:
        for member in self.members:
            member.core.dismiss(member.key(key), place)

    def plan(self, key: str, place: Place) -> None:
        for member in self.members:
            member.core.replan(member.key(key), place)

    def spread(self, key: str | None, now: int, loop: Any) -> None:
        super().spread(key, now, loop)
        for member in self.members:
            member.core.stirred(None if key is None else member.key(key), now, loop)

    def member_stirred(self, member: Core, key: str | None, now: int, loop: Any) -> None:
        bound = {part.bound for part in self.members if part.core is member}
        for own in list(self.gates):
            if key is None or own == key or key in bound:
                self.shake(own, now, loop)
        for watcher in list(self.watchers):
            watcher.member_stirred(self, None if key in bound else key, now, loop)

    def renew(self, key: str | None, now: int, loop: Any) -> None:
        for member in self.members:
            member.core.renew(None if key is None else member.key(key), now, loop)
        super().renew(key, now, loop)

    def news(self, gate: Gate, place: Place, hints: Hints, now: int, loop: Any) -> bool:
        """What is said of a quota named like a member goes to that member; the rest to the common gate."""
        told = {quota.name.replace("-", "_"): quota for quota in hints.quotas if quota.name}
        spent = 0.0
        for member in self.members:
            quota = told.get((member.name or "").replace("-", "_"))
            if quota and quota.remaining is not None and quota.remaining < 1 and quota.reset_after:
                spent = max(spent, quota.reset_after)
                key = member.key(gate.key)
                member.core.gate(key, now).spent(ticks_of(quota.reset_after), now, loop)
        if spent and (hints.wait or 0.0) <= spent:
            hints = replace(hints, wait=1e-9 if hints.refused else 0.0)
        return super().news(gate, place, hints, now, loop)
