"""The lanes past the line decide as the general way does, are one step to other threads, and close when they must."""

from __future__ import annotations

import dis
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from itertools import islice
from typing import Any

import pytest

from throttle import (
    AllOf,
    CostExceedsBurst,
    Decision,
    Permit,
    SlidingWindow,
    TokenBucket,
    WaitTooLong,
    clock,
    lanes,
    rulecore,
)
from throttle.hints import Hints, Quota
from throttle.rates import TICKS
from throttle.service import Unlimited

MAKE: dict[str, Callable[[], Any]] = {
    "token bucket": lambda: TokenBucket("2/s", burst=3),
    "deep token bucket": lambda: TokenBucket("2/s", burst=30),
    "token bucket of thirds": lambda: TokenBucket("3/s", burst=2),
    "sliding window": lambda: SlidingWindow("3/s"),
    "sliding window that holds": lambda: SlidingWindow("3/s", hold=True),
}


STORIES = 20  # of each kind


class Time:
    """The machine's clock, moved by hand, for the lanes and for the general way."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000 * TICKS
        for module in (lanes, rulecore):
            patch.setattr(module, "monotonic_ns", lambda: self.now)
        patch.setattr(clock.RealClock, "now", lambda _: self.now / TICKS)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def run(call: Any) -> Any:
    """A coroutine that need not wait, to its end."""
    try:
        call.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


class Pair:
    """One limiter with its lane and its twin that always goes the general way; each step is taken by both."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.both = make(), make()
        self.both[1]._core.open = lambda: None
        self.out: tuple[list[tuple[Permit, Any]], ...] = [], []  # the permits that are out, and what ends them
        for limiter in self.both:
            limiter._core.random = lambda: 0.5

    def step(self, seed: int, name: str, *args: Any) -> None:
        one, other = (self.answer(name, index, *args) for index in range(2))
        assert one == other, f"story {seed}: {name} {args}"
        assert facts(self.both[0]) == facts(self.both[1]), f"story {seed}: {name} {args}"

    def answer(self, name: str, index: int, *args: Any) -> Any:
        try:
            return getattr(self, name)(self.both[index], self.out[index], *args)
        except WaitTooLong as error:
            return error.retry_after
        except (CostExceedsBurst, RuntimeError, ValueError) as error:
            return repr(error)

    def acquire(self, limiter: Any, out: Any, key: str) -> Any:
        return run(limiter.acquire(key=key))  # without a loop, who would have to wait gets a RuntimeError

    def take(self, limiter: Any, out: Any, key: str, cost: float) -> Any:
        return run(limiter.acquire(cost, key=key, max_wait=0))

    def ask(self, limiter: Any, out: Any, key: str, cost: float) -> Any:
        return limiter.try_acquire_nowait(cost, key=key)

    def look(self, limiter: Any, out: Any, key: str) -> Any:
        return run(limiter.peek(0, key=key))

    def grab(self, limiter: Any, out: Any, key: str) -> Any:
        grant = limiter._grab(key, 1)
        if grant is not None:
            permit = Permit(limiter._core, key, None, grant, 1)
            out.append((permit, lambda: permit.end(answered=True)))
        return grant and (grant[0], grant[2])

    def refund(self, limiter: Any, out: Any, key: str, cost: float) -> Any:
        return run(limiter.refund(cost, key=key))

    def begin(self, limiter: Any, out: Any, key: str, cost: float) -> Any:
        if run(limiter.peek(cost, key=key)):
            block = limiter.permit(cost, key=key)
            out.append((run(block.__aenter__()), lambda: run(block.__aexit__(None, None, None))))

    def settle(self, limiter: Any, out: Any, which: int, cost: float) -> Any:
        return out and out[which % len(out)][0].settle(cost)

    def observe(self, limiter: Any, out: Any, which: int, hints: Hints) -> Any:
        return out and out[which % len(out)][0].observe(hints)

    def end(self, limiter: Any, out: Any, which: int) -> Any:
        return out and out.pop(which % len(out))[1]()

    def end_and_settle(self, limiter: Any, out: Any, which: int) -> Any:
        if out:
            permit, end = out.pop(which % len(out))
            end()
            permit.settle(0)

    def pause(self, limiter: Any, out: Any, key: str | None) -> Any:
        return limiter.pause(0.3, key=key)

    def reset(self, limiter: Any, out: Any, key: str | None) -> Any:
        return run(limiter.reset(key))

    def reconfigure(self, limiter: Any, out: Any, rate: str, burst: float | None) -> Any:
        return limiter.reconfigure(rate, burst=burst)


def facts(limiter: Any) -> Any:
    with limiter._core as now:
        return [limiter._core.facts(key, now) for key in ("", "k")]


class Word(str):
    __slots__ = ()


GAPS = [0, 0, 1, 1000, 10**6, TICKS // 3, TICKS // 2 - 1, TICKS // 2, TICKS, 5 * TICKS]
KEYS = ["", "", "k", "k", Word(""), Word("k"), "".join(["k", "k"]), *(f"k{index}" for index in range(9))]
TOLD = [
    Hints(), Hints(refused=True), Hints(refused=True, retry_after=1.0, wait=1.0),
    Hints(wait=0.5, quotas=(Quota("all", 3.0, 0.0, 0.5),)), Hints(quotas=(Quota("all", 9.0, 1.0, 60.0, 60.0),)),
]  # fmt: skip
RATES = [("2/s", None), ("5/s", None), ("1/3s", None), ("2/s", 2.5), ("5/s", 30), ("2/s", 0.5)]


def story(rng: random.Random) -> Iterator[tuple[Any, ...]]:
    """Steps at random: the common ones twenty times as often as those that change everything, and shut the lane."""
    while True:
        key, cost, out = rng.choice(KEYS), rng.choice([0, 1, 1, 2, 0.5, 1 / 3]), rng.randrange(4)
        often = [("acquire", key), ("ask", key, 1), ("grab", key), ("begin", key, rng.choice([0, 1, 2])), ("end", out)]
        more = [("take", key, cost), ("ask", key, cost), ("look", key), ("refund", key, cost), ("settle", out, cost)]
        more += [("end_and_settle", out)]
        key_or_all = rng.choice([key, None])
        seldom = [
            ("observe", out, rng.choice(TOLD)), ("pause", key_or_all), ("reset", key_or_all), ("reset", None),
            ("reconfigure", *rng.choice(RATES)),
        ]  # fmt: skip
        yield rng.choice(rng.choice([often] * 20 + [more] * 4 + [seldom]))


@pytest.mark.parametrize("kind", list(MAKE))
def test_the_lane_decides_as_the_general_way(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)

    def play(seed: int) -> None:
        rng, pair = random.Random(seed), Pair(MAKE[kind])
        for step in islice(story(rng), 120):
            time.now += rng.choice(GAPS)
            pair.step(seed, *step)

    for seed in range(STORIES):
        copy_context().run(play, seed)  # blocks that are still open are none of the tests that follow


@pytest.mark.parametrize("make", MAKE.values(), ids=list(MAKE))
def test_the_lane_is_open_where_it_should_be(make: Callable[[], Any], time: Time) -> None:
    limiter = make()
    assert not limiter._table.open
    run(limiter.acquire())
    assert limiter._table.open == lanes_work()
    limiter.pause(1)
    assert not limiter._table.open
    assert not limiter.try_acquire_nowait()
    time.now += TICKS
    assert limiter.try_acquire_nowait()
    assert limiter._table.open == lanes_work()
    AllOf(limiter)
    run(limiter.acquire())
    assert not limiter._table.open


def test_the_lane_is_open_where_only_keys_are_used(time: Time) -> None:
    for make in MAKE.values():
        limiter = make()
        run(limiter.acquire(key="k"))
        assert limiter._table.open == lanes_work()
        run(limiter.reset())
        run(limiter.acquire(key="k"))
        assert limiter._table.open == lanes_work()


def test_a_key_in_use_stays_while_idle_ones_go(time: Time) -> None:
    """Through the lane, which leaves it to one use now and then to look after the old."""
    limiter = TokenBucket("10/s")
    table = limiter._table
    for index in range(500):
        run(limiter.acquire(key=f"k{index}"))
    time.now = table.turn_at
    run(limiter.acquire(key="k1"))  # the others are old from now on
    assert len(table.old) == 499 or not lanes_work()
    for _ in range(70):
        time.now += TICKS // 10
        run(limiter.acquire(key="k1"))
    assert not table.old
    assert list(table.young) == ["k1"]


def test_an_old_key_is_young_again_when_it_is_used(time: Time) -> None:
    limiter = TokenBucket("1/h", burst=3)
    table = limiter._table
    for index in range(100):
        run(limiter.acquire(key=f"k{index}"))
    time.now = table.turn_at
    run(limiter.acquire(key="k99"))
    assert "k0" in table.old
    for _ in range(3):  # two were left, one more has come back
        run(limiter.acquire(key="k0"))
    assert "k0" in table.young
    assert "k0" not in table.old
    assert not limiter.try_acquire_nowait(key="k0")


def test_what_has_a_clock_of_its_own_has_no_lane(time: Time) -> None:
    limiter = TokenBucket("2/s", clock=clock.RealClock())
    run(limiter.acquire())
    assert not limiter._table.open


@pytest.mark.parametrize("key", ["", "k"])
def test_holding_goes_through_the_lane(time: Time, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """All but the first time, and until the window is full."""
    limiter = SlidingWindow("5/s", hold=True)
    general: list[str] = []
    for name in ("grab", "end"):
        way = getattr(limiter._core, name)
        monkeypatch.setattr(limiter._core, name, lambda *args, name=name, way=way: general.append(name) or way(*args))
    for _ in range(5):
        grant = limiter._grab(key, 1)
        time.now += 1
        Permit(limiter._core, key, None, grant, 1).end(answered=True)
    assert general == ["grab"] or not lanes_work()
    assert limiter._grab(key, 1) is None
    time.now += TICKS - 4  # the first has run out
    Permit(limiter._core, key, None, limiter._grab(key, 1), 1).end(answered=True)
    assert limiter._table.get(key, time.now).used == 5  # it was dropped
    assert run(limiter.peek(key=key)).remaining == 0


def test_what_has_run_out_does_not_stay_in_the_log(time: Time) -> None:
    limiter = SlidingWindow("100000/s", hold=True)
    for _ in range(1000):
        time.now += TICKS // 100
        Permit(limiter._core, "", None, limiter._grab("", 1), 1).end(answered=True)
    assert len(limiter._table.plain.ticks) <= 100 + 256


def test_what_was_held_before_a_reset_is_not_held_after_it(time: Time) -> None:
    limiter = SlidingWindow("2/s", hold=True)
    for key in ("", "k"):
        permit = Permit(limiter._core, key, None, limiter._grab(key, 1), 1)
        run(limiter.reset(key=key))
        assert run(limiter.peek(key=key)).remaining == 2
        assert limiter._grab(key, 1)
        permit.end(answered=True)  # its window starts all the same
        assert run(limiter.peek(key=key)).remaining == 0
        assert limiter._table.get(key, time.now).held == 1


def test_a_spent_key_goes_the_general_way(time: Time) -> None:
    limiter = TokenBucket("1/s", burst=2)
    run(limiter.acquire())
    run(limiter.acquire())
    for _ in range(2):
        run(limiter.acquire(key="k"))
    assert limiter._table.open == lanes_work()
    for key in ("k", ""):
        with pytest.raises(RuntimeError, match="needs a running asyncio or trio event loop"):
            run(limiter.acquire(key=key))


def test_the_lane_of_permits_is_open_where_only_they_are_used(time: Time) -> None:
    for limiter in (TokenBucket("2/s"), Unlimited()):
        assert limiter._grab("k", 1)
        assert limiter._grab("k", 1)
        assert limiter._table.open == lanes_work()
        limiter.pause(1, key="k")
        assert not limiter._table.open
        assert limiter._grab("k", 1) is None


@pytest.mark.parametrize("key", ["", "k"])
@pytest.mark.parametrize("cost", [True, -1, "1"])
def test_wrong_costs_do_not_slip_through_the_lane_of_permits(key: str, cost: Any) -> None:
    for limiter in (TokenBucket("2/s"), Unlimited()):
        assert limiter._grab(key, 1)
        with pytest.raises((TypeError, ValueError)):
            limiter._grab(key, cost)


def test_fractions_close_the_lane(time: Time) -> None:
    limiter = TokenBucket("2/s", burst=2)
    run(limiter.acquire())
    run(limiter.acquire(0.3333333333333))
    assert not limiter._table.open
    run(limiter.acquire(0.3333333333333, key="k"))
    run(limiter.acquire(key="k"))
    assert run(limiter.peek(key="k")).remaining == pytest.approx(0.6666666666667)


def test_a_key_with_a_fraction_goes_the_general_way(time: Time) -> None:
    limiter = TokenBucket("2/s", burst=3)
    run(limiter.acquire(0.3333333333333, key="k"))
    assert limiter._table.open == lanes_work()
    run(limiter.acquire(key="k"))
    assert limiter._grab("k", 1)
    assert run(limiter.peek(key="k")).remaining == pytest.approx(0.6666666666667)
    assert limiter._grab("k", 1) is None


def lanes_work() -> bool:
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


@pytest.mark.parametrize("make", MAKE.values(), ids=list(MAKE))
@pytest.mark.parametrize("wrong", [{"cost": True}, {"cost": "1"}, {"key": None}, {"max_wait": -1}, {"priority": None}])
def test_wrong_arguments_do_not_slip_through(make: Callable[[], Any], wrong: dict[str, Any]) -> None:
    limiter = make()
    run(limiter.acquire())
    with pytest.raises((TypeError, ValueError)):
        run(limiter.acquire(**wrong))


@pytest.mark.parametrize("make", MAKE.values(), ids=list(MAKE))
@pytest.mark.parametrize("key", [[], {}, b"k", 1])
def test_what_is_no_key_is_told_by_its_name(make: Callable[[], Any], key: Any) -> None:
    limiter = make()
    for use in (lambda: run(limiter.acquire(key=key)), lambda: limiter._grab(key, 1)):
        run(limiter.acquire(key="k"))
        with pytest.raises(TypeError, match="a key is a str, not"):
            use()


def test_a_bucket_below_one_permit_has_no_lane(time: Time) -> None:
    limiter = TokenBucket("2/s", burst=0.5)
    run(limiter.acquire(0.5))
    time.now += TICKS
    for key in ("", "k"):
        with pytest.raises(CostExceedsBurst):
            run(limiter.acquire(key=key))
        with pytest.raises(CostExceedsBurst):
            limiter.try_acquire_nowait(key=key)
        with pytest.raises(CostExceedsBurst):
            limiter._grab(key, 1)


def test_the_first_use_of_a_key_is_its_first(time: Time) -> None:
    """In the lane, which asks nobody; and not while there are old ones, of which it may be."""
    limiter = TokenBucket("1/h", burst=2)
    run(limiter.acquire(key="k"))
    for index in range(300):
        run(limiter.acquire(key=f"k{index}"))
        assert run(limiter.peek(key=f"k{index}")).remaining == 1
        run(limiter.acquire(key=f"k{index}"))
    time.now = limiter._table.turn_at
    for index in range(300):
        run(limiter.acquire(key=f"k{index}"))
        assert not limiter.try_acquire_nowait(key=f"k{index}")
        assert run(limiter.peek(key=f"new{index}")).remaining == 2


def test_a_decision_of_the_lane_knows_when(time: Time) -> None:
    limiter = TokenBucket("2/s", burst=2)
    run(limiter.acquire())
    granted = limiter.try_acquire_nowait()
    assert granted == Decision(True, 0.0, 0.0, True, 1.0, 0)
    refused = limiter.try_acquire_nowait()
    assert refused == Decision(False, 0.0, 0.5, True, 1.0, 1)
    time.now += TICKS // 2 - 1000
    assert not limiter.try_acquire_nowait()
    time.now += 1000
    assert limiter.try_acquire_nowait()


# ── one step ──────────────────────────────────────────────────────────────────────────────────────────────────────────


BUCKET, WINDOW = lanes.BucketLane, lanes.WindowLane
LANES = [
    *(BUCKET.acquire, BUCKET.try_acquire_nowait, BUCKET._grab),
    *(WINDOW.acquire, WINDOW._grab, lanes.HoldLane.finish),
]


@pytest.mark.parametrize("lane", LANES)
def test_no_turn_of_threads_between_the_clock_and_the_store(lane: Any) -> None:
    """Threads take turns at calls and jumps back: after each reading of the clock, up to the end of the lane, is no
    other than the storing one, and after that none up to the return."""
    code = list(dis.get_instructions(lane))
    clocks = [index for index, step in enumerate(code) if step.argval == "monotonic_ns"]
    assert clocks
    for start in clocks:
        calls, stored = 0, False
        for step in code[start + 1 :]:
            if step.argval in {"super", "new_decision", "monotonic_ns", "_arrive"}:
                break
            assert "JUMP_BACKWARD" not in step.opname
            calls += step.opname.startswith("CALL")
            assert calls <= 1 + stored, f"{step.opname} at {step.positions}"  # the clock's own, and the storing one
            if step.argval == "append":
                stored = True
            elif step.opname.startswith("RETURN"):
                calls, stored = 1, False
            assert calls < 2 or not step.opname.startswith(("STORE_ATTR", "STORE_SUBSCR"))


def test_threads_hold_and_end_each_permit_once() -> None:
    limiter = SlidingWindow("400/h", hold=True)
    taken: list[int] = []

    def work() -> None:
        count = 0
        while (grant := limiter._grab("", 1)) is not None:
            Permit(limiter._core, "", None, grant, 1).end(answered=True)
            count += 1
        taken.append(count)

    at_once(work)
    assert sum(taken) == 400
    log = limiter._table.plain
    assert (log.used, log.held, len(log.ticks) + sum(log.weights.values()) - len(log.weights)) == (400, 0, 400)


@pytest.mark.parametrize("make", [lambda: TokenBucket("1/h", burst=400), lambda: SlidingWindow("400/h")])
def test_threads_never_take_the_same_permit(make: Callable[[], Any]) -> None:
    limiter = make()
    taken: list[int] = []
    everybody = threading.Barrier(4)

    def work() -> None:
        count = 80
        for _ in range(count):
            run(limiter.acquire())
        everybody.wait()
        while limiter.try_acquire_nowait():
            count += 1
        taken.append(count)

    at_once(work)
    assert sum(taken) == 400


def at_once(work: Callable[[], None]) -> None:
    """In four threads that take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
