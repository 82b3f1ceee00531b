"""The line and its baton: who waits, in which order, and who wakes them on asyncio, on trio and across threads.

A `Line` is a list of places. The places of one line on one event loop form a `Home`: it owns the one timer and wakes
its own. On asyncio that timer is the loop's; elsewhere (trio, or a clock of the user's) the waiter that holds the baton
naps on the clock. Nothing here decides who may pass: a home rings its gate, and the gate says who is granted or
refused.
"""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol

from .clock import REAL, Clock, LoopClock, wait_of
from .loops import post, running

__all__ = [
    "GRANTED", "Claim", "Gatelike", "Grant", "Home", "Line", "LoopHome", "NapHome", "Place", "granted", "new_home",
    "new_ticket", "rank_of", "running",
]  # fmt: skip

GRANTED = "granted"

new_ticket: Callable[[], int] = itertools.count().__next__


_APART = 1 << 64  # more than there will ever be tickets


def rank_of(priority: int, ticket: int) -> int:
    """One number to go by (a tuple would be one more object for each waiter): first the priority, then the ticket."""
    return ticket - priority * _APART


class Place:
    """One waiter's place in a line. `outcome` is None while it waits, then `GRANTED` or the error it is refused
    with. It has no wishes but its permit: one that has is a `Claim`."""

    __slots__ = ("at", "cost", "home", "outcome", "rank", "wake")

    deadline: int | None = None  # the tick after which it must not be granted
    patience: int | None = None  # ticks: the longest pause it waits out
    slots: tuple[Any, ...] = ()  # concurrency that is granted together with the permit
    holding: bool = False  # its end will be told: the permit may be held and probe
    hold: Any = None  # what `Core.take` gave for its work
    crowded: bool = False  # it is granted in a turn of the loop of its own
    probe: Any = None  # the way back that it was granted on, if its gate feels one
    flight: Any = None  # the same as a learner knows it, which is then the probe
    sent: Any = 0  # the tick of its last request

    def __init__(self, cost: Any, rank: int) -> None:
        self.cost: Any = cost
        self.rank: int = rank  # the smaller goes first: see `rank_of`
        self.outcome: Any = None
        self.at: int = 0  # the tick of the grant; before it the one it was promised, last, as the head of its line
        self.home: Any = None
        self.wake: Any = None  # the future that it waits for, where it waits for one

    @property
    def ticket(self) -> int:
        """Its turn among those of its priority."""
        return self.rank % _APART

    def __lt__(self, other: Place) -> bool:
        return self.rank < other.rank


class Claim(Place):
    """A place of whoever also has a deadline, patience or a slot to wait for, or tells when its work ends."""

    __slots__ = ("crowded", "deadline", "flight", "hold", "holding", "patience", "probe", "sent", "slots")

    def __init__(
        self,
        cost: Any,
        rank: int,
        *,
        deadline: int | None = None,
        patience: int | None = None,
        slots: tuple[Any, ...] = (),
        holding: bool = False,
        crowded: bool = False,
    ) -> None:
        super().__init__(cost, rank)
        self.deadline: int | None = deadline
        self.patience: int | None = patience
        self.slots: tuple[Any, ...] = slots
        self.holding: bool = holding
        self.crowded: bool = crowded
        self.sent: int = 0
        self.hold: Any = None
        self.probe: Any = None
        self.flight: Any = None


# A place that was granted at once: its cost, its ticket, the tick, its hold; and the tick at which its work has ended.
Grant = tuple[Any, int, int, Any] | tuple[Any, int, int, Any, int]


def granted(cost: Any, ticket: int, now: int, hold: Any, end: int | None = None) -> Place:
    """The place of a `Grant`."""
    place = Claim(cost, ticket, holding=True)
    place.outcome, place.at, place.sent, place.hold = GRANTED, now if end is None else end, now, hold
    return place


class Line:
    """Places in order: higher priority first, then first come. Leaving from the middle is lazy and costs nothing."""

    __slots__ = ("live", "places")

    def __init__(self) -> None:
        self.places: deque[Place] = deque()  # some of them may have left already
        self.live: int = 0

    def __len__(self) -> int:
        return self.live

    def __iter__(self) -> Iterator[Place]:
        return (place for place in self.places if place.outcome is None)

    def add(self, place: Place) -> bool:
        """Give `place` its turn; true if it is the last in the line."""
        places = self.places
        self.live += 1
        if self.last(place.rank):
            places.append(place)
            return True
        insort(places, place)
        return False

    def last(self, rank: int) -> bool:
        """Whether a place of that rank would come after everybody."""
        return not self.places or self.places[-1].rank < rank

    def head(self) -> Place | None:
        """Who is next."""
        places = self.places
        while places:
            if places[0].outcome is None:
                return places[0]
            places.popleft()
        return None

    def next_is_like(self, head: Place) -> bool:
        """Whether the one behind the head wants the same, so that it takes its turn as if nothing had happened."""
        other = self.places[1] if len(self.places) > 1 else head
        alike = other is not head and other.__class__ is head.__class__ and other.cost == head.cost
        return alike and other.outcome is None and other.home is head.home

    def left(self) -> None:
        """A place of this line got its outcome."""
        self.live -= 1
        if len(self.places) > 64 and self.live < len(self.places) // 4:
            self.places = deque(self)  # keeps memory in step with who still waits


class Gatelike(Protocol):
    """What a home needs of its gate."""

    def ring(self, loop: Any) -> None:
        """Time has passed on `loop`, or something has changed: serve the line."""
        ...

    turns: int
    """Of the loop, until the next of a crowd is granted."""

    @property
    def core(self) -> Any:
        """Its core, whose `now` is the tick that was read last."""
        ...


class Home(ABC):
    """The waiters of one line on one event loop. Only `soon`, `dead`, `due` and `waiters` may be used from
    elsewhere."""

    def __init__(self, gate: Gatelike, loop: Any) -> None:
        self.gate = gate
        self.loop = loop
        self.waiters = 0
        self.due: int | None = None  # the tick it will ring at

    def dead(self) -> bool:
        """Whether the loop is closed: its waiters count as cancelled."""
        return isinstance(self.loop, asyncio.AbstractEventLoop) and self.loop.is_closed()

    def soon(self, call: Callable[..., Any], *args: Any) -> None:
        """Have the loop do `call(*args)`; from any thread."""
        post(self.loop, call, *args)

    def ring(self) -> None:
        """Serve the line from this loop."""
        self.gate.ring(self.loop)

    def enter(self, place: Place) -> None:  # noqa: B027  # only one kind of home has to do something
        """`place` is going to `wait`."""

    @abstractmethod
    def wake(self, place: Place) -> None:
        """`place` got its outcome."""
        ...

    @abstractmethod
    def arm(self, due: int | None) -> None:
        """Ring at `due`, or before it: a bell too early does no harm."""
        ...

    @abstractmethod
    def wait(self, place: Place) -> Awaitable[None]:
        """Returns when `place` has its outcome."""
        ...

    def gone(self, place: Place) -> None:  # noqa: B027  # only one kind of home has to do something
        """`place`, which entered, does not wait, or not any more."""


class LoopHome(Home):
    """On asyncio: a future for each waiter and one timer of the loop."""

    _timer: asyncio.TimerHandle | None = None

    def wake(self, place: Place) -> None:
        if place.wake is not None and not place.wake.done():
            place.wake.set_result(None)

    def arm(self, due: int | None) -> None:
        if self._timer is not None:
            if due is not None and self.due is not None and self.due <= due:
                return
            self._timer.cancel()
            self._timer = None
        self.due = due
        if due is not None:
            self._timer = self.loop.call_later(wait_of(self.gate.core.time, due), self._bell)

    def _bell(self) -> None:
        if self.gate.turns > 1:  # of a crowd nobody passes yet: a turn is counted, without lock and clock
            self.gate.turns -= 1
            self._timer = self.loop.call_later(0, self._bell)
        else:
            self._timer = None
            self.ring()

    def wait(self, place: Place) -> Awaitable[None]:
        place.wake = self.loop.create_future()
        if place.outcome is not None:  # since it entered: a handler of our log may do anything
            place.wake.set_result(None)
        return place.wake  # type: ignore[no-any-return]


class NapHome(Home):
    """On trio, and on a clock that only knows `now` and `sleep`: one waiter holds the baton and naps until the bell."""

    def __init__(self, gate: Gatelike, loop: Any, clock: Clock) -> None:
        super().__init__(gate, loop)
        self._clock = clock
        self._waiting: OrderedDict[Place, Any] = OrderedDict()  # each with the event that it waits for
        self._baton: Place | None = None
        self._nap: Any = None  # the cancel scope of the one that naps

    def enter(self, place: Place) -> None:
        import anyio  # only here: importing throttle must stay cheap

        self._waiting[place] = anyio.Event()

    def wake(self, place: Place) -> None:
        if place is self._baton:
            self._rouse()
        elif place in self._waiting:
            self._waiting[place].set()

    def arm(self, due: int | None) -> None:
        if self.due is not None and due is not None and self.due <= due:
            return
        self.due = due
        self._rouse()

    def _rouse(self) -> None:
        if self._nap is not None:
            self._nap.cancel()

    async def wait(self, place: Place) -> None:
        try:
            while place.outcome is None:
                if await self.errand(place):
                    continue
                self._baton = self._baton or place
                if self._baton is not place:
                    await self._waiting[place].wait()
                    continue
                self.ring()  # before each nap: the last holder may have left between the bell and its answer
                if place.outcome is None:
                    await self._sleep()
        except GeneratorExit:  # the loop is gone, or this is no place to talk to it
            self.soon(self.gone, place)
            raise
        except BaseException:
            self.gone(place)
            raise
        self.gone(place)

    async def errand(self, place: Place) -> bool:
        """Whether `place` had something else to do than wait; then it looks again."""
        return False

    async def _sleep(self) -> None:
        import anyio

        cancelled = _cancellations()
        self._nap = anyio.CancelScope()
        with self._nap:
            try:
                if self.due is None:
                    await anyio.sleep_forever()
                else:
                    await self._clock.sleep(wait_of(self._clock.now(), self.due))
            finally:
                self._nap = None
                self.due = None  # the bell has rung
        if _cancellations() > cancelled:  # a scope of anyio < 4.16 takes a task.cancel() of this very tick for its own
            raise asyncio.CancelledError  # pragma: no cover

    def gone(self, place: Place) -> None:
        """Hand the baton on: who has it from now on hands it on even if it is cancelled before it wakes."""
        self._waiting.pop(place, None)
        if place is self._baton:
            self._baton = next(iter(self._waiting), None)
            if self._baton is not None:
                self._waiting[self._baton].set()


def _cancellations() -> int:
    """How many `cancel()` of the running asyncio task are not answered yet; 0 elsewhere."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return 0
    return 0 if task is None else task.cancelling()


def new_home(gate: Gatelike, clock: Clock) -> Home:
    """The home of `gate`'s waiters on the running event loop; `RuntimeError` where none runs."""
    loop = running()
    if loop is None:
        raise RuntimeError("waiting for a permit needs a running asyncio or trio event loop")
    if isinstance(loop, asyncio.AbstractEventLoop) and (clock is REAL or isinstance(clock, LoopClock)):
        return LoopHome(gate, loop)
    return NapHome(gate, loop, clock)
