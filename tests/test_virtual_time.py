"""The testing kit: a clock that is moved by hand, a whole program in virtual time, retries without their waits."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import anyio
import anyio.to_thread
import pytest
import trio

from throttle import Constant, Retry, TokenBucket
from throttle.hints import Hints
from throttle.testing import VirtualClock, no_waits, run_virtual

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


@pytest.mark.parametrize("to_thread", [asyncio.to_thread, anyio.to_thread.run_sync])
def test_virtual_time_waits_for_threads(to_thread) -> None:
    async def main() -> float:
        nap = asyncio.create_task(asyncio.sleep(10))
        await to_thread(time.sleep, 0.1)
        assert not nap.done()
        early = asyncio.get_running_loop().time()
        await nap
        return early

    assert run_virtual(main) == 0.0


def test_virtual_time_waits_for_a_server_outside() -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def answer_slowly() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(100)
            time.sleep(0.3)
            connection.sendall(b"late")

    async def main() -> tuple[bytes, float]:
        reader, writer = await asyncio.open_connection(*server.getsockname()[:2])
        writer.write(b"hello")
        answer = await asyncio.wait_for(reader.read(100), 5)
        writer.close()
        await writer.wait_closed()
        return answer, asyncio.get_running_loop().time()

    thread = threading.Thread(target=answer_slowly)
    thread.start()
    try:
        assert run_virtual(main) == (b"late", 0.0)
    finally:
        thread.join()
        server.close()


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


# ── no_waits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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


async def _awaited(program) -> None:
    await program
