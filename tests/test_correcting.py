"""A limit that was given, beside what the server says: where both agree, where they do not, and the way back."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from throttle import (
    AllOf,
    Retry,
    RetryAfterTooLong,
    SlidingWindow,
    Throttle,
    ThrottleTransport,
    TokenBucket,
    current_permit,
)
from throttle.hints import Hints, Quota
from throttle.testing import FakeRateLimitedServer, run_virtual

Server = Callable[[float], Hints]


def now() -> float:
    return asyncio.get_running_loop().time()


async def ask(limiter: Any, answer: Hints | Server) -> tuple[float, bool]:
    """One request through `limiter`: when it was sent, and whether the server refused it."""
    async with limiter.permit() as permit:
        at = now()
        await asyncio.sleep(0.001)
        hints = answer if isinstance(answer, Hints) else answer(now())
        permit.observe(hints)
    return at, hints.refused


async def fetched(limiter: Any, server: Server, count: int, tasks: int = 20) -> tuple[float, int]:
    """Until the server has granted `count` requests: how long that took, and how many it refused."""
    left, refused, start = count, 0, now()

    async def work() -> None:
        nonlocal left, refused
        while left > 0:
            left -= 1
            if (await ask(limiter, server))[1]:
                left, refused = left + 1, refused + 1

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())
    return now() - start, refused


def bucket(rate: float, burst: float) -> Server:
    """A server that tells nothing but its refusals."""
    left, last = burst, 0.0

    def answer(at: float) -> Hints:
        nonlocal left, last
        left, last = min(burst, left + (at - last) * rate), at
        if left < 1:
            return Hints(refused=True)
        left -= 1
        return Hints()

    return answer


def window(limit: int, per: float, *, others: int = 0) -> Server:
    """A server of fixed windows that tells its quota in whole seconds; `others` use it up at the start of each."""
    opened, used = -math.inf, 0

    def answer(at: float) -> Hints:
        nonlocal opened, used
        if at >= opened + per:
            opened, used = at, others
        used += 1
        reset = float(math.ceil(opened + per - at))
        quota = Quota("all", limit, max(limit - used, 0), reset, per)
        if used > limit:
            return Hints(refused=True, retry_after=reset, quotas=(quota,))
        return Hints(wait=reset if used == limit else 0.0, quotas=(quota,))

    return answer


SPENT = Hints(wait=2.9, quotas=(Quota("all", 2, 0, 2.9),))


def third(limiter: Any, answer: Hints) -> float:
    """When the third request goes, after two were answered so."""

    async def main() -> float:
        await ask(limiter, Hints())
        await ask(limiter, answer)
        return (await ask(limiter, answer))[0]

    return run_virtual(main)


def test_where_both_counts_agree_the_exact_one_decides() -> None:
    assert 1.999 < third(SlidingWindow("2/2s"), SPENT) < 2.01


def test_a_reset_beyond_all_rounding_counts() -> None:
    assert third(SlidingWindow("2/2s"), Hints(wait=9.0, quotas=(Quota("all", 2, 0, 9.0),))) > 9


def test_another_limit_than_the_given_one_counts() -> None:
    assert third(SlidingWindow("2/2s"), Hints(wait=2.9, quotas=(Quota("all", 7, 0, 2.9),))) > 2.9
    assert third(SlidingWindow("2/2s"), Hints(wait=2.9)) > 2.9


def test_what_others_have_spent_counts() -> None:
    assert third(SlidingWindow("9/2s"), Hints(wait=2.9, quotas=(Quota("all", 9, 0, 2.9),))) > 2.9


@pytest.mark.parametrize("left", [0, 2])
def test_a_late_answer_tells_of_when_it_was_asked_for(left: int) -> None:
    """The probe of a new window meets a server that has only begun to forget the last one, and its answer takes so long
    that by then our own count has room for everybody: no news of others, and no lower limit."""

    def told(remaining: int) -> Hints:
        return Hints(wait=0.0 if remaining else 3.0, quotas=(Quota("all", 20, remaining, 3.0),))

    async def main() -> float:
        limiter = SlidingWindow("20/3s", hold=True)

        async def call(takes: float, hints: Hints) -> None:
            async with limiter.permit() as permit:
                await asyncio.sleep(takes)
                permit.observe(hints)

        await asyncio.gather(call(0.001, told(1)), *(call(0.1, told(0)) for _ in range(19)))
        await asyncio.gather(call(0.3, told(left)), *(call(0.001, Hints()) for _ in range(19)))
        assert all(gate.learner is None for gate in limiter._core.gates.values())
        return now()

    assert 3.3 < run_virtual(main) < 3.5


@pytest.mark.parametrize("left", [0, 2])
def test_a_late_answer_in_steady_traffic_is_news(left: int) -> None:
    """Others use nearly all of it, and we little, but all the time: what our log has forgotten meanwhile is no use of
    ours."""

    async def main() -> tuple[float, bool]:
        limiter = SlidingWindow("20/3s")

        async def call(takes: float, hints: Hints) -> None:
            async with limiter.permit() as permit:
                await asyncio.sleep(takes)
                permit.observe(hints)

        for _ in range(10):
            await call(0.5, Hints())
        told = Hints(wait=0.0 if left else 2.0, quotas=(Quota("all", 20, left, 2.0),))
        late = asyncio.create_task(call(0.6, told))
        await asyncio.sleep(0.55)
        await call(0.001, Hints())  # with it the log forgets one
        await late
        waited = now()
        await call(0.001, Hints())
        return now() - waited, any(gate.learner is not None for gate in limiter._core.gates.values())

    waited, corrected = run_virtual(main)
    assert (waited > 1.9) if left == 0 else corrected


def test_windows_of_the_given_limit_cost_no_more_than_they_must() -> None:
    seconds, refused = run_virtual(lambda: fetched(SlidingWindow("20/3s", hold=True), window(20, 3), 60))
    assert refused == 0
    assert 6 <= seconds < 6.2


def test_a_lower_limit_that_is_told_is_kept() -> None:
    seconds, refused = run_virtual(lambda: fetched(SlidingWindow("20/2s", hold=True), window(10, 2), 40, tasks=2))
    assert refused <= 2
    assert seconds < 10


def test_what_others_use_is_heard() -> None:
    server = window(40, 2, others=20)
    seconds, refused = run_virtual(lambda: fetched(SlidingWindow("40/2s", hold=True), server, 60, tasks=4))
    assert refused <= 4
    assert seconds < 6


def test_a_lower_limit_that_only_refuses_is_found() -> None:
    """A bucket of 10/s behind a limiter of 40/s: without a correction three of four would be refused."""
    seconds, refused = run_virtual(lambda: fetched(TokenBucket("40/s"), bucket(10, 10), 300))
    assert refused < 90, (refused, seconds)
    assert seconds < 40


def test_a_limit_that_is_strict_to_the_millisecond() -> None:
    """One in 20 ms and no burst, at both ends: what arrives a little early is refused, and that is all."""
    server = bucket(50, 1)

    def strict(at: float) -> Hints:
        return server(at - at % 0.003)  # as if requests took sometimes longer, sometimes not

    seconds, refused = run_virtual(lambda: fetched(TokenBucket("50/s", burst=1), strict, 300))
    assert refused < 60
    assert seconds < 10


TWO_LEFT = Hints(quotas=(Quota("all", 20, 2, 30.0, 60.0),))


@pytest.mark.parametrize("verb", ["acquire", "try_acquire"])
def test_what_goes_without_a_permit_that_ends_is_counted_by_the_correction_too(verb: str) -> None:
    async def main() -> None:
        limiter = TokenBucket("10/s", burst=20)
        await ask(limiter, TWO_LEFT)
        for _ in range(2):
            await getattr(limiter, verb)()
        assert 29 < (await limiter.peek()).retry_after < 31
        await limiter.acquire()
        assert 29 < now() < 31

    run_virtual(main)


def test_what_a_decision_tells_of_a_correction() -> None:
    async def main() -> None:
        limiter = TokenBucket("1000/s", burst=20)
        await ask(limiter, Hints(quotas=(Quota("all", 20, 10, 30.0, 60.0),)))
        learner = limiter._core.gates[""].learner
        assert learner is not None
        learner.pace._set(1e-9)  # as if it had found out
        await limiter.acquire(2)
        limiter.pause(0.5)
        decision = await limiter.peek()
        assert decision.exact
        assert decision.retry_after > 1
        await asyncio.sleep(decision.retry_after - 1e-6)
        assert not await limiter.peek()
        await asyncio.sleep(1e-6)
        assert await limiter.peek()
        await limiter.acquire(2)
        waiter = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        assert not (await limiter.peek()).exact
        await waiter

    run_virtual(main)


def test_a_limiter_without_a_limit_is_left_alone() -> None:
    api = Throttle(False)
    run_virtual(lambda: fetched(api.limiter, bucket(10, 10), 30))
    assert all(gate.learner is None for gate in api.limiter._core.gates.values())  # type: ignore[union-attr]


def test_what_nobody_says_whose_it_is_corrects_the_first_member_it_can_be_of() -> None:
    """20/s where 40/s were given."""

    async def main(limiter: Any) -> int:
        server = FakeRateLimitedServer(20, 1.0, style="draft-10", latency=0.02)
        async with httpx.AsyncClient(transport=ThrottleTransport(server, limiter=limiter), timeout=None) as client:
            await asyncio.gather(*(client.get("http://a/") for _ in range(80)))
        return len(server.rejected)

    total, given = TokenBucket("1000/s"), SlidingWindow("40/s", hold=True)
    for limiter in (given, AllOf(total["all"], given), AllOf(pace=given, total=total)):
        assert run_virtual(main, limiter) <= 22
        assert not any(gate.learner for gate in total._core.gates.values())


def test_a_lower_limit_that_only_refuses_corrects_the_first_member() -> None:
    seconds, refused = run_virtual(lambda: fetched(AllOf(TokenBucket("40/s"), "50/s"), bucket(10, 10), 200))
    assert refused < 60, (refused, seconds)
    assert seconds < 28


def test_where_all_members_are_bound_nobody_is_corrected() -> None:
    async def main() -> None:
        one = TokenBucket("10/s", burst=20)
        await ask(AllOf(one["all"]), TWO_LEFT)
        assert not one._core.gates
        await ask(one["all"], TWO_LEFT)  # who asks it alone knows whose limit it is
        assert one._core.gates["all"].learner is not None

    run_virtual(main)


@pytest.mark.parametrize("tokens", [SlidingWindow("20/10s", hold=True), TokenBucket("20/10s")], ids=["hold", "bucket"])
def test_a_member_hears_what_is_left_of_the_quota_named_like_it(tokens: Any) -> None:
    """Others spend half of the tokens at the start of each window."""
    by_windows = window(20, 10, others=10)

    def server(at: float) -> Hints:
        hints = by_windows(at)
        return replace(hints, quotas=tuple(replace(quota, name="input-tokens") for quota in hints.quotas))

    limiter = AllOf(requests=TokenBucket("500/min"), input_tokens=tokens)
    seconds, refused = run_virtual(lambda: fetched(limiter, server, 40, tasks=5))
    assert refused <= 6
    assert seconds < 55


@pytest.mark.parametrize("name", [None, "tokens"])
def test_of_a_member_too_the_exact_count_decides_where_both_agree_and_nothing_was_refused(name: str | None) -> None:
    told = (Quota(name, 2, 0, 2.9),)
    for limiter in (AllOf(tokens=SlidingWindow("2/2s")), AllOf("9/s", tokens=SlidingWindow("2/2s"))):
        assert 1.999 < third(limiter, Hints(wait=2.9, quotas=told)) < 2.01
        assert 2.9 <= third(limiter, Hints(refused=True, retry_after=2.9, quotas=told)) < 3
        late = (Quota(name, 2, 0, 9.0),)
        assert 9 <= third(limiter, Hints(wait=9.0, quotas=late)) < 9.3
        assert name or third(limiter, Hints(refused=True, retry_after=2.9, quotas=late)) < 3


def test_a_quota_of_no_name_is_that_of_the_member_with_this_limit() -> None:
    """As GitHub tells of the hour, beside a limit that it does not tell of."""

    async def main(limiter: AllOf) -> float:
        for _ in range(2):
            await ask(limiter, Hints(quotas=(Quota("core", 20, 2, 30.0),)))
        await ask(limiter, Hints(quotas=(Quota(None, 20, 0, 30.0),), wait=30.0))
        await limiter.acquire()
        return now()

    hour, points, same = SlidingWindow("20/h"), TokenBucket("900/min"), TokenBucket("20/h")
    for combined in (AllOf(primary=hour, points=points), AllOf(hour, points)):
        assert 29 < run_virtual(main, combined) < 31
        assert [gate.learner is not None for gate in hour._core.gates.values()] == [True]
    for members in ({"hour": hour["all"], "points": points}, {"same": same, "hour": hour}):
        assert 29 < run_virtual(main, AllOf(**members)) < 31  # whose it is can only be guessed
        assert not any(gate.learner for gate in hour._core.gates.values())


def test_a_correction_of_a_member_holds_for_whoever_takes_there() -> None:
    async def main() -> None:
        tokens = TokenBucket("10/s", burst=20)
        limiter = AllOf(tokens=tokens)
        await ask(limiter, Hints(quotas=(replace(TWO_LEFT.quotas[0], name="tokens"),)))
        await limiter.acquire()
        async with limiter.permit(0):
            pass
        assert (await tokens.peek()).allowed
        await ask(tokens, Hints())
        for one in (tokens, limiter):
            assert 29 < (await one.peek()).retry_after < 31
        await ask(limiter, Hints())
        assert 29 < now() < 31

    run_virtual(main)


@pytest.mark.parametrize("when", ["before", "in line"])
@pytest.mark.parametrize("make", [TokenBucket, AllOf])
def test_what_a_member_waits_for_too_long_for_is_not_waited_out(make: Any, when: str) -> None:
    async def main() -> None:
        tokens = make("1000/min")
        api = Throttle(AllOf(tokens=tokens), retry=Retry(on=OSError, max_retry_after=60))

        @api
        async def call() -> None:
            permit = current_permit()
            assert permit is not None
            permit.observe(Hints(quotas=(Quota("tokens", 1000, 0, 7200.0),)))

        if when == "before":
            await call()
        else:
            tokens.pause(9)
        waiter = asyncio.create_task(call())
        await asyncio.sleep(1)
        if when == "in line":
            tokens.pause(7200)
        with pytest.raises(RetryAfterTooLong) as refused:
            await waiter
        assert 7199 <= refused.value.retry_after <= 7200
        assert now() == 1

    run_virtual(main)


def test_after_a_minute_without_a_contradiction_the_given_limit_is_right_again() -> None:
    limiter = SlidingWindow("20/2s")

    async def main() -> list[bool]:
        corrected: list[bool] = []
        told = Hints(quotas=(Quota("all", 20, 5, 2.0),))
        for pause, answer in ((0, Hints()), (0, told), (31, told), (31, Hints()), (59, Hints()), (2, Hints())):
            await asyncio.sleep(pause)
            async with limiter.permit() as permit:
                permit.observe(answer)
                gate = limiter._core.gates.get("")
                corrected.append(gate is not None and gate.learner is not None)
        return corrected

    assert run_virtual(main) == [False, True, True, True, False, False]


def test_calls_under_way_when_the_correction_begins() -> None:
    """Their answers are heard, too; those sent before the reaction bring no news."""
    limiter = SlidingWindow("20/2s")

    async def main() -> float:
        async with limiter.permit() as early, limiter.permit() as other:
            await ask(limiter, Hints(quotas=(Quota("all", 20, 5, 2.0),)))
            early.observe(Hints(refused=True, retry_after=5.0))
            other.observe(Hints(refused=True))
        return (await ask(limiter, Hints()))[0]

    assert 5 <= run_virtual(main) < 5.2


def test_the_window_of_the_given_limit_is_known_where_the_server_does_not_tell_it() -> None:
    """Others have opened it just now, and its reset is told two seconds late."""
    late = Quota("all", 20, 5, 3.9)
    assert 2 <= corrected(late) < 2.05
    assert 3.9 <= corrected(Quota("all", 19, 5, 3.9)) < 4  # another limit
    assert 4.1 <= corrected(Quota("all", 20, 5, 4.1)) < 4.3  # another window


def corrected(told: Quota) -> float:
    """When the next goes after all that is `told` to be left was sent."""
    limiter = SlidingWindow("20/2s")

    async def main() -> float:
        await ask(limiter, Hints())
        await ask(limiter, Hints(quotas=(told,)))
        for _ in range(5):
            await ask(limiter, Hints())
        return (await ask(limiter, Hints()))[0]

    return run_virtual(main)
