"""One limiter on several event loops in several threads at once, and what is left of loops that were closed."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio
from worlds import KINDS, core_of, nothing_left

from throttle import AllOf, SlidingWindow, TokenBucket
from throttle.guard import Guard
from throttle.testing import VirtualClock, run_virtual


def in_thread(function: Callable[..., Any], *args: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


class LiveLoop:
    """An asyncio loop that runs in a thread of its own."""

    def __enter__(self) -> LiveLoop:
        self.loop = asyncio.new_event_loop()
        self.thread = in_thread(self.loop.run_forever)
        return self

    def start(self, awaitable: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(awaitable, self.loop)

    def settle(self) -> None:
        for _ in range(3):
            self.start(asyncio.sleep(0)).result(10)

    def __exit__(self, *exc: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Log:
    """Who was granted, in which order."""

    def __init__(self, limiter: Any) -> None:
        self.limiter = limiter
        self.granted: list[tuple[Any, float]] = []

    async def wait(self, name: Any, *args: Any, **options: Any) -> None:
        await self.limiter.acquire(*args, **options)
        self.granted.append((name, time.monotonic()))


def test_two_loops_take_turns_and_never_exceed_the_limit() -> None:
    limiter = SlidingWindow("10/400ms")
    log = Log(limiter)

    def run(name: str, play: Callable[[Any], Any]) -> None:
        async def main() -> None:
            for number in range(40):
                await log.wait((name, number))

        play(main)

    threads = [in_thread(run, "asyncio", lambda main: asyncio.run(main())), in_thread(run, "trio", trio.run)]
    for thread in threads:
        thread.join(30)
    times = [at for _, at in log.granted]
    assert len(times) == 80
    assert all(later - earlier > 0.3 for earlier, later in zip(times, times[10:], strict=False))  # as they woke
    for loop in ("asyncio", "trio"):
        assert [number for (name, number), _ in log.granted if name == loop] == list(range(40))
    assert nothing_left(limiter)


def test_first_come_first_served_across_loops() -> None:
    limiter = TokenBucket("100/s", burst=1)
    limiter.try_acquire_nowait()
    limiter.pause(0.2)
    log = Log(limiter)
    with LiveLoop() as one, LiveLoop() as two:
        futures = []
        for name in range(10):
            loop = (one, two)[name % 2]
            futures.append(loop.start(log.wait(name)))
            loop.settle()
        for future in futures:
            future.result(10)
    assert [name for name, _ in sorted(log.granted, key=lambda entry: round(entry[1], 3))] == list(range(10))
    assert nothing_left(limiter)


def test_cancelled_on_one_loop_and_granted_on_the_other() -> None:
    limiter = TokenBucket("1/min", burst=5)
    limiter.try_acquire_nowait(4)
    log = Log(limiter)
    with LiveLoop() as one, LiveLoop() as two:
        big = one.start(log.wait("big", 5))
        one.settle()
        small = two.start(log.wait("small"))
        two.settle()
        assert log.granted == []
        big.cancel()
        small.result(10)
        one.settle()
    assert nothing_left(limiter)


def test_a_refund_or_a_pause_pokes_the_other_loop() -> None:
    limiter = TokenBucket("1/min", burst=5)
    limiter.try_acquire_nowait(5)
    log = Log(limiter)
    with LiveLoop() as one, LiveLoop() as two:
        waiter, hasty = one.start(log.wait("waiter", 2)), one.start(log.wait("hasty", 1, max_wait=200))
        one.settle()
        two.start(limiter.refund(2)).result(10)
        waiter.result(10)
        in_thread(limiter.pause, 1000).join()  # where no loop runs at all
        assert type(hasty.exception(10)).__name__ == "WaitTooLong"
    assert nothing_left(limiter)


def test_two_loops_under_a_combined_limiter() -> None:
    one, two = TokenBucket("200/s", burst=2), TokenBucket("200/s", burst=2)
    there, back = AllOf(one, two), AllOf(two, one)
    logs = [Log(there), Log(back), Log(one)]

    def run(log: Log) -> None:
        async def main() -> None:
            await asyncio.gather(*(log.wait(number) for number in range(20)))

        asyncio.run(main())

    for thread in [in_thread(run, log) for log in logs]:
        thread.join(30)
    assert [len(log.granted) for log in logs] == [20, 20, 20]
    assert nothing_left(there, back)


def test_a_storm_of_threads() -> None:
    limiter = SlidingWindow("500/h")
    taken: list[int] = []

    def storm() -> None:
        taken.append(sum(limiter.try_acquire_nowait().allowed for _ in range(300)))

    for thread in [in_thread(storm) for _ in range(8)]:
        thread.join()
    assert sum(taken) == 500


# ── loops that were closed ──────────────────────────────────────────────────────────────────────────────────────


def abandoned(program: Callable[[], Awaitable[Any]]) -> None:
    """Run `program` until it waits, and close its loop under it."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it complains about tasks that are never done
    tasks = [loop.create_task(program())]
    for _ in range(5):
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    for task in tasks:
        task._log_destroy_pending = False


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_waiters_of_a_closed_loop_count_as_cancelled(kind: str) -> None:
    limiter = KINDS[kind]()

    async def wait() -> None:
        await limiter.acquire(4)

    limiter.try_acquire_nowait(2)
    abandoned(wait)
    assert limiter.try_acquire_nowait(1).allowed  # nobody waits
    abandoned(wait)
    asyncio.run(limiter.acquire(1))
    gc.collect()
    assert nothing_left(limiter)


def test_a_granted_waiter_of_a_closed_loop_gives_back() -> None:
    limiter = TokenBucket("1/h", burst=2)
    limiter.try_acquire_nowait(2)
    loop = asyncio.new_event_loop()
    task = loop.create_task(limiter.acquire(2))
    loop.run_until_complete(asyncio.sleep(0))
    refund = limiter.refund(2)
    with pytest.raises(StopIteration):
        refund.send(None)  # it is granted, and never told
    loop.close()
    task._log_destroy_pending = False
    assert not limiter.try_acquire_nowait().allowed
    del task, loop
    gc.collect()
    assert limiter.try_acquire_nowait(2).allowed
    assert nothing_left(limiter)


def test_what_was_granted_under_another_clock_is_given_back_to_nobody() -> None:
    limiter = TokenBucket("1/h", burst=2)
    limiter.try_acquire_nowait(2)
    loop = asyncio.new_event_loop()
    task = loop.create_task(limiter.acquire(2))
    loop.run_until_complete(asyncio.sleep(0))
    refund = limiter.refund(2)
    with pytest.raises(StopIteration):
        refund.send(None)
    loop.close()
    task._log_destroy_pending = False

    async def later() -> float:
        await limiter.acquire(2)
        return (await limiter.peek()).remaining

    async def collected() -> float:
        nonlocal task, loop
        assert await later() == 0
        del task, loop
        gc.collect()
        return (await limiter.peek()).remaining

    assert run_virtual(collected) == 0
    assert nothing_left(limiter)


def test_waiters_of_a_closed_loop_on_a_clock_of_their_own() -> None:
    clock = VirtualClock()
    limiter = TokenBucket("1/s", burst=1, clock=clock)
    limiter.try_acquire_nowait()
    abandoned(limiter.acquire)
    clock.advance(1)
    assert limiter.try_acquire_nowait()
    gc.collect()
    assert nothing_left(limiter)


@pytest.mark.parametrize("by", ["permit", "limiter"])
def test_a_block_of_a_closed_loop_ends_with_it(by: str) -> None:
    limiter = SlidingWindow("1/10s", hold=True)

    async def block() -> None:
        async with limiter.permit() if by == "permit" else limiter:
            await asyncio.sleep(1000)

    abandoned(block)
    gc.collect()
    assert nothing_left(limiter)
    decision = limiter.try_acquire_nowait()
    assert not decision.allowed
    assert decision.exact


def test_a_coroutine_collected_under_the_lock_does_not_wait_for_it() -> None:
    limiter = TokenBucket("1/h", burst=1)
    limiter.try_acquire_nowait()
    abandoned(functools.partial(limiter.acquire, 1))
    core = core_of(limiter)
    with core as now:
        for gate in list(core.gates.values()):
            gate.bury(now, None)
        gc.collect()  # as the collector may do by itself at any allocation
    assert nothing_left(limiter)
    assert core.gates == {}


def test_a_closed_generator_ends_its_block_at_once() -> None:
    async def main() -> None:
        limiter = SlidingWindow("1/s", hold=True)

        async def items() -> Any:
            async with limiter.permit():
                yield 1
                yield 2

        generator = items()
        async for _ in generator:
            break
        waiter = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(5)
        assert not waiter.done()
        await generator.aclose()
        await waiter
        assert asyncio.get_running_loop().time() == 6
        assert nothing_left(limiter)

    run_virtual(main)


def test_a_waiter_that_is_closed_by_hand() -> None:
    async def main() -> None:
        clock = VirtualClock()
        for options in ({}, {"clock": clock}):
            limiter = TokenBucket("1/s", burst=1, **options)
            await limiter.acquire()
            hand = limiter.acquire()
            hand.send(None)
            next_one = asyncio.create_task(limiter.acquire())
            await asyncio.sleep(0)
            hand.close()
            await asyncio.sleep(0)
            await (clock.run(1) if options else asyncio.sleep(1))
            await asyncio.sleep(0)
            assert next_one.done()
            assert nothing_left(limiter)

    run_virtual(main)


def test_old_coroutines_do_not_switch_the_clock() -> None:
    """What a closed virtual loop leaves is collected while another one runs: its limiter keeps its counts."""
    limiter = SlidingWindow("3/s", hold=True)

    async def hold() -> None:
        async with limiter.permit():
            await asyncio.sleep(1000)

    async def later() -> None:
        await limiter.acquire(2)
        gc.collect()
        assert (await limiter.peek()).remaining == 1

    async def first() -> None:
        global kept
        kept = hold()
        kept.send(None)

    run_virtual(first)
    run_virtual(drop_and(later))
    assert nothing_left(limiter)


kept: Any = None


def drop_and(program: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        global kept
        task = asyncio.ensure_future(program())
        await asyncio.sleep(0)
        kept.close()
        kept = None
        await task

    return run


# ── the guard ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_jobs_left_for_later_are_done_by_who_holds_the_lock() -> None:
    guard = Guard()
    done: list[str] = []
    with guard:
        in_thread(guard.later, lambda: done.append("a")).join()
        guard.later(lambda: done.append("b"))
        assert done == []
    assert done == ["a", "b"]
    guard.later(lambda: done.append("c"))
    assert done == ["a", "b", "c"]


def test_no_code_of_users_runs_under_the_lock() -> None:
    class Nosy:
        def __init__(self) -> None:
            self.looked = False

        def now(self) -> float:
            guard = core_of(limiter).guard if limiter is not None else None
            self.looked = guard is not None
            if guard is not None:
                with guard:  # would wait for ever
                    pass
            return 0.0

        async def sleep(self, seconds: float) -> None:
            raise NotImplementedError

    limiter: Any = None
    clock = Nosy()
    limiter = TokenBucket("1/s", clock=clock)
    assert limiter.try_acquire_nowait().allowed
    limiter.pause(1)
    assert clock.looked


@pytest.mark.anyio
async def test_pause_and_reset_from_another_thread() -> None:
    limiter = TokenBucket("1000/s", burst=1)
    limiter.try_acquire_nowait()
    limiter.pause(1000)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(limiter.acquire)
            await anyio.sleep(0.02)
            in_thread(limiter.pause, 2000).join()
            in_thread(lambda: asyncio.run(limiter.reset())).join()
    assert nothing_left(limiter)


def test_the_line_of_a_closed_loop_is_forgotten_while_other_keys_are_used() -> None:
    """Its waiters are kept alive by the line itself: nothing would collect them."""
    limiter = TokenBucket("1/h", burst=1)
    limiter.try_acquire_nowait(key="idle")
    abandoned(functools.partial(limiter.acquire, key="idle"))
    assert core_of(limiter).gates
    limiter.try_acquire_nowait()
    assert core_of(limiter).gates == {}
