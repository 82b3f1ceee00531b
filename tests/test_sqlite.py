"""`SQLiteCounter`: it decides as memory does, for several processes, across restarts and steps of the wall clock."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from throttle import CounterUnavailable, Rate
from throttle.algorithms import (
    FixedWindowRule,
    SlidingWindowCounterRule,
    SlidingWindowRule,
    TokenBucketRule,
    TwoRateRule,
)
from throttle.counters import Ask, MemoryCounter, SQLiteCounter
from throttle.counters.states import dump_rule, dump_state, load_rule, load_state, spell
from throttle.rates import TICKS
from throttle.testing import run_virtual

RULES: dict[str, Any] = {
    "token_bucket": TokenBucketRule.of(Rate(3), 5),
    "fractional bucket": TokenBucketRule.of(Rate(0.7), 2.5),
    "sliding_window": SlidingWindowRule.of(Rate(5)),
    "sliding_window_counter": SlidingWindowCounterRule.of(Rate(5)),
    "fixed_window": FixedWindowRule.of(Rate(5), offset=0.3),
    "two_rate": TwoRateRule.of(Rate(3), 7, Rate(6), 5),
}
LOOPS: dict[str, Callable[..., Any]] = {"asyncio": lambda main: asyncio.run(main()), "trio": trio.run}
BUCKET, WINDOW = RULES["token_bucket"], RULES["sliding_window"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits.db"


@pytest.fixture
def counter(path: Path) -> Iterator[SQLiteCounter]:
    counter = SQLiteCounter(path)
    yield counter
    asyncio.run(counter.aclose())


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return LOOPS[request.param]


class Wall:
    """A wall clock that a test sets."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1_700_000_000.0
        patch.setattr("throttle.counters.sqlite.time.time_ns", lambda: round(self.now * TICKS))


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


def take(counter: Any, rule: Any, *costs: Any, key: str = "k", within: int | None = 0, **more: Any) -> Any:
    async def main() -> Any:
        (booking,) = await counter.book([Ask("n", key, rule, costs, within, **more)])
        return booking

    return asyncio.run(main())


# ── it decides as memory does ───────────────────────────────────────────────────────────────────────────────────────

STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0.2, 0.77, 5.0]),  # seconds
        st.lists(st.integers(0, 4), max_size=3),  # costs
        st.integers(-2, 2),  # given back
        st.sampled_from([0, TICKS, None]),  # the longest wait
        st.sampled_from([None, None, 0, TICKS // 2]),  # how long after the first one others are booked
        st.sampled_from([0] * 8 + [TICKS // 3, TICKS]),  # a pause of this key
        st.sampled_from([0] * 8 + [TICKS // 3, TICKS]),  # a pause of all keys
        st.sampled_from([False] * 9 + [True]),  # closed and opened again before
    ),
    max_size=12,
)


@pytest.mark.parametrize("kind", RULES)
def test_it_books_as_memory_does(counter: SQLiteCounter, kind: str) -> None:
    rule, number = RULES[kind], itertools.count()
    fitting = lambda costs: tuple(min(cost, int(rule.most)) for cost in costs)  # others are refused before

    @settings(max_examples=40)
    @given(steps=STEPS)
    def trace(steps: list[Any]) -> None:
        name, memory = str(next(number)), MemoryCounter()

        async def main() -> None:
            for gap, costs, give, within, ahead, pause, pause_all, again in steps:
                await asyncio.sleep(gap)
                asks = [Ask(name, "k", rule, fitting(costs), within, give, ahead, pause, pause_all)]
                if again:
                    await counter.aclose()
                assert await counter.book(asks) == await memory.book(asks)

        run_virtual(main)

    trace()


def test_several_asks_are_booked_together_or_not_at_all(counter: SQLiteCounter, wall: Wall) -> None:
    async def main() -> None:
        bucket = TokenBucketRule.of(Rate(2), 2)
        window = SlidingWindowRule.of(Rate(3))
        asks = [Ask("a", "k", bucket, (2, 1), within=0), Ask("b", "k", window, (3, 1), within=None)]
        one, two = await counter.book(asks)
        assert one.waits == two.waits == (0,)
        assert one.wait == two.wait == TICKS  # the window has the last word
        assert (one.remaining, two.remaining) == (0, 0)

    asyncio.run(main())


def test_a_refusal_writes_nothing(counter: SQLiteCounter, path: Path, wall: Wall) -> None:
    assert take(counter, BUCKET, 5).waits == (0,)
    log = path.with_name("limits.db-wal")
    before = log.read_bytes()
    for cost in range(1, 6):
        assert take(counter, BUCKET, cost).waits == ()
        take(counter, BUCKET)
    assert log.read_bytes() == before


def test_keys_and_names_count_for_themselves(counter: SQLiteCounter, wall: Wall) -> None:
    assert take(counter, BUCKET, 5).waits == take(counter, BUCKET, 5, key="other").waits == (0,)
    assert take(counter, BUCKET, 1).waits == ()
    names = ["", "n", "ü\x00'\"; --", "k" * 10_000]
    for key in names[2:]:
        assert take(counter, BUCKET, 5, key=key).waits == (0,)
        assert take(counter, BUCKET, 1, key=key).waits == ()


def test_both_event_loops(counter: SQLiteCounter, run: Any) -> None:
    rule = TokenBucketRule.of(Rate(1, per=3600), 64)
    booked: list[Any] = []

    async def one() -> None:
        booked.extend(await counter.book([Ask("n", "k", rule, (1,))]))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(one)

    run(main)
    assert sum(len(booking.waits) for booking in booked) == 64


# ── rules that change ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["token_bucket", "sliding_window", "sliding_window_counter", "fixed_window"])
def test_what_was_used_stays_used_at_another_rate(counter: SQLiteCounter, wall: Wall, kind: str) -> None:
    one = RULES[kind]
    other = one.reconfigured(Rate(10), 10 if kind == "token_bucket" else None)
    assert take(counter, one, 3).waits == (0,)
    assert take(counter, other).remaining == 7  # 10 less the 3 that were used
    assert take(counter, one).remaining == 2  # and a process that has the old rate yet obeys that
    assert take(counter, other, 2).waits == (0,)
    assert take(counter, one).remaining == 0


def test_rules_and_states_survive_being_written() -> None:
    state = WINDOW.initial(7)
    for tick, cost in [(10, 1), (11, 3), (12, Fraction(1, 3))]:
        state = WINDOW.book(state, tick, cost)
    assert load_state(WINDOW, dump_state(WINDOW, state, 12), 12) == state
    for rule in RULES.values():
        assert load_rule(dump_rule(rule)) == rule
        state = rule.book(rule.initial(5), 6, 2)
        assert load_state(rule, dump_state(rule, state, 10), 10) == state


def test_rules_as_people_say_them() -> None:
    assert [spell(rule) for rule in RULES.values()] == [
        "3/s, burst 5",
        "0.7/s, burst 2.5",
        "5/s",
        "5/s",
        "5/s",
        "3/s, burst 7, peak 6/s, burst 5",
    ]


@pytest.mark.parametrize("column", ["rule", "state"])
@pytest.mark.parametrize("text", ["{", "[]", "[[]]", '["nothing", 1]', "[null, null, null]", "7", '["1/0"]'])
def test_a_damaged_row_is_told(counter: SQLiteCounter, path: Path, column: str, text: str) -> None:
    import sqlite3

    take(counter, BUCKET, 1)
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE counts SET {column} = ?", (text,))
    connection.commit()
    connection.close()
    with pytest.raises(CounterUnavailable, match=r"limits.db is damaged: unreadable (rule|state) "):
        take(counter, BUCKET, 1)


# ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", RULES)
def test_a_wall_clock_set_back_freezes_nothing(counter: SQLiteCounter, wall: Wall, kind: str) -> None:
    rule = RULES[kind]
    most = rule.most
    wall.now += 0.3  # where the fixed window starts
    assert take(counter, rule, most).waits == (0,)
    wall.now -= 3600
    refused = take(counter, rule, most)
    assert refused.waits == ()
    assert refused.wait <= 4 * TICKS
    wall.now += refused.wait / TICKS + 1e-6
    assert take(counter, rule, most).waits == (0,)
    assert take(counter, rule, 1).waits == ()


def test_a_window_falls_in_with_a_clock_that_was_set_back(counter: SQLiteCounter, wall: Wall) -> None:
    hourly = FixedWindowRule.of(Rate(10, per=3600))
    wall.now = 1_700_000_000 // 3600 * 3600 + 600.0
    take(counter, hourly, 10)
    wall.now -= 1800  # into the hour before
    assert take(counter, hourly, 1).wait == 1200 * TICKS


def test_a_wall_clock_set_forward_gives_what_would_have_come(counter: SQLiteCounter, wall: Wall) -> None:
    take(counter, BUCKET, 5)
    wall.now += 1
    assert take(counter, BUCKET).remaining == 3
    wall.now += 10**6
    assert take(counter, BUCKET).remaining == 5


def test_quotas_outlive_a_restart(path: Path, wall: Wall) -> None:
    daily = FixedWindowRule.of(Rate(1000, per=86400))
    for used in range(1, 4):
        counter = SQLiteCounter(str(path), durability="full")
        assert take(counter, daily, 300).remaining == 1000 - 300 * used
        asyncio.run(counter.aclose())


def test_idle_keys_take_no_room_for_long(counter: SQLiteCounter, wall: Wall) -> None:
    for number in range(100):
        take(counter, BUCKET, 1, key=str(number))
    assert len(asyncio.run(counter.entries())) == 100
    wall.now += 60
    for _ in range(51):
        wall.now += 1
        take(counter, BUCKET, 1, key="busy")
    rows = asyncio.run(counter._transact(lambda now: counter._execute("SELECT count(*) FROM counts", ()).fetchone()))
    assert rows == (1,)


def test_a_key_as_new_is_not_kept(counter: SQLiteCounter, wall: Wall) -> None:
    take(counter, BUCKET, 3)
    assert take(counter, BUCKET, give=3).remaining == 5
    assert asyncio.run(counter.entries()) == []


# ── pauses ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pause_holds_back_its_key_or_all_and_is_kept(counter: SQLiteCounter, wall: Wall, path: Path) -> None:
    assert take(counter, BUCKET, pause=2 * TICKS).paused == 2 * TICKS
    assert take(counter, BUCKET, pause=TICKS).paused == 2 * TICKS  # a later end wins
    other = SQLiteCounter(path)
    refused = take(other, BUCKET, 1)
    assert (refused.waits, refused.wait, refused.remaining) == ((), 2 * TICKS, 5)
    assert take(other, BUCKET, 1, key="").waits == take(other, BUCKET, 1, key="j").waits == (0,)
    assert take(other, BUCKET, key="j", pause_all=3 * TICKS).paused == 3 * TICKS
    assert take(counter, BUCKET, 1, 1, within=None).waits == (3 * TICKS, 3 * TICKS)
    wall.now += 3
    assert take(counter, BUCKET, 1, key="j").waits == (0,)
    assert take(counter, BUCKET).paused == 0
    asyncio.run(other.aclose())


def test_a_wall_clock_set_back_prolongs_no_pause(counter: SQLiteCounter, wall: Wall) -> None:
    take(counter, BUCKET, pause=2 * TICKS)
    wall.now -= 3600
    assert take(counter, BUCKET, 1).wait == 2 * TICKS
    wall.now += 1
    assert take(counter, BUCKET, 1).wait == pytest.approx(TICKS, abs=1000)
    wall.now += 1.001
    assert take(counter, BUCKET, 1).waits == (0,)


def test_pauses_are_shown_and_cleared(counter: SQLiteCounter, wall: Wall) -> None:
    async def main() -> None:
        await counter.book([Ask("a", "used", BUCKET, (5,), None, pause=TICKS)])
        await counter.book([Ask("a", "idle", BUCKET, pause=2 * TICKS)])
        await counter.book([Ask("b", "idle", BUCKET, pause_all=3 * TICKS)])
        await counter.book([Ask("c", "used", BUCKET, (5,), None, pause_all=4 * TICKS)])
        await counter.book([Ask("d", "idle", BUCKET, pause=TICKS)])
        found = [(one.name, one.key, one.kind, one.paused_for) for one in await counter.entries()]
        assert found == [
            ("a", "idle", "pause", 2.0),
            ("a", "used", "token_bucket", 1.0),
            ("b", "", "pause", 3.0),
            ("c", "used", "token_bucket", 4.0),
            ("d", "idle", "pause", 1.0),
        ]
        assert await counter.clear("a", "idle") == 1
        assert await counter.clear("b", "") == 0  # a pause of all is not that key's
        assert await counter.clear("b") == 1
        assert await counter.clear("c") == 2
        wall.now += 1
        assert [(one.name, one.key, one.paused_for) for one in await counter.entries()] == [("a", "used", 0.0)]

    asyncio.run(main())


def test_a_pause_may_last_for_ever(counter: SQLiteCounter, wall: Wall) -> None:
    take(counter, BUCKET, pause=10**30)
    assert take(counter, BUCKET).paused > 10**18


# ── looking and clearing ────────────────────────────────────────────────────────────────────────────────────────────


def test_entries_and_clear(counter: SQLiteCounter, wall: Wall) -> None:
    async def main() -> None:
        await counter.book([Ask("b", "k", BUCKET, (2,)), Ask("a", "k", WINDOW, (2,))])
        await counter.book([Ask("a", "j", WINDOW, (5,))])
        found = [
            (one.name, one.key, one.kind, one.limit, one.remaining, one.paused_for) for one in await counter.entries()
        ]
        assert found == [
            ("a", "j", "sliding_window", "5/s", 0.0, 0.0),
            ("a", "k", "sliding_window", "5/s", 3.0, 0.0),
            ("b", "k", "token_bucket", "3/s, burst 5", 3.0, 0.0),
        ]
        assert [entry.key for entry in await counter.entries("a")] == ["j", "k"]
        assert await counter.clear("nothing") == 0
        assert await counter.clear("a", "j") == 1
        assert await counter.clear("b") == 1
        assert [(entry.name, entry.key) for entry in await counter.entries()] == [("a", "k")]
        wall.now += 1
        assert await counter.entries() == []

    asyncio.run(main())


# ── what it refuses ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["", ":memory:", "file:limits.db?mode=ro"])
def test_a_path_is_a_file(path: str) -> None:
    with pytest.raises(ValueError, match="path must name a file, not"):
        SQLiteCounter(path)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"durability must be .*, not 'much'"):
        SQLiteCounter("limits.db", durability="much")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"path must be a str or a path of str, not b'limits.db'"):
        SQLiteCounter(b"limits.db")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        SQLiteCounter(7)  # type: ignore[arg-type]


def test_making_one_opens_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    counter = SQLiteCounter("limits.db")
    assert repr(counter) == f"SQLiteCounter('{path}', durability='normal')"
    asyncio.run(counter.aclose())
    assert not path.exists()
    monkeypatch.chdir("/")  # a relative path is one from where the counter was made
    take(counter, BUCKET, 1)
    assert path.exists()
    asyncio.run(counter.aclose())


# ── several processes ───────────────────────────────────────────────────────────────────────────────────────────────

WORKER = """
    import asyncio, json, sys
    from throttle import Rate
    from throttle.algorithms import TokenBucketRule
    from throttle.counters import Ask, SQLiteCounter

    async def main():
        counter, rule, got = SQLiteCounter(sys.argv[1]), TokenBucketRule.of(Rate(1, per=86400), 2000), 0
        while True:
            (booking,) = await counter.book([Ask("n", "k", rule, (1,))])
            if not booking.waits:
                break
            got += 1
            print(got, flush=True)
        await counter.aclose()

    asyncio.run(main())
"""


def start(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(WORKER), str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_share_a_limit_and_one_killed_loses_nothing(path: Path) -> None:
    """What a process was told it has, it has; what it was about to be told is lost at most once."""
    workers = [start(path) for _ in range(3)]
    victim = workers[0]
    assert victim.stdout is not None
    for _ in range(20):
        victim.stdout.readline()
    os.kill(victim.pid, signal.SIGKILL)
    told = [worker.communicate(timeout=50)[0].splitlines() for worker in workers]
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL, 0, 0]
    total = 20 + sum(len(lines) for lines in told)
    assert 1998 <= total <= 2000  # one booking may have been under way, one line half printed
