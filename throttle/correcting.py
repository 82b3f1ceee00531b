"""A limit that was given, beside what its server says: trusted where both agree, corrected where they do not.

The counts here are exact, what a server tells is rounded, often by a second or two: where the server says "spent" of
just this limit and it is spent by our own count, too, our count decides. Where the server tells less than our count
(another process, a lower limit), or refuses soon again, a `Learner` is put over the rule: both must grant. While nearly
all are held back after a spent window, an answer is compared with our count as it was when it was asked for: a late one
would else look like less, as what our count has room for goes unused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .clock import ticks_of
from .rates import TICKS

if TYPE_CHECKING:
    from .gate import Gate
    from .hints import Hints, Quota
    from .rulecore import RuleCore
    from .waiting import Place

__all__ = ["Corrections"]

_ROUNDED = 3 * TICKS  # a reset may be told later by so much: stamp and Date are whole seconds, the Date an old one
_SOON = 10 * TICKS  # a refusal within this after the last one, with answers in between, is no accident
_TRUSTED = 60 * TICKS  # without a contradiction for so long, the limit given is right again
_TOLERANCE = 20  # what is told may be less than our own count by one in so many: answers come out of order


class Corrections:
    """What the gates of one rule hear."""

    __slots__ = ("_common", "core")

    def __init__(self, core: RuleCore, common: Gate | None = None) -> None:
        self.core: RuleCore = core
        self._common = common  # the gate of a combined limiter, through which the permit came

    def hear(self, gate: Gate, place: Place, hints: Hints, now: int, loop: object) -> bool | None:
        """Deal with an answer; whether a refusal counts as an attempt. None: nothing to correct, the gate's own way."""
        if gate.learner is None and not (hints.quotas or hints.refused):
            return None  # it says nothing about the limit
        contradicted = self._contradicted(gate, place, hints, now)
        if contradicted:
            if gate.learner is None:
                self._correct(gate)
            gate.corrected_at = now
        elif gate.learner is None:
            if not hints.wait or hints.refused or not self._foreseen(gate, place, hints, now):
                return None
            gate.answered()
            gate.expect_less()
            return True
        elif not hints.refused and now - max(gate.reacted_at, gate.corrected_at) > _TRUSTED:
            gate.learner = None
            return None
        learner = gate.learner
        assert learner is not None
        flight = place.flight or learner.unheard(place.sent, place.cost)
        before = learner.held_until()
        counts = learner.heard(self._completed(hints), flight._replace(sent=place.sent), now)
        if hints.refused:
            gate.reacted_at = now
        if learner.held_until() != before:
            self.core.stirred(gate.key, now, loop)
        return counts

    def _completed(self, hints: Hints) -> Hints:
        """The window of the very limit that was given is known, also where the server does not tell it."""
        rule = self.core.table.rule
        longest = (rule.period + min(_ROUNDED, rule.period)) / TICKS  # a later reset is of another window

        def known(quota: Quota) -> bool:
            return quota.limit == rule.most and quota.window is None and (quota.reset_after or 0.0) <= longest

        if not any(map(known, hints.quotas)):
            return hints
        window = rule.period / TICKS
        quotas = (replace(one, window=window) if known(one) else one for one in hints.quotas)
        return replace(hints, quotas=tuple(quotas))

    def _foreseen(self, gate: Gate, place: Place, hints: Hints, now: int) -> bool:
        """Whether what the server calls spent is just this limit, and spent by our own count."""
        rule = self.core.table.rule
        spent = [quota for quota in hints.quotas if quota.remaining is not None and quota.remaining < 1]
        if not spent or any(quota.limit != rule.most for quota in spent):
            return False
        at = _told_of(gate, place, now)
        due = self.core.earliest(gate.key, at, 1, None)
        late = min(_ROUNDED, rule.period)
        return due > at and at + ticks_of(hints.wait or 0.0) <= due + late

    def _contradicted(self, gate: Gate, place: Place, hints: Hints, now: int) -> bool:
        """Whether the server shows that less than the limit given is allowed."""
        if hints.refused:
            before = self._common or gate
            again = before.reacted_at >= 0 and not before.refusals and now - before.reacted_at <= _SOON
            return again and place.sent > before.reacted_at
        remaining = self.core.facts(gate.key, _told_of(gate, place, now))[0]
        least = remaining - self.core.table.rule.most / _TOLERANCE - 1
        return any(
            quota.limit and quota.reset_after is not None and 1 <= quota.remaining < least
            for quota in hints.quotas
            if quota.remaining is not None
        )

    def _correct(self, gate: Gate) -> None:
        from .adaptive import Learner  # most limits that are given are right

        gate.learner = learner = Learner(self.core.random)
        learner.begin(gate.flights - 1 + (0 if self._common is None else self._common.flights))
        gate.way_back = None


def _told_of(gate: Gate, place: Place, now: int) -> int:
    """The tick at which our count is compared with an answer: in steady traffic that of now, because a log forgets what
    has run out, and would say "spent" of any tick before."""
    return now if gate.way_back is None else place.sent
