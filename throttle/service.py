"""A limiter with concurrency, retry, events and counts: what `throttled`, `Throttle` and the transports have in common.

Every attempt of every shell goes through `Service.attempt`: permit and slot, the work, what the outcome says, the end.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakValueDictionary

from .algorithms.unlimited import UnlimitedRule
from .calls import current_call
from .clock import current_clock, loop_clocks, monotonic_ns
from .core import Core
from .driving import Hooks, driven
from .errors import ThrottleError
from .events import Admitted, Event, GaveUp, Paused, Refused
from .gate import Slots
from .limiter import BaseLimiter, Bound, RuleLimiter, limiter_of
from .listening import attribute, listen
from .permits import Permit, check_options, started, wait_turn
from .policy import HTTPRules, is_async
from .rates import Rate, check_number
from .retrying import Retry
from .tally import KeyStatistics, Tally
from .waiting import Grant, new_ticket

if TYPE_CHECKING:
    from .hints import Hints

__all__ = ["LimiterLike", "Service", "Unlimited", "check_plain", "http_wants"]

T = TypeVar("T")
LimiterLike = BaseLimiter | Bound | Rate | str | float

_log = logging.getLogger("throttle")

_ONE: Final = 1  # compared by identity: True and 1.0 are for the general way to judge
_CROWD = 4  # requests inside; each of more begins in a turn of the loop of its own, so that answers come in between


class Unlimited(RuleLimiter):
    """No limit: only pauses, refusals and concurrency hold a key back."""

    def __init__(self) -> None:
        super().__init__(UnlimitedRule(), None, None, None)

    def _grab(self, key: str, cost: Any) -> Grant | None:
        if cost is _ONE and key.__class__ is str and self._table.open and not loop_clocks:  # a lane: see there
            return cost, new_ticket(), monotonic_ns(), None
        return super()._grab(key, cost)

    def __repr__(self) -> str:
        return "<Unlimited>"


class _KeySlots(Slots):
    """Slots of one key; forgotten when no call holds or waits for one."""

    __slots__ = ("__weakref__",)


class Service:
    """One throttled service."""

    def __init__(
        self,
        limiter: LimiterLike | bool | None,
        *,
        retry: Retry | None = None,
        concurrency: int | None = None,
        concurrency_per_key: int | None = None,
        on_event: Callable[[Event], object] | None = None,
    ) -> None:
        if limiter is True:
            raise TypeError("limiter=True means nothing: give a limiter or a rate, None to learn, False for no limit")
        if not (retry is None or isinstance(retry, Retry)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"retry takes a Retry, such as Retry(on=OSError), or None; not {retry!r}")
        if not (on_event is None or callable(on_event)):
            raise TypeError(f"on_event takes a function of one event, not {on_event!r}")
        check_plain(on_event=on_event)
        self.limiter: BaseLimiter | Bound = _limiter(limiter)
        self._key: str | None = None  # that of a bound limiter, which ignores all others
        if isinstance(self.limiter, Bound):
            limiter, self._key = self.limiter.limiter, self.limiter.key
        else:
            limiter = self.limiter
        self._core, self._grab = limiter._core, limiter._grab
        self.retry = retry
        self.on_event = on_event
        self._concurrency = None if concurrency is None else Slots(_slots("concurrency", concurrency))
        self._per_key = None if concurrency_per_key is None else _slots("concurrency_per_key", concurrency_per_key)
        self._key_slots: WeakValueDictionary[str, _KeySlots] = WeakValueDictionary()
        self._tally = Tally()
        self._slotted = not (concurrency is None and concurrency_per_key is None)
        self._nests = self._slotted or self._core.holds  # calls inside calls may wait for ever, and nobody was told
        self.straight: bool = not self._slotted and (retry is None or retry.straight)
        self.inside: int = 0  # requests of its transports, from their arrival to their answer
        rules = HTTPRules() if retry is None or retry.http is None else retry.http
        self.repeats: frozenset[int] = frozenset({503, *rules.statuses})  # statuses that are a reason to send again
        self._lock = RLock()  # calls may come from several loops in several threads

    def core_and_key(self, key: str) -> tuple[Core, str]:
        """The limiter's core, and the key that counts there: a bound limiter keeps its own."""
        return self._core, key if self._key is None else self._key

    def check(self, *, cost: Any, key: Any, max_wait: Any) -> None:
        """What a shell is told once for all its calls; one clear error for what can never be right."""
        if not callable(cost):
            core, ours = self.core_and_key("")
            core.check(core.cost(cost), ours)
        if not (isinstance(key, str) or callable(key)):
            raise TypeError(f"key takes a str or a function that gives one, not {key!r}")
        check_plain(cost=cost, key=key)
        if max_wait is not None:
            check_number("max_wait (seconds)", max_wait)

    def slots(self, key: str) -> tuple[Slots, ...]:
        """What must be free besides the permit."""
        slots: tuple[Slots, ...] = () if self._concurrency is None else (self._concurrency,)
        if self._per_key is not None:
            with self._lock:
                one = self._key_slots.get(key)
                if one is None:
                    one = self._key_slots[key] = _KeySlots(self._per_key)
            slots = (*slots, one)
        return slots

    def grab(self, key: str, cost: Any) -> Permit | None:
        """The permit of an attempt at once; None where a line, a slot or a shared counter is to be waited for."""
        if self._slotted or self.inside > _CROWD:
            return None
        if self._key is not None:
            key = self._key
        grant = self._grab(key, cost)
        if grant is None:
            return None
        call = current_call.get()
        if call is not None:
            started()
        self._tally.sent(key, 0.0)
        if self.on_event is not None:
            self.emit(Admitted(key, cost, 0.0))
        return Permit(self._core, key, None, grant, cost, self)

    async def _wait(self, key: str, cost: Any, max_wait: float | None, priority: int) -> Permit:
        """The permit of an attempt, when its turn has come."""
        check_options(max_wait, priority)
        core, key = self.core_and_key(key)
        amount, slots, crowded = core.ask(cost, key), self.slots(key), self.inside > _CROWD
        if self._nests and Permit._inside(self) is not None:
            self._warn(core, key, amount, slots)
        gate, place, waited = await wait_turn(core, key, amount, max_wait, priority, slots, crowded=crowded)
        self._tally.sent(key, waited)
        if self.on_event is not None:
            self.emit(Admitted(key, cost, waited))
        return Permit(core, key, gate, place, cost, self)

    def _warn(self, core: Core, key: str, amount: Any, slots: tuple[Slots, ...]) -> None:
        """A call inside a call waits for what the outer one keeps: if all outer calls do, nothing ever moves."""
        if any(one.used >= one.limit for one in slots) or (core.holds and not core.decide(key, amount, take=False)):
            self._nests = False
            _log.warning(
                "a call inside a call of the same %r waits for a permit or slot of its own: where the outer calls have"
                " them all, the inner ones wait for ever",
                self.limiter,
            )

    def done(self, permit: Permit) -> None:
        """The first attempt was the last: that of `grab`, with an answer that needs no retry."""
        permit.end(answered=True)
        retry = self.retry
        if retry is not None and retry.budget is not None:
            retry.deposit(permit.key, current_clock().now())

    async def run(self, work: Callable[[], Awaitable[T]], *, key: str = "") -> T:
        """One call: attempts under the retry policy, if there is one."""
        retry = self.retry
        if retry is None:
            return await self.attempt(work, key=key)
        judge = None if retry.http is None else functools.partial(_function_wants, retry.http)
        return await self.retried(functools.partial(self.attempt, work, retry.hear, key=key), key=key, judge=judge)()

    def retried(self, attempt: Callable[[], Awaitable[T]], *, key: str, **hooks: Any) -> Callable[[], Awaitable[T]]:
        """`attempt` under the retry policy, which must be there; `hooks`: see `driving.Hooks`."""
        assert self.retry is not None
        ours, silent = key if self._key is None else self._key, self.on_event is None
        return driven(self.retry, attempt, Hooks(key=ours, notify=self.notify, silent=silent, **hooks))

    def notify(self, event: Event) -> None:
        """What becomes of a call between its attempts."""
        if isinstance(event, GaveUp):
            self._tally.add(event.key, lost=1)
        self.emit(event)

    async def attempt(
        self,
        work: Callable[[], Awaitable[T]],
        listen: Callable[[Any], Hints | None] | None = None,
        *,
        key: str = "",
        cost: Any = 1,
        max_wait: float | None = None,
        priority: int = 0,
        settle: Callable[[T], Any] | None = None,
        begun: list[Permit] | None = None,
    ) -> T:
        """One attempt: wait for permit and slot, do the work, tell the gate what the outcome says. `begun`: a permit
        that is out already, for the first."""
        if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a key is a str, not {key!r}")
        permit = begun.pop() if begun else self.grab(key, cost) if max_wait is None and priority == 0 else None
        if permit is None:
            permit = await self._wait(key, cost, max_wait, priority)
        before = permit.enter()
        try:
            try:
                result = await work()
            except Exception as error:
                self._listen(permit, error, listen)
                raise
            self._listen(permit, result, listen)
            if settle is not None:
                permit.settle(settle(result))
        except BaseException as error:
            permit.exit(before)
            permit.leave(error)
            if permit._core.remote and not isinstance(error, GeneratorExit):
                await permit._core.flush(permit.key)
            raise
        permit.exit(before)
        permit.end(answered=True)
        if permit._core.remote:
            await permit._core.flush(permit.key)
        return result

    def _listen(self, permit: Permit, outcome: Any, hear: Callable[[Any], Hints | None] | None) -> None:
        """What an outcome says; of what a transport inside has heard already, only the retry is told whose it was."""
        if permit._heard:
            response = attribute(outcome, "response")
            for one, said in permit._heard:
                if one is response or one is outcome:
                    permit.echo(outcome, said)
                    return
        if hear is None:
            call = current_call.get()
            hear = listen if call is None or call.hears is None else call.hears
        hints = hear(outcome)
        if hints is not None:
            if hints.refused or hints.wait:
                self.heard(permit, outcome, hints)
            else:
                permit.hear(outcome, hints)

    def heard(self, permit: Permit, outcome: Any, hints: Hints) -> None:
        """Hand what an outcome says to the gate of its key, and to whoever watches."""
        if not (hints.refused or hints.wait):
            permit.hear(outcome, hints)
            return
        before = permit.held_for()
        permit.hear(outcome, hints)
        if hints.refused:
            self._tally.add(permit.key, refused=1)
            self.emit(Refused(permit.key, hints))
        self._paused(permit, before)

    def slow(self, permit: Permit) -> None:
        """The server failed as an overloaded one does: its gate holds back."""
        before = permit.held_for()
        permit.slow()
        self._paused(permit, before)

    def more(self, permit: Permit, hints: Hints) -> None:
        """A refusal that was heard says more on a second look."""
        before = permit.held_for()
        permit.observe(hints)
        self._paused(permit, before)

    def _paused(self, permit: Permit, before: float) -> None:
        after = permit.held_for()
        if after > before:
            self._tally.add(permit.key, paused=after - before)
            self.emit(Paused(permit.key, after))

    def statistics(self) -> dict[str, KeyStatistics]:
        """A copy of what happened so far, by key."""
        counts = self._tally.copy()
        core, _ = self.core_and_key("")
        for key, one in counts.items():
            one.learned = core.learned(key)
        return counts

    def emit(self, event: Event) -> None:
        """Tell the hook; what it raises is logged, never passed on."""
        if self.on_event is not None:
            try:
                self.on_event(event)
            except Exception:
                _log.exception("on_event failed on %s", type(event).__name__)


def check_plain(**functions: Any) -> None:
    """Refuse async functions where nobody would await what they give."""
    for name, function in functions.items():
        if is_async(function):
            raise TypeError(f"{name} takes a plain function, not the async {function!r}")


def _limiter(given: LimiterLike | bool | None) -> BaseLimiter | Bound:
    """The limiter that an argument means."""
    if given is None:
        from .learning import AdaptiveLimiter  # most calls know their rate

        return AdaptiveLimiter()
    return Unlimited() if isinstance(given, bool) else limiter_of(given, hold=True)


def _slots(what: str, number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{what} must be a whole number of at least 1, not {number!r}")
    return number


# ── the rules of HTTP, whatever the client ────────────────────────────────────────────────────────────────────────────

_NEVER_LEFT = {"ConnectError", "ConnectTimeout", "PoolTimeout"}  # of httpx and httpx2
_NO_NAMES: set[str] = set()
_HOPELESS = {"UnsupportedProtocol"}  # a URL that no attempt makes better


def http_wants(rules: HTTPRules, request: Any, outcome: Any, hints: Hints | None) -> bool:
    """Whether to send `request` again; `outcome` is its response, its transport error, or that its time was over."""
    if isinstance(outcome, ThrottleError):
        return False
    status = attribute(outcome, "status_code")
    names = {kind.__name__ for kind in type(outcome).__mro__} if status is None else _NO_NAMES
    if status is None and (names & _HOPELESS or not names & {"TransportError", "TimeoutError"}):
        return False
    method = attribute(request, "method") or ""
    return rules.wanted(
        method,
        status=status,
        hints=hints,
        keyed=method not in rules.methods and "idempotency-key" in (attribute(request, "headers") or ()),
        sent=not names & _NEVER_LEFT,
    )


def _function_wants(rules: HTTPRules, outcome: Any, failed: bool, hints: Hints | None) -> bool:
    """Whether to call a function again: by the response or error that is its outcome, or that its exception carries."""
    response = attribute(outcome, "response")
    answer = outcome if response is None else response  # not `or`: a refused response of requests is false
    request = attribute(answer, "request")
    if request is None:
        request = attribute(outcome, "request")
    if hints is not None and hints.refused:
        return hints.retryable
    return request is not None and http_wants(rules, request, answer, hints)
