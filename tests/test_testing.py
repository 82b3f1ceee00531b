"""More of virtual time: order, long programs, executors, peers outside; and the clocks underneath."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import anyio
import pytest
import trio
from worlds import nothing_left

from throttle import TokenBucket
from throttle.calls import waits_are_off
from throttle.clock import REAL, Clock, ticks_of, wait_of
from throttle.testing import VirtualClock, no_waits, run_virtual


def now() -> float:
    return asyncio.get_running_loop().time()


# ── VirtualClock ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_run_goes_from_deadline_to_deadline() -> None:
    clock, log = VirtualClock(), []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            log.append((name, clock.now()))

    async with anyio.create_task_group() as group:
        group.start_soon(sleeper, "a", 1, 1, 0, 1)
        group.start_soon(sleeper, "b", 1.5, 5)
        group.start_soon(sleeper, "c", 100)
        await clock.run(3)
        assert clock.now() == 3
        assert log == [("a", 1), ("b", 1.5), ("a", 2), ("a", 2), ("a", 3)]
        group.cancel_scope.cancel()
    assert clock._sleepers == []


@pytest.mark.anyio
async def test_advance_marks_those_due_who_run_when_the_loop_gets_to_it() -> None:
    clock, log = VirtualClock(), []

    async def sleeper(nap: float) -> None:
        await clock.sleep(nap)
        log.append((nap, clock.now()))

    async with anyio.create_task_group() as group:
        for nap in (3, 1, 2):
            group.start_soon(sleeper, nap)
        await clock.run(0)
        clock.advance(2)
        assert log == []
        await clock.run(0)
        assert sorted(log) == [(1, 2), (2, 2)]
        clock.advance(1)
    assert len(log) == 3


@pytest.mark.anyio
async def test_the_clock_runs_while_others_spin_for_a_while() -> None:
    clock, log = VirtualClock(), []

    async def chain(depth: int) -> None:
        for _ in range(depth):
            await anyio.lowlevel.checkpoint()
        await clock.sleep(1)
        log.append(clock.now())

    async with anyio.create_task_group() as group:
        group.start_soon(chain, 40)
        await clock.run(1)
        assert log == [1]


# ── run_virtual ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_not_inside_another_loop() -> None:
    async def main() -> None:
        run_virtual(asyncio.sleep, 1)

    with pytest.raises(RuntimeError, match="loop is running"):
        asyncio.run(main())


def test_timeouts_and_limiters() -> None:
    async def main() -> None:
        limiter = TokenBucket("1/min", burst=1)
        await limiter.acquire()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(limiter.acquire(), 59.9)
        assert now() == pytest.approx(59.9)
        with anyio.move_on_after(0.2):
            await limiter.acquire()
        assert now() == 60
        with anyio.move_on_after(1) as scope:
            await anyio.sleep(2)
        assert scope.cancelled_caught
        assert now() == 61

    run_virtual(main)


def test_late_in_a_very_long_program() -> None:
    """Where floats are coarser than a nanosecond, time still gets on."""

    async def main() -> float:
        await asyncio.sleep(3e9)
        limiter = TokenBucket("3/s", burst=1)
        for _ in range(10):
            await limiter.acquire()
        return now() - 3e9

    assert run_virtual(main) == pytest.approx(3, abs=1e-5)


@pytest.mark.parametrize("call", [asyncio.to_thread, anyio.to_thread.run_sync])
def test_time_waits_for_threads(call: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(5):
            await call(time.sleep, 0.05)
        assert now() == 0
        job = asyncio.ensure_future(call(time.sleep, 0.05))
        ticker = asyncio.create_task(asyncio.sleep(3))
        await job
        assert not ticker.done()
        assert now() == 0
        await ticker
        assert now() == 3

    run_virtual(main)


def test_an_executor_of_its_own_and_one_that_fails() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert await loop.run_in_executor(pool, pow, 2, 3) == 8
            with pytest.raises(ZeroDivisionError):
                await loop.run_in_executor(None, divmod, 1, 0)
        assert now() == 0

    run_virtual(main)


@contextlib.contextmanager
def slow_server(delay: float) -> Any:
    """A real server in a thread of this process: it answers after `delay` real seconds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(100)
                        time.sleep(delay)
                        connection.sendall(b"hello")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_time_waits_for_a_peer_outside_the_loop() -> None:
    async def main(port: int) -> None:
        async with asyncio.timeout(5):  # virtual seconds: it must not fire while the server takes its real time
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello?")
            assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()
        assert now() == 0
        await asyncio.sleep(100)

    with slow_server(0.2) as port:
        run_virtual(main, port)


def test_a_connection_that_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="Connect"):
            await asyncio.open_connection("127.0.0.1", 9)

    run_virtual(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 waits for children in threads that a loop does not know")
def test_a_child_process() -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "import time; time.sleep(0.1); print('hi')", stdout=subprocess.PIPE
            )
            assert (await child.communicate())[0].strip() == b"hi"

    run_virtual(main)


# ── clocks underneath ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_real_clock() -> None:
    assert isinstance(REAL, Clock)
    assert abs(REAL.epoch() + REAL.now() - time.time()) < 1
    assert abs(REAL.now() - time.monotonic()) < 1

    async def nap() -> float:
        began = anyio.current_time()
        await REAL.sleep(0.01)
        return anyio.current_time() - began

    assert asyncio.run(nap()) >= 0.009
    assert trio.run(nap) >= 0.009


@pytest.mark.parametrize("moment", [0.0, 0.1, 1 / 3, 1e6 + 0.7, 1.7e9])
@pytest.mark.parametrize("ticks", [0, 1, 17, 10**9 // 3, 10**12])
def test_never_early_and_hardly_late(moment: float, ticks: int) -> None:
    due = ticks_of(moment) + ticks
    wait = wait_of(moment, due)
    assert ticks_of(moment + wait) >= due
    assert wait <= ticks / 1e9 + 2 * math.ulp(moment + wait) + 1e-9
    assert wait_of(moment, due - 10**13) == 0


def test_no_waits() -> None:
    assert not waits_are_off()
    with no_waits(), no_waits():
        assert waits_are_off()
    assert not waits_are_off()


def test_no_waits_keeps_rates_and_pauses_nothing() -> None:
    async def main() -> None:
        from throttle.hints import Hints

        limiter = TokenBucket("1/s", burst=1)
        with no_waits():
            async with limiter.permit() as permit:
                permit.observe(Hints(refused=True, retry_after=50))
            await limiter.acquire()
        assert now() == 1
        assert nothing_left(limiter)

    run_virtual(main)
