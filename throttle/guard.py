"""`Guard`: the lock of a counter, which the garbage collector may meet while it is held; `Local`: what has a lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import NoReturn

__all__ = ["Guard", "Local"]


class Local:
    """What lives in one process: to pickle or to copy it is one clear error."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be pickled or copied: make one in each process; processes share a limit by"
            " counter=SQLiteCounter(...) or counter=RedisCounter(...)"
        )


class Guard:
    """A lock for short pieces of plain code, and what finalisers have left to be done under it.

    A coroutine whose loop has ended is closed by the garbage collector: at any moment, in any thread, also in the
    middle of a piece of code that holds this very lock. What has to be done then is left with `later`, for whoever
    holds it.

    >>> guard, done = Guard(), []
    >>> with guard:
    ...     guard.later(lambda: done.append("later"))
    ...     done.append("first")
    >>> done
    ['first', 'later']
    """

    __slots__ = ("_jobs", "_lock", "acquire")

    def __init__(self) -> None:
        self._lock = Lock()
        self.acquire: Callable[[], bool] = self._lock.acquire  # the lock's own: this is the way of every call
        """Wait for the lock."""
        self._jobs: deque[Callable[[], None]] = deque()

    def release(self) -> None:
        """Let go of the lock, and do what was left for later meanwhile."""
        self._lock.release()
        if self._jobs:
            self._catch_up()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()

    def later(self, job: Callable[[], None]) -> None:
        """Do `job` under the lock: now if that is free, else as soon as its holder lets go. Never waits."""
        self._jobs.append(job)
        self._catch_up()

    def _catch_up(self) -> None:
        while self._jobs and self._lock.acquire(blocking=False):
            try:
                while self._jobs:
                    self._jobs.popleft()()
            finally:
                self._lock.release()
