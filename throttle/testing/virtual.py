"""`run_virtual`, a whole program in virtual time, and `virtual_time`, the same for a loop that runs already."""

from __future__ import annotations

import asyncio
import inspect
import math
import selectors
import socket
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple

from ..clock import REAL, LoopClock, current_clock, default_clock
from ..loops import running
from .clocks import VirtualClock, all_blocked, check_seconds

__all__ = ["RunClock", "run_virtual", "virtual_time"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_FINE = 4e6  # virtual seconds until which a float tells nanoseconds
_PATIENCE = 5.0  # real seconds that virtual time waits for a silent peer outside this process


class _VirtualSelector(selectors.BaseSelector):
    """A selector that does not sleep: where the loop would wait for a timer, time jumps there.

    Sockets and threads run in real time, and virtual time waits for them: for a job in a thread until it is done; for a
    socket whose peer is another process until it speaks (at most 5 real seconds of silence); not for a peer in this
    loop.
    """

    def __init__(self, loop: Any, busy: Callable[[], bool]) -> None:
        self._loop = loop
        self.real: selectors.BaseSelector = loop._selector
        self._busy = busy  # whether a job runs in a thread
        self.ends = False  # whether a program that nothing can wake is ended
        self._unheard = 0
        self.time: float = 0.0

    def now(self) -> float:
        """Virtual seconds; stands in for the loop's `time`."""
        return self.time

    def jump(self, seconds: float) -> None:
        """Move time."""
        self.time += seconds
        if self.time > _FINE:  # asyncio runs a timer when time is past it by this; floats are coarser from here on
            self._loop._clock_resolution = math.ulp(self.time)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self.real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self.real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self.real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self.real.get_map()

    def close(self) -> None:
        self.real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        alone = len(self.real.get_map()) == 1  # nothing is open but the pipe by which the loop wakes itself
        if timeout is not None and alone and not self._busy():
            self._unheard += 1  # a look at the pipe costs more than a turn of the loop: signals wait for a few turns
            if self._unheard % 16:
                self.jump(max(timeout, 0.0))
                return []
        ready = self.real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None and alone and self.ends and self._lost():
            raise RuntimeError(f"nothing can wake this program any more; what waits: {_waiting(self._loop)}")
        if timeout is None or self._busy():
            return self.real.select(None if timeout is None else 0.05)
        if not alone and self._waits_for_others():
            ready = self.real.select(_PATIENCE)
            if ready:
                return ready
        self.jump(timeout)
        return []

    def _lost(self) -> bool:
        """Whether it is certain that nobody will write to that pipe: no job, no other thread, no signal."""
        others = any(thread is not threading.current_thread() for thread in threading.enumerate())
        return not (others or self._busy() or getattr(self._loop, "_signal_handlers", None))

    def _waits_for_others(self) -> bool:
        """Whether a pipe, or a connection to somebody outside this loop, is open for reading or writing."""
        ours: set[Any] = set()
        peers: list[Any] = []
        for key in list(self.real.get_map().values()):
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


def _waiting(loop: Any) -> str:
    """The tasks of a loop, and what each of them awaits."""
    told: list[str] = []
    for task in asyncio.all_tasks(loop):
        names: list[str] = []
        step: Any = task.get_coro()
        while hasattr(step, "cr_code"):
            names.append(step.cr_code.co_qualname)
            step = step.cr_await
        told.append(f"{task.get_name()} in {' > '.join(names)}")
    return ", ".join(sorted(told))


class _VirtualTime:
    """Virtual time for one asyncio loop of the selector kind: its clock, its selector, and its jobs in threads.

    All is put on the one loop and taken off again, so that a loop that somebody else made can have it, too.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._jobs = 0
        self._worker_threads: Any = None  # anyio's own, once it was asked for
        self._selector = _VirtualSelector(loop, self._busy)
        self._resolution = loop._clock_resolution
        self._run_in_executor, self._shutdown = loop.run_in_executor, loop.shutdown_default_executor

    def jump(self, seconds: float) -> None:
        """Move time."""
        self._selector.jump(seconds)

    def put_on(self) -> None:
        """From here on the loop's time is virtual, from 0.0 s."""
        loop = self._loop
        loop._selector, loop.time = self._selector, self._selector.now
        loop.run_in_executor, loop.shutdown_default_executor = self._in_executor, self._shut_down

    def end_if_lost(self) -> None:
        """A program that nothing can wake any more is ended, by a `RuntimeError`."""
        self._selector.ends = True

    def take_off(self) -> None:
        """The loop's time is real again."""
        loop = self._loop
        loop._selector = self._selector.real
        loop._clock_resolution = self._resolution
        del loop.time, loop.run_in_executor, loop.shutdown_default_executor

    def _busy(self) -> bool:
        return self._jobs > 0 or (self._worker_threads is not None and self._worker_threads.borrowed_tokens > 0)

    def watch_threads(self) -> None:
        """Within the loop: wait for anyio's worker threads, too."""
        import anyio.to_thread

        self._worker_threads = anyio.to_thread.current_default_thread_limiter()

    def _in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        job: asyncio.Future[T] = self._run_in_executor(executor, func, *args)
        self._jobs += 1
        job.add_done_callback(self._job_done)
        return job

    def _job_done(self, _: asyncio.Future[Any]) -> None:
        self._jobs -= 1

    async def _shut_down(self, timeout: float | None = None) -> None:
        self._jobs += 1  # joining its threads takes real time
        try:
            await self._shutdown()
        finally:
            self._jobs -= 1


_times: dict[Any, _VirtualTime] = {}  # of the loops that have virtual time


@contextmanager
def _virtual(loop: Any) -> Generator[_VirtualTime]:
    if not hasattr(loop, "_selector"):
        raise RuntimeError(f"virtual time needs an asyncio loop of the selector kind, not {loop!r}")
    time = _times[loop] = _VirtualTime(loop)
    time.put_on()
    try:
        with default_clock(LoopClock(loop), loop):
            yield time
    finally:
        time.take_off()
        del _times[loop]


@contextmanager
def virtual_time() -> Generator[None]:
    """A block in which the running loop's time is virtual, from 0.0 s; on trio it is checked that a `MockClock` drives.

    What was scheduled before the block is far in its future. Raises `RuntimeError` for a loop that cannot.
    """
    loop = running()
    if not isinstance(loop, asyncio.AbstractEventLoop):
        if current_clock() is REAL:  # this look also tells limiters that were made before
            raise RuntimeError("this trio run is on the real clock: give it clock=MockClock(autojump_threshold=0)")
        yield
        return
    if loop in _times:
        yield
        return
    with _virtual(loop) as time:
        time.watch_threads()
        yield


class RunClock(VirtualClock):
    """The virtual time of the running loop (`run_virtual`, `virtual_time`, trio's `MockClock`) as a `VirtualClock`."""

    def __repr__(self) -> str:
        return "<the virtual time of the running loop>"

    def now(self) -> float:
        """Virtual seconds of this run."""
        return current_clock().now()

    async def sleep(self, seconds: float) -> None:
        """Sleep in virtual time."""
        await current_clock().sleep(seconds)

    def advance(self, seconds: float) -> None:
        """Move time forward; what is due runs when the event loop gets to it."""
        check_seconds(seconds, "is advanced by")
        loop = running()
        if isinstance(loop, asyncio.AbstractEventLoop):
            _times[loop].jump(seconds)
        else:
            import trio

            trio.lowlevel.current_clock().jump(seconds)  # type: ignore[attr-defined]  # a MockClock

    async def run(self, seconds: float) -> None:
        """Let `seconds` pass; every task that wakes runs until it waits again."""
        check_seconds(seconds, "runs for")
        await self.sleep(seconds)
        await all_blocked()


def run_virtual(program: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run `await program(*args)` on an asyncio loop of its own in virtual time, and return its result.

    Where every task waits, time jumps to the next deadline: hours pass in milliseconds. `asyncio.sleep`, timeouts and
    every limiter on the default clock follow, counting from 0.0 s. Sockets and threads run in real time, and virtual
    time waits for them. Where nothing can wake any task any more, `RuntimeError` tells what each of them awaits (not
    while another thread runs, which perhaps could).

    >>> async def nap():
    ...     await asyncio.sleep(3600)
    ...     return asyncio.get_running_loop().time()
    >>> run_virtual(nap)
    3600.0
    """
    given: Any = program
    if inspect.iscoroutine(given):
        given.close()  # or Python complains, too, that it was never awaited
        raise TypeError(f"run_virtual takes the async function and its arguments, not what calling it gave: {given!r}")
    if running() is not None:
        raise RuntimeError("run_virtual runs a loop of its own: not while another event loop is running here")
    loop = asyncio.SelectorEventLoop()

    async def main() -> T:
        time.watch_threads()
        return await program(*args)

    with _virtual(loop) as time, asyncio.Runner(loop_factory=lambda: loop) as runner:
        time.end_if_lost()
        return runner.run(main())
