"""Concurrency as part of the gate: permit and slot together, keys take turns, and no slot is ever lost."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from worlds import nothing_left, virtual

from throttle import AllOf, SlidingWindow, TokenBucket, WaitTooLong
from throttle.gate import Slots
from throttle.permits import Booking


def now() -> float:
    return asyncio.get_running_loop().time()


class Calls:
    """Calls that hold their slots for a while."""

    def __init__(self, limiter: Any, slots: Slots) -> None:
        self.limiter, self.slots = limiter, slots
        self.log: list[tuple[str, float]] = []
        self.most = self.running = 0

    async def call(self, name: str, key: str = "", *more: Slots, takes: float = 1.0, **options: Any) -> None:
        async with Booking(self.limiter._core, 1, key, slots=(self.slots, *more), **options):
            self.log.append((name, now()))
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await asyncio.sleep(takes)
            finally:
                self.running -= 1

    async def start(self, name: str, *args: Any, **options: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(self.call(name, *args, **options))
        await asyncio.sleep(0)
        return task

    def clean(self) -> bool:
        return self.slots.used == 0 and not self.slots.blocked and nothing_left(self.limiter)


@virtual
async def test_keys_take_turns_first_come_first_served() -> None:
    calls = Calls(TokenBucket("100/s"), Slots(2))
    tasks = [await calls.start(f"{key}{number}", key) for number in range(3) for key in "aabbc"]
    await asyncio.gather(*tasks)
    assert calls.most == 2
    assert now() == 8
    order = [name for name, _ in calls.log]
    for key in "abc":
        mine = [name for name in order if name[0] == key]
        assert mine == sorted(mine)
    assert {name[0] for name in order[2:5]} == set("abc")  # nobody's line is served out before the others are looked at
    assert calls.clean()


@virtual
async def test_who_waits_for_a_permit_holds_no_slot_and_the_other_way_round() -> None:
    calls = Calls(TokenBucket("1/s", burst=1), Slots(1))
    await calls.limiter.acquire(key="slow")
    slow = await calls.start("slow", "slow")  # its permit comes at 1 s
    await calls.call("fast", "fast", takes=0.5)
    assert now() == 0.5
    await slow
    assert calls.log == [("fast", 0), ("slow", 1)]
    calls = Calls(SlidingWindow("1/10s"), Slots(1))
    busy = await calls.start("busy", "other", takes=3)
    waits = await calls.start("waits", "key")
    await asyncio.sleep(1)
    assert not calls.limiter.try_acquire_nowait(key="key").exact  # it waits for the slot, and has taken no permit
    assert (await calls.limiter.peek(key="key")).remaining == 1
    await asyncio.gather(busy, waits)
    assert calls.clean()


@virtual
async def test_two_kinds_of_slots_at_once() -> None:
    calls, narrow = Calls(TokenBucket("100/s"), Slots(3)), Slots(1)
    tasks = [await calls.start(f"n{number}", "narrow", narrow) for number in range(3)]
    tasks += [await calls.start(f"w{number}", "wide") for number in range(4)]
    await asyncio.gather(*tasks)
    assert dict(calls.log) == {"n0": 0, "w0": 0, "w1": 0, "n1": 1, "w2": 1, "w3": 1, "n2": 2}
    assert (narrow.used, narrow.blocked) == (0, {})
    assert calls.clean()


@virtual
async def test_a_key_that_cannot_use_a_slot_lets_others_have_it() -> None:
    calls = Calls(TokenBucket("1/s", burst=1), Slots(1))
    first = await calls.start("first", "a", takes=0.25)
    tasks = [await calls.start(name, name[0], takes=0.25) for name in ("a2", "b1", "c1", "b2")]
    await asyncio.gather(first, *tasks)
    assert calls.log == [("first", 0), ("b1", 0.25), ("c1", 0.5), ("a2", 1.0), ("b2", 1.25)]
    assert calls.clean()


@virtual
async def test_a_paused_key_does_not_stand_in_the_way_of_a_slot() -> None:
    calls = Calls(TokenBucket("100/s"), Slots(1))
    busy = await calls.start("busy", "a")
    paused = await calls.start("paused", "b")
    other = await calls.start("other", "c")
    calls.limiter.pause(5, key="b")
    await asyncio.gather(busy, paused, other)
    assert calls.log == [("busy", 0), ("other", 1), ("paused", 5)]
    assert calls.clean()


@virtual
async def test_a_free_cost_does_not_pass_those_who_wait_for_a_slot() -> None:
    calls = Calls(TokenBucket("100/s"), Slots(1))
    tasks = [await calls.start(name) for name in "abc"]
    async with Booking(calls.limiter._core, 0, "", slots=(calls.slots,)):
        assert now() == 3
    await asyncio.gather(*tasks)
    assert calls.clean()


@virtual
async def test_slots_under_a_combined_limiter_hold_no_member_back() -> None:
    """A head that waits for a slot is not refused by the members: their own callers go on."""
    one, two = TokenBucket("2/s", burst=1), TokenBucket("2/s", burst=1)
    calls = Calls(AllOf(one, two), Slots(1))
    busy = await calls.start("busy", takes=20)
    head = await calls.start("head")
    for _ in range(10):
        await one.acquire()
    assert now() == 5
    await asyncio.gather(busy, head)
    assert calls.clean()


@pytest.mark.parametrize("seed", range(8))
@virtual
async def test_no_slot_leaks(seed: int) -> None:
    """Calls that end, fail, time out, are refused or cancelled at any moment: in the end every slot is free."""
    dice = random.Random(seed)
    both = AllOf(TokenBucket("20/s", burst=3), SlidingWindow("30/s"))
    calls = Calls(both if seed % 2 else TokenBucket("20/s"), Slots(3))
    narrow = Slots(1)
    tasks: list[asyncio.Task[None]] = []
    for number in range(200):
        options = {"max_wait": dice.choice([0.0, 0.3, 2.0])} if dice.random() < 0.4 else {}
        more = (narrow,) if dice.random() < 0.3 else ()
        key = dice.choice("abcd")
        takes, priority = dice.random(), dice.randrange(2)
        tasks.append(await calls.start(f"{number}", key, *more, takes=takes, priority=priority, **options))
        if dice.random() < 0.4:
            dice.choice(tasks).cancel()
        if dice.random() < 0.05:
            calls.limiter.pause(dice.random(), key=dice.choice(["a", "b", None]))
        if dice.random() < 0.5:
            await asyncio.sleep(dice.random() / 5)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert calls.most == 3
    assert {type(end) for end in ended} <= {type(None), WaitTooLong, asyncio.CancelledError}
    assert (narrow.used, narrow.blocked) == (0, {})
    assert calls.clean()
