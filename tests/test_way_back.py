"""After a refusal: everybody of the key is held, then one probe, then a paced return; and it never stays stuck."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from worlds import core_of, nothing_left, virtual

from throttle import AllOf, SlidingWindow, TokenBucket
from throttle.calls import Call, current_call
from throttle.hints import Hints, Quota
from throttle.limiter import BaseLimiter
from throttle.testing import run_virtual

REFUSED = Hints(refused=True, retry_after=2.0)
FINE = Hints()


def now() -> float:
    return asyncio.get_running_loop().time()


def wide() -> TokenBucket:
    """A limiter that holds nobody back by itself."""
    return TokenBucket("1000/s", burst=1000)


class Server:
    """Takes `takes` seconds for a call, and answers as it is told."""

    def __init__(self, limiter: BaseLimiter, *, takes: float = 0.1) -> None:
        self.limiter = limiter
        self.takes = takes
        self.sent: list[float] = []
        self.flying = self.most = 0

    async def call(self, answer: Hints | Exception | None = FINE, **options: Any) -> None:
        async with self.limiter.permit(**options) as permit:
            self.sent.append(round(now(), 6))
            self.flying += 1
            self.most = max(self.most, self.flying)
            try:
                await asyncio.sleep(self.takes)
            finally:
                self.flying -= 1
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                permit.observe(answer)


@virtual
async def test_one_probe_then_twice_as_many_with_each_round_trip() -> None:
    server = Server(wide())
    await server.call(REFUSED)
    await asyncio.gather(*(server.call() for _ in range(15)))
    assert server.sent[1:] == [2.1] + [2.2] * 2 + [2.3] * 4 + [2.4] * 8
    assert nothing_left(server.limiter)


@virtual
async def test_answers_without_hints_count_as_well() -> None:
    server = Server(wide())
    await server.call(REFUSED)
    await asyncio.gather(*(server.call(None) for _ in range(7)))
    assert server.sent[1:] == [2.1] + [2.2] * 2 + [2.3] * 4


@virtual
async def test_a_flight_of_refusals_is_one_reaction() -> None:
    server = Server(wide())
    await asyncio.gather(*(server.call(REFUSED) for _ in range(50)))
    gate = core_of(server.limiter).gates[""]
    assert gate.refusals == 1
    await server.call()
    assert server.sent[-1] == 2.1
    assert gate.refusals == 0


@virtual
async def test_a_later_pause_of_an_old_request_wins_and_never_shortens() -> None:
    server = Server(wide())
    later, sooner = Hints(refused=True, retry_after=5.0), Hints(refused=True, retry_after=0.5)
    await asyncio.gather(*(server.call(hints) for hints in (REFUSED, later, sooner)))
    await server.call()
    assert server.sent[-1] == 5.1


@virtual
async def test_a_probe_that_is_refused_is_news() -> None:
    server = Server(wide())
    await server.call(REFUSED)
    await asyncio.gather(server.call(REFUSED), *(server.call() for _ in range(3)))
    assert server.sent == [0, 2.1, 4.2, 4.3, 4.3]


@virtual
async def test_refusals_that_name_no_time_hold_ever_longer() -> None:
    limiter = wide()
    core_of(limiter).random = lambda: 1.0
    server = Server(limiter, takes=0.0)
    for answer in (
        Hints(refused=True),
        Hints(refused=True, retry_after=0.0),
        Hints(refused=True),
        FINE,
        Hints(refused=True),
    ):
        await server.call(answer)
    await server.call()
    gaps = [round(later - earlier, 6) for earlier, later in zip(server.sent, server.sent[1:], strict=False)]
    assert gaps == [0.2, 0.4, 0.8, 0.0, 0.2]


@virtual
async def test_a_spent_quota_holds_and_then_lets_one_probe() -> None:
    server = Server(wide())
    await server.call(Hints(wait=3.0))
    await server.call(Hints(wait=0.1))  # shorter than what is known: nothing new
    await asyncio.gather(*(server.call() for _ in range(3)))
    assert server.sent == [0, 3.1, 3.3, 3.4, 3.4]


async def cancelled(server: Server) -> None:
    task = asyncio.create_task(server.call())
    await asyncio.sleep(2.15 - now())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def failed(server: Server) -> None:
    with pytest.raises(OSError, match="lost"):
        await server.call(OSError("lost"))


async def granted_and_given_up(server: Server) -> None:
    task = asyncio.create_task(server.call())
    await asyncio.sleep(1)
    asyncio.get_running_loop().call_later(2.1 - now(), task.cancel)
    await asyncio.gather(task, return_exceptions=True)


async def bare(server: Server) -> None:
    await server.limiter.acquire()


async def bare_many(server: Server) -> None:
    await asyncio.gather(*(server.limiter.acquire() for _ in range(50)))


async def asked_only(server: Server) -> None:
    await asyncio.sleep(2.15 - now())
    server.limiter.try_acquire_nowait()


async def closed(server: Server) -> None:
    async def items() -> Any:
        async with server.limiter.permit():
            yield 1

    generator = items()
    await anext(generator)
    await generator.aclose()


async def timed_out(server: Server) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.05):
            await server.call()


async def settled_and_reset(server: Server) -> None:
    async with server.limiter.permit() as permit:
        permit.settle(3)
        await server.limiter.reset()


@pytest.mark.parametrize(
    "probe",
    [cancelled, failed, granted_and_given_up, bare, bare_many, asked_only, closed, timed_out, settled_and_reset],
)
@pytest.mark.parametrize("waiting", [0, 5])
@virtual
async def test_it_never_stays_stuck(probe: Callable[[Server], Awaitable[None]], waiting: int) -> None:
    """However the probe ends: who waits, or comes later, is served."""
    server = Server(wide())
    await server.call(REFUSED)
    probing = asyncio.create_task(probe(server))
    await asyncio.sleep(0)
    others = [asyncio.create_task(server.call()) for _ in range(waiting)]
    await probing
    await asyncio.gather(*others)
    for _ in range(3):
        await server.call()
    assert now() < 6
    assert nothing_left(server.limiter)


@virtual
async def test_what_a_refusal_has_taught_is_forgotten_after_a_period() -> None:
    limiter = TokenBucket("10/s")
    for number in range(100):
        async with limiter.permit(key=f"{number}") as permit:
            permit.observe(REFUSED)
    assert len(core_of(limiter).gates) == 100
    await asyncio.sleep(3.1)
    for number in range(120):
        limiter.pause(0.01, key=f"new {number}")
    assert len(core_of(limiter).gates) <= 121


@virtual
async def test_what_is_told_while_a_probe_flies_is_only_a_bound() -> None:
    server = Server(wide())
    await server.call(REFUSED)
    probe = asyncio.create_task(server.call())
    await asyncio.sleep(2.05)
    decision = server.limiter.try_acquire_nowait()
    assert (decision.allowed, decision.exact) == (False, False)
    assert decision.retry_after > 0
    await probe
    assert server.limiter.try_acquire_nowait()


@virtual
async def test_observe_after_the_block_and_under_a_new_gate() -> None:
    limiter = wide()
    async with limiter.permit() as permit:
        pass
    permit.observe(REFUSED)
    assert limiter.try_acquire_nowait().retry_after == 2
    await limiter.acquire()
    assert now() == 2


def test_observe_of_a_run_that_is_over_changes_nothing() -> None:
    limiter = wide()
    permits: list[Any] = []

    async def first() -> None:
        async with limiter.permit() as permit:
            permits.append(permit)

    async def second() -> None:
        await limiter.acquire()
        permits[0].observe(REFUSED)
        permits[0].settle(500)
        assert (await limiter.peek()).remaining == 999

    run_virtual(first)
    run_virtual(second)


@virtual
async def test_a_long_wait_is_logged_once_per_key(caplog: pytest.LogCaptureFixture) -> None:
    limiter = wide()
    with caplog.at_level(logging.INFO, logger="throttle"):
        limiter.pause(6, key="host")
        await asyncio.gather(*(limiter.acquire(key="host") for _ in range(3)))
        limiter.pause(1, key="host")
        await limiter.acquire(key="host")
    assert [record.message for record in caplog.records] == ["key 'host' waits for 6.0 s"]


@virtual
async def test_a_wait_that_has_become_long_is_logged_when_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    limiter = TokenBucket("1/s")
    await limiter.acquire()
    with caplog.at_level(logging.INFO, logger="throttle"):
        first = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        limiter.pause(9)
        await asyncio.gather(first, *(limiter.acquire() for _ in range(3)))
    assert [record.message for record in caplog.records] == ["key '' waits for 9.0 s"]


@virtual
async def test_who_is_granted_while_its_wait_is_logged_does_not_wait() -> None:
    limiter = TokenBucket("1/s")
    limiter.pause(9)
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: limiter._core.reset(None)  # type: ignore[method-assign]
    log = logging.getLogger("throttle")
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        await asyncio.wait_for(limiter.acquire(), 1)
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


# ── several limiters at once ────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_a_quota_named_like_a_member_holds_that_member_only() -> None:
    requests, tokens = wide(), wide()
    limiter = AllOf(requests=requests, tokens=tokens)
    spent = (Quota("tokens", remaining=0, reset_after=4.0), Quota("requests", remaining=7, reset_after=1.0))
    async with limiter.permit() as permit:
        permit.observe(Hints(wait=4.0, quotas=spent))
    assert requests.try_acquire_nowait()
    assert tokens.try_acquire_nowait().retry_after == 4
    await limiter.acquire({"tokens": 0})
    assert now() == 0
    await limiter.acquire()
    assert now() == 4


@virtual
async def test_a_members_name_has_an_underscore_where_the_servers_has_a_hyphen() -> None:
    requests, tokens = wide(), wide()
    limiter = AllOf(requests=requests, input_tokens=tokens)
    async with limiter.permit() as permit:  # as Anthropic names it
        permit.observe(Hints(wait=4.0, quotas=(Quota("input-tokens", remaining=0, reset_after=4.0),)))
    assert tokens.try_acquire_nowait().retry_after == 4
    assert requests.try_acquire_nowait()
    await limiter.acquire({"input_tokens": 0})
    assert now() == 0


@virtual
async def test_a_refusal_of_a_member_comes_back_to_its_place() -> None:
    limiter = AllOf(requests=wide(), tokens=wide())
    order: list[str] = []
    spent = (Quota("tokens", remaining=0, reset_after=4.0),)

    async def refused_once() -> None:
        current_call.set(Call())
        async with limiter.permit() as permit:
            permit.observe(Hints(refused=True, retry_after=4.0, quotas=spent))
        async with limiter.permit():
            order.append("refused once")

    task = asyncio.create_task(refused_once())
    await asyncio.sleep(0)
    newcomer = asyncio.create_task(limiter.acquire())
    newcomer.add_done_callback(lambda _: order.append("newcomer"))
    await asyncio.gather(task, newcomer)
    assert order[0] == "refused once"
    assert now() == 4


@pytest.mark.parametrize("turned", [False, True])
@virtual
async def test_two_combined_limiters_in_opposite_order_do_not_block_each_other(turned: bool) -> None:
    one, two = TokenBucket("4/s", burst=1), TokenBucket("3/s", burst=1)
    there, back = AllOf(one, two), AllOf(two, one) if turned else AllOf(one, two)
    counts = {"there": 0, "back": 0, "one": 0, "two": 0}

    async def use(name: str, limiter: Any) -> None:
        while now() < 30:
            await limiter.acquire()
            counts[name] += 1

    async with asyncio.timeout(40):
        await asyncio.gather(use("there", there), use("back", back), use("one", one), use("two", two))
    assert counts["there"] + counts["back"] + counts["one"] == pytest.approx(4 * 30, abs=8)
    assert counts["there"] + counts["back"] + counts["two"] <= 3 * 30 + 5
    assert counts["there"] >= 10
    assert counts["back"] >= 10
    assert nothing_left(there, back)


@virtual
async def test_a_favoured_head_that_waits_elsewhere_holds_nobody_up() -> None:
    one, two = TokenBucket("10/s", burst=2), TokenBucket("10/s", burst=2)
    limiter = AllOf(one, two)
    hogs = [asyncio.create_task(one.acquire()) for _ in range(60)]
    await asyncio.sleep(0)
    head = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0.5)
    two.pause(60)
    await asyncio.gather(*hogs)
    assert now() == pytest.approx(5.8)  # as if there were no head
    await head
    assert now() == pytest.approx(60.5)


@virtual
async def test_a_head_of_a_big_cost_is_admitted_after_a_period() -> None:
    one, two = SlidingWindow("5/s"), TokenBucket("50/s", burst=50)
    limiter = AllOf(one, two)
    stop = asyncio.Event()

    async def hog() -> None:
        while not stop.is_set():
            await one.acquire()

    hogs = [asyncio.create_task(hog()) for _ in range(3)]
    await asyncio.sleep(0.3)
    began = now()
    await limiter.acquire(5)
    assert now() - began <= 3
    stop.set()
    await asyncio.gather(*hogs)
    assert nothing_left(limiter)


@virtual
async def test_a_cost_that_no_longer_fits_a_member_is_refused_also_behind_the_head() -> None:
    member = TokenBucket("1/s", burst=5)
    limiter = AllOf(member, TokenBucket("1/s", burst=9))
    await limiter.acquire(5)
    tasks = [asyncio.create_task(limiter.acquire(cost)) for cost in (2, 5, 1)]
    await asyncio.sleep(0)
    member.reconfigure("1/s", burst=4)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert "can never be granted: at most 4" in str(tasks[1].exception())
    await asyncio.gather(tasks[0], tasks[2])
    assert nothing_left(limiter)
