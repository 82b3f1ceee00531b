"""Calls that come while the counter is being asked travel together: one booking for all of them, in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .counters.base import Booking
from .errors import CounterUnavailable
from .stock import SharedGate, shielded
from .waiting import GRANTED, Place, new_ticket, rank_of

if TYPE_CHECKING:
    from .sharedcore import SharedCore

__all__ = ["Lane"]

_CLOSED = "closed"  # the outcome of a place that was given up
_MOST = 1000  # calls in one booking


class Lane:
    """One key on one asyncio loop, while nobody stands in line there.

    The first one asks the counter for all; who comes meanwhile waits for the answer and then has the next one asked.
    """

    __slots__ = ("_core", "_crowded", "_loop", "_queue", "busy", "key")

    def __init__(self, core: SharedCore, key: str, loop: Any) -> None:
        self._core = core
        self.key: str = key
        self._loop = loop
        self._queue: deque[Place] = deque()
        self._crowded = False  # the last booking was for several
        self.busy: bool = False

    def come(self, cost: Any) -> Place:
        """A place that is going to `ride`."""
        place = Place(cost, rank_of(0, new_ticket()))
        place.home = self
        return place

    async def ride(self, place: Place) -> None:
        """Returns when `place` has its outcome."""
        self._queue.append(place)
        if self.busy:
            place.wake = self._loop.create_future()
            await place.wake
        if place.outcome is None and place.home is self:
            await self._lead(place)
        if place.outcome is None:
            await place.home.wait(place)

    async def _lead(self, place: Place) -> None:
        self.busy = True
        queue = self._queue
        wakes: list[Any] = []
        try:
            if self._crowded:
                await asyncio.sleep(0)  # those who were served just now come again
            batch = [queue.popleft() for _ in range(min(len(queue), _MOST))]
            self._crowded = len(batch) > 1
            wakes = [one.wake for one in batch]  # in line they wait for something else
            await shielded(self._serve(batch))
        except asyncio.CancelledError:
            if place.outcome is None and place.home is self:
                place.outcome = _CLOSED
            raise
        finally:  # here, so that the one who asked goes on first
            for wake in wakes:
                if wake is not None and not wake.done():
                    wake.set_result(None)
            self._hand_on()

    def _hand_on(self) -> None:
        """Have the next one ask."""
        self.busy = False
        while self._queue:
            first = self._queue[0]
            if first.outcome is None and not first.wake.cancelled():  # else it is about to be `gone`
                self.busy = True
                first.wake.set_result(None)
                return
            self._queue.popleft()

    def gone(self, place: Place) -> bool:
        """`place` was cancelled; whether it had been granted."""
        granted = place.outcome is GRANTED
        called = place.outcome is None and place.wake is not None and place.wake.done() and not place.wake.cancelled()
        place.outcome = _CLOSED
        if called and self._queue and self._queue[0] is place:
            self._hand_on()
        return granted

    async def _serve(self, batch: list[Place]) -> None:
        """Book for all of the batch, and tell each what became of it."""
        core = self._core
        here = [place for place in batch if place.outcome is None]
        with core as now:
            ahead = core.ahead()
            asks = core.asks(self.key, now, [place.cost for place in here], within=ahead, ahead=ahead)
        try:
            bookings = await core.send(asks)
        except Exception as error:
            self._failed(here, error)
            return
        waits = bookings[0].waits
        granted = next((index for index, wait in enumerate(waits) if wait > 0), len(waits))
        for place in here[:granted]:
            if place.outcome is None:
                place.outcome = GRANTED
            else:
                with core:
                    core.give_back(self.key, core.amounts(place.cost))
        if granted < len(here):
            self._line_up(here[granted:], waits[granted:], bookings)

    def _line_up(self, rest: list[Place], waits: tuple[int, ...], bookings: Sequence[Booking]) -> None:
        """Those who are not granted yet stand in line, in their order."""
        core = self._core
        with core as now:
            gate = core.shared_gate(self.key, now)
            for wait, place in zip(waits, rest, strict=False):
                gate.stock.add(now + wait, core.amounts(place.cost))
            gate.heard(bookings, now, rest[len(waits) :])
            self._admit(rest, gate, now)

    def _failed(self, here: list[Place], error: Exception) -> None:
        """They wait for a counter that cannot be reached, or all raise what it raised."""
        core = self._core
        if isinstance(error, CounterUnavailable):
            with core as now:
                gate = core.shared_gate(self.key, now)
                if gate.hold_off(error, now, core.random()):
                    self._admit(here, gate, now)
                    return
                core.tidy(gate, now)
        for place in here:
            if place.outcome is None:
                place.outcome = error

    def _admit(self, places: list[Place], gate: SharedGate, now: int) -> None:
        for place in places:
            if place.outcome is None:  # pragma: no branch  # else it was cancelled in this very tick
                gate.admit(place, now, self._loop)
        self._core.tidy(gate, now)
