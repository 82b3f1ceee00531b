"""When the line of a gate will have been served: known from one arrival to the next, so that each costs the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .rates import TICKS

if TYPE_CHECKING:
    from .gate import Gate

__all__ = ["Forecast"]

_SLIGHT = TICKS // 500  # bells ring so late that the forecast is not worth making again at once
_FEW = 8  # it is made again when so much of the line, one in eight, did not go as forecast


class Forecast:
    """A look at the rule after everybody in line has been served.

    Making it takes one step for each waiter; so it is kept, and booked on by who comes. It is rough once somebody has
    left, or has come in between others of another cost: good enough to see who is in time by far, and made again for
    the rest.
    """

    __slots__ = ("_cost", "_late", "_rough", "_seal", "look")

    def __init__(self) -> None:
        self.look: Any = None  # None: it is to be made when it is needed
        self._seal = 0  # of the counts that it was made of
        self._cost: Any = None  # what everybody costs, while that is the same; else the forecast itself
        self._rough = 0
        self._late = 0  # grants that came a little later than forecast

    def drop(self) -> None:
        """Counts or rule have changed."""
        self.look = None

    def came(self, cost: Any, *, last: bool) -> None:
        """One more is in line, and there is a look to book it on."""
        self._book(cost)
        self._rough += not last and self._cost is self  # among unlike costs the order matters

    def went(self) -> None:
        """One has left the line without a permit."""
        self._rough += 1

    def granted(self, gate: Gate, now: int, promised: int | None) -> bool:
        """The head is going to be granted: whether that is as forecast, or a little later. Then say `as_forecast`."""
        if self.look is None or promised is None or now - promised > _SLIGHT or self._seal != gate.core.seal():
            self.look = None
            return False
        self._late += promised != now
        return True

    def as_forecast(self, gate: Gate) -> None:
        """The counts have changed just as the forecast has it."""
        self._seal = gate.core.seal()

    def slipped(self, gate: Gate) -> bool:
        """Work that was held has ended later than it was taken to; whether that is too much by now."""
        self._late += 1
        return not self._near(gate)

    def whole(self, gate: Gate, now: int) -> Any:
        """The look behind everybody."""
        if self._rough or not self._near(gate):
            if not gate.line:
                return gate.core.look(gate.key, max(now, gate.held_until()))
            self._make(gate, now)
        self.look.at = max(self.look.at, now)
        return self.look

    def before(self, gate: Gate, now: int, rank: int) -> Any:
        """The look behind those who go before `rank`; a step for each of them."""
        look = gate.core.look(gate.key, max(now, gate.held_until()))
        for place in gate.line:  # pragma: no branch  # asked only where somebody of that rank or behind it is in line
            if place.rank >= rank:
                break
            look.book(place.cost)
        return look

    def in_time(self, gate: Gate, now: int, deadline: int, cost: Any = None) -> bool:
        """Whether `cost` (None: even the last in line) is granted behind everybody by `deadline`."""
        if self._rough and self._near(gate):
            due = self._due(now, cost)
            if due + (due - now) // 4 + 2 * gate.core.period <= deadline:
                return True
        look = self.whole(gate, now)
        return bool((look.at if cost is None else look.earliest(cost)) <= deadline)

    def _due(self, now: int, cost: Any) -> int:
        look = self.look
        look.at = max(look.at, now)
        return int(look.at if cost is None else look.earliest(cost))

    def _near(self, gate: Gate) -> bool:
        return (
            self.look is not None
            and self._seal == gate.core.seal()
            and (self._late + self._rough) * _FEW <= gate.line.live
        )

    def _make(self, gate: Gate, now: int) -> None:
        self.look = gate.core.look(gate.key, max(now, gate.held_until()))
        self._seal, self._cost, self._rough, self._late = gate.core.seal(), None, 0, 0
        for place in gate.line:
            self._book(place.cost)

    def _book(self, cost: Any) -> None:
        self._cost = cost if self._cost is None or self._cost == cost else self
        self.look.book(cost)
