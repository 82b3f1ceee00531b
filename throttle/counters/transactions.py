"""Functions that run in transactions of one SQLite file, on a thread that lives only while there are any."""

from __future__ import annotations

import _thread
import asyncio
import os
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from threading import Condition, Lock
from typing import Any, TypeVar
from weakref import WeakSet

from ..errors import CounterUnavailable
from ..loops import post, running
from .database import Database, Locked

__all__ = ["Transactions"]

T = TypeVar("T")


class _Job:
    """One function under way: `done` gets what it returned once that is committed."""

    __slots__ = ("deadline", "done", "error", "result", "work")

    def __init__(self, work: Callable[[], Any], deadline: float) -> None:
        self.work = work
        self.deadline = deadline
        self.done: Future[Any] = Future()
        self.result: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        """Do the work; only trouble of the file is passed on, for it concerns the whole transaction."""
        try:
            self.result = self.work()
        except sqlite3.Error:
            raise
        except Exception as error:
            self.error = error

    def tell(self, error: Exception | None = None) -> None:
        """The transaction has ended."""
        error = error or self.error
        if error is None:
            self.done.set_result(self.result)
        else:
            self.done.set_exception(error)


class Transactions(Executor):
    """An executor whose functions each run in a transaction that holds the write lock; those that wait for it at the
    same moment share one, so under load a lock is taken once for all of them.

    Its thread is there while functions are: nothing stays behind in the background. The file is closed before this
    process forks, because SQLite's locks do not survive that; parent and child open it again when they need it.
    A function must decide before it writes: what it raises concerns itself only, unless it is an `sqlite3.Error`.
    """

    def __init__(self, database: Database, timeout: float) -> None:
        self.database = database
        self.timeout = timeout
        self._jobs: deque[_Job] = deque()
        self._state = Condition()
        self._closing = Lock()  # one at a time holds
        self._busy = False  # the thread is there
        self._held = False  # it is to stop: the process forks, or the file is being closed
        _alive.add(self)

    async def do(self, work: Callable[[], T]) -> T:
        """What `work` returns, once it is committed. Raises `CounterUnavailable` where it could not be.

        A call cancelled before its transaction has begun leaves no trace; later, it is carried out to the end.
        """
        loop = running()
        if isinstance(loop, asyncio.AbstractEventLoop):
            return await loop.run_in_executor(self, work)
        import anyio  # only here: importing throttle must stay cheap

        done, told = self.submit(work), anyio.Event()
        done.add_done_callback(lambda _: post(loop, told.set))
        try:
            await told.wait()
        except BaseException:
            done.cancel()
            raise
        return done.result()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run `fn(*args, **kwargs)` in a transaction."""
        job = _Job(lambda: fn(*args, **kwargs), time.monotonic() + self.timeout)
        with self._state:
            self._jobs.append(job)
            self._wake()
        return job.done

    def _wake(self) -> None:
        if self._jobs and not self._busy and not self._held:
            self._busy = True
            try:
                _thread.start_new_thread(self._enter, ())  # Thread.start() would wait for it: the event loop may not
            except RuntimeError as error:  # too many threads, or the interpreter is on its way out
                self._busy = False
                self._fail(CounterUnavailable(f"{self.database.path}: {error}"), None)

    def _enter(self) -> None:  # pragma: no cover  # it is what begins the tracing
        sys.settrace(threading.gettrace())  # for debuggers, as a threading.Thread does
        self._run()

    def _run(self) -> None:
        while True:
            with self._state:
                if self._held or not self._jobs:
                    self._busy = False
                    self._state.notify_all()
                    return
                deadline = self._jobs[0].deadline
            self._transact(deadline)

    def _transact(self, deadline: float) -> None:
        """One transaction for all that wait."""
        try:
            self.database.begin(deadline)
        except Exception as error:
            self._fail(error, time.monotonic() if isinstance(error, Locked) else None)
            return
        with self._state:
            jobs = [job for job in self._jobs if job.done.set_running_or_notify_cancel()]
            self._jobs.clear()
        trouble: Exception | None = None
        try:
            for job in jobs:
                job.run()
            self.database.commit(time.monotonic() + self.timeout)
        except sqlite3.Error as error:
            trouble = self.database.trouble(error)
            trouble.__cause__ = error
        for job in jobs:
            job.tell(trouble)

    def _fail(self, error: Exception, until: float | None) -> None:
        """Tell those who wait that it cannot be done: all, or those whose time was up at `until`."""
        with self._state:
            failed = [job for job in self._jobs if until is None or job.deadline <= until]
            self._jobs = deque(job for job in self._jobs if job not in failed)
        for job in failed:
            if job.done.set_running_or_notify_cancel():
                job.tell(error)

    def hold(self) -> None:
        """Wait for the transaction under way, then close the file and begin no other before `resume`."""
        self._closing.acquire()
        with self._state:
            self._held = True
            self._state.wait_for(lambda: not self._busy)
        self.database.close()

    def resume(self, *, child: bool = False) -> None:
        """Go on; a forked child begins with nothing to do."""
        with self._state:
            self._held = False
            if child:
                self._jobs.clear()
            self._wake()
        self._closing.release()

    def close(self) -> None:
        """Let go of the file, after the transaction under way; the next function opens it again."""
        self.hold()
        self.resume()


_alive: WeakSet[Transactions] = WeakSet()
_forking = Lock()
_held: list[Transactions] = []


def _before_fork() -> None:
    _forking.acquire()
    _held[:] = list(_alive)
    for transactions in _held:
        transactions.hold()
        transactions._state.acquire()  # a lock that another thread had taken would stay taken in the child


def _after_fork(*, child: bool = False) -> None:
    while _held:
        transactions = _held.pop()
        transactions._state.release()
        transactions.resume(child=child)
    _forking.release()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows does not fork
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=lambda: _after_fork(child=True)
    )
