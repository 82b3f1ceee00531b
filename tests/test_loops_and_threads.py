"""One limiter on several loops in several threads, on loops that were closed under it, and under combined limiters."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from throttle import AllOf, CostExceedsBurst, SlidingWindow, TokenBucket, WaitTooLong
from throttle.hints import Hints, Quota
from throttle.testing import VirtualClock, run_virtual

_left: list[asyncio.Future[None]] = []  # tasks whose loops are closed under them


class Elsewhere:
    """An event loop in a thread of its own."""

    def __enter__(self) -> Elsewhere:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        return self

    def start(self, work: Callable[[], Awaitable[object]]):
        async def run() -> object:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop)

    def __exit__(self, *exc: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


def until(true: Callable[[], bool]) -> None:
    """Give other threads up to 5 s."""
    for _ in range(5000):
        if true():
            return
        time.sleep(0.001)
    raise AssertionError("it did not happen")


def waiting(limiter: TokenBucket) -> int:
    gate = limiter._core.gates.get("")
    return len(gate.line) if gate else 0


def test_two_live_loops_share_one_line_and_never_pass_the_limit() -> None:
    limiter = TokenBucket("200/s", burst=5)
    times: list[float] = []

    async def worker() -> None:
        for _ in range(20):
            await limiter.acquire()
            times.append(time.monotonic())

    with Elsewhere() as one, Elsewhere() as two:
        start = time.monotonic()
        works = [loop.start(worker) for loop in (one, two) for _ in range(2)]
        for work in works:
            work.result(20)
    assert len(times) == 80
    for count, at in enumerate(sorted(times), 1):
        assert count <= 5 + 200 * (at - start) + 1
    assert not limiter._core.gates


def test_room_made_here_wakes_the_waiters_there() -> None:
    limiter = TokenBucket("1/h", burst=1)
    assert limiter.try_acquire_nowait()
    with Elsewhere() as one, Elsewhere() as two:
        first = one.start(limiter.acquire)
        until(lambda: waiting(limiter) == 1)
        second = two.start(limiter.acquire)
        until(lambda: waiting(limiter) == 2)
        limiter.reconfigure("1/h", burst=3)  # from a thread without a loop: tokens = new burst - used
        first.result(10)
        second.result(10)
    assert not limiter.try_acquire_nowait()


def test_a_waiter_there_is_refused_from_here() -> None:
    limiter = TokenBucket("1/h", burst=5)
    assert limiter.try_acquire_nowait(5)
    with Elsewhere() as one:
        waiter = one.start(lambda: limiter.acquire(5))
        until(lambda: waiting(limiter) == 1)
        limiter.reconfigure("1/h", burst=2)
        with pytest.raises(CostExceedsBurst):
            waiter.result(10)


def test_the_waiters_of_a_closed_loop_count_as_cancelled() -> None:
    limiter = TokenBucket("1000/s", burst=1)
    loop = asyncio.new_event_loop()

    async def leave_waiting() -> None:
        limiter.pause(0.05)
        for _ in range(3):
            _left.append(asyncio.ensure_future(limiter.acquire()))
        await asyncio.sleep(0)

    loop.run_until_complete(leave_waiting())
    tasks = asyncio.all_tasks(loop)
    assert waiting(limiter) == 3
    loop.close()

    async def newcomer() -> int:
        await asyncio.wait_for(limiter.acquire(), 10)
        return waiting(limiter)

    assert asyncio.run(newcomer()) == 0
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # its loop is gone, as meant
        task.get_coro().close()  # type: ignore[union-attr]
    del tasks
    gc.collect()
    assert not limiter._core.gates


def test_threads_without_loops_share_a_limit() -> None:
    limiter = SlidingWindow("100/h")
    granted: list[int] = []

    def storm() -> None:
        granted.append(sum(bool(limiter.try_acquire_nowait()) for _ in range(500)))

    threads = [threading.Thread(target=storm) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 100


def test_waiting_needs_a_loop() -> None:
    limiter = TokenBucket("1/h", burst=1)
    limiter.try_acquire_nowait()
    coroutine = limiter.acquire()
    with pytest.raises(RuntimeError, match="needs a running asyncio or trio event loop"):
        coroutine.send(None)
    assert waiting(limiter) == 0


# ── combined limiters ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_costs_by_name_and_a_member_that_is_none() -> None:
    limiter = AllOf(requests=TokenBucket("10/s"), tokens=TokenBucket("100/s"))
    with pytest.raises(ValueError, match=r"cost names 'token', which is no member; members are \['requests'"):
        limiter.try_acquire_nowait({"token": 5})


def test_a_quota_named_like_a_member_goes_to_that_member() -> None:
    async def main() -> None:
        requests, tokens = TokenBucket("10/s"), TokenBucket("100/s")
        limiter = AllOf(requests=requests, tokens=tokens)
        spent = Quota(name="tokens", limit=100, remaining=0, reset_after=5.0)
        async with limiter.permit({"tokens": 10}) as permit:
            permit.observe(Hints(wait=5.0, quotas=(spent,)))
        assert requests.try_acquire_nowait().allowed
        assert tokens.try_acquire_nowait().retry_after == 5.0
        assert limiter.try_acquire_nowait({"tokens": 0}).allowed
        assert limiter.try_acquire_nowait().retry_after == 5.0
        permit.observe(Hints(refused=True, wait=5.0, quotas=(spent,)))
        assert limiter.try_acquire_nowait().retry_after == 5.0

    run_virtual(main)


def test_combined_limiters_stand_in_each_other_and_a_member_stands_in_once() -> None:
    clock = VirtualClock()
    total, each = TokenBucket("2/s", clock=clock), TokenBucket("1/s", clock=clock)
    limiter = AllOf(AllOf(total["all"], each), SlidingWindow("9/s", clock=clock))
    assert limiter.try_acquire_nowait(key="a")
    assert not limiter.try_acquire_nowait(key="a")
    assert limiter.try_acquire_nowait(key="b")
    assert not limiter.try_acquire_nowait(key="c")
    with pytest.raises(ValueError, match="is a member twice"):
        AllOf(total, total)
    with pytest.raises(ValueError, match="is a member twice"):
        AllOf(AllOf(total["x"]), total["x"])
    assert AllOf(AllOf(each)["k"], total)["other"].try_acquire_nowait()
    assert not each.try_acquire_nowait(key="k")


def test_a_smaller_burst_of_a_member_refuses_who_waits_for_all() -> None:
    async def main() -> None:
        member = TokenBucket("1/h", burst=5)
        limiter = AllOf(member, TokenBucket("1/s", burst=5))
        await limiter.acquire(5)
        waiter = asyncio.create_task(limiter.acquire(5))
        await asyncio.sleep(0)
        member.reconfigure("1/h", burst=2)
        with pytest.raises(CostExceedsBurst):
            await waiter
        assert not limiter._core.gates

    run_virtual(main)


def test_a_line_of_all_is_looked_through_for_max_wait() -> None:
    async def main() -> None:
        member = TokenBucket("1/s", burst=1)
        limiter = AllOf(member, SlidingWindow("5/s"))
        await limiter.acquire()
        line = [asyncio.create_task(member.acquire()), asyncio.create_task(limiter.acquire())]
        await asyncio.sleep(0)
        with pytest.raises(WaitTooLong) as caught:
            await limiter.acquire(max_wait=2.5)
        assert caught.value.retry_after == 3.0
        await limiter.acquire(max_wait=3.0)
        await asyncio.gather(*line)

    run_virtual(main)
