"""The rate-limited servers of `goodput.py`: programs of other projects, each in a process of its own on loopback.

Each lets L requests through at once or in its first window, and so many in all that a perfect client needs 6 s for
M = 3 L. What a server counted itself is believed, never what a client says.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import httpx

HERE = Path(__file__).parent / "servers"
TESTS = Path(__file__).parent.parent / "tests" / "servers"
PERMITS = 100  # L
ITEMS = 3 * PERMITS  # M
IDEAL = 6.0  # seconds


@dataclass
class Running:
    """A server that runs: its address, what it counted so far (let through, refused), how its limit is halved."""

    url: str
    counts: Callable[[], tuple[int, int]]
    halve: Callable[[], object] | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of server: what a user who knows its limit would configure, and how it is started."""

    group: str  # the row of the table
    start: Callable[[], object] = field(repr=False)
    ours: str = f'"{PERMITS}/3s"'  # `limiter=`, as code
    rate: tuple[int, float] = (PERMITS, 3)  # the same for the peers: permits, seconds
    needs: str | None = None  # what is missing if it cannot be started
    halves: int | None = None  # items that a perfect client gets in 6 s if the limit halves after 2.5 s


@contextmanager
def process(*command: object, **options: object) -> Iterator[subprocess.Popen[str]]:
    """A server process; ended, and waited for, when the block ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True} | options
    with subprocess.Popen([str(word) for word in command], **pipes) as server:  # type: ignore[call-overload]
        try:
            yield server
        finally:
            server.terminate()


def program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise TimeoutError(f"nobody listens at {port}")


def logged(log: Path) -> tuple[int, int]:
    """Let through and refused, by a log of one status a line."""
    statuses = Counter(log.read_text().split())
    return statuses["200"], statuses["429"] + statuses["503"]


def told(url: str) -> tuple[int, int]:
    """Let through and refused, by the application's own counter."""
    through, refused = httpx.get(f"{url}/counts").json()
    return through, refused


@contextmanager
def nginx(rate: int, burst: str, status: int = 429, refused: str = "") -> Generator[Running]:
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), free_port()
        (home / "files").mkdir()
        (home / "files" / "item").write_text("hello")
        home.chmod(0o755)

        def configure(rate: int) -> None:
            text = (HERE / "nginx.conf").read_text()
            options = {"rate": rate, "burst": burst, "status": status, "refused": refused}
            (home / "nginx.conf").write_text(text.format(home=home, port=port, **options))

        configure(rate)
        command = [program("nginx"), "-p", home, "-c", home / "nginx.conf"]
        with process(*command) as server:
            wait_for(port)

            def halve() -> None:
                configure(rate // 2)
                server.send_signal(1)

            yield Running(f"http://127.0.0.1:{port}/item", lambda: logged(home / "log"), halve)


@contextmanager
def haproxy(permits: int, per: int) -> Generator[Running]:
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), free_port()
        text = (HERE / "haproxy.cfg").read_text().format(port=port, permits=permits, per=per)
        (home / "haproxy.cfg").write_text(text)
        with (home / "log").open("w") as log, process(program("haproxy"), "-f", home / "haproxy.cfg", stdout=log):
            wait_for(port)
            yield Running(f"http://127.0.0.1:{port}/item", lambda: logged(home / "log"))


@contextmanager
def express(form: str) -> Generator[Running]:
    with process(program("node"), HERE / "express.mjs", form, PERMITS, 3000) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        yield Running(f"{url}/item", partial(told, url), lambda: httpx.get(f"{url}/halve"))


@contextmanager
def flask_limiter(strategy: str, retry_after: str) -> Generator[Running]:
    words = f"{PERMITS} per 3 second", strategy, retry_after
    with process(sys.executable, "-P", TESTS / "flask_app.py", *words, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        yield Running(f"{url}/item", partial(told, url))


@contextmanager
def slowapi() -> Generator[Running]:
    from throttle import Rate
    from throttle.cli.demo import serving

    with serving(Rate(PERMITS, 3), 5) as url:

        def counts() -> tuple[int, int]:
            statuses = Counter(status for _, status in httpx.get(f"{url}/stats").json())
            return statuses[200], statuses[429]

        yield Running(f"{url}/items/1", counts)


def kinds() -> dict[str, Kind]:
    """Every server of the benchmark; `needs` of one names what is missing here."""
    no_nginx = None if program("nginx") else "nginx"
    no_haproxy = None if program("haproxy") else "haproxy"
    no_node = None if program("node") else "node"
    if not no_node and not (HERE / "node_modules" / "express-rate-limit").is_dir():
        no_node = "npm install in benchmarks/servers"
    no_flask = None if find_spec("flask_limiter") else "flask-limiter"
    no_slowapi = None if find_spec("slowapi") and find_spec("uvicorn") else "slowapi, uvicorn"
    bucket = {"ours": 'TokenBucket("40/s", burst=60)', "rate": (60, 1.5), "needs": no_nginx}
    strict = {"ours": 'TokenBucket("50/s", burst=1)', "rate": (1, 0.02), "needs": no_nginx}
    later = "error_page 429 @slower;"
    found = {
        # 60 at once and 40/s: 300 in 6 s
        "nginx 429, burst": Kind("bucket", partial(nginx, 40, "burst=59 nodelay"), **bucket, halves=230),
        "nginx 503, burst": Kind("bucket", partial(nginx, 40, "burst=59 nodelay", 503), **bucket),
        "nginx 429, Retry-After: 1": Kind("told", partial(nginx, 40, "burst=59 nodelay", refused=later), **bucket),
        "nginx 429, no burst": Kind("strict", partial(nginx, 50, ""), **strict),
        "nginx 429, delay": Kind("queue", partial(nginx, 50, "burst=20"), **strict),
        "HAProxy": Kind(
            "counted", partial(haproxy, PERMITS, 2), 'TokenBucket("49/s", burst=2)', (PERMITS, 2), no_haproxy
        ),
    }
    for form in ("draft-6", "draft-7", "draft-8", "legacy"):
        halves = 200 if form == "draft-6" else None
        found[f"express {form}"] = Kind("window", partial(express, form), needs=no_node, halves=halves)
    for strategy in ("moving", "fixed"):
        for form in ("delta-seconds", "http-date"):
            start = partial(flask_limiter, f"{strategy}-window", form)
            found[f"Flask-Limiter {strategy}, {form}"] = Kind("moving", start, needs=no_flask)
    found["slowapi"] = Kind("moving", slowapi, needs=no_slowapi)
    return found
