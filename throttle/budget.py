"""`RetryBudget`: how many retries all calls together may make, so that an outage does not multiply the load."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from itertools import islice
from math import inf
from threading import Lock

from .guard import Local
from .rates import check_number, exact

__all__ = ["BudgetPerKey", "RetryBudget"]

_WINDOW = 10.0  # seconds that are looked back on
_GRAIN = 0.1  # seconds: events closer together than this share one entry
_JITTER = 1.0  # seconds: time that goes back by more is another clock


class _Tally:
    """Events of the last 10 s in at most about a hundred entries of [first, last, count].

    An entry expires as one: at its last event, so that none is forgotten too soon, or (`early`) at its first.
    """

    def __init__(self, *, early: bool) -> None:
        self.total = 0
        self._which = 0 if early else 1
        self._entries: deque[list[float]] = deque()

    def add(self, now: float) -> None:
        entries = self._entries
        self.total += 1
        if entries:
            last = entries[-1]
            if now < last[0] + _GRAIN:
                last[1] = now
                last[2] += 1
                return
        self.expire(now)
        entries.append([now, now, 1])

    def expire(self, now: float) -> None:
        entries = self._entries
        while entries and entries[0][self._which] + _WINDOW <= now:
            self.total -= int(entries.popleft()[2])

    def more(self, number: int) -> None:
        """So many came together with the last one."""
        if number:
            self.total += number
            self._entries[-1][2] += number

    def clear(self) -> None:
        self.total = 0
        self._entries.clear()


class RetryBudget(Local):
    """At most `ratio` x calls + `reserve` x 10 retries over the last 10 s, for all calls that share this object.

    `ratio` is retries per call, `reserve` retries per second that are there from the start, also without calls; both of
    at least 0 (`ValueError` otherwise). For any number of tasks and threads at once. Memory is constant: events within
    0.1 s are counted together, so that a retry is held against the budget for up to 0.1 s too long, never too short.
    After Finagle's retry budget, as in tower's `retry::budget`.

    >>> budget = RetryBudget(ratio=0.5, reserve=0.1)
    >>> for _ in range(4):
    ...     budget.deposit(now=0.0)
    >>> [budget.withdraw(now=1.0) for _ in range(4)]
    [True, True, True, False]
    >>> budget.withdraw(now=11.0)
    True
    """

    def __init__(self, ratio: float = 0.1, reserve: float = 10.0) -> None:
        self.ratio: float = check_number("ratio of RetryBudget", ratio)
        self.reserve: float = check_number("reserve (retries per second) of RetryBudget", reserve)
        per_call, free = Fraction(exact(ratio)), exact(reserve) * int(_WINDOW)
        # retries <= calls * ratio + free, in whole numbers
        self._unit = per_call.denominator * Fraction(free).denominator
        self._per_call = int(per_call * self._unit)
        self._free = int(free * self._unit)
        self._calls, self._retries = _Tally(early=True), _Tally(early=False)
        self._latest = 0.0
        self._since = -inf  # the first call of the last entry of `_calls` ...
        self._more = 0  # ... and how many came after it that are not counted there yet
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"RetryBudget(ratio={self.ratio!r}, reserve={self.reserve!r})"

    def deposit(self, now: float) -> None:
        """A call begins at `now` seconds."""
        with self._lock:
            if self._latest <= now < self._since + _GRAIN:  # one number: it is the way of every call
                self._latest = now
                self._more += 1
            else:
                now = self._time(now)
                self._calls.add(now)
                self._since = self._calls._entries[-1][0]

    def withdraw(self, now: float) -> bool:
        """Whether one more retry is allowed at `now` seconds; if so, it is taken."""
        with self._lock:
            now = self._time(now)
            self._calls.expire(now)
            self._retries.expire(now)
            if (self._retries.total + 1) * self._unit > self._calls.total * self._per_call + self._free:
                return False
            self._retries.add(now)
            return True

    def idle(self, now: float) -> bool:
        """Whether it is as new: nothing in the last 10 s."""
        with self._lock:
            now = self._time(now)
            self._calls.expire(now)
            self._retries.expire(now)
            return not (self._calls.total or self._retries.total)

    def _time(self, now: float) -> float:
        """Time does not go back between threads; if it goes back far, it is another clock and all is as new."""
        self._calls.more(self._more)
        self._more = 0
        if now < self._latest - _JITTER:
            self._calls.clear()
            self._retries.clear()
            self._since = -inf
            self._latest = now
        self._latest = max(self._latest, now)
        return self._latest


class BudgetPerKey(Local):
    """One `RetryBudget` for each key (a host), all alike; those of idle keys are given back as new keys come."""

    def __init__(self, ratio: float = 0.1, reserve: float = 10.0) -> None:
        self.ratio: float = ratio
        self.reserve: float = reserve
        RetryBudget(ratio, reserve)  # says now what is wrong with them
        self._budgets: dict[str, RetryBudget] = {}
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"BudgetPerKey(ratio={self.ratio!r}, reserve={self.reserve!r})"

    def of(self, key: str, now: float) -> RetryBudget:
        """The budget of `key`; each new one looks whether the oldest two are still needed."""
        budgets = self._budgets
        budget = budgets.get(key)  # one look at a dict needs no lock
        if budget is not None:
            return budget
        with self._lock:
            for oldest in list(islice(budgets, 2)):
                first = budgets.pop(oldest)
                if not first.idle(now):
                    budgets[oldest] = first
            return budgets.setdefault(key, RetryBudget(self.ratio, self.reserve))
