"""Corners of the line and the gate that the other suites do not reach: late bells, odd leavings, other clocks."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket
import sys
from typing import Any

import pytest

from throttle import (
    AllOf,
    Decision,
    FixedWindow,
    Retry,
    RetryAfterTooLong,
    SlidingWindow,
    Throttle,
    TokenBucket,
    WaitTooLong,
)
from throttle.calls import Call, current_call
from throttle.clock import REAL, current_clock, ticks_of, wait_of
from throttle.hints import Hints
from throttle.rates import TICKS
from throttle.testing import VirtualClock, no_waits, run_virtual
from throttle.testing import virtual as kit
from throttle.waiting import running

_left: list[asyncio.Future[None]] = []  # tasks whose loops are closed under them


def lines(limiter: TokenBucket | SlidingWindow | AllOf) -> int:
    return sum(len(gate.line) for gate in limiter._core.gates.values())


# ── instants ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("now", "due", "whole"),
    [(1073741821.6958188, 1073741824695818807, 3), (134217725.999999, 134217728999998997, 4), (0.5, 2_500_000_000, 2)],
)
def test_whole_seconds_are_the_least_that_the_float_sum_reaches(now: float, due: int, whole: int) -> None:
    from throttle.decisions import whole_wait

    found = whole_wait(now, ticks_of(now), due)
    assert found in (whole - 1, whole)
    assert ticks_of(now + found) >= due > ticks_of(now + found - 1)


def test_a_wait_is_stretched_by_the_float_that_it_lacks() -> None:
    now, due = 22693734.602687232, 22693735602687233
    assert ticks_of(now + (due / 1e9 - now)) < due <= ticks_of(now + wait_of(now, due))


@pytest.mark.parametrize("make", [TokenBucket, SlidingWindow, FixedWindow])
def test_a_permit_that_is_further_away_than_floats_reach(make: Any) -> None:
    async def main() -> None:
        limiter = make(5e-324)
        await limiter.acquire()
        decision = limiter.try_acquire_nowait()
        assert (decision.retry_after, decision.reset_after) == (1e291, 1e291)
        assert decision.retry_after_whole >= 10**291
        assert "e-324/s" in repr(limiter) or "per 1e+291 s" in repr(limiter)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(limiter.acquire(), 3600)
        assert lines(limiter) == 0

    run_virtual(main)


def test_a_bell_at_the_float_before_its_tick_rings_again_later() -> None:
    due, at = 8390401_200000000, 8390401.2
    assert at == due / 1e9
    assert ticks_of(at) < due  # so late, floats are too coarse for nanoseconds

    async def main() -> None:
        await asyncio.sleep(at - 0.5)
        limiter = FixedWindow("1/s", offset=0.2)
        await limiter.acquire()
        await limiter.acquire()
        assert 0 <= asyncio.get_running_loop().time() - at < 1e-8

    run_virtual(main)


def test_the_default_clock_in_a_thread_is_real() -> None:
    async def main() -> object:
        return await asyncio.to_thread(current_clock)

    assert run_virtual(main) is REAL


def test_without_trio_there_is_only_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trio")
    assert running() is None


# ── virtual time and sockets ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_silent_peer_outside_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit, "_PATIENCE", 0.01)
    server = socket.create_server(("127.0.0.1", 0))

    async def main() -> float:
        reader, writer = await asyncio.open_connection(*server.getsockname()[:2])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 30)
        writer.close()
        await writer.wait_closed()
        return asyncio.get_running_loop().time()

    with server:
        assert run_virtual(main) == 30


def test_a_socket_may_be_watched_both_ways() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            seen = asyncio.Event()
            loop.add_reader(near, seen.set)
            loop.add_writer(near, lambda: loop.remove_writer(near))
            far.send(b"x")
            await seen.wait()
            loop.remove_reader(near)

    run_virtual(main)


# ── blocks and permits ────────────────────────────────────────────────────────────────────────────────────────────────


def test_blocks_of_limiters_that_hold_may_end_in_any_order() -> None:
    async def main() -> None:
        one, two = SlidingWindow("1/s", hold=True), SlidingWindow("1/s", hold=True)["key"]
        await one.__aenter__()
        await two.__aenter__()
        await asyncio.sleep(5)
        await one.__aexit__(None, None, None)
        assert one.try_acquire_nowait().retry_after == 1.0
        await two.__aexit__(None, None, None)
        await two.__aexit__(None, None, None)  # nothing is out any more
        assert two.try_acquire_nowait().retry_after == 1.0

    run_virtual(main)


def test_a_block_that_ends_in_another_context_ends_its_permit() -> None:
    async def main() -> None:
        held = SlidingWindow("1/s", hold=True)
        for limiter in (SlidingWindow("1/s", hold=True), SlidingWindow("1/s", hold=True)["key"], AllOf("9/s", held)):
            stack = contextlib.AsyncExitStack()
            await asyncio.create_task(stack.enter_async_context(limiter))
            assert (await limiter.peek()).exact is False
            await stack.aclose()
            assert (await limiter.peek()).exact

    run_virtual(main)


def test_what_is_collected_in_another_call_leaves_that_call_alone() -> None:
    """The garbage collector closes a coroutine wherever it happens to run."""
    limiter = TokenBucket("9/s")
    api = Throttle(TokenBucket("9/s"))
    policy = Retry(on=OSError)

    async def stuck() -> None:
        await asyncio.get_running_loop().create_future()

    async def in_permit() -> None:
        async with limiter.permit():
            await stuck()

    async def in_attempt() -> None:
        async for attempt in policy:
            with attempt:
                await stuck()

    async def inside() -> None:
        for work in (in_permit, lambda: api.call(stuck), lambda: policy.call(stuck), in_attempt):
            left = work()
            contextvars.Context().run(left.send, None)
            before = contextvars.copy_context()
            left.close()
            assert [*contextvars.copy_context().items()] == [*before.items()]

    async def main() -> None:
        async with limiter.permit():
            await api.call(policy.call, inside)

    run_virtual(main)


@pytest.mark.parametrize("kind", ["alone", "bound", "all", "nested"])
def test_what_was_held_before_a_reset_lets_nobody_past_what_is_held_after_it(kind: str) -> None:
    held = SlidingWindow("4/s", hold=True)
    limiter: Any = {
        "alone": held,
        "bound": held["key"],
        "all": AllOf(held, TokenBucket("9/s")),
        "nested": AllOf(TokenBucket("9/s"), AllOf(held["all"], TokenBucket("9/s")))["key"],
    }[kind]

    async def main() -> None:
        old, settled, new = limiter.permit(), limiter.permit(), limiter.permit()
        await old.__aenter__()
        permit = await settled.__aenter__()
        await limiter.reset()
        assert (await limiter.peek(4)).allowed
        await new.__aenter__()
        permit.settle(0)
        await asyncio.sleep(10)
        assert (await limiter.peek()).remaining == 3
        await old.__aexit__(None, None, None)  # its window starts all the same
        await settled.__aexit__(None, None, None)
        assert (await limiter.peek()).remaining == 2
        await asyncio.sleep(1)
        assert (await limiter.peek()).remaining == 3
        await new.__aexit__(None, None, None)
        await asyncio.sleep(1)
        assert await limiter.peek() == Decision(True, 4.0, 0.0, True, 0.0, 0)

    run_virtual(main)


def test_what_is_settled_for_more_than_nothing_is_held_from_then_on() -> None:
    async def main() -> None:
        limiter = AllOf(a=SlidingWindow("4/s", hold=True), b=TokenBucket("9/s"))
        async with limiter.permit({"a": 0}) as permit:
            permit.settle({"a": 3})
            await asyncio.sleep(10)
            assert (await limiter.peek()).remaining == 1
        assert (await limiter.peek()).reset_after == 1.0
        await asyncio.sleep(1)
        assert await limiter.peek() == Decision(True, 4.0, 0.0, True, 0.0, 0)

    run_virtual(main)


@pytest.mark.parametrize("where", ["here", "combined", "member"])
def test_what_is_told_behind_work_that_will_be_held_is_only_a_bound(where: str) -> None:
    async def main() -> None:
        held = SlidingWindow("1/s", hold=True)
        both = AllOf(held)
        line, asked = (held, held) if where == "here" else (both, both) if where == "combined" else (held, both)

        async def work() -> None:
            async with line:
                await asyncio.sleep(0.3)

        await line.acquire()
        waiter = asyncio.create_task(work())
        await asyncio.sleep(0)
        decision = await asked.peek()
        assert (decision.allowed, decision.exact) == (False, False)
        await waiter
        assert (await asked.peek()).exact

    run_virtual(main)


def test_a_permit_is_for_one_block() -> None:
    async def main() -> None:
        limiter = SlidingWindow("9/s", hold=True)
        booking = limiter.permit()
        async with booking:
            with pytest.raises(RuntimeError, match="call permit\\(\\) for each block"):
                await booking.__aenter__()
        with pytest.raises(RuntimeError, match="entered already"):
            await booking.__aenter__()
        assert await limiter.peek() == Decision(True, 8.0, 0.0, True, 1.0, 0)

    run_virtual(main)


def test_a_permit_ends_once() -> None:
    async def main() -> None:
        limiter = SlidingWindow("2/s", hold=True)
        async with limiter.permit() as permit:
            permit.end(answered=True)
        assert (await limiter.peek()).remaining == 1.0

    run_virtual(main)


@pytest.mark.parametrize("ended", [False, True])
def test_a_coroutine_closed_inside_its_block_ends_its_permit(ended: bool) -> None:
    limiter = SlidingWindow("1/h", hold=True)

    async def work() -> None:
        async with limiter.permit() as permit:
            if ended:
                permit.end(answered=True)
            await asyncio.get_running_loop().create_future()

    async def main() -> None:
        coroutine = work()
        coroutine.send(None)
        coroutine.close()
        assert not limiter.try_acquire_nowait()
        assert not limiter._core.gates

    run_virtual(main)


def test_what_was_taken_under_another_clock_ends_without_a_trace() -> None:
    limiter = SlidingWindow("2/h", hold=True)

    async def borrow() -> object:
        booking = limiter.permit()
        return booking, await booking.__aenter__()

    booking, permit = run_virtual(borrow)

    async def later() -> None:
        assert limiter.try_acquire_nowait()  # another clock: it starts full
        permit.observe(Hints(refused=True, retry_after=1000.0))
        permit.settle(2)
        await booking.__aexit__(None, None, None)
        assert limiter.try_acquire_nowait()
        assert not limiter.try_acquire_nowait()

    run_virtual(later)


def test_an_outcome_is_no_echo_while_waits_are_off() -> None:
    async def main() -> None:
        call = Call()
        token = current_call.set(call)
        async with TokenBucket("1/s").permit() as permit:
            with no_waits():
                permit.hear("outcome", Hints(refused=True, retry_after=9.0))
                permit.echo("outcome", Hints(refused=True, retry_after=9.0))
        current_call.reset(token)
        assert call.ticket is None

    run_virtual(main)


# ── the line ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bell_that_rings_late_takes_no_permit_away() -> None:
    async def main() -> None:
        clock = VirtualClock()
        limiter = TokenBucket("1/s", burst=1, clock=clock)
        await limiter.acquire()
        waiter = asyncio.create_task(limiter.acquire(max_wait=1.0))
        await asyncio.sleep(0)
        clock.advance(10)
        await waiter

    asyncio.run(main())


def test_a_slot_that_comes_too_late_is_not_taken() -> None:
    async def main() -> None:
        clock = VirtualClock()
        api = Throttle(TokenBucket("9/s", clock=clock), concurrency=1)
        free = asyncio.Event()
        first = asyncio.create_task(api.call(free.wait))
        await asyncio.sleep(0)
        core, _ = api._service.core_and_key("")
        _, place = core.enter("", 1, max_wait=1.0, slots=api._service.slots(""), holding=True)
        second = asyncio.create_task(core.stand(place))
        await asyncio.sleep(0)
        assert not api.limiter.try_acquire_nowait().exact
        clock._now = 5.0  # the bell of the deadline has not rung yet when the slot comes free
        free.set()
        await first
        with pytest.raises(WaitTooLong):
            await second

    asyncio.run(main())


def test_a_wait_that_grew_is_ended_at_its_limit() -> None:
    async def main() -> None:
        limiter = SlidingWindow("1/s", hold=True)
        async with limiter.permit():
            start = asyncio.get_running_loop().time()
            with pytest.raises(WaitTooLong):
                await limiter.acquire(max_wait=1.5)
            assert asyncio.get_running_loop().time() == start + 1.5

    run_virtual(main)


def test_a_pause_is_too_long_for_one_and_not_for_another() -> None:
    async def main() -> None:
        limiter = TokenBucket("1/s", burst=1)
        await limiter.acquire()
        patient = asyncio.create_task(limiter.acquire())

        async def hasty() -> None:
            call = Call()
            call.patience = 3.0
            current_call.set(call)
            await limiter.acquire()

        other = asyncio.create_task(hasty())
        await asyncio.sleep(0)
        limiter.pause(60)
        with pytest.raises(RetryAfterTooLong):
            await other
        await patient
        assert asyncio.get_running_loop().time() == 60

    run_virtual(main)


def test_priority_and_max_wait_look_only_at_who_is_ahead() -> None:
    async def main() -> None:
        limiter = TokenBucket("1/s", burst=1)
        await limiter.acquire()
        line = [asyncio.create_task(limiter.acquire()) for _ in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(WaitTooLong):
            await limiter.acquire(max_wait=0.5, priority=1)
        await limiter.acquire(max_wait=1.0, priority=1)
        assert asyncio.get_running_loop().time() == 1.0
        await asyncio.gather(*line)

    run_virtual(main)


def test_who_comes_between_a_grant_and_its_taking_has_a_bell_of_its_own() -> None:
    async def main() -> None:
        limiter = TokenBucket("10/s", burst=1)
        await limiter.acquire()
        first = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        late: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        loop.call_at(0.1, lambda: late.append(asyncio.create_task(limiter.acquire())))
        await first
        await asyncio.sleep(0.05)
        await asyncio.wait_for(late[0], 5)
        assert loop.time() == pytest.approx(0.2)

    run_virtual(main)


def test_many_that_leave_leave_nothing_behind() -> None:
    async def main() -> None:
        limiter = TokenBucket("1/s", burst=1)
        await limiter.acquire()
        tasks = [asyncio.create_task(limiter.acquire(max_wait=1000)) for _ in range(400)]
        await asyncio.sleep(0)
        for task in tasks[10:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert asyncio.get_running_loop().time() == 10
        assert not limiter._core.gates

    run_virtual(main)


def test_work_that_ends_late_makes_a_long_line_later() -> None:
    async def main() -> None:
        limiter = SlidingWindow("4/s", hold=True)

        async def work() -> None:
            async with limiter.permit(max_wait=1000):
                await asyncio.sleep(0.5)

        await asyncio.gather(*(work() for _ in range(60)))
        assert asyncio.get_running_loop().time() == 15 * 1.5 - 1.0

    run_virtual(main)


def test_a_waiter_closed_by_hand_on_a_clock_of_ones_own() -> None:
    async def main() -> None:
        clock = VirtualClock()
        limiter = TokenBucket("1/s", burst=1, clock=clock)
        await limiter.acquire()
        coroutine = limiter.acquire()
        coroutine.send(None)
        coroutine.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert lines(limiter) == 0
        waiter = asyncio.create_task(limiter.acquire())
        await clock.run(1)
        await waiter

    asyncio.run(main())


def test_of_two_loops_the_one_that_stays_is_served() -> None:
    limiter = TokenBucket("20/s", burst=1)
    limiter.pause(0.05)
    closed = asyncio.new_event_loop()

    async def queue() -> None:
        _left.append(asyncio.ensure_future(limiter.acquire()))
        await asyncio.sleep(0)

    async def main() -> None:
        mine = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        await asyncio.to_thread(closed.run_until_complete, queue())
        task = next(iter(asyncio.all_tasks(closed)))
        closed.close()
        late = asyncio.create_task(limiter.acquire())
        await asyncio.gather(mine, late)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # its loop is gone, as meant
        task.get_coro().close()  # type: ignore[union-attr]

    asyncio.run(main())
    assert lines(limiter) == 0


# ── combined limiters ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_bad_members() -> None:
    with pytest.raises(ValueError, match="at least one limiter"):
        AllOf()
    with pytest.raises(TypeError, match="not None"):
        AllOf(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unreadable rate 'ten'"):
        AllOf("ten")
    with pytest.raises(ValueError, match="share one clock"):
        AllOf(TokenBucket("1/s"), TokenBucket("1/s", clock=VirtualClock()))


def test_a_rate_as_a_member_is_a_sliding_window_of_its_own() -> None:
    async def main() -> None:
        one, two = AllOf("2/min", burst=TokenBucket("1/s", burst=5)), AllOf(self="2/min")
        assert one.try_acquire_nowait(2)
        assert two.try_acquire_nowait({"self": 2})
        await asyncio.sleep(59)
        assert one.try_acquire_nowait().retry_after == two.try_acquire_nowait().retry_after == 1.0

    run_virtual(main)


def test_members_that_are_asked_for_nothing_are_not_in_the_way() -> None:
    async def main() -> None:
        idle = TokenBucket("1/h", burst=1)
        limiter = AllOf(idle=idle, busy=TokenBucket("1/s", burst=1), held=SlidingWindow("9/s", hold=True))
        await limiter.acquire({"idle": 1})
        waiters = [asyncio.create_task(limiter.acquire({"idle": 0}, max_wait=5)) for _ in range(3)]
        async with limiter.permit({"idle": 0}, max_wait=9):
            pass
        await asyncio.gather(*waiters)
        assert asyncio.get_running_loop().time() == 4.0

    run_virtual(main)


def test_what_frees_a_member_wakes_a_line_two_floors_up() -> None:
    async def main() -> None:
        member = TokenBucket("1/h", burst=1)
        limiter = AllOf(AllOf(member, TokenBucket("9/s")), TokenBucket("9/s"))
        await limiter.acquire()
        waiter = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(1)
        await member.refund()
        await waiter
        assert asyncio.get_running_loop().time() == 1.0

    run_virtual(main)


def test_of_two_heads_that_insist_the_older_goes_first() -> None:
    async def main() -> None:
        member = TokenBucket("1/s", burst=3)
        one, two = AllOf(member, TokenBucket("99/s")), AllOf(member, TokenBucket("99/s"))
        await member.acquire(3)
        order: list[str] = []

        async def take(name: str, limiter: TokenBucket | AllOf, cost: int) -> None:
            await limiter.acquire(cost)
            order.append(name)

        async def flood() -> None:
            for _ in range(12):
                await take("member", member, 1)

        tasks = [asyncio.create_task(flood()) for _ in range(2)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(take("one", one, 3)), asyncio.create_task(take("two", two, 3))]
        await asyncio.gather(*tasks)
        assert order.index("one") < order.index("two") < 20

    run_virtual(main)


def test_a_head_that_insists_on_a_closed_loop_holds_nobody_back() -> None:
    member = TokenBucket("20/s", burst=2)
    limiter = AllOf(member, TokenBucket("1/h", burst=9))
    loop = asyncio.new_event_loop()

    async def queue() -> None:
        await member.acquire(2)
        _left.append(asyncio.ensure_future(member.acquire()))
        _left.append(asyncio.ensure_future(limiter.acquire(2)))
        await asyncio.sleep(0)

    loop.run_until_complete(queue())
    tasks = asyncio.all_tasks(loop)
    loop.close()

    async def main() -> None:
        for _ in range(30):  # longer than the member's own period
            await asyncio.wait_for(member.acquire(), 10)

    asyncio.run(main())
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # its loop is gone, as meant
        with contextlib.suppress(RuntimeError):
            task.get_coro().close()  # type: ignore[union-attr]


def test_a_bell_of_a_combined_line_is_set_by_the_clock_that_its_member_read() -> None:
    async def main() -> None:
        member = SlidingWindow("5/2s")
        both, loop = AllOf(TokenBucket("3/s", burst=6), member), asyncio.get_running_loop()
        for _ in range(5):
            await both.acquire()
        waiting = asyncio.create_task(both.acquire())
        await asyncio.sleep(0.5)
        member.reconfigure("5/s")  # nothing but the member has looked at the clock since
        await waiting
        assert loop.time() == pytest.approx(1, abs=1e-8)

    run_virtual(main)


@pytest.mark.parametrize("combined", [False, True])
def test_what_was_booked_for_nothing_is_held_once_settled_though_its_key_was_forgotten(combined: bool) -> None:
    async def main() -> None:
        held = SlidingWindow("2/s", hold=True)
        async with (AllOf(held) if combined else held).permit(0, key="k") as permit:
            for number in range(20):
                await asyncio.sleep(0.2)
                await held.acquire(key=f"{number}")  # with other keys, the table forgets those that are as new
            permit.settle(2)
            assert (await held.peek(key="k")).remaining == 0
            await held.acquire(key="k", cost=0)
        assert (await held.peek(key="k")).retry_after == pytest.approx(1.0)
        await asyncio.sleep(1)
        assert (await held.peek(2, key="k")).allowed

    run_virtual(main)


def test_a_wait_of_months_is_exact() -> None:
    limiter = TokenBucket("1/90d", clock=VirtualClock())
    assert limiter.try_acquire_nowait().allowed
    assert limiter.try_acquire_nowait().retry_after == 90 * 86400


@pytest.mark.parametrize("sevenths", [16, 23])
def test_a_wait_that_loses_its_last_bit_is_exact_to_the_tick(sevenths: int) -> None:
    clock = VirtualClock()
    clock.advance(sevenths / 7 + 0.123456)
    limiter = TokenBucket("1/min", clock=clock)
    assert limiter.try_acquire_nowait().allowed
    due = ticks_of(clock.now()) + 60 * TICKS
    assert clock.now() + (due / TICKS - clock.now()) < due / TICKS
    assert ticks_of(clock.now() + limiter.try_acquire_nowait().retry_after) == due
