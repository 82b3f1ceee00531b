"""`Call`: one call from its first attempt to its last; where retry and limiter tell each other what they know.

A `Retry` opens a `Call` in the context; whatever limiter its function meets (`acquire`, `permit`, `throttled`,
`Throttle`, the transport) finds it there. So a refused call goes back to its old place in the line instead of sleeping
by itself, the retry's `timeout` bounds the line, and `attempt_timeout` starts when the permit is granted.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hints import Hints
    from .permits import Permit

__all__ = ["Call", "current_call", "current_work", "no_waits", "waits_are_off"]

_UNHEARD: Any = object()


class Call:
    """What the attempts of one call share; written by both sides, read by both, private to one task tree."""

    # Plain class attributes as defaults, because each retried call makes one of these.
    # set by the retry, read by the limiter
    patience: float | None = None  # max_retry_after: the longest pause in seconds that this call waits out
    deadline: float | None = None  # seconds on the default clock: no permit is waited for beyond it
    hears: Callable[[Any], Hints | None] | None = None  # its `hints=`: how outcomes are to be read
    waiting: Callable[[], None] | None = None  # called when it has to queue: attempt_timeout does not run
    granted: Callable[[], None] | None = None  # called when a permit is granted: attempt_timeout starts
    # set by the limiter, read by the retry
    ticket: int | None = None  # place in line, kept from attempt to attempt
    outcome: Any = _UNHEARD  # the exception or result that was heard last ...
    hints: Hints | None = None  # ... and what it said: an outcome becomes hints once
    held: bool = False  # a gate holds this refusal: try again at once, the line will do the waiting
    news: bool = True  # its request was sent after the gate's last reaction: it counts as an attempt

    def begin(self) -> None:
        """A new attempt starts: forget what the last one heard."""
        self.outcome, self.hints, self.held, self.news = _UNHEARD, None, False, True

    def inherit(self, outer: Call) -> None:
        """A call inside a call: the outer one's bound on waiting holds here, too, and it is told of the line."""
        if outer.deadline is not None and (self.deadline is None or outer.deadline < self.deadline):
            self.deadline = outer.deadline
        self.waiting, self.granted = outer.waiting, outer.granted

    def end(self) -> None:
        """It is over: a task that it left behind is bound by nothing any more, and no exception is held."""
        self.deadline = self.patience = self.waiting = self.granted = None
        self.outcome = _UNHEARD

    def hear(self, outcome: Any, hints: Hints, *, held: bool, news: bool) -> None:
        """A limiter heard `outcome`, which said `hints`; `held`: its gate does the waiting from here."""
        self.outcome, self.hints, self.held, self.news = outcome, hints, held, news


_off = 0  # how many `no_waits` blocks are open


@contextmanager
def no_waits() -> Generator[None, None, None]:
    """A block in which every wait of a retry is 0, in the whole process: for tests of what happens after the waits.

    A server's Retry-After is not waited for, either; limiters still wait for their rates.
    """
    global _off
    _off += 1
    try:
        yield
    finally:
        _off -= 1


def waits_are_off() -> bool:
    """Whether a `no_waits` block is open."""
    return _off > 0


current_call: ContextVar[Call | None] = ContextVar("throttle_call", default=None)
current_work: ContextVar[Permit | None] = ContextVar("throttle_permit", default=None)  # whose permit this code has
