"""A cancelled waiter loses nothing and delays nobody, on every loop and under every clock; nothing is left behind."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio
from worlds import KINDS, WORLDS, Crowd, World, nothing_left

from throttle import AllOf, SlidingWindow, TokenBucket, WaitTooLong
from throttle.gate import Slots
from throttle.permits import Booking
from throttle.testing import VirtualClock, run_virtual

Play = Callable[[World], Awaitable[None]]


@pytest.fixture(params=list(WORLDS))
def play(request: pytest.FixtureRequest) -> Callable[[Play], None]:
    return WORLDS[request.param]


def scenario(test: Callable[[World, Crowd], Awaitable[None]]) -> Callable[..., None]:
    """A test of a world and a crowd, played in each world."""

    @functools.wraps(test)
    def run(play: Callable[[Play], None]) -> None:
        async def program(world: World) -> None:
            async with anyio.create_task_group() as group:
                crowd = Crowd(world, group)
                await test(world, crowd)
                group.cancel_scope.cancel()

        play(program)

    del run.__wrapped__  # pytest looks for the fixtures of `run`
    return run


@scenario
async def test_a_cancelled_waiter(world: World, crowd: Crowd) -> None:
    limiter = TokenBucket("10/s", burst=1, clock=world.clock)
    start = world.now()
    for name in range(6):
        await crowd.come(name, limiter)
    await world.pass_time(0.05)
    crowd.cancel(2)
    crowd.cancel(4)
    await world.pass_time(1)
    assert [(name, round(at - start, 3)) for name, at in crowd.log] == [(0, 0), (1, 0.1), (3, 0.2), (5, 0.3)]
    assert nothing_left(limiter)


@scenario
async def test_the_head_is_cancelled(world: World, crowd: Crowd) -> None:
    limiter = SlidingWindow("1/s", clock=world.clock)
    for name in range(4):
        await crowd.come(name, limiter)
    for name in (1, 2):
        await world.pass_time(0.25)
        crowd.cancel(name)
    await world.pass_time(0.75)
    assert crowd.names() == [0, 3]
    assert nothing_left(limiter)


@scenario
async def test_a_big_head_is_cancelled(world: World, crowd: Crowd) -> None:
    limiter = TokenBucket("1/s", burst=10, clock=world.clock)
    await limiter.acquire(8)
    await crowd.come("big", limiter, 10)
    await crowd.come("small", limiter, 1)
    assert crowd.names() == []
    crowd.cancel("big")
    await world.pass_time(0.01)
    assert crowd.names() == ["small"]
    assert nothing_left(limiter)


@scenario
async def test_granted_and_cancelled_in_one_tick(world: World, crowd: Crowd) -> None:
    limiter = TokenBucket("1/s", burst=1, clock=world.clock)
    await limiter.acquire()
    await crowd.come("first", limiter)
    await crowd.come("second", limiter)
    await limiter.refund()  # grants the first, which has not run yet
    crowd.cancel("first")
    await world.pass_time(0.01)
    # trio lets a task go on that was about to: then it has its permit
    assert crowd.names() == (["second"] if crowd.ended["first"] == "cancelled" else ["first"])
    await world.pass_time(1)
    assert crowd.names()[-1] == "second"
    assert nothing_left(limiter)


@pytest.mark.parametrize("kind", list(KINDS))
def test_granted_and_cancelled_gives_back(kind: str, play: Any) -> None:
    async def program(world: World) -> None:
        limiter = KINDS[kind](clock=world.clock)
        await limiter.acquire(4)
        before = await limiter.peek()
        async with anyio.create_task_group() as group:
            crowd = Crowd(world, group)
            await crowd.come("a", limiter, 3)
            await limiter.refund(3)
            crowd.cancel("a")
        after = await limiter.peek(4)
        assert after.remaining == (3 if crowd.ended == {"a": "cancelled"} else 0)
        assert before.remaining == 0
        assert nothing_left(limiter)

    play(program)


@scenario
async def test_everybody_is_cancelled(world: World, crowd: Crowd) -> None:
    limiter = TokenBucket("10/s", burst=1, clock=world.clock)
    for name in range(20):
        await crowd.come(name, limiter, max_wait=100 if name % 2 else None)
    for name in range(20):
        crowd.cancel(name)
    await world.pass_time(0)
    assert crowd.names() == [0]
    await world.pass_time(0.1)
    assert limiter.try_acquire_nowait().allowed
    assert nothing_left(limiter)


@scenario
async def test_refused_and_cancelled_in_one_tick(world: World, crowd: Crowd) -> None:
    limiter = TokenBucket("1/s", burst=1, clock=world.clock)
    await limiter.acquire()
    await crowd.come("holder of the baton", limiter, max_wait=2)
    await crowd.come("next", limiter)
    limiter.pause(3)  # refuses the first
    crowd.cancel("holder of the baton")
    await world.pass_time(4)
    assert crowd.names() == ["next"]
    assert nothing_left(limiter)


@scenario
async def test_cancelled_inside_the_block(world: World, crowd: Crowd) -> None:
    limiter = SlidingWindow("1/s", hold=True, clock=world.clock)
    slots = Slots(1)

    class Slotted:
        def permit(self) -> Booking:
            return Booking(limiter._core, 1, "", slots=(slots,))

    await crowd.come("a", Slotted(), work=100)
    await crowd.come("b", Slotted(), work=0.5)
    await world.pass_time(2)
    assert crowd.names() == ["a"]
    crowd.cancel("a")
    await world.pass_time(0.9)
    assert crowd.names() == ["a"]
    await world.pass_time(0.2)
    assert crowd.names() == ["a", "b"]
    await world.pass_time(1)
    assert (slots.used, slots.blocked) == (0, {})
    assert nothing_left(limiter)


@scenario
async def test_a_timeout_in_line(world: World, crowd: Crowd) -> None:
    limiter = TokenBucket("1/s", burst=1, clock=world.clock)
    for name in range(5):
        await crowd.come(name, limiter, max_wait=None if name % 2 else 10)
    await world.pass_time(0.5)
    limiter.pause(2)
    await world.pass_time(2.1)
    assert crowd.names() == [0, 1]
    await world.pass_time(5)
    assert crowd.names() == [0, 1, 2, 3, 4]
    assert nothing_left(limiter)


@scenario
async def test_heads_of_a_combined_line(world: World, crowd: Crowd) -> None:
    one, two = TokenBucket("10/s", burst=1, clock=world.clock), TokenBucket("4/s", burst=1, clock=world.clock)
    limiter = AllOf(one, two)
    for name in range(4):
        await crowd.come(name, limiter)
    crowd.cancel(1)
    await world.pass_time(0.26)
    crowd.cancel(3)
    await world.pass_time(1)
    assert crowd.names() == [0, 2]
    assert nothing_left(limiter, one, two)


@scenario
async def test_a_favoured_guest_is_cancelled(world: World, crowd: Crowd) -> None:
    one, two = TokenBucket("1/s", burst=2, clock=world.clock), TokenBucket("1/s", burst=2, clock=world.clock)
    limiter = AllOf(one, two)
    await one.acquire(2)
    for name in range(4):
        await crowd.come(name, one)  # hogs, each on the heels of the other
    await crowd.come("guest", limiter, 2)
    await world.pass_time(2.5)
    crowd.cancel("guest")
    await world.pass_time(0.6)
    assert crowd.names() == [0, 1, 2]
    await world.pass_time(1)
    assert crowd.names() == [0, 1, 2, 3]
    assert nothing_left(limiter, one, two)


@pytest.mark.parametrize("kind", list(KINDS))
def test_many_come_and_go(kind: str, play: Any) -> None:
    """Half of them give up at odd moments; the rest go in order and as fast as ever."""

    async def program(world: World) -> None:
        limiter = KINDS[kind](clock=world.clock)
        async with anyio.create_task_group() as group:
            crowd = Crowd(world, group)
            for name in range(24):
                await crowd.come(name, limiter)
            for name in range(1, 24, 2):
                crowd.scopes[name].cancel()
                await world.pass_time(0.03)
            await world.pass_time(6)
        went = [name for name, _ in sorted(crowd.log, key=lambda entry: (entry[1], entry[0]))]  # trio shuffles a tick
        assert went == sorted(went)
        assert set(range(0, 24, 2)) <= set(went)
        assert crowd.log[-1][1] - crowd.log[0][1] <= 4
        assert nothing_left(limiter)

    play(program)


# ── the real loops, in real time ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_real_time() -> None:
    limiter = TokenBucket("100/s", burst=1)
    began = anyio.current_time()

    async def wait(scope: anyio.CancelScope) -> None:
        with scope:
            await limiter.acquire()

    scopes = [anyio.CancelScope() for _ in range(20)]
    async with anyio.create_task_group() as group:
        for scope in scopes:
            group.start_soon(wait, scope)
        await anyio.sleep(0.025)
        for scope in scopes[4::2]:
            scope.cancel()
    took = anyio.current_time() - began
    assert 0.1 < took < 5
    assert nothing_left(limiter)


def test_wait_for_and_timeout() -> None:
    async def main() -> None:
        limiter = TokenBucket("1/s", burst=1)
        await limiter.acquire()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(limiter.acquire(), 0.5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                await limiter.acquire()
        await asyncio.wait_for(limiter.acquire(), 0.2)  # nothing was taken by the other two
        assert asyncio.get_running_loop().time() == pytest.approx(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(limiter.acquire(), 1 - 1e-6)
        assert nothing_left(limiter)

    run_virtual(main)


def test_a_task_group_ends_them_all() -> None:
    async def main() -> None:
        limiter = TokenBucket("1/s", burst=1)

        async def fail() -> None:
            await limiter.acquire()
            await limiter.acquire()
            raise KeyError("enough")

        async def together() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                for _ in range(5):
                    group.create_task(limiter.acquire())

        with pytest.raises(ExceptionGroup) as caught:
            await together()
        assert caught.group_contains(KeyError)
        assert nothing_left(limiter)
        await limiter.acquire()
        assert asyncio.get_running_loop().time() == 2.0

    run_virtual(main)


@pytest.mark.parametrize("moment", [0.0999999, 0.1, 0.1000001])
def test_cancelled_around_the_bell(moment: float) -> None:
    async def main() -> list[Any]:
        limiter = TokenBucket("10/s", burst=1)
        loop, log = asyncio.get_running_loop(), []

        async def wait(name: int) -> None:
            await limiter.acquire()
            log.append((name, round(loop.time(), 5)))

        tasks = [asyncio.create_task(wait(name)) for name in range(4)]
        await asyncio.sleep(0)
        loop.call_at(moment, tasks[1].cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert nothing_left(limiter)
        return [entry for entry in log if entry[0] != 1], tasks[1].cancelled()

    log, cancelled = run_virtual(main)
    after = 0.1 if cancelled else 0.2
    assert log == [(0, 0.0), (2, pytest.approx(after, abs=2e-6)), (3, pytest.approx(after + 0.1, abs=2e-6))]


def test_the_second_run_of_a_module_level_limiter() -> None:
    limiter = TokenBucket("1/s", burst=2)

    async def main() -> list[float]:
        loop, log = asyncio.get_running_loop(), []
        for _ in range(4):
            await limiter.acquire()
            log.append(loop.time())
        asyncio.create_task(limiter.acquire())  # noqa: RUF006  # the end of the run cancels it
        await asyncio.sleep(0)
        return log

    assert run_virtual(main) == run_virtual(main) == [0, 0, 1, 2]
    real = TokenBucket("1000/s", burst=1)

    async def twice() -> None:
        await real.acquire()
        await real.acquire()

    asyncio.run(twice())
    trio.run(twice)
    asyncio.run(twice())
    assert nothing_left(real, limiter)


def test_waiting_needs_a_loop() -> None:
    limiter = TokenBucket("1/s", burst=1)
    coroutine = limiter.acquire()
    with pytest.raises(StopIteration):
        coroutine.send(None)  # need not wait, so it needs no loop
    coroutine = limiter.acquire()
    with pytest.raises(RuntimeError, match="running asyncio or trio"):
        coroutine.send(None)
    assert nothing_left(limiter)


def test_max_wait_while_the_clock_stands() -> None:
    async def main() -> None:
        clock = VirtualClock()
        limiter = TokenBucket("1/s", burst=1, clock=clock)
        await limiter.acquire()
        waiter = asyncio.create_task(limiter.acquire(max_wait=1.5))
        await clock.run(0.5)
        limiter.pause(1)  # until 1.5: still in time
        await clock.run(0.9)
        assert not waiter.done()
        limiter.pause(0.2)
        await clock.run(0)
        with pytest.raises(WaitTooLong) as caught:
            await waiter
        assert caught.value.retry_after == pytest.approx(0.2)

    asyncio.run(main())


def test_a_grant_of_another_thread_comes_too_late_for_who_has_left() -> None:
    async def main() -> None:
        limiter = TokenBucket("1/s", clock=VirtualClock())
        await limiter.acquire()
        first, second = (asyncio.create_task(limiter.acquire()) for _ in range(2))
        await asyncio.sleep(0)
        gate = limiter._core.gates[""]
        (home,) = gate.homes.values()
        place = gate.line.places[1]
        second.cancel()
        await asyncio.wait([second])
        home.wake(place)
        assert not first.done()
        first.cancel()
        await asyncio.wait([first])
        assert nothing_left(limiter)

    asyncio.run(main())
