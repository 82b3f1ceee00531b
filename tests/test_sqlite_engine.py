"""Transactions of one SQLite file: shared, cancelled, refused, forked; and what is told when the file is in trouble."""

from __future__ import annotations

import _thread
import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

from throttle import CounterUnavailable
from throttle.counters import database
from throttle.counters.database import Database, network_of
from throttle.counters.transactions import Transactions
from throttle.testing import run_virtual

SCHEMA = "CREATE TABLE numbers (number INTEGER)"
LOOPS: dict[str, Callable[..., Any]] = {"asyncio": lambda main: asyncio.run(main()), "trio": trio.run}


class File:
    """A file of numbers, and what its transactions do there."""

    def __init__(self, path: Path, timeout: float = 5.0, *, durable: bool = False) -> None:
        self.database = Database(str(path), SCHEMA, durable=durable)
        self.transactions = Transactions(self.database, timeout)

    def add(self, number: int) -> int:
        assert self.database.connection is not None
        self.database.connection.execute("INSERT INTO numbers VALUES (?)", (number,))
        return number

    def numbers(self) -> list[int]:
        assert self.database.connection is not None
        return [row[0] for row in self.database.connection.execute("SELECT number FROM numbers ORDER BY number")]

    async def put(self, number: int) -> int:
        return await self.transactions.do(lambda: self.add(number))

    async def all(self) -> list[int]:
        return await self.transactions.do(self.numbers)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    file = File(tmp_path / "limits.db")
    yield file
    file.transactions.close()


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return LOOPS[request.param]


class Other:
    """Another connection that holds the write lock."""

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)

    def __enter__(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *exc: object) -> None:
        self.connection.rollback()
        self.connection.close()


def threads_are(count: int) -> bool:
    """Whether there are soon no more than `count` threads: one that has done all needs a moment to be gone."""
    for _ in range(1000):
        if _thread._count() <= count:
            return True
        time.sleep(0.005)
    return False


def test_what_a_function_returns_and_raises_is_passed_on(file: File, run: Any) -> None:
    def fail() -> None:
        raise KeyError("mine")

    async def main() -> None:
        assert await file.put(1) == 1
        with pytest.raises(KeyError, match="mine"):
            await file.transactions.do(fail)
        assert await file.all() == [1]

    run(main)


def test_no_thread_outlives_the_calls(file: File, run: Any) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(file.put, number)

    before = _thread._count()
    run(main)
    assert threads_are(before)
    assert run(file.all) == list(range(100))


def test_those_that_wait_share_a_transaction(file: File, run: Any) -> None:
    begun: list[float] = []
    begin = file.database.begin
    file.database.begin = lambda deadline: (begun.append(deadline), begin(deadline))[1]  # type: ignore[method-assign]

    async def main() -> None:
        await file.put(0)
        async with anyio.create_task_group() as group:
            with Other(file.database.path):
                for number in range(1, 65):
                    group.start_soon(file.put, number)
                await anyio.wait_all_tasks_blocked()
        assert len(await file.all()) == 65

    run(main)
    assert len(begun) <= 4


def test_an_error_concerns_one_function_and_trouble_of_the_file_all(file: File, run: Any) -> None:
    def wrong() -> None:
        raise LookupError

    def broken() -> None:
        assert file.database.connection is not None
        file.database.connection.execute("SELECT * FROM nowhere")

    outcomes: dict[str, Any] = {}

    async def outcome(name: str, work: Callable[[], Any]) -> None:
        try:
            outcomes[name] = await file.transactions.do(work)
        except Exception as error:
            outcomes[name] = error

    async def together(**works: Callable[[], Any]) -> None:
        outcomes.clear()
        async with anyio.create_task_group() as group:
            with Other(file.database.path):
                for name, work in works.items():
                    group.start_soon(outcome, name, work)
                await anyio.wait_all_tasks_blocked()

    async def main() -> None:
        await file.put(0)
        await together(good=lambda: file.add(1), bad=wrong)
        assert outcomes["good"] == 1
        assert isinstance(outcomes["bad"], LookupError)
        await together(good=lambda: file.add(2), bad=broken)
        for error in outcomes.values():
            assert isinstance(error, CounterUnavailable)
            assert str(error) == f"{file.database.path} fails: no such table: nowhere"
            assert isinstance(error.__cause__, sqlite3.OperationalError)
        await file.put(3)
        assert await file.all() == [0, 1, 3]

    run(main)


def test_cancelled_before_its_transaction_a_call_leaves_no_trace(file: File, run: Any) -> None:
    async def main() -> None:
        await file.put(0)
        async with anyio.create_task_group() as group:
            with Other(file.database.path):
                group.start_soon(file.put, 1)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await anyio.wait_all_tasks_blocked()
        assert await file.all() == [0]

    run(main)


def test_cancelled_within_its_transaction_a_call_is_carried_out(file: File, run: Any) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        go_on.wait(10)
        file.add(1)

    async def main() -> None:
        await file.put(0)
        async with anyio.create_task_group() as group:
            group.start_soon(file.transactions.do, slow)
            await anyio.to_thread.run_sync(inside.wait)
            group.cancel_scope.cancel()
        go_on.set()
        assert await file.all() == [0, 1]

    run(main)


def test_a_loop_that_ends_meanwhile_harms_nobody(file: File, run: Any) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        go_on.wait(10)
        file.add(1)

    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(file.transactions.do, slow)
                await anyio.to_thread.run_sync(inside.wait)
                scope.cancel()

    run(main)
    go_on.set()
    assert run(file.all) == [1]


def test_a_lock_held_for_too_long_is_told(tmp_path: Path, run: Any) -> None:
    file = File(tmp_path / "limits.db", timeout=0.05)

    async def main() -> None:
        await file.put(1)
        with Other(file.database.path):
            with pytest.raises(CounterUnavailable, match=r"limits.db stays locked by others"):
                await file.put(2)
        file.transactions.timeout = 10.0
        await file.put(3)
        assert await file.all() == [1, 3]

    run(main)
    file.transactions.close()


def test_a_call_cancelled_while_the_lock_is_held_for_too_long(tmp_path: Path, run: Any) -> None:
    file = File(tmp_path / "limits.db", timeout=0.2)

    async def main() -> None:
        await file.put(1)
        with Other(file.database.path):
            async with anyio.create_task_group() as group:
                group.start_soon(file.put, 2)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            with pytest.raises(CounterUnavailable):
                await file.put(3)
        assert await file.all() == [1]

    run(main)
    file.transactions.close()


def test_the_file_may_be_closed_at_any_moment(file: File, run: Any) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(file.put, number)
                if number % 10 == 0:
                    group.start_soon(anyio.to_thread.run_sync, file.transactions.close)
                    await anyio.lowlevel.checkpoint()
        assert await file.all() == list(range(60))

    run(main)


def test_virtual_time_waits_for_the_thread(file: File) -> None:
    async def main() -> None:
        async def late() -> None:
            await asyncio.sleep(1)
            pytest.fail("an hour has not passed")

        clock = asyncio.create_task(late())
        await file.transactions.do(lambda: time.sleep(0.01))
        clock.cancel()

    run_virtual(main)


def test_a_thread_that_cannot_be_started_is_told(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", full)
        with pytest.raises(CounterUnavailable, match="can't start new thread"):
            asyncio.run(file.put(1))
    assert asyncio.run(file.put(2)) == 2


# ── the file ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_file_is_private_and_an_older_one_keeps_its_mode(tmp_path: Path) -> None:
    for name, mode in {"new.db": 0o600, "made.db": 0o664}.items():
        path = tmp_path / name
        if name == "made.db":
            path.touch()
            path.chmod(mode)
        file = File(path)
        asyncio.run(file.put(1))
        found = {other.name: other.stat().st_mode & 0o777 for other in tmp_path.glob(f"{name}*")}
        assert found == dict.fromkeys([name, f"{name}-wal", f"{name}-shm"], mode)
        file.transactions.close()
        assert [other.name for other in tmp_path.glob(f"{name}*")] == [name]


@pytest.mark.parametrize(("durable", "level"), [(False, 1), (True, 2)])
def test_journal_and_durability(tmp_path: Path, durable: bool, level: int) -> None:
    file = File(tmp_path / "limits.db", durable=durable)

    def pragmas() -> tuple[Any, ...]:
        assert file.database.connection is not None
        ask = file.database.connection.execute
        return ask("PRAGMA journal_mode").fetchone()[0], ask("PRAGMA synchronous").fetchone()[0]

    assert asyncio.run(file.transactions.do(pragmas)) == ("wal", level)
    file.transactions.close()


def test_where_there_is_no_write_ahead_log_it_works_and_says_so_once(
    file: File, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect = sqlite3.connect
    without = lambda path, **options: connect(f"file:{path}?vfs=unix-dotfile", uri=True, **options)
    monkeypatch.setattr(sqlite3, "connect", without)
    for number in range(2):
        asyncio.run(file.put(number))
        file.transactions.close()
    assert asyncio.run(file.all()) == [0, 1]
    (record,) = caplog.records
    told = "limits.db cannot use write-ahead logging (it says 'delete'): it works, but slowly"
    assert record.getMessage().endswith(told)


def refused(file: File) -> str:
    with pytest.raises(CounterUnavailable) as caught:
        asyncio.run(file.put(1))
    text = str(caught.value)
    assert text.startswith(file.database.path) and "\n" not in text
    return text.removeprefix(file.database.path)


def test_a_file_of_somebody_else_is_refused_and_left_alone(file: File) -> None:
    path = Path(file.database.path)
    path.write_bytes(b"all my holiday pictures" * 1000)
    assert refused(file) == " is no SQLite database"
    assert path.read_bytes() == b"all my holiday pictures" * 1000
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE pictures (name TEXT)")
    connection.close()
    before = path.read_bytes()
    assert refused(file) == " is a database of something else: give a path of its own"
    assert path.read_bytes() == before
    path.unlink()
    assert asyncio.run(file.put(1)) == 1


def test_a_file_of_another_format_is_refused(file: File) -> None:
    asyncio.run(file.put(1))
    file.transactions.close()
    connection = sqlite3.connect(file.database.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert refused(file) == " has format 99, this version of throttle reads 1"


def test_a_damaged_file_is_told(file: File) -> None:
    asyncio.run(file.put(1))
    file.transactions.close()
    path = Path(file.database.path)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    assert refused(file) == " is damaged"


def test_a_path_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    assert refused(File(tmp_path)) == " cannot be opened (is its folder there, and writable?)"
    assert refused(File(tmp_path / "nowhere" / "limits.db")) == " fails: No such file or directory"


def test_a_full_disk_is_told_and_nothing_is_torn(file: File) -> None:
    def stuff() -> None:
        connection = file.database.connection
        assert connection is not None
        connection.execute("PRAGMA max_page_count = 1")
        file.add(1)
        connection.executemany("INSERT INTO numbers VALUES (?)", [(number,) for number in range(10_000)])

    async def main() -> None:
        await file.put(0)
        with pytest.raises(CounterUnavailable, match="finds no space left"):
            await file.transactions.do(stuff)
        assert await file.all() == [0]

    asyncio.run(main())


def test_a_file_that_may_not_be_written_is_told() -> None:
    script = """
        import asyncio, logging, os, random, sqlite3, sys, time
        from throttle import CounterUnavailable
        from throttle.counters.database import Database
        from throttle.counters.transactions import Transactions

        if os.getuid() == 0:  # who may write everything
            os.setuid(65534)
        try:
            asyncio.run(Transactions(Database(sys.argv[1], "", durable=False), 1.0).do(int))
        except CounterUnavailable as error:
            print(error)
    """
    with tempfile.TemporaryDirectory() as folder:
        file = File(Path(folder) / "limits.db")
        asyncio.run(file.put(1))
        file.transactions.close()
        Path(file.database.path).chmod(0o444)
        Path(folder).chmod(0o555)
        unmeasured = {
            name: "" for name in os.environ if name.startswith("COVERAGE_")
        }  # nor that
        assert script_says(script, file.database.path, **unmeasured) == f"{file.database.path} cannot be written"
        Path(folder).chmod(0o755)


def script_says(script: str, *arguments: str, **environment: str) -> str:
    """What a program of its own prints; its warnings are errors."""
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script)]
    env = os.environ | environment
    done = subprocess.run([*command, *arguments], env=env, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_counts_are_where_the_name_leads(file: File) -> None:
    path = Path(file.database.path)

    async def main() -> None:
        await file.put(1)
        path.unlink()  # noqa: ASYNC240
        await file.put(2)
        assert await file.all() == [2]

    asyncio.run(main())


def test_two_of_one_file_see_the_same(file: File) -> None:
    other = File(Path(file.database.path))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon((file, other)[number % 2].put, number)
        assert await file.all() == await other.all() == list(range(50))

    asyncio.run(main())
    other.transactions.close()


def test_a_file_that_nobody_closes_is_closed_without_a_word(tmp_path: Path) -> None:
    before = _thread._count()
    file = File(tmp_path / "limits.db")
    asyncio.run(file.put(1))
    assert threads_are(before)
    del file
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == ["limits.db"]


def test_forked_processes_count_on() -> None:
    """The file is closed before each fork: SQLite's locks do not survive one."""
    script = """
        import asyncio, os, tempfile, threading
        from throttle.counters.database import Database
        from throttle.counters.transactions import Transactions

        with tempfile.TemporaryDirectory() as folder:
            database = Database(folder + "/limits.db", "CREATE TABLE numbers (number INTEGER)", durable=False)
            transactions = Transactions(database, 10.0)

            def add():
                database.connection.execute("INSERT INTO numbers VALUES (1)")

            def count():
                return database.connection.execute("SELECT count(*) FROM numbers").fetchone()[0]

            async def work():
                await asyncio.gather(*(transactions.do(add) for _ in range(20)))
                for _ in range(20):
                    await transactions.do(add)

            asyncio.run(work())
            ahead = [transactions.submit(add) for _ in range(3)]  # perhaps under way while it forks: done by the parent
            children = []
            for _ in range(3):
                child = os.fork()
                if not child:
                    assert database.connection is None
                    asyncio.run(work())
                    os._exit(0)
                children.append(child)
            asyncio.run(work())
            [job.result(10) for job in ahead]
            print(*(os.waitpid(child, 0)[1] for child in children), asyncio.run(transactions.do(count)))
            transactions.close()
    """
    assert script_says(script) == "0 0 0 203"


def test_forks_of_two_threads_at_once() -> None:
    script = """
        import os, tempfile, threading
        from throttle.counters.database import Database
        from throttle.counters.transactions import Transactions

        with tempfile.TemporaryDirectory() as folder:
            database = Database(folder + "/limits.db", "CREATE TABLE numbers (number INTEGER)", durable=False)
            transactions = Transactions(database, 10.0)

            def add():
                database.connection.execute("INSERT INTO numbers VALUES (1)")

            def fork():
                for _ in range(10):
                    transactions.submit(add).result(10)
                    child = os.fork()
                    if not child:
                        transactions.submit(add).result(10)
                        os._exit(0)
                    codes.append(os.waitpid(child, 0)[1])

            codes, threads = [], [threading.Thread(target=fork) for _ in range(2)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            print(sum(codes), transactions.submit(
                lambda: database.connection.execute("SELECT count(*) FROM numbers").fetchone()[0]
            ).result(10))
            transactions.close()
    """
    assert script_says(script) == "0 40"


# ── network file systems ────────────────────────────────────────────────────────────────────────────────────────────

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/nas rw - nfs4 nas:/ rw
31 30 8:2 / /mnt/nas/local rw - xfs /dev/sdb rw
32 22 0:41 / /mnt/with\\040blank rw - cifs //nas/share rw
33 22 0:42 / /over rw - nfs nas:/ rw
34 22 8:3 / /over rw - ext4 /dev/sdc rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/limits.db", None),
        ("/mnt/nas/limits.db", "nfs4"),
        ("/mnt/nas/deep/er/limits.db", "nfs4"),
        ("/mnt/nasty/limits.db", None),
        ("/mnt/nas/local/limits.db", None),
        ("/mnt/with blank/limits.db", "cifs"),
        ("/over/limits.db", None),
    ],
)
def test_which_paths_are_on_a_network(path: str, kind: str | None) -> None:
    assert network_of(path, MOUNTS) == kind


def test_a_path_on_a_network_is_refused(file: File, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("22 1 0:40 / / rw - nfs nas:/ rw\n")
    monkeypatch.setattr(database, "_MOUNTS", mounts)
    assert refused(file) == (
        " is on a network file system (nfs), whose locks do not hold between machines: "
        "give a path on a local disk, or use RedisCounter"
    )
    assert not Path(file.database.path).exists()
    mounts.unlink()
    assert asyncio.run(file.put(1)) == 1  # a machine that does not tell
