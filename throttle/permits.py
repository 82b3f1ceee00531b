"""`Permit`: one permit that is out, what its true cost was and what the server said; `current_permit` finds it
again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .calls import Call, current_call, current_work, waits_are_off
from .clock import current_clock
from .core import Core
from .gate import Gate, Slots
from .rates import check_number
from .waiting import GRANTED, Grant, Place, granted

if TYPE_CHECKING:
    from .hints import Hints

__all__ = ["Blocks", "Booking", "Permit", "check_options", "current_permit", "started", "wait_turn"]


def current_permit() -> Permit | None:
    """The permit of the running call: inside a decorated function, a `Throttle` call or a `permit()` block; else None.

    >>> current_permit() is None
    True
    """
    return current_work.get()


class Permit:
    """A permit that was granted and whose work is under way.

    `cost` as it was booked (or settled) and `key`; `settle` and `observe` are plain functions.
    """

    __slots__ = (
        "_answered", "_clock", "_core", "_ended", "_heard", "_known", "_news", "_outer", "_owner", "_place_or_grant",
        "_settled", "cost", "key",
    )  # fmt: skip

    def __init__(
        self, core: Core, key: str, gate: Gate | None, place: Place | Grant, asked: Any, owner: object = None
    ) -> None:
        self._core = core
        self.key: str = key
        """The key it was granted for."""
        self._known = gate  # None as long as none was needed
        self._clock = core.clock
        self._place_or_grant = place
        self._owner: object = owner  # whose attempt it is, if it is one
        self._heard: deque[tuple[Any, Hints]] | None = None  # what transports inside it heard last, if it is one
        self._settled = self._ended = self._news = False
        self._answered: bool | None = None  # what the server said, once it has said something
        self.cost: Any = asked

    def __repr__(self) -> str:
        return f"<Permit cost={self.cost!r} key={self.key!r}>"

    @property
    def _place(self) -> Place:
        place = self._place_or_grant
        if isinstance(place, tuple):  # most permits end before anybody wants to know more
            place = self._place_or_grant = granted(*place)
        return place

    @property
    def _gate(self) -> Gate:
        if self._known is None:
            self._known = self._core.gate_of(self.key, self._clock, out=not self._ended)
        return self._known

    def settle(self, actual: Any) -> None:
        """Charge or give back the difference when the true cost is known, once; effective at once.

        `actual` may exceed the burst: that delays who comes next. For `AllOf` a number, or a mapping by member name.
        Raises `RuntimeError` the second time, `ValueError` for a negative cost.
        """
        if self._settled:
            raise RuntimeError(f"this permit was settled already, with cost {self.cost!r}")
        cost = self._core.cost(actual)
        self._settled, self.cost = True, actual
        self._core.settle(self._gate, self._place, cost, held=not self._ended)

    def observe(self, hints: Hints) -> None:
        """Tell the limiter what the server answered: a refusal or a spent quota holds back everybody of this key."""
        from .hints import Hints  # with its tables of vendors: not for those who only count

        if not isinstance(hints, Hints):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"observe takes Hints, as read_hints() gives them, not {hints!r}")
        self.hear(hints, hints)

    def hear(self, outcome: Any, hints: Hints) -> None:
        """`observe`, and let the retry around this call know that `outcome` has been heard and said `hints`."""
        self._answered = not hints.refused
        if waits_are_off():
            return
        heard = hints.refused or hints.wait or hints.quotas or self._known is not None or self.key in self._core.gates
        if heard and self._core.hear(self._gate, self._place, hints):  # else nobody there would want to know
            self._news = True  # heard twice, as a response and in an exception, it stays news
        self._pass_on(outcome, hints)

    def echo(self, outcome: Any, hints: Hints) -> None:
        """`hints` were heard already: let the retry around this call know that `outcome` says the same."""
        if not waits_are_off():
            self._pass_on(outcome, hints)

    def _note(self, response: Any, hints: Hints) -> None:
        """A transport inside has heard `response`; an exception may carry it once more."""
        if self._heard is None:
            self._heard = deque(maxlen=8)
        self._heard.append((response, hints))

    def _pass_on(self, outcome: Any, hints: Hints) -> None:
        call: Call | None = current_call.get()
        if call is not None:
            call.hear(outcome, hints, held=hints.refused, news=self._news or not hints.refused)
            if hints.refused and (hints.wait or not self._gate.others_try()):
                call.ticket = self._place.ticket  # back to its old place in the line

    def slow(self) -> None:
        """The server failed as an overloaded one does: hold back as after a refusal that names no time."""
        self._answered = False
        if not waits_are_off():
            from .hints import Hints  # with its tables of vendors: not for those who only count

            self._core.hear(self._gate, self._place, Hints(refused=True))

    def held_for(self) -> float:
        """Seconds for which this key is paused."""
        return self._core.held_for(self._gate)

    def sent_again(self) -> None:
        """Another request goes out under this permit: only what happens from now on is news to it."""
        self._place.sent = self._core.tick()

    def end(self, *, answered: bool) -> None:
        """The work has ended: a held permit's window starts, a slot is free, the next may probe. Only once."""
        if not self._ended:
            self._ended = True
            if self._known is None:
                if self._core.ends:
                    self._place_or_grant = self._core.finish(self.key, self._place_or_grant, self._clock)
            else:
                answered = answered if self._answered is None else self._answered
                self._core.land(self._known, self._place, answered=answered)

    def enter(self) -> Permit | None:
        """It is that of the running call; what to give to `exit`."""
        before = outer = current_work.get()
        while outer is not None and outer._ended:  # of a call that left this task behind
            outer = outer._outer
        self._outer: Permit | None = outer
        current_work.set(self)
        return before

    def exit(self, before: Permit | None) -> None:
        """It is not any longer. Where the garbage collector ends its block, another call may be running."""
        if current_work.get() is self:
            current_work.set(before)

    @staticmethod
    def _inside(owner: object) -> Permit | None:
        """That of the attempt of `owner` that this code runs in."""
        permit = current_work.get()
        while permit is not None and (permit._owner is not owner or permit._ended):
            permit = permit._outer
        return permit

    def _make_way(self, core: Core, key: str) -> None:
        """Work inside it waits for its own turn there: that must not wait for this one to come back."""
        permit: Permit | None = self
        while permit is not None:
            if permit._core is core and permit.key == key and permit._known is not None and not permit._ended:
                core.aside(permit._known, permit._place)
            permit = permit._outer

    def leave(self, error: BaseException | None) -> None:
        """Its block has ended, with what it raised."""
        if isinstance(error, GeneratorExit):
            self._drop()
        else:
            self.end(answered=error is None)

    def _drop(self) -> None:
        """The same from a coroutine that is closed, by hand or by the garbage collector: never waits for a lock."""
        if not self._ended:
            self._ended = True
            if self._known is None:
                self._core.finish_later(self.key, self._place, self._clock)
            else:
                self._core.land_later(self._known, self._place)


class Booking:
    """`async with limiter.permit(...) as permit`: the permit is out while the block runs. For one block only."""

    __slots__ = (
        "_asked", "_before", "_begun", "_core", "_cost", "_grab", "_key", "_max_wait", "_permit", "_priority", "_slots",
    )  # fmt: skip

    def __init__(
        self,
        core: Core,
        asked: Any,
        key: str,
        *,
        max_wait: float | None = None,
        priority: int = 0,
        slots: tuple[Slots, ...] = (),
        grab: Callable[[str, Any], Grant | None] | None = None,
    ) -> None:
        self._core, self._asked, self._key = core, asked, key
        self._grab = grab  # what gets it at once, where that can be
        self._cost = core.ask(asked, key)
        check_options(max_wait, priority)
        self._max_wait, self._priority, self._slots = max_wait, priority, slots
        self._begun = False

    async def __aenter__(self) -> Permit:
        if self._begun:
            raise RuntimeError("this permit() was entered already: call permit() for each block")
        self._begun = True
        core = self._core
        gate: Gate | None = None
        place: Place | Grant | None = None if self._grab is None else self._grab(self._key, self._asked)
        if place is None:
            gate, place, _ = await wait_turn(
                core, self._key, self._cost, self._max_wait, self._priority, slots=self._slots
            )
        else:
            started()
        self._permit = permit = Permit(core, self._key, gate, place, self._asked)
        self._before = permit.enter()
        return permit

    @property
    def ended(self) -> bool:
        """Whether the work of its permit has ended."""
        return self._permit._ended

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._permit.exit(self._before)
        self._permit.leave(error)
        if self._core.remote and not isinstance(error, GeneratorExit):
            await self._core.flush(self._key)


_entered: ContextVar[tuple[Booking, ...]] = ContextVar("throttle_entered", default=())


class Blocks:
    """The permits that `async with limiter:` alone has out, which hands none over: each exit has to find its own.

    It is in the context, unless the block ends in another one: in an exit stack that another task closes, or by the
    garbage collector. Then the oldest ends: they all cost the same.
    """

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[Booking, None] = {}

    async def enter(self, booking: Booking) -> None:
        """A block begins with the permit of `booking`."""
        await booking.__aenter__()
        self._open[booking] = None
        _entered.set((*(one for one in _entered.get() if not one.ended), booking))

    async def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A block ends; where none is open there is nothing to end."""
        entered = _entered.get()
        booking = next((one for one in reversed(entered) if one in self._open), None)
        if booking is not None:
            _entered.set(tuple(one for one in entered if one is not booking))
        else:
            booking = next(iter(list(self._open)), None)  # a list: other threads come and go
            if booking is None:
                return
        self._open.pop(booking, None)
        await booking.__aexit__(kind, error, trace)


async def wait_turn(
    core: Core,
    key: str,
    cost: Any,
    max_wait: float | None,
    priority: int,
    slots: tuple[Slots, ...] = (),
    *,
    crowded: bool = False,
) -> tuple[Gate, Place, float]:
    """A place at the gate of `key`, granted when its turn has come, and the seconds that took; `cost` as the rule
    counts."""
    gate, place = core.enter(
        key, cost, max_wait=max_wait, priority=priority, slots=slots, holding=True, crowded=crowded and not core.remote
    )
    if place.outcome is GRANTED:
        started()
        return gate, place, 0.0
    clock, entered = core.given or current_clock(), core.time  # `enter` has read it
    await core.stand(place)
    return gate, place, max(0.0, clock.now() - entered)


def started() -> None:
    """A permit was granted at once: let the retry around this call know that its attempt starts."""
    call = current_call.get()
    if call is not None and call.granted is not None:
        call.granted()


def check_options(max_wait: float | None, priority: int) -> None:
    """One clear error for a wait or a priority that is none."""
    if max_wait is not None:
        check_number("max_wait (seconds)", max_wait)
    if not isinstance(priority, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"priority must be an int, not {priority!r}")
