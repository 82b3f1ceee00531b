"""The core of several limiters as one, and its members."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from .clock import Clock, ticks_of
from .core import Core
from .gate import Gate
from .limiter import BaseLimiter, Bound
from .rates import Exact, Rate
from .waiting import Claim, Place

if TYPE_CHECKING:
    from .hints import Hints, Quota

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


class Out(NamedTuple):
    """What one permit has out at the members: the hold of each, and the flights of those that learn, at their gates."""

    holds: list[Any]
    flights: list[tuple[Gate, Place]]


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
        return Out(holds, self._flights(key, now, parts, holds)) if held else None

    @staticmethod
    def _flights(key: str, now: int, parts: list[tuple[Member, Any]], holds: list[Any]) -> list[tuple[Gate, Place]]:
        """Tell the members that learn what is sent."""
        flights: list[tuple[Gate, Place]] = []
        for (member, one), hold in zip(parts, holds, strict=True):
            core, member_key = member.core, member.key(key)
            if isinstance(hold, Out):
                flights += hold.flights
                continue
            gate = core.gate(member_key, now) if core.learns else core.gates.get(member_key)
            if gate is not None and gate.learner is not None and not core.free(one):
                place = _stand_in(one, now)
                gate.flights += 1
                place.probe, place.flight = gate.learner, gate.learner.sent(now, one, lands=True)
                flights.append((gate, place))
        return flights

    @staticmethod
    def _land(flights: list[tuple[Gate, Place]], sent: int, now: int, *, answered: bool, contended: bool) -> None:
        """Tell the members that learn that the work has ended."""
        for gate, place in flights:
            gate.flights -= 1
            place.probe.landed(place.flight._replace(sent=sent), now, answered=answered, contended=contended)

    def landed(self, gate: Gate, place: Place, now: int, loop: Any, *, answered: bool = False) -> None:
        flights: list[tuple[Gate, Place]] = [] if place.hold is None else place.hold.flights
        self._land(flights, place.sent, now, answered=answered, contended=len(gate.line) > 0)
        super().landed(gate, place, now, loop, answered=answered)
        for one, _ in flights:
            one.core.stirred(one.key, now, loop)

    def aside(self, gate: Gate, place: Place) -> None:
        with self as now:
            flights: list[tuple[Gate, Place]] = [] if place.hold is None else place.hold.flights
            self._land(flights, place.sent, now, answered=False, contended=True)
            flights.clear()
        super().aside(gate, place)  # and look again at everybody, here and at the members

    def undo(self, key: str, now: int, cost: Any, taken: int, hold: Any) -> None:
        self.change(key, now, cost, self.cost(0), taken, hold)
        if hold is not None:
            self._land(hold.flights, taken, now, answered=False, contended=False)

    def end(self, key: str, now: int, cost: Any, hold: Any) -> None:
        for member, one, own in zip(self.members, cost, hold.holds, strict=True):
            if member.core.holds:
                member.core.end(member.key(key), now, one, own)

    def change(self, key: str, now: int, before: Any, after: Any, taken: int | None, hold: Any) -> Any:
        holds = (None,) * len(self.members) if hold is None else hold.holds
        holds = [
            own if was == is_ else member.core.change(member.key(key), now, was, is_, taken, own)
            for member, was, is_, own in zip(self.members, before, after, holds, strict=True)
        ]
        return None if hold is None else hold._replace(holds=holds)

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

    def learned(self, key: str) -> Rate | None:
        rates = [member.core.learned(member.key(key)) for member in self.members]
        return min((rate for rate in rates if rate is not None), key=lambda rate: rate.per_second, default=None)

    def told_until(self, key: str) -> int:
        gates = [(member.core, member.core.gates.get(member.key(key))) for member in self.members]
        return max(core.paused_until if gate is None else gate.patience_until() for core, gate in gates)

    def news(self, gate: Gate, place: Place, hints: Hints, now: int, loop: Any) -> bool:
        """What is said of a member's quota goes to that member; the rest to those that learn, or, where none does, to
        the common gate and, if less is allowed than all members grant, to the first of them that it can be of."""
        flights: dict[Gate, Place] = {} if place.hold is None else dict(place.hold.flights)
        for at in flights.values():
            at.sent = place.sent
        spent, rest = 0.0, list(hints.quotas)
        for member, cost, quota, wait in self._told(place.cost, hints) if rest else ():
            own = member.core.gate(member.key(gate.key), now)
            at = flights.get(own) or _stand_in(cost, place.sent)
            agrees = 0.0 if hints.refused else wait  # our count may decide only where the server lets pass
            part = replace(hints, refused=False, retry_after=None, wait=agrees, quotas=(quota,))
            known = member.core.corrected(own, at, part, gate, now, loop)
            if wait and (known is None or hints.refused):
                own.spent(ticks_of(wait), now, loop)
            spent = max(spent, wait)
            rest = [one for one in rest if one is not quota]
            member.core.tidy(own, now)
        if spent and (hints.wait or 0.0) <= spent:
            hints = replace(hints, wait=1e-9 if hints.refused else 0.0)
        counts = [own.core.news(own, at, hints, now, loop) for own, at in flights.items() if own.core.learns]
        if counts:
            return any(counts)
        if not spent:
            others = hints if len(rest) == len(hints.quotas) else replace(hints, quotas=tuple(rest))
            first = self._corrected(gate, place, flights, others, now, loop)
            if first is not None:
                return first
        return super().news(gate, place, hints, now, loop)

    def _corrected(
        self, gate: Gate, place: Place, flights: dict[Gate, Place], hints: Hints, now: int, loop: Any
    ) -> bool | None:
        """What nobody says whose it is, for the first member that has the call's key and a rule."""
        parts = zip(self.members, place.cost, strict=True)
        core, cost = next(((m.core, one) for m, one in parts if m.bound is None and m.core.most is not None), (None, 0))
        if core is None:
            return None
        its = core.gates.get(gate.key)
        if not (hints.quotas or hints.refused or (its is not None and its.learner is not None)):
            return None
        its = core.gate(gate.key, now)
        known = core.corrected(its, flights.get(its) or _stand_in(cost, place.sent), hints, gate, now, loop)
        core.tidy(its, now)
        return known

    def _told(self, cost: Any, hints: Hints) -> Iterator[tuple[Member, Any, Quota, float]]:
        """The members of which quotas are told, and for how long nothing is left: by their names, or, where a quota has
        no member's name, by their limits, if one has this very limit. (Then a refusal says itself how long to wait.)"""
        told = [(_plain(quota.name or ""), quota) for quota in hints.quotas]
        named = {name: quota for name, quota in told if name}
        names = {_plain(member.name) for member in self.members if member.name}
        others: dict[Any, Quota] = {quota.limit: quota for name, quota in told if quota.limit and name not in names}
        limits = [member.core.most for member in self.members] if others else []
        for member, one in zip(self.members, cost, strict=True):
            quota, most = named.get(_plain(member.name or "")), member.core.most
            if quota is not None and not member.core.learns:
                yield member, one, quota, _reset(quota)
            elif most in others and limits.count(most) == 1 and member.bound is None:
                yield member, one, others[most], 0.0 if hints.refused else _reset(others[most])


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _reset(quota: Quota) -> float:
    """Seconds for which nothing is left; 0.0 if something is."""
    return quota.reset_after or 0.0 if quota.remaining is not None and quota.remaining < 1 else 0.0


def _stand_in(cost: Any, now: int) -> Place:
    """A permit at the gate of a member, taken as part of another."""
    place = Claim(cost, 0, holding=True)
    place.at = place.sent = now
    return place
