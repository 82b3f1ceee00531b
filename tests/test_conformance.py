"""What every limiter promises, verb by verb; each lets four permits pass at once and four a second (see worlds.py)."""

from __future__ import annotations

import asyncio
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from worlds import HELD, KINDS, core_of, nothing_left, virtual

from throttle import (
    AllOf,
    CostExceedsBurst,
    FixedWindow,
    Limiter,
    Rate,
    RetryAfterTooLong,
    SlidingWindow,
    SlidingWindowCounter,
    TokenBucket,
    TwoRateBucket,
    WaitTooLong,
    current_permit,
)
from throttle.calls import Call, current_call
from throttle.counters import MemoryCounter
from throttle.hints import Hints
from throttle.limiter import limiter_of
from throttle.testing import VirtualClock, run_virtual

ALL = KINDS | HELD


@pytest.fixture(params=list(ALL))
def limiter(request: pytest.FixtureRequest) -> Any:
    return ALL[request.param]()


@pytest.fixture(params=[kind for kind in ALL if "bound" not in kind])
def keyed(request: pytest.FixtureRequest) -> Any:
    return ALL[request.param]()


def now() -> float:
    return asyncio.get_running_loop().time()


async def until(moment: float) -> None:
    await asyncio.sleep(moment - now())


class Line:
    """Waiters, and when each of them was granted."""

    def __init__(self, limiter: Any) -> None:
        self.limiter = limiter
        self.granted: dict[Any, float] = {}
        self.tasks: dict[Any, asyncio.Task[None]] = {}

    async def come(self, name: Any, *args: Any, **options: Any) -> asyncio.Task[None]:
        async def wait() -> None:
            await self.limiter.acquire(*args, **options)
            self.granted[name] = now()

        task = self.tasks[name] = asyncio.create_task(wait())
        await asyncio.sleep(0)
        return task

    async def all(self) -> list[Any]:
        await asyncio.gather(*self.tasks.values())
        return list(self.granted)


# ── acquire ─────────────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_it_is_a_limiter(limiter: Any) -> None:
    assert isinstance(limiter, Limiter)
    assert type(limiter).__name__ in repr(limiter) or "TokenBucket" in repr(limiter) or "AllOf" in repr(limiter)


@virtual
async def test_acquire_returns_none_and_need_not_wait(limiter: Any) -> None:
    for _ in range(4):
        coroutine = limiter.acquire()
        with pytest.raises(StopIteration) as stop:
            coroutine.send(None)  # no checkpoint on the way
        assert stop.value.value is None
    coroutine.close()


@virtual
async def test_never_more_than_its_burst_at_once_nor_than_its_rate_in_the_long_run(limiter: Any) -> None:
    line = Line(limiter)
    for name in range(24):
        await line.come(name)
    assert await line.all() == list(range(24))
    at = list(line.granted.values())
    assert at[:4] == [0] * 4
    assert at[4] > 0
    assert 4 <= at[-1] <= 7.5
    assert at == sorted(at)
    assert nothing_left(limiter)


@virtual
async def test_first_come_first_served_also_between_big_and_small(limiter: Any) -> None:
    await limiter.acquire(4)
    line = Line(limiter)
    for name, cost in enumerate([4, 1, 3, 1, 0, 2, 4]):
        await line.come(name, cost)
    assert await line.all() == [4, 0, 1, 2, 3, 5, 6]  # a cost of nothing waits for nobody... who is not in its way
    assert nothing_left(limiter)


@virtual
async def test_a_higher_priority_goes_ahead(limiter: Any) -> None:
    await limiter.acquire(4)
    line = Line(limiter)
    for name, priority in [("c", 0), ("b", 1), ("d", 0), ("a", 7), ("b2", 1), ("e", -1)]:
        await line.come(name, 2, priority=priority)
    assert await line.all() == ["a", "b", "b2", "c", "d", "e"]


@virtual
async def test_a_higher_priority_passes_a_big_head(limiter: Any) -> None:
    await limiter.acquire(2)
    line = Line(limiter)
    await line.come("big", 4)
    await line.come("small", 1)
    assert line.granted == {}
    await line.come("urgent", 1, priority=1)
    assert list(line.granted) == ["urgent"]
    assert await line.all() == ["urgent", "big", "small"]


@virtual
async def test_cost_nothing(limiter: Any) -> None:
    await limiter.acquire(4)
    await limiter.acquire(0)
    decision = await limiter.try_acquire(0)
    assert (decision.allowed, decision.remaining, decision.retry_after) == (True, 0, 0)
    assert now() == 0
    limiter.pause(5)  # a server that asks to be left alone means what is free of charge, too
    assert (await limiter.try_acquire(0)).retry_after == pytest.approx(5)
    await limiter.acquire(0)
    assert now() == pytest.approx(5)
    assert nothing_left(limiter)


@virtual
async def test_a_cost_above_what_can_ever_be_granted(limiter: Any) -> None:
    await limiter.acquire(1)
    for ask in (limiter.acquire, limiter.try_acquire, limiter.peek):
        with pytest.raises(CostExceedsBurst, match=r"cost 5 can never be granted: at most 4 at once") as caught:
            await ask(5)
        assert isinstance(caught.value, ValueError)
        assert (caught.value.cost, caught.value.burst) == (5, 4)
    for ask in (limiter.try_acquire_nowait, limiter.permit):
        with pytest.raises(CostExceedsBurst):
            ask(5)
    assert (await limiter.peek()).remaining == 3


@pytest.mark.parametrize(
    ("cost", "error"),
    [(-1, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("1", TypeError), (None, TypeError),
     (True, TypeError)],
)  # fmt: skip
def test_bad_costs(cost: Any, error: type[Exception], limiter: Any) -> None:
    for ask in (limiter.try_acquire_nowait, limiter.permit):
        with pytest.raises(error, match=f"cost must be .*{cost!r}"):
            ask(cost)
    for ask in (limiter.acquire, limiter.refund, limiter.try_acquire, limiter.peek):
        with pytest.raises(error, match=f"cost must be .*{cost!r}"):
            ask(cost).send(None)


def test_costs_of_buckets_may_be_broken_and_those_of_windows_may_not() -> None:
    for kind in ("TokenBucket", "TwoRateBucket"):
        limiter = KINDS[kind](clock=VirtualClock())
        for cost in (0.1, Fraction(1, 5), Decimal("0.7")):
            assert limiter.try_acquire_nowait(cost).allowed
        assert math.isclose(limiter.try_acquire_nowait(0).remaining, 3, abs_tol=1e-9)
    for limiter in (SlidingWindow("4/s"), FixedWindow("4/s"), SlidingWindowCounter("4/s"), AllOf(FixedWindow("4/s"))):
        with pytest.raises(ValueError, match=r"cost must be a whole number for a \w+ limiter, not 0.5"):
            limiter.try_acquire_nowait(0.5)
        assert limiter.try_acquire_nowait(2.0).allowed


def test_bad_options(limiter: Any) -> None:
    with pytest.raises(ValueError, match=r"max_wait .* not -1"):
        limiter.acquire(max_wait=-1).send(None)
    with pytest.raises(ValueError, match=r"max_wait .* not nan"):
        limiter.permit(max_wait=math.nan)
    with pytest.raises(TypeError, match=r"max_wait .* not '3'"):
        limiter.permit(max_wait="3")
    with pytest.raises(TypeError, match=r"priority must be an int, not 'high'"):
        limiter.acquire(priority="high").send(None)
    with pytest.raises(ValueError, match=r"pause .* not -1"):
        limiter.pause(-1)
    with pytest.raises(ValueError, match=r"pause .* not inf"):
        limiter.pause(math.inf)


def test_bad_keys(keyed: Any) -> None:
    for ask in (keyed.acquire, keyed.try_acquire, keyed.peek, keyed.refund):
        with pytest.raises(TypeError, match="a key is a str, not 5"):
            ask(key=5).send(None)
    for ask in (keyed.try_acquire_nowait, keyed.permit):
        with pytest.raises(TypeError, match="a key is a str, not 5"):
            ask(key=5)
    with pytest.raises(TypeError, match="a key is a str, not 5"):
        keyed.pause(1, key=5)
    with pytest.raises(TypeError, match="a key is a str, not 5"):
        keyed.reset(key=5).send(None)
    with pytest.raises(TypeError, match="a key is a str, not 5"):
        keyed[5]
    bound = keyed["a"]
    with pytest.raises(TypeError, match="key"):
        bound.try_acquire_nowait(key="b")


# ── max_wait ────────────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_max_wait_is_refused_at_once_and_takes_nothing(limiter: Any) -> None:
    await limiter.acquire(4)
    line = Line(limiter)
    await line.come("first", 3)
    await line.come("second", 2)
    with pytest.raises(WaitTooLong) as caught:
        await limiter.acquire(3, max_wait=0.25)
    assert now() == 0
    wait = caught.value.retry_after
    assert wait > 0.25
    assert wait == (await limiter.peek(3)).retry_after
    with pytest.raises(WaitTooLong):
        await limiter.acquire(3, max_wait=wait - 1e-6)
    await line.come("third", 3, max_wait=wait)
    assert await line.all() == ["first", "second", "third"]
    assert now() == pytest.approx(wait)
    assert nothing_left(limiter)


@virtual
async def test_max_wait_zero_takes_what_is_there(limiter: Any) -> None:
    await limiter.acquire(4, max_wait=0)
    with pytest.raises(WaitTooLong):
        await limiter.acquire(max_wait=0)
    assert nothing_left(limiter)


@pytest.mark.parametrize("what", ["pause", "pause all", "settle", "priority", "urgent now", "reconfigure"])
@virtual
async def test_a_wait_that_becomes_too_long_ends_at_that_moment(what: str, limiter: Any) -> None:
    if what == "reconfigure" and "AllOf" in repr(limiter):
        return  # it has no rate of its own
    if what == "urgent now" and ("FixedWindow" in repr(limiter) or "Counter" in repr(limiter)):
        return  # what this window has left delays nobody in the next
    async with limiter.permit(2) as permit:
        await limiter.acquire(1)
        line = Line(limiter)
        await line.come("patient", 2)
        enough = (await limiter.peek(2)).retry_after
        waiter = await line.come("hasty", 2, max_wait=enough)
        await line.come("last", 1)
        await asyncio.sleep(0.01)
        assert not waiter.done()
        match what:
            case "pause":
                limiter.pause(20)
            case "pause all":
                getattr(limiter, "limiter", limiter).pause(20)
            case "settle":
                permit.settle(9)
            case "priority":
                await line.come("urgent", 2, priority=1)
            case "urgent now":
                await line.come("urgent", 1, priority=1)
            case "reconfigure":
                limiter.reconfigure("4/min")
        await asyncio.sleep(0)
        with pytest.raises(WaitTooLong) as caught:
            await waiter
        assert now() == pytest.approx(0.01)
        assert caught.value.retry_after > enough - 0.01
    line.tasks.pop("hasty")
    order = await line.all()
    assert [name for name in order if name != "urgent"] == ["patient", "last"]
    assert nothing_left(limiter)


@virtual
async def test_never_later_than_max_wait(limiter: Any) -> None:
    """Who waits for a slot of concurrency cannot know how long; at `max_wait` it is over."""
    from throttle.gate import Slots
    from throttle.permits import Booking

    slots, core = Slots(1), core_of(limiter)
    key = getattr(limiter, "key", "")
    async with Booking(core, 1, key, slots=(slots,)):
        with pytest.raises(WaitTooLong):
            await Booking(core, 1, key, slots=(slots,), max_wait=0).__aenter__()
        with pytest.raises(WaitTooLong):
            await Booking(core, 1, key, slots=(slots,), max_wait=0.5).__aenter__()
        assert now() == 0.5
    async with Booking(core, 1, key, slots=(slots,), max_wait=0):
        pass
    assert (slots.used, slots.blocked) == (0, {})
    assert nothing_left(limiter)


# ── decisions ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("start", [0.0, 0.1, 1 / 3, 12345.678])
@virtual
async def test_exact_retry_after(start: float, limiter: Any) -> None:
    await asyncio.sleep(start)
    for cost in (3, 1, 2):
        while (decision := await limiter.try_acquire(cost)).allowed:
            assert decision.retry_after == decision.retry_after_whole == 0
        assert decision.exact
        whole, began = decision.retry_after_whole, now()
        await asyncio.sleep(decision.retry_after - 1e-6)
        assert not (await limiter.try_acquire(cost)).allowed
        await until(began + decision.retry_after)
        assert (await limiter.peek(cost)).allowed
        assert decision.retry_after - 1e-9 <= whole < decision.retry_after + 1
        assert (await limiter.try_acquire(cost)).allowed
    await asyncio.sleep((await limiter.peek()).reset_after)
    assert (await limiter.peek()).remaining == 4
    assert (await limiter.peek()).reset_after == 0


@virtual
async def test_nobody_barges(limiter: Any) -> None:
    await limiter.acquire(2)
    line = Line(limiter)
    await line.come("big", 4)
    await line.come("next", 2)
    decision = await limiter.try_acquire(1)
    assert not decision
    assert decision.exact
    assert decision.remaining == 2  # of the permits; the line is counted by retry_after
    began = now()
    await asyncio.sleep(decision.retry_after - 1e-6)
    assert not await limiter.try_acquire(1)
    await until(began + decision.retry_after)
    await asyncio.sleep(0)
    assert (await limiter.try_acquire(1)).allowed
    assert await line.all() == ["big", "next"]


@virtual
async def test_peek_takes_nothing_and_remaining_is_before_the_cost(limiter: Any) -> None:
    assert (await limiter.peek(3)).remaining == 4
    assert (await limiter.try_acquire(3)).remaining == 1
    assert [(await limiter.peek()).remaining for _ in range(3)] == [1, 1, 1]
    refused = await limiter.peek(2)
    assert (refused.allowed, refused.remaining) == (False, 1)
    assert limiter.try_acquire_nowait(2).remaining == 1  # a refusal charges nothing
    assert limiter.try_acquire_nowait(1).remaining == 0


@virtual
async def test_what_is_told_behind_a_slot_is_only_a_bound(limiter: Any) -> None:
    from throttle.gate import Slots
    from throttle.permits import Booking

    slots, core, key = Slots(1), core_of(limiter), getattr(limiter, "key", "")
    async with Booking(core, 1, key, slots=(slots,)):
        waiter = asyncio.create_task(Booking(core, 1, key, slots=(slots,)).__aenter__())
        await asyncio.sleep(0)
        decision = await limiter.peek()
        assert (decision.allowed, decision.exact) == (False, False)
        assert decision.retry_after > 0
    await waiter
    assert slots.used == 1


# ── refund, settle ──────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_refund_gives_back_at_once_and_never_above_the_burst(limiter: Any) -> None:
    await limiter.acquire(4)
    line = Line(limiter)
    await line.come("waiter", 2)
    await limiter.refund(2)
    await asyncio.sleep(0)
    assert line.granted == {"waiter": 0}
    await limiter.refund(100)
    assert (await limiter.peek()).remaining == 4


@virtual
async def test_settle_gives_back_the_difference(limiter: Any) -> None:
    async with limiter.permit(4) as permit:
        assert (permit.cost, await remaining(limiter)) == (4, 0)
        line = Line(limiter)
        await line.come("waiter", 2)
        permit.settle(1)
        await asyncio.sleep(0)
        assert line.granted == {"waiter": 0}
        assert (permit.cost, await remaining(limiter)) == (1, 1)
        with pytest.raises(RuntimeError, match="settled already, with cost 1"):
            permit.settle(1)
    assert await remaining(limiter) == 1
    with pytest.raises(RuntimeError):
        permit.settle(0)


@virtual
async def test_settle_charges_the_difference_also_above_the_burst(limiter: Any) -> None:
    async with limiter.permit(1) as permit:
        permit.settle(10)
        assert await remaining(limiter) == 0
    before = (await limiter.peek(1)).retry_after
    assert before >= 1
    await limiter.acquire()
    assert now() == pytest.approx(before)


@virtual
async def test_settle_after_the_block(limiter: Any) -> None:
    async with limiter.permit(4) as permit:
        await asyncio.sleep(0.9)
    rest = await remaining(limiter)
    permit.settle(0)
    assert await remaining(limiter) >= rest
    if "SlidingWindow " not in repr(limiter) or "hold" in repr(limiter):
        assert await remaining(limiter) == 4


@virtual
async def test_a_bad_settlement_leaves_the_permit_unsettled(limiter: Any) -> None:
    async with limiter.permit(2) as permit:
        with pytest.raises(ValueError, match="-3"):
            permit.settle(-3)
        permit.settle(2)
    assert "<Permit cost=2 key=" in repr(permit)


async def remaining(limiter: Any) -> float:
    return (await limiter.peek()).remaining


# ── pause, reset, keys ──────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_pause(limiter: Any) -> None:
    limiter.pause(2)
    limiter.pause(1)  # never shortens
    line = Line(limiter)
    for name in range(3):
        await line.come(name)
    decision = await limiter.peek()
    assert (decision.allowed, decision.exact, decision.remaining) == (False, True, 4)
    assert decision.retry_after == 2
    limiter.pause(3)  # for the waiters, too
    assert await line.all() == [0, 1, 2]
    assert set(line.granted.values()) == {3}
    assert (await limiter.peek()).allowed
    assert nothing_left(limiter)


@virtual
async def test_pause_of_one_key_and_of_all(keyed: Any) -> None:
    keyed.pause(2, key="a")
    assert not keyed.try_acquire_nowait(key="a")
    assert keyed.try_acquire_nowait(key="b")
    keyed.pause(1)
    assert keyed["b"].try_acquire_nowait().retry_after == 1
    assert keyed["new"].try_acquire_nowait().retry_after == 1
    assert keyed["a"].try_acquire_nowait().retry_after == 2


@virtual
async def test_reset(limiter: Any) -> None:
    await limiter.acquire(4)
    limiter.pause(9)
    line = Line(limiter)
    await line.come("waiter")
    await limiter.reset()
    await asyncio.sleep(0)
    assert line.granted == {"waiter": 0}
    assert await remaining(limiter) == 3


@virtual
async def test_keys_are_independent(keyed: Any) -> None:
    await keyed.acquire(4, key="a")
    line = Line(keyed)
    await line.come("a", 2, key="a")
    assert keyed.try_acquire_nowait(4, key="b")
    assert keyed["c"].try_acquire_nowait(4)
    await keyed["c"].reset()
    assert keyed["c"].try_acquire_nowait(4)
    assert not keyed.try_acquire_nowait(key="a")
    await line.all()
    assert now() > 0


@virtual
async def test_idle_keys_are_given_back_while_others_are_used(keyed: Any) -> None:
    for name in range(1000):
        await keyed.acquire(key=f"{name}")
        keyed.pause(1, key=f"{name}")
    await asyncio.sleep(10)
    for _ in range(20):
        for name in range(100):
            keyed.pause(0.001, key=f"other {name}")
            await asyncio.sleep(0.002)
            await keyed.acquire(key=f"other {name}")
        await asyncio.sleep(1)
    for core in [core_of(keyed), *(core_of(m.limiter) for m in getattr(core_of(keyed), "members", []))]:
        assert len(core.gates) < 250
        assert len(getattr(core, "table", "")) < 250


@virtual
async def test_the_gates_of_idle_keys_go_while_others_need_none(keyed: Any) -> None:
    for name in range(20):
        keyed.pause(1, key=f"{name}")
    await asyncio.sleep(2)
    verbs = [keyed.acquire, keyed.try_acquire, keyed.peek, lambda **options: keyed.permit(**options).__aenter__()]
    for name in range(24):
        await verbs[name % 4](key=f"other {name}")
    assert not any(key.isdecimal() for key in core_of(keyed).gates)


# ── reconfigure ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=[kind for kind in ALL if "AllOf" not in kind])
def single(request: pytest.FixtureRequest) -> Any:
    return ALL[request.param]()


@virtual
async def test_reconfigure_keeps_what_was_used(single: Any) -> None:
    await single.acquire(3)
    single.reconfigure("8/s") if "Window" in repr(single) else single.reconfigure("8/s", burst=8)
    assert await remaining(single) == (1 if "TwoRate" in repr(single) else 5)
    single.reconfigure("2/s") if "Window" in repr(single) else single.reconfigure("2/s", burst=2)
    assert await remaining(single) == 0


@virtual
async def test_reconfigure_concerns_who_is_waiting(single: Any) -> None:
    await single.acquire(4)
    line = Line(single)
    for name in range(4):
        await line.come(name, 2)
    single.reconfigure("8/s") if "Window" in repr(single) else single.reconfigure("8/s", burst=4)
    await line.all()
    assert now() < 2
    line = Line(single)
    await single.acquire((await single.peek()).remaining)
    big = await line.come("too big now", 4)
    await line.come("small", 1)
    single.reconfigure("3/s") if "Window" in repr(single) else single.reconfigure("3/s", burst=3)
    with pytest.raises(CostExceedsBurst):
        await big
    await line.tasks["small"]
    assert nothing_left(single)


def test_reconfigure_without_burst_keeps_the_old_one() -> None:
    limiter = TokenBucket("4/s", burst=9)
    limiter.reconfigure("1/min")
    assert limiter.try_acquire_nowait(9).allowed
    with pytest.raises(ValueError, match=r"burst=3"):
        SlidingWindow("4/s").reconfigure("3/s", burst=3)
    with pytest.raises(ValueError, match="unreadable rate 'fast'"):
        limiter.reconfigure("fast")
    with pytest.raises(TypeError, match="AllOf has no rate of its own: reconfigure its members"):
        AllOf(limiter).reconfigure("1/s")
    with pytest.raises(ValueError, match="peak must be at least the rate"):
        KINDS["TwoRateBucket"]().reconfigure("90/s")


# ── async with, permits, calls ────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_async_with_is_acquire_of_one(limiter: Any) -> None:
    async with limiter as nothing, limiter:
        assert nothing is None
        assert await remaining(limiter) == 2
    with pytest.raises(KeyError):
        async with limiter:
            raise KeyError
    assert await remaining(limiter) == 1
    assert nothing_left(limiter)


@virtual
async def test_the_current_permit(limiter: Any) -> None:
    assert current_permit() is None
    async with limiter.permit() as outer:
        assert current_permit() is outer
        async with limiter.permit(2) as inner:
            assert current_permit() is inner
            assert inner.key == getattr(limiter, "key", "")
        assert current_permit() is outer
    assert current_permit() is None


@virtual
async def test_a_call_with_less_patience_than_the_pause(limiter: Any) -> None:
    call = Call()
    call.patience = 5
    current_call.set(call)
    limiter.pause(5.5)
    with pytest.raises(RetryAfterTooLong) as caught:
        await limiter.acquire()
    assert caught.value.retry_after == 5.5
    await asyncio.sleep(0.5)
    line = Line(limiter)
    waiter = await line.come("in line")
    limiter.pause(6)
    with pytest.raises(RetryAfterTooLong):
        await waiter
    assert now() == 0.5
    assert nothing_left(limiter)


@virtual
async def test_the_deadline_of_a_call_bounds_the_line(limiter: Any) -> None:
    call = Call()
    call.deadline = 0.2
    await limiter.acquire(4)
    current_call.set(call)
    with pytest.raises(WaitTooLong):
        await limiter.acquire(4)
    with pytest.raises(WaitTooLong):
        await limiter.acquire(4, max_wait=100)
    assert now() == 0


@virtual
async def test_a_refused_call_goes_back_to_its_place(limiter: Any) -> None:
    """... ahead of who came later, and after who came before."""
    line = Line(limiter)
    order: list[Any] = []

    async def calls(name: str) -> None:
        current_call.set(Call())
        for attempt in (1, 2):
            async with limiter.permit(4) as permit:
                order.append((name, attempt))
                if attempt == 1:
                    permit.observe(Hints(refused=True, retry_after=0.5))

    tasks = [asyncio.create_task(calls(name)) for name in "ab"]
    await asyncio.sleep(0)
    await line.come("newcomer", 4)
    await asyncio.gather(*tasks, *line.tasks.values())
    assert order == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert line.granted["newcomer"] == max(line.granted.values()) == now()
    assert nothing_left(limiter)


# ── clocks and runs ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", list(ALL))
def test_a_second_run_and_another_clock_start_full(kind: str) -> None:
    limiter = ALL[kind]()

    async def main() -> tuple[float, float]:
        first = await remaining(limiter)
        await limiter.acquire(4)
        limiter.pause(0.5)
        await limiter.acquire(2)
        return first, now()

    assert run_virtual(main) == run_virtual(main)
    assert run_virtual(main)[0] == 4
    assert asyncio.run(remaining(limiter)) == 4
    assert nothing_left(limiter)


@pytest.mark.parametrize("kind", list(ALL))
def test_a_clock_of_the_users(kind: str) -> None:
    clock = VirtualClock()
    limiter = ALL[kind](clock=clock)
    assert limiter.try_acquire_nowait(4).allowed
    decision = limiter.try_acquire_nowait(4)
    clock.advance(decision.retry_after - 1e-6)
    assert not limiter.try_acquire_nowait(4)
    clock.advance(1e-6)
    assert limiter.try_acquire_nowait(4)


# ── construction ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("make", [TokenBucket, SlidingWindow, SlidingWindowCounter, FixedWindow])
def test_bad_construction(make: Any) -> None:
    with pytest.raises(ValueError, match="unreadable rate 'often'"):
        make("often")
    for rate in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match=repr(rate)):
            make(rate)
    with pytest.raises(TypeError, match="not None"):
        make(None)
    with pytest.raises(TypeError, match=r"counter must be .* not 'redis://'"):
        make("1/s", counter="redis://")
    with pytest.raises(ValueError, match=r"counter=MemoryCounter\(\) needs name="):
        make("1/s", counter=MemoryCounter())
    with pytest.raises(TypeError, match=r"clock must have now\(\) and sleep\(\), not 5"):
        make("1/s", clock=5)
    with pytest.raises(TypeError, match=r"clock must have now\(\) and sleep\(\), not <class .*VirtualClock'>"):
        make("1/s", clock=VirtualClock)
    with pytest.raises(TypeError, match="name must be a str, not 5"):
        make("1/s", counter=MemoryCounter(), name=5)
    with pytest.raises(TypeError, match="bursts"):
        make("1/s", bursts=4)


def test_bad_bursts_and_peaks() -> None:
    for burst in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"burst must be .*{burst!r}"):
            TokenBucket("1/s", burst=burst)
        with pytest.raises(ValueError, match=f"peak_burst must be .*{burst!r}"):
            TwoRateBucket("1/s", peak="2/s", peak_burst=burst)
    with pytest.raises(ValueError, match="peak must be at least the rate"):
        TwoRateBucket("3/s", peak="2/s")
    with pytest.raises(ValueError, match=r"offset \(seconds\) must be a finite number, not nan"):
        FixedWindow("1/s", offset=math.nan)
    with pytest.raises(TypeError, match="hold must be True or False, not 'no'"):
        SlidingWindow("1/s", hold="no")  # type: ignore[arg-type]


@virtual
async def test_every_spelling_of_a_rate() -> None:
    for rate in ("4/s", "4 per second", Rate(4), Rate(8, per=2), 4, 4.0):
        limiter = limiter_of(rate)
        assert isinstance(limiter, SlidingWindow)
        assert limiter_of(limiter) is limiter
        assert (await limiter.peek()).remaining in {4, 8}
        bound = limiter["k"]
        assert limiter_of(bound) is bound
    with pytest.raises(TypeError, match=r"a limiter such as .*, a Rate or its spelling .* is wanted; not None"):
        limiter_of(None)  # type: ignore[arg-type]
    assert "4/s, hold" in repr(limiter_of("4/s", hold=True))


@virtual
async def test_windows_are_aligned_and_a_rate_below_one_is_turned_round() -> None:
    await asyncio.sleep(0.6)
    limiter = FixedWindow("1/s", offset=0.25)
    await limiter.acquire()
    await limiter.acquire()
    assert now() == 1.25
    slow = SlidingWindow("0.5/s")
    await slow.acquire()
    await slow.acquire()
    assert now() == 3.25
