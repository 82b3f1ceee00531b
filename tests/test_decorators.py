"""`throttled`: each call of an async function waits for its permit, and what its outcome says is heard."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from worlds import TrioWorld, nothing_left, virtual

from throttle import (
    AllOf,
    CostExceedsBurst,
    Rate,
    Retry,
    SlidingWindow,
    TokenBucket,
    WaitTooLong,
    current_permit,
    retry,
    throttled,
)
from throttle.hints import Hints


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("limit", ["2/s", Rate(2), 2, TokenBucket("2/s"), TokenBucket("2/s")["key"]])
@virtual
async def test_each_call_waits_for_its_turn(limit: Any) -> None:
    @throttled(limit)
    async def double(number: int, *, add: int = 0) -> int:
        """Twice as much."""
        times.append(now())
        return 2 * number + add

    times: list[float] = []
    assert await asyncio.gather(*(double(number, add=1) for number in range(4))) == [1, 3, 5, 7]
    assert len(times) == 4 and times[:2] == [0, 0] and times[3] == 1
    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")


@virtual
async def test_a_rate_is_held_until_the_call_ends() -> None:
    @throttled("1/s")
    async def work() -> None:
        times.append(now())
        await asyncio.sleep(0.5)

    times: list[float] = []
    await asyncio.gather(work(), work(), work())
    assert times == [0, 1.5, 3]


@virtual
async def test_however_a_call_ends_its_permit_ends() -> None:
    limiter = SlidingWindow("1/s", hold=True)

    @throttled(limiter)
    async def work(error: BaseException | None) -> None:
        times.append(now())
        await asyncio.sleep(0.5)
        if error is not None:
            raise error

    times: list[float] = []
    with pytest.raises(LookupError):
        await work(LookupError())
    task = asyncio.create_task(work(None))
    await asyncio.sleep(1.25)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await work(None)
    assert times == [0, 1.5, 2.75]
    assert nothing_left(limiter)


@virtual
async def test_two_functions_of_one_rate_make_twice_that_and_share_a_limiter() -> None:
    shared = TokenBucket("1/s")
    for limit, took in [("1/s", 0), (shared, 1)]:
        start = now()

        @throttled(limit)
        async def one() -> None: ...

        @throttled(limit)
        async def two() -> None: ...

        await asyncio.gather(one(), two())
        assert now() - start == took


@virtual
async def test_key_and_cost_are_values_or_functions_of_the_arguments() -> None:
    limiter = TokenBucket("1/s", burst=10)

    @throttled(limiter, key=lambda user, size: user, cost=lambda user, size: size)
    async def by_function(user: str, size: int) -> None: ...

    @throttled(limiter, key="bob", cost=4)
    async def by_value() -> None: ...

    await by_function("alice", size=3)
    await by_value()
    assert [(await limiter.peek(key=key)).remaining for key in ("alice", "bob", "")] == [7, 6, 10]
    await by_function("alice", size=0)
    with pytest.raises(CostExceedsBurst):
        await by_function("alice", size=11)
    with pytest.raises(TypeError, match="a key is a str, not 5"):
        await by_function(5, size=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="-1"):
        await by_function("alice", size=-1)


@virtual
async def test_all_of_takes_named_costs_and_settles_them() -> None:
    limiter = AllOf(requests=TokenBucket("10/s"), tokens=TokenBucket("100/s"))

    @throttled(limiter, cost=lambda prompt: {"tokens": len(prompt)}, settle=lambda used: {"tokens": used})
    async def ask(prompt: str) -> int:
        return 150

    await ask("x" * 50)
    start = now()
    await ask("x" * 50)
    assert now() - start == pytest.approx(1)


@virtual
async def test_settle_charges_what_the_result_says() -> None:
    limiter = TokenBucket("1/s", burst=10)

    @throttled(limiter, cost=5, settle=lambda used: used)
    async def ask(used: int) -> int:
        return used

    for used in (2, 9):
        await limiter.reset()
        await ask(used)
        assert (await limiter.peek()).remaining == 10 - used
    with pytest.raises(ValueError, match="-3"):
        await ask(-3)


@virtual
async def test_max_wait() -> None:
    @throttled(TokenBucket("0.1/s", burst=1), max_wait=5)
    async def work() -> int:
        return 1

    assert await work() == 1
    with pytest.raises(WaitTooLong) as told:
        await work()
    assert (told.value.retry_after, now()) == (10, 0)


@virtual
async def test_the_permit_is_at_hand_inside() -> None:
    limiter = TokenBucket("1/s", burst=10)

    @throttled(limiter, key="k", cost=2)
    async def work() -> None:
        permit = current_permit()
        assert permit is not None
        assert (permit.cost, permit.key) == (2, "k")
        permit.settle(3)
        permit.observe(Hints(refused=True, retry_after=4))
        with pytest.raises(RuntimeError, match="settled already"):
            permit.settle(1)
        with pytest.raises(TypeError, match=r"observe takes Hints, as read_hints\(\) gives them, not 429"):
            permit.observe(429)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="observe takes Hints"):
            permit.observe(SimpleNamespace(refused=True))  # type: ignore[arg-type]

    await work()
    assert current_permit() is None
    assert (await limiter.peek(key="k")).retry_after == 4
    assert (await limiter.peek(key="other")).allowed


class Refused(Exception):
    retry_after = 3


@virtual
async def test_what_an_outcome_says_holds_back_everybody_of_that_key() -> None:
    limiter = TokenBucket("100/s")

    @throttled(limiter, key=lambda key, outcome: key)
    async def work(key: str, outcome: Any) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    class Response:
        status_code = 429
        headers = (("Retry-After", "3"),)

    for outcome in (Refused(), Response()):
        start = now()
        await asyncio.gather(work("a", outcome), return_exceptions=True)
        await work("b", None)
        assert now() == start
        await work("a", None)
        assert now() == start + 3


@virtual
async def test_a_retry_around_it_goes_back_into_the_line() -> None:
    times: list[float] = []

    @retry(on=Refused, attempts=3)
    @throttled("10/s")
    async def work() -> str:
        times.append(now())
        if len(times) < 3:
            raise Refused
        return "done"

    assert await work() == "done"
    assert times == [0, 3, 6]


@virtual
async def test_methods_partials_and_callable_objects() -> None:
    class Client:
        @throttled("10/s", cost=lambda self, number: number, key=lambda self, number: self.name)
        async def get(self, number: int) -> int:
            return number

        async def __call__(self, number: int) -> int:
            return number + 1

        name = "client"

    async def power(base: int, number: int) -> int:
        return base**number

    assert await Client().get(3) == 3
    assert await throttled("10/s")(Client())(3) == 4
    assert await throttled("10/s")(functools.partial(power, 2))(3) == 8


def plain() -> None: ...


async def generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (plain, "is none: write `async def`"),
        (functools.partial(plain), "is none: write `async def`"),
        (classmethod(plain), "put @staticmethod and @classmethod outermost"),
        (staticmethod(plain), "put @staticmethod and @classmethod outermost"),
        (lambda: None, "is none: write `async def`"),
        (generator, "is an async generator: throttle each step inside it"),
        (functools.partial(generator), "is an async generator"),
        (5, "is none"),
        (None, "is none"),
    ],
)
def test_only_async_functions(function: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        throttled("10/s")(function)


@pytest.mark.parametrize(
    ("limit", "options", "error", "says"),
    [
        (plain, {}, TypeError, r'needs a limiter or a rate: @throttled\("10/s"\)'),
        (TokenBucket, {}, TypeError, "needs a limiter"),
        ("fast", {}, ValueError, "fast"),
        (True, {}, TypeError, "needs a limiter"),
        (None, {}, TypeError, "needs a limiter"),
        ("10/s", {"cost": -1}, ValueError, "-1"),
        ("10/s", {"cost": 11}, CostExceedsBurst, "11"),
        ("10/s", {"cost": "many"}, (TypeError, ValueError), "many"),
        ("10/s", {"key": 5}, TypeError, "key takes a str or a function that gives one, not 5"),
        ("10/s", {"key": asyncio.sleep}, TypeError, "key takes a plain function, not the async "),
        ("10/s", {"cost": asyncio.sleep}, TypeError, "cost takes a plain function, not the async "),
        ("10/s", {"settle": asyncio.sleep}, TypeError, "settle takes a plain function, not the async "),
        ("10/s", {"max_wait": -1}, ValueError, "-1"),
        ("10/s", {"settle": 5}, TypeError, "settle takes a function"),
        ("10/s", {"unknown": 5}, TypeError, "unknown"),
        (TokenBucket("10/s")["a"], {"key": "b"}, TypeError, "is bound to its key and takes no other, not 'b'"),
    ],
)
def test_a_bad_option_is_one_clear_error(limit: Any, options: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        throttled(limit, **options)


def test_on_trio() -> None:
    world = TrioWorld()

    @throttled(SlidingWindow("2/s", hold=True, clock=world.clock))
    async def work() -> None:
        times.append(round(world.now() - start, 6))
        await trio.sleep(0.5)

    times: list[float] = []

    async def play() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(work)

    clock = trio.testing.MockClock(autojump_threshold=0)
    start = clock.current_time()
    trio.run(play, clock=clock)
    assert times == [0, 0, 1.5, 1.5]


def test_retry_by_a_policy_hears_once() -> None:
    """The limiter hears the outcome, the retry knows, and the gate's wait is not slept twice."""

    @virtual
    async def play() -> None:
        @Retry(on=Refused, attempts=2)
        @throttled("10/s")
        async def work() -> None:
            times.append(now())
            raise Refused

        times: list[float] = []
        with pytest.raises(Refused):
            await work()
        assert times == [0, 3]

    play()
