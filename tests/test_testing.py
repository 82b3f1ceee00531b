"""The testing kit: a clock that is moved by hand, a whole program in virtual time, trio's mock clock, `no_waits`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import os
import signal
import socket
import threading
import time
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio
import trio.testing
from worlds import nothing_left

from throttle import Constant, Retry, SlidingWindow, TokenBucket
from throttle.clock import REAL, Clock, current_clock, default_clock, loop_clocks
from throttle.counters import MemoryCounter
from throttle.hints import Hints
from throttle.testing import VirtualClock, no_waits, run_virtual, virtual
from throttle.testing.virtual import RunClock, virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


async def _awaited(program: Any) -> None:
    await program


# ── VirtualClock ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_clock_stands_still_until_it_is_moved() -> None:
    clock = VirtualClock()
    assert clock.now() == 0.0
    clock.advance(1.5)
    clock.advance(0)
    assert clock.now() == 1.5
    assert repr(clock) == "<VirtualClock at 1.5 s>"


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf")])
def test_a_clock_refuses_to_go_anywhere_else(bad: float) -> None:
    clock = VirtualClock()
    with pytest.raises(ValueError, match=str(bad)):
        clock.advance(bad)
    with pytest.raises(ValueError, match=str(bad)):
        asyncio.run(clock.run(bad))
    assert clock.now() == 0.0


@pytest.mark.parametrize("run", [asyncio.run, lambda main: trio.run(_awaited, main)], ids=["asyncio", "trio"])
def test_sleepers_wake_in_order_and_each_runs_before_the_next(run) -> None:
    clock = VirtualClock()
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            seen.append((name, clock.now()))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(sleeper, "a", 2, 2, 2)
            group.start_soon(sleeper, "b", 3)
            group.start_soon(sleeper, "c", 0, -1, 100)
            await clock.run(5)
            assert clock.now() == 5
            assert seen == [("c", 0), ("c", 0), ("a", 2), ("b", 3), ("a", 4)]
            await clock.run(95)
        assert seen[5:] == [("a", 6), ("c", 100)]

    run(main())


def test_advance_only_marks_and_a_cancelled_sleeper_leaves_nothing() -> None:
    async def main() -> None:
        clock = VirtualClock()
        one, two = asyncio.create_task(clock.sleep(1)), asyncio.create_task(clock.sleep(1))
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.sleep(0)
        clock.advance(1)
        assert not two.done()
        await two
        assert one.cancelled()
        assert not clock._sleepers

    asyncio.run(main())


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


# ── run_virtual ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_day_passes_at_once_for_sleeps_timeouts_and_limiters() -> None:
    limiter = TokenBucket("1/h", burst=1)

    async def main(hours: int) -> float:
        loop = asyncio.get_running_loop()
        assert loop.time() == 0.0
        for _ in range(hours + 1):
            await limiter.acquire()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(limiter.acquire(), 60)
        await asyncio.sleep(3600 - 60)
        assert limiter.try_acquire_nowait()
        return loop.time()

    assert run_virtual(main, 24) == 25 * 3600
    assert run_virtual(main, 24) == 25 * 3600  # another clock: it starts full
    assert limiter.try_acquire_nowait()  # and in real time, too


def test_what_the_program_raises_comes_out() -> None:
    async def main() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        run_virtual(main)


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


def test_an_hour_of_a_thousand_tasks_passes_in_seconds_at_most() -> None:
    """36,000 permits in 3,600 s take 0.6 s; the bound is for machines under load, and for coverage."""
    limiter, granted = SlidingWindow("10/s"), 0

    async def main() -> float:
        async def worker() -> None:
            nonlocal granted
            for _ in range(36):
                await limiter.acquire()
                granted += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(1000):
                group.create_task(worker())
        return now()

    began = time.process_time()
    assert run_virtual(main) == 3599
    assert granted == 36_000
    assert time.process_time() - began < 20


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals go to the main thread")
def test_a_signal_is_heard_in_a_busy_program() -> None:
    async def main() -> bool:
        heard = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, heard.set)
        signal.raise_signal(signal.SIGUSR1)
        for _ in range(100):
            await asyncio.sleep(1)
        return heard.is_set()

    assert run_virtual(main)


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


def test_virtual_time_waits_for_a_pipe() -> None:
    async def main() -> tuple[bytes, float]:
        process = await asyncio.create_subprocess_exec("sleep", "0.1", stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        out = await asyncio.wait_for(process.stdout.read(), 60)
        await process.wait()
        return out, asyncio.get_running_loop().time()

    assert run_virtual(main) == (b"", 0.0)


def test_a_server_in_the_same_loop_does_not_stop_time() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        await asyncio.sleep(1000)
        writer.write(b"done")
        writer.close()
        await writer.wait_closed()

    async def main() -> tuple[bytes, float]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            writer.write(b"x")
            answer = await reader.read(100)
            writer.close()
            await writer.wait_closed()
            return answer, asyncio.get_running_loop().time()

    answer, now = run_virtual(main)
    assert answer == b"done"
    assert 1000 <= now < 1001


def test_a_datagram_socket_does_not_stop_time() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        await asyncio.sleep(50)
        transport.close()
        return loop.time()

    assert run_virtual(main) == 50


def test_a_silent_peer_outside_stops_time_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("throttle.testing.virtual._PATIENCE", 0.01)

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
            loop = asyncio.get_running_loop()
            near.setblocking(False)
            loop.add_reader(near, print)
            loop.add_writer(near, lambda: loop.remove_writer(near))  # for reading and writing, then for reading only
            await asyncio.sleep(70)
            loop.remove_reader(near)
        assert now() == 70

    run_virtual(main)


def test_a_connection_under_way_is_waited_for() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        lonely = socket.socket()
        lonely.setblocking(False)
        try:
            loop.add_writer(lonely, lambda: loop.remove_writer(lonely))  # not connected: it is ready with its error
            await asyncio.sleep(5)
            return loop.time()
        finally:
            loop.remove_writer(lonely)
            for one in (near, far, lonely):
                one.close()

    assert run_virtual(main) == 5


# ── trio ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def autojump(main: Any) -> Any:
    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_limiters_retries_and_sleeps_follow_the_mock_clock_of_trio() -> None:
    policy = Retry(on=OSError, attempts=3, timeout=5000, backoff=Constant(1000))

    async def main() -> None:
        limiter = TokenBucket("1/min", burst=1)
        for _ in range(61):
            await limiter.acquire()
        assert trio.current_time() == 3600
        with pytest.raises(OSError, match="gone"):
            await policy.call(fails)
        assert trio.current_time() == 5600
        clock = RunClock()
        clock.advance(400)
        await clock.run(1000)
        assert clock.now() == trio.current_time() == 7000

    async def fails() -> None:
        raise OSError("gone")

    autojump(main)


def test_a_limiter_that_saw_another_clock_starts_full_and_the_default_is_real_again() -> None:
    limiter = SlidingWindow("1/h")
    counter = MemoryCounter()
    shared = TokenBucket("1/h", burst=1, counter=counter, name="n")

    async def main() -> None:
        assert current_clock() is current_clock() is not REAL
        assert not (await limiter.peek(2 - 1)).retry_after
        await limiter.acquire()
        await shared.acquire()
        assert (await limiter.peek()).retry_after == 3600
        await limiter.acquire()
        await shared.acquire()
        assert trio.current_time() == 3600

    autojump(main)
    assert current_clock() is REAL
    gc.collect()
    assert not loop_clocks
    autojump(main)


def test_trio_without_a_mock_clock_is_real() -> None:
    async def main() -> None:
        assert current_clock() is REAL
        with pytest.raises(RuntimeError, match="real clock: give it clock=MockClock"), virtual_time():
            pass

    trio.run(main)


# ── virtual_time, in a loop that runs already ────────────────────────────────────────────────────────────────────────


def test_a_block_of_virtual_time() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        early = loop.call_later(0.0, lambda: None)
        with virtual_time():
            assert loop.time() == 0
            with virtual_time():  # is the same
                await asyncio.sleep(100)
            assert loop.time() == RunClock().now() == 100
            await asyncio.sleep(1e9)
            with pytest.raises(ValueError, match="-1"):
                await RunClock().run(-1)
        assert abs(loop.time() - time.monotonic()) < 5
        assert early.when() > 1
        await asyncio.sleep(0.001)

    asyncio.run(main())


def test_a_default_clock_within_another() -> None:
    outer, inner = VirtualClock(), VirtualClock()
    with default_clock(outer):
        with default_clock(inner):
            assert current_clock() is inner
        assert current_clock() is outer
        assert asyncio.run(_current_clock()) is outer
    assert current_clock() is REAL


async def _current_clock() -> Clock:
    return current_clock()


def test_not_in_a_loop_of_another_kind() -> None:
    class Other(asyncio.AbstractEventLoop):
        pass

    asyncio.events._set_running_loop(Other())
    try:
        with pytest.raises(RuntimeError, match="needs an asyncio loop of the selector kind"), virtual_time():
            pass
    finally:
        asyncio.events._set_running_loop(None)


# ── no_waits, and the real clock ──────────────────────────────────────────────────────────────────────────────────────


def test_no_waits_takes_the_waits_out_of_retries_and_refusals() -> None:
    policy = Retry(on=OSError, attempts=4, backoff=Constant(1000))
    limiter = TokenBucket("1000/s", burst=1000)

    class RefusedError(OSError):
        retry_after = 30.0

    async def main() -> float:
        turns = 0

        async def work() -> int:
            nonlocal turns
            async with limiter.permit() as permit:
                turns += 1
                permit.observe(Hints(refused=True, retry_after=30.0))
                if turns < 4:
                    raise RefusedError
                return turns

        with no_waits(), no_waits():
            assert await policy.call(work) == 4
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 0.0


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


def test_a_call_made_already_is_one_clear_error() -> None:
    async def program() -> None: ...

    with pytest.raises(TypeError, match="run_virtual takes the async function and its arguments, not what calling it"):
        run_virtual(program())  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", ["60", None, True])
def test_a_clock_is_moved_by_a_number(seconds: Any) -> None:
    with pytest.raises(TypeError, match="a clock is advanced by a number of seconds, not"):
        VirtualClock().advance(seconds)


# ── a program that nothing can wake ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def no_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual.threading, "enumerate", lambda: [threading.current_thread()])  # pytest may have some


@pytest.mark.usefixtures("no_other_threads")
def test_a_program_that_nothing_can_wake_is_ended() -> None:
    cleaned: list[float] = []

    async def stuck() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.Event().wait(), name="other")
                await asyncio.sleep(3)
        finally:
            await asyncio.sleep(5)
            cleaned.append(now())

    with pytest.raises(RuntimeError, match=r"nothing can wake .*stuck > .*__aexit__, other in Event.wait$"):
        run_virtual(stuck)
    assert cleaned == [8]


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals go to the main thread")
@pytest.mark.usefixtures("no_other_threads")
def test_signals_and_jobs_may_wake_a_program() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[str] = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, heard.set_result, "heard")
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        await heard
        loop.remove_signal_handler(signal.SIGUSR1)
        return await asyncio.to_thread(lambda: time.sleep(0.05) or "done")

    assert run_virtual(main) == "done"


def test_another_thread_may_wake_a_program() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[str] = loop.create_future()
        thread = threading.Timer(0.05, loop.call_soon_threadsafe, (told.set_result, "told"))
        thread.start()
        return await told

    assert run_virtual(main) == "told"
