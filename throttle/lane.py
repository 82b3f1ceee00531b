"""Calls that come while the counter is being asked travel together: one booking for all of them, in their order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .errors import CounterUnavailable
from .gate import Gate
from .stock import SharedGate, shielded
from .waiting import Place, new_ticket

if TYPE_CHECKING:
    from .sharedcore import SharedCore

__all__ = ["Lane"]

_LEAD = "lead"
_MOST = 1000  # calls in one booking


class Lane:
    """One key on one asyncio loop, while nobody waits in line there.

    The first one asks the counter for all; who comes meanwhile waits for the answer and then has the next one asked.
    """

    __slots__ = ("_core", "_key", "_loop", "_queue", "busy")

    def __init__(self, core: SharedCore, key: str, loop: Any) -> None:
        self._core = core
        self._key = key
        self._loop = loop
        self.busy = False
        self._queue: list[tuple[Any, asyncio.Future[Any]]] = []

    async def join(self, cost: Any) -> tuple[Gate, Place] | None:
        """None when granted; else a place in line, where the permit may be booked already."""
        mine: asyncio.Future[Any] = self._loop.create_future()
        entry = (cost, mine)
        self._queue.append(entry)
        if self.busy:
            try:
                outcome = await mine
            except asyncio.CancelledError:
                self._give_up(entry)
                raise
            if outcome is not _LEAD:
                return outcome  # type: ignore[no-any-return]
            mine = self._loop.create_future()
            self._queue[0] = (cost, mine)
        self.busy = True
        batch, self._queue = self._queue[:_MOST], self._queue[_MOST:]
        try:
            await shielded(self._serve(batch))
        except BaseException:
            self._give_up((cost, mine))
            raise
        finally:
            self._hand_on()
        return mine.result()  # type: ignore[no-any-return]

    def _hand_on(self) -> None:
        self.busy = False
        while self._queue:
            first = self._queue[0][1]
            if not first.done():
                self.busy = True
                first.set_result(_LEAD)
                return
            del self._queue[0]

    def _give_up(self, entry: tuple[Any, asyncio.Future[Any]]) -> None:
        """Cancelled: what it was given goes to the next."""
        cost, mine = entry
        core = self._core
        if not mine.done():
            mine.cancel()
        if mine.cancelled():
            return
        if mine.exception() is not None:
            return
        outcome = mine.result()
        if outcome is _LEAD:
            del self._queue[0]
            self._hand_on()
        elif outcome is None:
            with core:
                core.return_(self._key, core.amounts(cost))
        else:
            gate, place = outcome
            with core as now:
                gate.leave(place, now, self._loop, takes=False)

    async def _serve(self, batch: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        """Book for all of the batch, and tell each what became of it."""
        core = self._core
        here = [entry for entry in batch if not entry[1].done()]
        with core as now:
            costs = [cost for cost, _ in here]
            asks = core.asks(self._key, now, costs, within=core.ahead(), ahead=core.ahead())
        try:
            bookings = await core.send(asks)
        except CounterUnavailable as error:
            self._unavailable(here, error)
            return
        waits = bookings[0].waits
        granted = 0
        for wait in waits:
            if wait > 0:
                break
            granted += 1
        for cost, mine in here[:granted]:
            if not mine.done():
                mine.set_result(None)
            else:
                with core:
                    core.return_(self._key, core.amounts(cost))
        if granted < len(here):
            self._line_up(here[granted:], waits[granted:], bookings)

    def _line_up(self, rest: list[Any], waits: tuple[int, ...], bookings: Any) -> None:
        """Those who are not granted yet stand in line, in their order."""
        core = self._core
        with core as now:
            gate = core.gate(self._key, now)
            assert isinstance(gate, SharedGate)
            for wait, (cost, _) in zip(waits, rest, strict=False):
                gate.stock.add(now + wait, core.amounts(cost))
            gate.heard(bookings, now)
            places = [(Place(cost, (0, new_ticket())), mine) for cost, mine in rest if not mine.done()]
            for place, mine in places:
                gate.admit(place, now, self._loop)
                mine.set_result((gate, place))
            core.tidy(gate, now)

    def _unavailable(self, here: list[Any], error: CounterUnavailable) -> None:
        core = self._core
        with core as now:
            gate = core.gate(self._key, now)
            assert isinstance(gate, SharedGate)
            waits = gate.hold_off(error, now, core.random())
            for cost, mine in here:
                if mine.done():
                    continue
                if waits:
                    place = Place(cost, (0, new_ticket()))
                    gate.admit(place, now, self._loop)
                    mine.set_result((gate, place))
                else:
                    mine.set_exception(error)
            core.tidy(gate, now)

