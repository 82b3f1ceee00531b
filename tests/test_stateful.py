"""Whole stories of a line, in virtual time, against a reference that is slow and obviously right.

The reference keeps every waiter in a list and every permit in a history (`algorithms/models.py`), and finds each
instant by search. The limiter must grant, refuse and forecast at the same nanosecond, whatever happens in between:
arrivals with costs, priorities and patience, cancellations, also of those who were just granted, pauses, refunds,
settlements, other rates, several keys, one rule or several at once.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
from algorithms.models import Bucket, Buckets, History, Model, Windows, model_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import core_of, nothing_left

from throttle import (
    AllOf,
    CostExceedsBurst,
    FixedWindow,
    Rate,
    SlidingWindow,
    SlidingWindowCounter,
    TokenBucket,
    TwoRateBucket,
    WaitTooLong,
)
from throttle.counters import MemoryCounter
from throttle.testing import VirtualClock, run_virtual

SECOND = 10**9

MAKE: dict[str, Callable[..., Any]] = {
    "TokenBucket": lambda **options: TokenBucket("3/s", burst=5, **options),
    "SlidingWindow": lambda **options: SlidingWindow("5/s", **options),
    "SlidingWindowCounter": lambda **options: SlidingWindowCounter("5/s", **options),
    "FixedWindow": lambda **options: FixedWindow("5/s", **options),
    "TwoRateBucket": lambda **options: TwoRateBucket("3/s", burst=7, peak="6/s", peak_burst=5, **options),
    "AllOf": lambda **options: AllOf(TokenBucket("3/s", burst=6, **options), SlidingWindow("5/2s", **options)),
    "AllOf of three": lambda **options: AllOf(
        FixedWindow("7/s", **options),
        AllOf(a=TokenBucket("4/s", burst=5, **options), b=SlidingWindow("9/2s", **options)),
    ),
    "counter": lambda **options: SlidingWindow("5/s", counter=MemoryCounter(), name="n", **options),
}


# ── the reference ─────────────────────────────────────────────────────────────────────────────────────────────────


class Together:
    """Several models as one: all grant, or none."""

    def __init__(self, models: list[Model]) -> None:
        self.models = models

    def granted(self, now: int, cost: Any) -> bool:
        return all(model.granted(now, cost) for model in self.models)

    def book(self, at: int, cost: Any) -> None:
        for model in self.models:
            model.book(at, cost)

    def give(self, now: int, amount: Any, taken: int) -> None:
        for model in self.models:
            model.give(now, amount, taken)

    def remaining(self, now: int) -> Any:
        return min(model.remaining(now) for model in self.models)


def reference_model(core: Any, now: int) -> Any:
    members = getattr(core, "members", None)
    if members is None:
        return model_of(core.table.rule, now)
    return Together([reference_model(member.core, now) for member in members])


def clone(model: Any) -> Any:
    """A copy that can be played on."""
    twin = copy.copy(model)
    for name, value in vars(model).items():
        if isinstance(value, list | tuple) and name != "rule":
            setattr(twin, name, type(value)(clone(one) if hasattr(one, "granted") else one for one in value))
    return twin


def first(model: Any, at: int, cost: Any) -> int:
    """The first tick from `at` on at which `model` grants: by doubling and halving."""
    if model.granted(at, cost):
        return at
    step = SECOND // 16
    while not model.granted(at + step, cost):
        step *= 2
    low, high = at, at + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if model.granted(middle, cost) else (middle, high)
    return high


@dataclass
class Waiter:
    name: int
    cost: int
    priority: int
    deadline: int | None
    taken: int | None = None

    def rank(self) -> tuple[int, int]:
        return -self.priority, self.name


@dataclass
class Reference:
    """One key."""

    model: Any
    most: int
    now: int
    line: list[Waiter] = field(default_factory=list)
    paused_until: int = 0
    outcomes: dict[int, Any] = field(default_factory=dict)

    def forecast(self) -> tuple[dict[int, int], Any, int]:
        """When everybody in line is served, and what is left behind, and when."""
        model, at, dues = clone(self.model), max(self.now, self.paused_until), {}
        for waiter in sorted(self.line, key=Waiter.rank):
            at = dues[waiter.name] = first(model, at, waiter.cost)
            model.book(at, waiter.cost)
        return dues, model, at

    def serve(self, now: int) -> None:
        """Let time pass until `now`."""
        while self.line:
            head = min(self.line, key=Waiter.rank)
            due = first(self.model, max(self.now, self.paused_until), head.cost)
            if due > now:
                break
            self.now = due
            self.line.remove(head)
            self.model.book(due, head.cost)
            head.taken = due
            self.outcomes[head.name] = ("granted", due)
        self.now = now

    def settled(self) -> None:
        """Something has happened: grant what can be granted, refuse who would come too late."""
        self.serve(self.now)
        while True:
            dues, _, _ = self.forecast()
            line = sorted(self.line, key=Waiter.rank)
            late = [waiter for waiter in line if waiter.deadline is not None and dues[waiter.name] > waiter.deadline]
            if not late:
                break
            self.line.remove(late[0])
            self.outcomes[late[0].name] = ("too long", dues[late[0].name] - self.now)
            self.serve(self.now)

    def retry_after(self, cost: int) -> int:
        dues, model, at = self.forecast()
        due = first(model, at, cost)
        return max(due - self.now, 1 if dues else 0)

    def arrive(self, waiter: Waiter) -> None:
        before = dict(self.outcomes)
        self.line.append(waiter)
        if waiter.deadline is not None:
            dues, _, _ = self.forecast()
            if dues[waiter.name] > waiter.deadline:
                self.line.remove(waiter)
                self.outcomes = before | {waiter.name: ("too long", dues[waiter.name] - self.now)}
                return
        self.settled()

    def cancel(self, waiter: Waiter) -> None:
        if waiter in self.line:
            self.line.remove(waiter)
            self.outcomes[waiter.name] = ("cancelled",)
            self.settled()

    def give_up(self, waiter: Waiter) -> None:
        """It was granted this very tick, and cancelled."""
        self.model.give(self.now, waiter.cost, waiter.taken)
        self.outcomes[waiter.name] = ("cancelled",)
        self.settled()

    def reconfigured(self, most: int) -> None:
        """The model has another rule: refuse those who can never be granted any more."""
        self.most = most
        for waiter in list(self.line):
            if waiter.cost > most:
                self.line.remove(waiter)
                self.outcomes[waiter.name] = ("never",)
        self.settled()


def give_rule(model: Any, rule: Any, now: int) -> None:
    """The model lives by another rule from now on; what was used stays used."""
    if isinstance(model, Bucket):
        used = model.burst - model.level(now)
        model.burst, model.pace = Fraction(rule.burst), Fraction(rule.permits, rule.ticks)
        model.tokens, model.at = model.burst - used, now
    elif isinstance(model, Buckets):
        give_rule(model.both[0], rule.committed, now)
    else:
        assert isinstance(model, History | Windows)
        if isinstance(model, Windows):
            vars(model).update(vars(model.at(now)))
        model.rule = rule


def leaves(core: Any, models: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """The rules of a limiter, or of the members of several, each with its part of the models."""
    if not hasattr(core, "members"):
        yield core, models
    else:
        for index, member in enumerate(core.members):
            yield from leaves(member.core, [model.models[index] for model in models])


# ── what happens ────────────────────────────────────────────────────────────────────────────────────────────────

costs = st.integers(1, 5)
arrivals = st.tuples(
    st.just("arrive"),
    st.sampled_from([1, 1, 1, 2, 3, 5]),
    st.sampled_from([0, 0, 0, 1, 2]),
    st.sampled_from([None, None, 0, 0.3, 0.9, 2.0, 4.0, "just", "just not"]),
    st.sampled_from(["a", "a", "a", "b"]),
)
others = st.one_of(
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("refund"), st.integers(0, 3), st.sampled_from("ab")),
    st.tuples(st.just("refund and cancel"), st.integers(1, 5), st.sampled_from("ab")),
    st.tuples(st.just("pause"), st.sampled_from([0.1, 0.7, 1.9]), st.sampled_from(["a", "b", None])),
    st.tuples(st.just("settle"), st.integers(0, 30), st.integers(0, 9)),
    st.tuples(st.just("reconfigure"), st.integers(3, 8), st.integers(0, 2)),
    st.tuples(st.just("try"), costs, st.sampled_from("ab")),
)
stories = st.lists(
    st.tuples(st.sampled_from([0, 0, 0, 0.05, 0.21, 0.5, 1.3]), st.one_of(arrivals, arrivals, others)),
    min_size=12,
    max_size=40,
)


class Story:
    """Plays a story to the limiter and to the reference, and compares them after each step."""

    def __init__(self, kind: str, clock: VirtualClock | None) -> None:
        self.kind = kind
        self.clock = clock
        self.limiter = MAKE[kind](clock=clock)
        self.core = core_of(self.limiter)
        self.keys = {key: Reference(reference_model(self.core, 0), self._most(), 0) for key in "ab"}
        self.waiters: list[tuple[Waiter, str, asyncio.Task[None]]] = []
        self.permits: dict[int, Any] = {}
        self.outcomes: dict[int, Any] = {}
        self.unsettled: dict[int, bool] = {}

    def _most(self) -> int:
        low = 1
        while True:
            try:
                self.core.check(self.core.cost(low + 1), "")
            except CostExceedsBurst:
                return low
            low += 1

    def now(self) -> float:
        return self.clock.now() if self.clock else asyncio.get_running_loop().time()

    def tick(self) -> int:
        return round(self.now() * SECOND)

    async def _wait(self, waiter: Waiter, key: str, max_wait: float | None) -> None:
        try:
            async with self.limiter.permit(waiter.cost, key=key, priority=waiter.priority, max_wait=max_wait) as permit:
                self.permits[waiter.name] = permit
                self.outcomes[waiter.name] = ("granted", self.tick())
        except WaitTooLong as error:
            self.outcomes[waiter.name] = ("too long", round(error.retry_after * SECOND))
        except CostExceedsBurst:
            self.outcomes[waiter.name] = ("never",)
        except asyncio.CancelledError:
            self.outcomes[waiter.name] = ("cancelled",)

    async def pass_time(self, seconds: float) -> None:
        if self.clock is None:
            await asyncio.sleep(seconds)
        else:
            await self.clock.run(seconds)

    async def settle_down(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)
        if self.clock is not None:
            await self.clock.run(0)

    async def play(self, story: list[Any]) -> None:
        for number, (gap, (what, *how)) in enumerate(story):
            await self.pass_time(gap + 0.000017 * (number % 7 + 1))  # so that nothing else happens in this very tick
            for reference in self.keys.values():
                reference.serve(self.tick())
            await getattr(self, what.replace(" ", "_"))(*how)
            await self.settle_down()
            await self.compare()
        await self.pass_time(200)
        for reference in self.keys.values():
            reference.serve(self.tick())
        await self.compare()
        assert not any(reference.line for reference in self.keys.values())
        assert nothing_left(self.limiter)
        await asyncio.gather(*(task for _, _, task in self.waiters))

    async def compare(self) -> None:
        expected = {name: outcome for reference in self.keys.values() for name, outcome in reference.outcomes.items()}
        assert self.outcomes.keys() == expected.keys()
        for name, outcome in expected.items():
            assert self.outcomes[name][0] == outcome[0]
            assert self.outcomes[name][1:] == pytest.approx(outcome[1:], abs=2)
        for key, reference in self.keys.items():
            decision = await self.limiter.peek(key=key)
            assert decision.remaining == pytest.approx(float(max(reference.model.remaining(self.tick()), 0)))
            assert decision.retry_after * SECOND == pytest.approx(reference.retry_after(1), abs=2)
            assert decision.exact

    async def arrive(self, cost: int, priority: int, max_wait: Any, key: str) -> None:
        reference = self.keys[key]
        cost = min(cost, reference.most)
        name = len(self.waiters)
        if isinstance(max_wait, str):  # to the nanosecond
            probe = copy.copy(reference)
            probe.line = list(reference.line)
            probe.line.append(Waiter(name, cost, priority, None))
            due = probe.forecast()[0][name] - (max_wait == "just not")
            if due < reference.now:
                return
            deadline, max_wait = due, (due - reference.now) / SECOND
        else:
            deadline = None if max_wait is None else round((self.now() + max_wait) * SECOND)
        waiter = Waiter(name, cost, priority, deadline)
        self.waiters.append((waiter, key, asyncio.create_task(self._wait(waiter, key, max_wait))))
        reference.arrive(waiter)

    async def cancel(self, index: int) -> None:
        if self.waiters:
            waiter, key, task = self.waiters[index % len(self.waiters)]
            task.cancel()
            self.keys[key].cancel(waiter)

    async def refund(self, cost: int, key: str) -> None:
        await self.limiter.refund(cost, key=key)
        self.give_back(cost, key)

    def give_back(self, cost: int, key: str) -> None:
        reference = self.keys[key]
        reference.model.give(reference.now, cost, reference.now)
        reference.settled()

    async def refund_and_cancel(self, cost: int, key: str) -> None:
        """Whoever is granted by it is cancelled before it has run."""
        reference = self.keys[key]
        before = set(reference.outcomes)
        await self.limiter.refund(cost, key=key)
        self.give_back(cost, key)
        for name in sorted(reference.outcomes.keys() - before):
            waiter, _, task = self.waiters[name]
            task.cancel()
            await self.settle_down()
            reference.give_up(waiter)
            break  # the others have run by now

    async def pause(self, seconds: float, key: str | None) -> None:
        self.limiter.pause(seconds, key=key)
        for name, reference in self.keys.items():
            if key in (None, name):
                reference.paused_until = max(reference.paused_until, round((self.now() + seconds) * SECOND))
                reference.settled()

    async def settle(self, index: int, cost: int) -> None:
        names = sorted(self.permits)
        if names:
            name = names[index % len(names)]
            waiter, key, _ = self.waiters[name]
            reference = self.keys[key]
            self.permits.pop(name).settle(cost)
            if cost > waiter.cost:
                reference.model.book(reference.now, cost - waiter.cost)
            else:
                reference.model.give(reference.now, waiter.cost - cost, waiter.taken)
            reference.settled()

    async def reconfigure(self, permits: int, which: int) -> None:
        parts = list(leaves(self.core, [reference.model for reference in self.keys.values()]))
        core, models = parts[which % len(parts)]
        if core.table.rule.kind in ("token_bucket", "two_rate"):
            core.reconfigure(Rate(permits / 2), permits)
        else:
            core.reconfigure(Rate(permits), None)
        most = self._most()
        for reference, model in zip(self.keys.values(), models, strict=True):
            give_rule(model, core.table.rule, reference.now)
            reference.reconfigured(most)

    async def try_(self, cost: int, key: str) -> None:
        reference = self.keys[key]
        if cost <= reference.most:
            wait = reference.retry_after(cost)
            decision = self.limiter.try_acquire_nowait(cost, key=key)
            assert decision.allowed == (wait == 0)
            if decision.allowed:
                reference.model.book(reference.now, cost)
                reference.settled()
            else:
                assert decision.retry_after * SECOND == pytest.approx(wait, abs=2)


setattr(Story, "try", Story.try_)


def share(part: int) -> settings:
    """A part of the profile's examples, each of which is a long story: `make proof` plays thousands."""
    examples = max(10, settings.default.max_examples // part)
    return settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("kind", list(MAKE))
@share(3)
@given(story=stories)
def test_stories(kind: str, story: list[Any]) -> None:
    async def play() -> None:
        await Story(kind, None).play(story)

    run_virtual(play)


@pytest.mark.parametrize("kind", ["TokenBucket", "SlidingWindow", "AllOf"])
@share(5)
@given(story=stories)
def test_stories_of_a_clock_that_others_move(kind: str, story: list[Any]) -> None:
    asyncio.run(Story(kind, VirtualClock()).play(story))
