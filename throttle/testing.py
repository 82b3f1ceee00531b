"""Time for tests: `VirtualClock`, a clock that a test moves; `run_virtual`, a whole program in virtual time;
`no_waits`."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import selectors
import socket
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, TypeVar, TypeVarTuple

from .calls import no_waits
from .clock import virtual_loop
from .waiting import running

__all__ = ["VirtualClock", "no_waits", "run_virtual"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_QUIET_PASSES = 5  # a loop is quiet when so many passes in a row find every task blocked
_PATIENCE = 5.0  # real seconds that virtual time waits for a silent peer outside this process


class VirtualClock:
    """A clock that stands still until a test moves it: `TokenBucket("10/s", clock=VirtualClock())`. Starts at 0.0 s.

    `advance(seconds)` is a plain function: it moves time and marks the sleepers that are due. `await
    clock.run(seconds)` goes from deadline to deadline and lets each woken task run. For asyncio and trio.

    >>> clock = VirtualClock()
    >>> clock.advance(1.5)
    >>> clock.now()
    1.5
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, int, Any]] = []
        self._count = itertools.count()

    def __repr__(self) -> str:
        return f"<VirtualClock at {self._now} s>"

    def now(self) -> float:
        """Virtual seconds since the clock was made."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Return when the clock has been moved by `seconds`."""
        import anyio
        import anyio.lowlevel

        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        event = anyio.Event()
        sleeper = (self._now + seconds, next(self._count), event)
        heapq.heappush(self._sleepers, sleeper)
        try:
            await event.wait()
        finally:
            if not event.is_set():  # cancelled: nobody sleeps here any more
                self._sleepers.remove(sleeper)
                heapq.heapify(self._sleepers)

    def advance(self, seconds: float) -> None:
        """Move time forward; whoever was to sleep no longer than that is due, and runs when the event loop gets to
        it."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"a clock is advanced by a finite number of seconds of at least 0, not {seconds!r}")
        self._move(self._now + seconds)

    def _move(self, to: float) -> None:
        self._now = max(self._now, to)
        while self._sleepers and self._sleepers[0][0] <= self._now:
            sleeper = heapq.heappop(self._sleepers)[2]
            with suppress(RuntimeError):  # its loop was closed under it
                sleeper.set()

    async def run(self, seconds: float) -> None:
        """Move time forward from deadline to deadline; every task that wakes runs until it waits again."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"a clock runs for a finite number of seconds of at least 0, not {seconds!r}")
        end = self._now + seconds
        await _all_blocked()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._move(self._sleepers[0][0])
            await _all_blocked()
        self._move(end)
        await _all_blocked()


async def _all_blocked() -> None:
    """Let every other task run until it waits for something."""
    if not isinstance(running(), asyncio.AbstractEventLoop):
        import trio.testing

        await trio.testing.wait_all_tasks_blocked()
        return
    me = asyncio.current_task()
    quiet = 0
    while quiet < _QUIET_PASSES:
        await asyncio.sleep(0)
        quiet = 0 if any(task is not me and _runs(task) for task in asyncio.all_tasks()) else quiet + 1


def _runs(task: asyncio.Task[Any]) -> bool:
    # The future a task waits for has no public name; anyio's own test helpers read it in the same way.
    waiter = getattr(task, "_fut_waiter", None)
    return waiter is None or waiter.done()


class _VirtualSelector(selectors.BaseSelector):
    """A selector that does not sleep: where the loop would wait for a timer, time jumps there.

    Sockets and threads run in real time, and virtual time waits for them: for a job in a thread until it is done; for a
    socket whose peer is another process until it speaks (at most 5 real seconds of silence); not for a peer in this
    loop.
    """

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self._unheard = 0
        self.time = 0.0
        self.busy: Callable[[], bool] = bool  # whether a job runs in a thread
        self.jumped: Callable[[float], object] = float  # told where time jumps to

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        alone = len(self._real.get_map()) == 1  # nothing is open but the pipe by which the loop wakes itself
        if timeout is not None and alone and not self.busy():
            self._unheard += 1  # a look at the pipe costs more than a turn of the loop: signals wait for a few turns
            if self._unheard % 16:
                return self._jump(timeout)
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None or self.busy():
            return self._real.select(None if timeout is None else 0.05)
        if not alone and self._waits_for_others():
            ready = self._real.select(_PATIENCE)
            if ready:
                return ready
        return self._jump(timeout)

    def _jump(self, seconds: float) -> list[tuple[selectors.SelectorKey, int]]:
        if seconds > 0:
            self.time += seconds
            self.jumped(self.time)
        return []

    def _waits_for_others(self) -> bool:
        """Whether a pipe, or a connection to somebody outside this loop, is open for reading or writing."""
        ours: set[Any] = set()
        peers: list[Any] = []
        for key in list(self._real.get_map().values()):
            try:
                sock = socket.socket(fileno=key.fd)
            except OSError:
                return True  # a pipe
            try:
                if sock.family in (socket.AF_INET, socket.AF_INET6):
                    ours.add(sock.getsockname())
                    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        peers.append(sock.getpeername())
            except OSError:
                peers += [None] * bool(key.events & selectors.EVENT_WRITE)  # still connecting
            finally:
                sock.detach()
        return any(peer not in ours for peer in peers)


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose time is its selector's, and that knows how many jobs it has in threads."""

    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        super().__init__(self._virtual)
        self._virtual.busy = self._busy
        self._virtual.jumped = self._jumped
        self._jobs = 0
        self._worker_threads: Any = None  # anyio's own, once the program runs

    def _busy(self) -> bool:
        return self._jobs > 0 or (self._worker_threads is not None and self._worker_threads.borrowed_tokens > 0)

    def _jumped(self, to: float) -> None:
        # asyncio runs a timer when time is past it by this; after months, floats are coarser than its nanosecond.
        self._clock_resolution = max(1e-9, math.ulp(to))

    def time(self) -> float:
        return self._virtual.time

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        job = super().run_in_executor(executor, func, *args)
        self._jobs += 1
        job.add_done_callback(self._job_done)
        return job

    def _job_done(self, _: asyncio.Future[Any]) -> None:
        self._jobs -= 1

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        self._jobs += 1  # joining its threads takes real time
        try:
            await super().shutdown_default_executor()
        finally:
            self._jobs -= 1

    async def main(self, program: Callable[..., Awaitable[T]], *args: Any) -> T:
        import anyio.to_thread

        self._worker_threads = anyio.to_thread.current_default_thread_limiter()
        return await program(*args)


def run_virtual(program: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run `await program(*args)` on an asyncio loop of its own in virtual time, and return its result.

    Where every task waits, time jumps to the next deadline: hours pass in milliseconds. `asyncio.sleep`, timeouts and
    every limiter on the default clock follow, counting from 0.0 s. Sockets and threads run in real time, and virtual
    time waits for them.

    >>> async def nap():
    ...     await asyncio.sleep(3600)
    ...     return asyncio.get_running_loop().time()
    >>> run_virtual(nap)
    3600.0
    """
    if running() is not None:
        raise RuntimeError("run_virtual runs a loop of its own: not while another event loop is running here")
    loop = _VirtualLoop()
    with virtual_loop(loop), asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(loop.main(program, *args))
