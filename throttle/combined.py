"""`AllOf`: several limiters as one, all or nothing."""

from __future__ import annotations

from collections.abc import Iterator

from .clock import Clock
from .combinedcore import CombinedCore, Member
from .limiter import BaseLimiter, Bound, limiter_of
from .permits import Blocks
from .rates import Rate

__all__ = ["AllOf"]


class AllOf(BaseLimiter):
    """Several limiters as one: a call is granted when all grant at one instant, and takes from all or from none.

    `AllOf(requests=TokenBucket("500/min"), tokens=TokenBucket("30000/min"))`; positional members too. A number is the
    cost for every member; a mapping names costs, members that it does not name pay 1. A bound member keeps its key,
    others get the call's; a rate or its spelling is a `SlidingWindow` of its own. It has a line of its own and holds no
    place in its members' lines; a member that has refused the same head for longer than its own period lets that head
    go first. What a server tells of a quota corrects the member of its name, or else of its limit. `remaining` of a
    decision is the least of the members'. Raises `ValueError` where members do not share one counter and clock.

    >>> from throttle import TokenBucket
    >>> limiter = AllOf(requests=TokenBucket("500/min"), tokens=TokenBucket("30000/min"))
    >>> [limiter.try_acquire_nowait({"tokens": cost}).allowed for cost in (30000, 20000)]
    [True, False]
    """

    _core: CombinedCore

    def __init__(
        self, /, *members: BaseLimiter | Bound | Rate | str | float, **named: BaseLimiter | Bound | Rate | str | float
    ) -> None:
        everyone = [Member(None, limiter_of(member)) for member in members]
        everyone += [Member(name, limiter_of(member)) for name, member in named.items()]
        if not everyone:
            raise ValueError("AllOf needs at least one limiter")
        if any(member.core.guard is not everyone[0].core.guard for member in everyone):
            raise ValueError("the members of AllOf must share one counter; they have several")
        clocks = {id(member.core.given): member.core.given for member in everyone}
        if len(clocks) > 1:
            raise ValueError(f"the members of AllOf must share one clock; they have {list(clocks.values())}")
        _check_distinct(list(_leaves(everyone)))
        self._core = _combined(everyone, everyone[0].core.given)  # pyright: ignore[reportIncompatibleVariableOverride]
        self._blocks = Blocks() if self._core.holds else None

    def __repr__(self) -> str:
        parts = [f"{m.name}={m.limiter!r}" if m.name else repr(m.limiter) for m in self._core.members]
        return f"<AllOf {', '.join(parts)}>"


def _combined(members: list[Member], clock: Clock | None) -> CombinedCore:
    if not members[0].core.remote:
        return CombinedCore(members, clock)
    from .sharedcombined import SharedCombinedCore  # in memory nothing of it is needed

    return SharedCombinedCore(members, clock)


def _leaves(members: list[Member]) -> Iterator[Member]:
    """The members, and in place of an `AllOf` among them its own."""
    for member in members:
        if isinstance(member.core, CombinedCore):
            for leaf in _leaves(member.core.members):
                yield leaf if leaf.bound is not None or member.bound is None else leaf.bind(member.bound)
        else:
            yield member


def _check_distinct(members: list[Member]) -> None:
    """Refuse a limiter that would be asked twice for one call: each ask would not know of the other."""
    for index, member in enumerate(members):
        for other in members[:index]:
            if member.core is other.core and (None in (member.bound, other.bound) or member.bound == other.bound):
                raise ValueError(f"{member.limiter!r} is a member twice: give it once, or bound to different keys")
