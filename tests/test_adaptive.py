"""The limiter that learns: its verbs, the gate it lives in, and whole programs against simulated servers."""

from __future__ import annotations

import asyncio
from contextvars import Context
from random import Random
from typing import Any

import pytest
from simulated import Bucket, Network, Queue, Window
from worlds import nothing_left, virtual

from throttle import AdaptiveLimiter, AllOf, Rate, Retry, RetryAfterTooLong, Throttle, TokenBucket, WaitTooLong
from throttle.accounts import Accounts
from throttle.hints import Hints, Quota
from throttle.ledger import Flight, Ledger
from throttle.rates import TICKS
from throttle.resets import Stamp
from throttle.testing import run_virtual


def now() -> float:
    return asyncio.get_running_loop().time()


class Refused(Exception):
    def __init__(self, hints: Hints) -> None:
        self.hints = hints


class Passed:
    def __init__(self, hints: Hints) -> None:
        self.hints = hints


async def scrape(server: Any, items: int, **options: Any) -> tuple[float, int, Throttle]:
    """Seconds that many items took through `Throttle(limiter=None)`, how many were refused, and the throttle."""
    network, refused = Network(rng=Random(5)), 0
    retry = Retry(on=Refused, hints=lambda outcome: getattr(outcome, "hints", None), attempts=8)
    api = Throttle(retry=retry, **options)

    async def call(number: int) -> Passed:
        nonlocal refused
        await asyncio.sleep(network.way())
        passes, hints, work = server.at(now())
        await asyncio.sleep(work + network.way())
        if not passes:
            refused += 1
            raise Refused(hints)
        return Passed(hints)

    async with api.map(call, range(items), read_ahead=200) as results:
        done = {item async for item, _ in results}
    assert done == set(range(items))
    assert nothing_left(api.limiter)
    return now(), refused, api


@virtual
async def test_a_whole_program_finds_the_rate_of_a_bucket() -> None:
    server = Bucket(40, 20)
    seconds, refused, api = await scrape(server, 261)
    assert seconds <= 1.1 * server.ideal(261)
    assert refused <= 30
    learned = api.limiter.learned()  # type: ignore[union-attr]
    assert learned is not None
    assert 30 < learned.per_second < 50
    assert "AdaptiveLimiter {'': " in repr(api.limiter)


@virtual
async def test_a_whole_program_spends_what_is_left() -> None:
    server = Window(100, 3.0)
    seconds, refused, api = await scrape(server, 300)
    assert seconds <= 1.1 * server.ideal(300)
    assert refused == 0
    assert api.limiter.learned() == Rate(100, 3)  # type: ignore[union-attr]


@virtual
async def test_a_whole_program_before_a_server_that_queues() -> None:
    server = Queue(40, 20)
    seconds, refused, _ = await scrape(server, 240)
    assert seconds <= 1.3 * server.ideal(240)
    assert refused <= 12


@virtual
async def test_it_waits_as_long_as_it_is_told_and_then_sends_one() -> None:
    limiter = AdaptiveLimiter()
    async with limiter.permit() as permit:
        permit.observe(Hints(refused=True, retry_after=2.0))
    assert not limiter.try_acquire_nowait()
    sent: list[float] = []

    async def call() -> None:
        async with limiter.permit():
            sent.append(now())
            await asyncio.sleep(0.1)

    await asyncio.gather(*(call() for _ in range(7)))
    assert 2 <= sent[0] <= 2.04
    assert [round(at - sent[0], 6) for at in sent] == [0, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2]


@virtual
async def test_a_bare_pause_simply_ends() -> None:
    limiter = AdaptiveLimiter()
    limiter.pause(2.0)
    with pytest.raises(WaitTooLong):
        await limiter.acquire(max_wait=1)
    await asyncio.gather(*(limiter.acquire() for _ in range(5)))
    assert now() == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"minimum": "10/s", "maximum": "5/s"}, "maximum"),
        ({"minimum": "10/s", "initial": "5/s"}, "initial"),
        ({"initial": 0}, "0"),
        ({"maximum": "fast"}, "fast"),
    ],
)
def test_what_is_no_limit_is_refused(options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AdaptiveLimiter(**options)


def test_a_new_beginning_is_between_minimum_and_maximum_too() -> None:
    limiter = AdaptiveLimiter(minimum="2/s", maximum="10/s")
    limiter.reconfigure("5/s")
    for rate, name in (("1/s", "initial"), ("11/s", "maximum")):
        with pytest.raises(ValueError, match=f"minimum <= initial <= maximum must hold, but {name} is"):
            limiter.reconfigure(rate)
    assert limiter._core.initial == Rate(5)


# ── the verbs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def spent(reset: float, *, limit: float = 10.0, window: float | None = None, name: str | None = None) -> Hints:
    return Hints(wait=reset, quotas=(Quota(name, limit, 0.0, reset, window),))


FINE = Hints()


async def ask(limiter: AdaptiveLimiter, hints: Hints = FINE, takes: float = 0.1, **options: Any) -> None:
    async with limiter.permit(**options) as permit:
        await asyncio.sleep(takes)
        permit.observe(hints)


@virtual
async def test_initial_minimum_and_maximum_bound_the_pace() -> None:
    limiter = AdaptiveLimiter(initial="10/s", minimum="8/s", maximum="12/s")
    await asyncio.gather(*(limiter.acquire() for _ in range(121)))
    assert 9.9 <= now() <= 12.1
    await ask(limiter, Hints(refused=True))
    for _ in range(5):
        await ask(limiter, Hints(refused=True))
    learned = limiter.learned()
    assert learned is not None
    assert 8 - 1e-9 <= learned.per_second <= 12 + 1e-9


@virtual
async def test_a_pace_is_as_slow_as_it_was_given_and_no_number_is_too_odd() -> None:
    year = 365 * 86400.0
    for options in ({"maximum": "1/365d"}, {"initial": "1/365d"}):
        limiter = AdaptiveLimiter(**options)
        await limiter.acquire()
        assert (await limiter.peek()).retry_after == pytest.approx(year)
    for rate in (5e-324, 1e-300, 1.0):
        limiter = AdaptiveLimiter(initial=rate)
        await limiter.acquire(1e300)
        with pytest.raises(WaitTooLong):
            await limiter.acquire(1e300, max_wait=60)


@virtual
async def test_the_verbs_that_ask_take_and_give_back() -> None:
    limiter = AdaptiveLimiter(initial="1/s")
    await ask(limiter, takes=0.0)
    decision = limiter.try_acquire_nowait()
    assert (decision.allowed, decision.exact, decision.remaining) == (False, False, 0)
    assert (await limiter.peek()).retry_after == pytest.approx(1, abs=0.01)
    with pytest.raises(WaitTooLong):
        await asyncio.gather(limiter.acquire(), limiter.acquire(max_wait=1.5))
    await asyncio.sleep(5)
    assert await limiter.try_acquire()
    await limiter.refund()
    assert await limiter.try_acquire()
    assert limiter.try_acquire_nowait(0)
    async with limiter.permit() as permit:
        permit.settle(3)
    assert (await limiter.peek()).retry_after > 0.5


@virtual
async def test_reconfigure_and_reset() -> None:
    limiter = AdaptiveLimiter()
    with pytest.raises(ValueError, match="burst"):
        limiter.reconfigure("5/s", burst=3)
    await ask(limiter)
    limiter.reconfigure("5/s")
    assert limiter.learned() == Rate(5)
    await limiter.reset()
    assert limiter.learned() == Rate(5)
    async with limiter.permit() as permit:
        await limiter.reset()
        permit.observe(Hints(refused=True, retry_after=5.0))  # it was sent before: no news
    assert limiter.try_acquire_nowait()


@virtual
async def test_what_is_left_is_told_and_a_spent_quota_holds_until_its_reset() -> None:
    limiter = AdaptiveLimiter()
    await ask(limiter, Hints(quotas=(Quota("default", 10.0, 9.0, 5.0, 5.0), Quota("used", None, None, None, None))))
    assert (await limiter.peek()).remaining == 9
    await ask(limiter, spent(4.0, window=5.0, name="default"))
    assert (await limiter.peek()).retry_after == pytest.approx(4)
    await asyncio.gather(*(ask(limiter) for _ in range(3)))
    assert now() == pytest.approx(4.4, abs=0.11)
    assert limiter.learned() == Rate(10, 5)


@virtual
async def test_quotas_that_name_no_reset() -> None:
    limiter = AdaptiveLimiter()
    await ask(limiter, Hints(quotas=(Quota(None, 10.0, 0.0, None, None),)))  # nothing can be held
    assert limiter.try_acquire_nowait()
    await ask(limiter, Hints(quotas=(Quota("b", 10.0, 0.0, None, 2.0),)))  # a window bounds it
    assert (await limiter.peek()).retry_after == pytest.approx(2)
    await ask(limiter, Hints(wait=3.0))  # Retry-After of an error
    assert (await limiter.peek()).retry_after == pytest.approx(3)


@virtual
async def test_quotas_of_tokens_are_counted_by_cost() -> None:
    limiter = AdaptiveLimiter()
    quotas = Quota("tokens", 1000.0, 900.0, 10.0, 10.0), Quota("requests", 100.0, 99.0, 10.0, 10.0)
    await ask(limiter, Hints(quotas=quotas), cost=100)
    assert (await limiter.peek(900)).allowed
    assert not (await limiter.peek(901)).allowed


@virtual
async def test_limits_without_a_name_are_not_taken_for_one() -> None:
    policies = Quota(None, 1000.0, window=3600.0), Quota(None, 5000.0, window=86400.0)  # drafts up to 07
    limiter = AdaptiveLimiter()
    await ask(limiter, Hints(quotas=(Quota(None, 50.0, 49.0, 60.0, 60.0), *policies)))
    assert limiter.learned() == Rate(50, 60)
    both = Quota(None, 20.0, 19.0, 1.0, 1.0), Quota(None, 15000.0, 10.0, 9000.0, 2592000.0)  # Brave Search
    limiter = AdaptiveLimiter()
    await ask(limiter, Hints(quotas=both))
    assert limiter.learned() == Rate(15000, 2592000)
    assert (await limiter.peek(10)).allowed
    for _ in range(10):
        await ask(limiter, Hints())
    assert (await limiter.peek()).retry_after == 8999  # a second has passed
    limiter = AdaptiveLimiter()
    await ask(limiter, Hints(quotas=policies[:1]))  # a policy alone
    assert limiter.learned() == Rate(1000, 3600)


def test_a_moving_window_that_was_used_up_by_others_lets_one_ask() -> None:
    ledger = Ledger(lambda: 0.0, None)
    second = 1_000_000_000
    told = Quota(None, 4.0, 0.0, 1.0, 4.0)
    ledger.heard(told, Flight(0, 1, 1, 1), second, 1, 1)
    ledger.passed(second, second, 1)
    assert ledger.sent(2)
    ledger.heard(told, Flight(3 * second, 2, 2, 1), 3 * second, 2, 1)
    assert ledger.moving
    assert ledger.held_until(2) == 0
    assert ledger.earliest(3 * second, 2, 0, 2) == 5 * second + second // 50  # its own slot comes back
    assert ledger.earliest(30 * second, 2, 0, 4) == 30 * second


def told(ledger: Ledger, at: float, number: int, left: float, *, refused: bool = False) -> None:
    """The answer of that moment to request `number`, the only one under way."""
    flight = Flight(ticks(at), number, number, 1)
    ledger.heard(Quota(None, 10.0, left, 4.0, 4.0), flight, ticks(at), number, 1, refused=refused)
    if not refused:
        ledger.passed(ticks(at), ticks(at), 1)


def test_an_answer_that_was_long_on_its_way_tells_of_no_others() -> None:
    """It counts what came back meanwhile; a faster answer that was sent later is here already."""
    ledger = Ledger(lambda: 0.0, None)
    for number, at in enumerate((0.0, 0.001, 3.5), 1):
        told(ledger, at, number, 10 - number)
    for number, sent, at, left, flying in ((5, 4.022, 4.026, 8, 2), (4, 3.99, 4.03, 6, 1)):
        quota = Quota(None, 10.0, left, 4.0, 4.0)
        ledger.heard(quota, Flight(ticks(sent), number, number, 1), ticks(at), 5, flying)
        ledger.passed(ticks(sent), ticks(at), 1)
    assert ledger._foreign == 0


def test_where_others_may_send_as_many_the_last_ones_wait_for_an_answer() -> None:
    ledger = Ledger(lambda: 0.0, None)
    told(ledger, 0.0, 1, 9)
    assert not ledger.doubtful(9, 8)
    told(ledger, 0.1, 2, 6)  # others have had two: up to the eighth
    assert ledger.doubtful(6, 4)
    assert ledger.doubtful(6, 1)
    assert not ledger.doubtful(6, 0)
    assert not ledger.doubtful(5, 1)
    assert not ledger.doubtful(8, 4)  # nothing is left, which is no doubt
    told(ledger, 4.5, 3, 9)  # they may come back ...
    assert ledger.doubtful(9, 6)
    told(ledger, 9.0, 4, 9)  # ... and have not
    assert not ledger.doubtful(9, 6)


def test_where_permits_come_back_one_by_one_what_others_have_had_is_theirs_for_one_window() -> None:
    ledger = Ledger(lambda: 0.0, None)
    told(ledger, 0.0, 1, 9)
    told(ledger, 0.1, 2, 4)
    assert ledger.sent(7)
    ledger.heard(Quota(None, 10.0, 0.0, 1.0, 4.0), Flight(ticks(4), 7, 7, 1), ticks(4.005), 7, 1)  # one has come back
    assert ledger.moving
    assert ledger.earliest(ticks(4.006), 7, 0, 1) == ticks(4.006)
    told(ledger, 4.01, 8, 0, refused=True)  # it took nothing: they have had one more
    assert ledger.earliest(ticks(4.015), 8, 0, 1) == ticks(4.02)  # our own comes back
    assert ledger.doubtful(9, 1)
    told(ledger, 8.2, 9, 9)  # they have gone
    assert ledger.earliest(ticks(8.2), 9, 0, 9) == ticks(8.2)


@virtual
async def test_more_quotas_than_any_server_has_cost_no_memory() -> None:
    limiter = AdaptiveLimiter()
    for number in range(50):
        await ask(limiter, Hints(quotas=(Quota(f"{number}", 10.0, 9.0, 1.0, 1.0),)), takes=0.0)
    assert len(limiter._core.gates[""].learner._accounts._ledgers) == 16  # type: ignore[union-attr]


@virtual
async def test_a_later_wait_of_an_old_request_wins() -> None:
    limiter = AdaptiveLimiter()
    await asyncio.gather(*(ask(limiter) for _ in range(15)))
    assert now() == pytest.approx(0.4)

    async def refused(wait: float | None) -> None:
        async with limiter.permit() as permit:
            await asyncio.sleep(0.1)
            permit.observe(Hints(refused=True, retry_after=wait))

    await asyncio.gather(*(refused(wait) for wait in (1.0, 5.0, 2.0, None)))
    await ask(limiter)
    assert now() == pytest.approx(5.6)


@virtual
async def test_a_slow_day_teaches_no_slow_pace() -> None:
    """One call in ten seconds, some refused: that is no limit of one in ten seconds."""
    limiter = AdaptiveLimiter()
    for number in range(30):
        await ask(limiter, Hints(refused=number % 7 == 3), takes=0.01)
        await asyncio.sleep(10)
    before = now()
    await asyncio.gather(*(ask(limiter, takes=0.01) for _ in range(20)))
    assert now() - before < 5


@virtual
async def test_idle_keys_are_forgotten() -> None:
    limiter = AdaptiveLimiter()
    for number in range(100):
        await ask(limiter, key=f"{number}", takes=0.0)
    assert len(limiter._core.gates) == 100
    await asyncio.sleep(61)
    for number in range(110):
        await ask(limiter, key=f"new {number}", takes=0.0)
    assert len(limiter._core.gates) <= 111


@pytest.mark.jitter
@virtual
async def test_a_wait_that_the_server_named_is_kept_and_a_little_more() -> None:
    limiter = AdaptiveLimiter()
    await ask(limiter, Hints(refused=True, retry_after=10.0), takes=0.0)
    assert 10 <= limiter.try_acquire_nowait().retry_after <= 10.2
    given = TokenBucket("100/s")
    async with given.permit() as permit:
        permit.observe(Hints(refused=True, retry_after=10.0))
    ends = {given.try_acquire_nowait().retry_after}
    assert all(10 <= end <= 10.2 for end in ends)
    assert ends != {10.0}


@virtual
async def test_patience_is_compared_with_what_the_server_named() -> None:
    api = Throttle(retry=Retry(on=Refused, hints=lambda outcome: getattr(outcome, "hints", None), max_retry_after=60))
    answers = iter([Refused(Hints(refused=True, retry_after=60.0)), Refused(Hints(refused=True, retry_after=61.0))])

    async def call() -> None:
        raise next(answers)

    with pytest.raises(RetryAfterTooLong) as caught:
        await api.call(call)
    assert caught.value.retry_after == 61
    assert now() == 60


@virtual
async def test_in_line_behind_a_pause_without_a_pace() -> None:
    limiter = AdaptiveLimiter()
    limiter.pause(2.0)
    assert limiter.try_acquire_nowait(key="never used").retry_after == 2
    await limiter.refund(key="never used")
    await asyncio.gather(*(limiter.acquire(max_wait=3.0) for _ in range(3)))
    assert now() == 2


@pytest.mark.parametrize("combined", [False, True])
def test_one_that_was_granted_and_cancelled_in_the_same_tick_gives_back(combined: bool) -> None:
    async def main() -> None:
        pair = AllOf(TokenBucket("1/s", burst=1), TokenBucket("9/s"))
        limiter = pair if combined else AdaptiveLimiter(initial="1/s")
        await limiter.acquire()
        task = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0.5)
        asyncio.get_running_loop().call_later(1 - now(), task.cancel)
        await asyncio.gather(task, return_exceptions=True)
        await limiter.acquire()
        assert now() < 1.1

    run_virtual(main)


@virtual
async def test_as_a_member_of_a_combined_limiter() -> None:
    both = AllOf(AdaptiveLimiter(initial="2/s"), TokenBucket("100/s"))
    await asyncio.gather(*(both.acquire(max_wait=9) for _ in range(5)))
    assert now() == pytest.approx(2, abs=0.4)


@virtual
async def test_beside_a_member_whose_quota_is_told() -> None:
    both = AllOf(AdaptiveLimiter(), tokens=TokenBucket("100/s"))
    async with both.permit() as permit:
        permit.observe(Hints(quotas=(Quota("tokens", 100.0, 0.0, 5.0, 60.0),)))
    await both.acquire()
    assert now() == pytest.approx(5)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_member_that_learns_hears_of_permits_of_the_whole(depth: int) -> None:
    """A bucket of 10/s that tells nothing: each refusal is heard by who can learn from it."""
    left, last = 10.0, 0.0

    def server(at: float) -> Hints:
        nonlocal left, last
        left, last = min(10.0, left + (at - last) * 10), at
        refused = left < 1
        left -= not refused
        return Hints(refused=refused)

    limiter: Any = AdaptiveLimiter()
    for _ in range(depth):
        limiter = AllOf(limiter, TokenBucket("1000/s"))

    async def main() -> tuple[float, int]:
        todo = list(range(120))
        refused = 0

        async def work() -> None:
            nonlocal refused
            while todo:
                item = todo.pop()
                async with limiter.permit() as permit:
                    await asyncio.sleep(0.02)
                    hints = server(now())
                    permit.observe(hints)
                if hints.refused:
                    refused += 1
                    todo.append(item)

        assert limiter._core.learned("") is None
        await asyncio.gather(*(work() for _ in range(20)))
        assert 5 < limiter._core.learned("").per_second < 20
        return now(), refused

    seconds, refused = run_virtual(main)
    assert refused < 60  # 25 as it would alone; 170 where none learns
    assert seconds < 15


@virtual
async def test_a_member_that_learns_starts_with_one() -> None:
    learns = AdaptiveLimiter()
    both = AllOf(learns, TokenBucket("100/s"))
    async with both.permit():
        decision = await both.peek()
        assert (decision.allowed, decision.exact) == (False, False)
        waiter = asyncio.create_task(both.acquire(), context=Context())  # somebody else, no part of this work
        await asyncio.sleep(0.5)
        assert not waiter.done()
    await asyncio.sleep(0)
    assert waiter.done()
    assert now() == 0.5


@virtual
async def test_a_member_that_learns_hears_what_is_left() -> None:
    told = (Quota("learns", 10, 1, 9.0, 60.0), Quota("pace", 100, 50, 1.0))
    both = AllOf(learns=AdaptiveLimiter(), pace=TokenBucket("100/s"))
    await ask(both, Hints(quotas=told))  # type: ignore[arg-type]
    await both.acquire()
    assert 8.5 < (await both.peek()).retry_after < 9.5


@virtual
async def test_who_waits_in_a_combined_line_hears_at_once_of_an_answer_to_the_member() -> None:
    learns = AdaptiveLimiter()
    both = AllOf(learns, TokenBucket("100/s"))
    for one, other in ((learns, both), (both, learns)):
        began = now()
        async with one.permit():
            waiter = asyncio.create_task(other.acquire())
            await asyncio.sleep(0.5)
            assert not waiter.done()
        await waiter
        assert now() == began + 0.5
        await learns.reset()


@virtual
async def test_a_permit_of_the_whole_that_nobody_took_is_not_under_way() -> None:
    learns, pace = AdaptiveLimiter(), TokenBucket("1/s", burst=1)
    both = AllOf(learns, pace)
    await pace.acquire()

    async def work() -> None:
        async with both.permit():
            raise AssertionError

    task = asyncio.create_task(work())
    await asyncio.sleep(0.5)
    asyncio.get_running_loop().call_later(0.5, task.cancel)
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(1), both.permit():
        assert now() == 1


@virtual
async def test_what_costs_nothing_waits_for_no_quota() -> None:
    limiter = AdaptiveLimiter()
    await ask(limiter, Hints(quotas=(Quota("default", 10.0, 5.0, 9.0, 9.0),)))
    assert (await limiter.peek(0)).allowed
    assert Accounts(lambda: 0.0).earliest(5, 0) == 5
    async with limiter.permit(0) as permit:
        permit.settle(2)
    assert (await limiter.peek()).allowed


def heard(*answers: tuple[Quota, float | None]) -> Ledger:
    """A ledger that has heard one answer in each second."""
    ledger = Ledger(lambda: 0.0, None)
    for number, (quota, retry_after) in enumerate(answers, 1):
        ledger.heard(quota, Flight(number * TICKS, number, number, 1), number * TICKS, number, 1, retry_after)
    return ledger


def test_retry_after_of_an_answer_tells_the_reset_better_than_a_stamp() -> None:
    late = Quota(None, 10.0, 9.0, 5.0)
    assert heard((late, 3.0)).reset_at == 4 * TICKS
    assert heard((late, 1.0)).reset_at == 3 * TICKS  # it may be another limit's
    assert heard((late, 9.0)).reset_at == 6 * TICKS
    assert heard((Quota(None, 10.0, 5.0, 5.0), 3.0)).reset_at == 6 * TICKS  # only the opening answer's is fresh


def test_resets_that_have_passed_and_limits_that_are_not_told() -> None:
    assert heard((Quota(None, None, 3.0, 5.0), None)).window is None
    assert heard((Quota(None, 10.0, 9.0, 0.0), None)).window is None
    ledger = heard((Quota(None, 10.0, 8.0, 5.0), None), (Quota(None, 10.0, 7.0, 0.0), None))
    assert ledger.reset_at == 6 * TICKS


def ticks(seconds: float) -> int:
    return round(seconds * TICKS)


def asked(*told: tuple[float, float | None, bool]) -> Ledger:
    """A ledger of ten, asked whenever its reset has come, that heard (left, reset, refused) a millisecond later."""
    ledger, at = Ledger(lambda: 0.0, None), 0
    for number, (left, reset, refused) in enumerate(told, 1):
        ledger.credit = None
        flight = Flight(max(at, ledger.reset_at), number, number, 1)
        at = flight.sent + ticks(0.001)
        if refused:
            ledger.refused()
        ledger.heard(Quota(None, 10.0, left, reset), flight, at, number, 1, refused=refused)
        if not refused:
            ledger.passed(at, at, 1)
    return ledger


def test_the_least_window_that_a_stamp_may_mean_is_tried_and_kept() -> None:
    stamp = Stamp(4.4)
    assert asked((9, stamp, False)).reset_at == ticks(3.001)
    assert asked((9, stamp, False), (9, stamp, False)).reset_at == ticks(6.002)
    assert asked((9, 4.4, False)).reset_at == ticks(4.401)  # no stamp
    assert asked((7, stamp, False)).reset_at == ticks(4.401)  # others opened it some time ago
    assert asked((9, Stamp(60.4), False)).reset_at == ticks(60.401)  # little is lost
    assert asked((9, Stamp(0.4), False)).reset_at == ticks(0.401)


def test_a_window_that_others_have_opened_is_no_longer_than_one_of_our_own() -> None:
    assert asked((9, 3.0, False), (8, Stamp(5.4), False)).reset_at == ticks(6.002)
    assert asked((8, 3.0, False), (8, Stamp(5.4), False)).reset_at == ticks(7.002)  # none was our own


def test_a_window_that_was_tried_in_vain_is_as_long_as_it_was_told() -> None:
    early = (9, Stamp(4.4), False), (0, Stamp(1.0), True)
    assert asked(*early).reset_at == ticks(4.401)
    assert asked(*early, (9, Stamp(4.4), False)).reset_at == ticks(8.802)
    told = asked((9, 2.0, False), (0, 0.0, True))  # rounded down
    assert told.reset_at == ticks(2.002)


def test_what_was_told_too_short_once_is_no_shorter_than_before() -> None:
    told = asked((9, 3.0, False), (9, 2.0, False), (0, 0.5, True), (9, 2.0, False))
    assert told.reset_at == ticks(9.003)
