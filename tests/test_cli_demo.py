"""`throttle demo` and `throttle probe`, the picture, and the command as it is installed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from servers.odd import odd_server

import throttle
from throttle import Rate
from throttle.cli import demo, main
from throttle.cli.app import run
from throttle.cli.demo import Outcome, serving
from throttle.cli.picture import draw_file, draw_terminal, sliding
from throttle.cli.server import listening

PNG = b"\x89PNG\r\n\x1a\n"


# ── the demo ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.server
def test_demo_stays_under_the_limit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "picture.png"
    assert run(["demo", "--items", "60", "--limit", "40/s", "--plot", str(plot)]) == 0
    told = capfd.readouterr()
    lines = {line.split("  ")[0]: line for line in told.out.splitlines()}
    assert lines["items"].split() == ["items", "60"]
    assert lines["requests"].split()[:2] == ["requests", "63,"]
    assert lines["rejections"].split()[:2] == ["rejections", "0,"]
    assert "times the ideal of 1.0 s" in lines["time"]
    assert "    40 ┤───" in told.out
    assert told.out.endswith(f"the picture is in {plot}\n")
    assert " admits 40 in 1 s\nscraping 60 items at 40 in 1 s\n" in told.err
    assert plot.read_bytes().startswith(PNG)


@pytest.mark.server
def test_demo_recovers_from_refusals(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--items", "30", "--limit", "20/s", "--rate", "200/s"]) == 0
    told = capfd.readouterr().out
    assert "items       30 " in told
    assert "rejections  0" not in told
    assert "\nrefused " in told
    assert "picture is in" not in told


@pytest.mark.server
def test_demo_finds_out_a_limit_it_is_not_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--items", "50", "--limit", "40/s", "--unknown"]) == 0
    told = capfd.readouterr()
    assert "scraping 50 items at a limit to be found out" in told.err
    assert "learned     a limit of 40 in " in told.out
    assert run(["demo", "--unknown", "--rate", "5/s"]) == 2


@pytest.mark.server
def test_ctrl_c_ends_the_demo_and_its_server(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "throttle.cli", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        address = demo.stderr.readline().split()[3]
        time.sleep(1)  # real time, for a real program to be under way
        demo.send_signal(signal.SIGINT)
        assert demo.wait() == 130
        assert demo.stderr.read().endswith("stopped\n")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/stats")


START = """
import os
from throttle import Rate
from throttle.cli.demo import serving
with serving(Rate(5), 5) as url:
    print(url, flush=True)
    os._exit(0)  # as killed: nothing is cleaned up
"""


@pytest.mark.server
def test_the_server_ends_with_who_started_it() -> None:
    run = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)

    def answers() -> bool:
        try:
            return httpx.get(f"{run.stdout.strip()}/stats").is_success
        except httpx.TransportError:
            return False

    while answers():  # until it has noticed; the time limit of a test bounds this
        pass


def test_the_server_answers_at_once() -> None:
    """asyncio turns Nagle's algorithm off only where a socket's `proto` says TCP."""
    with listening() as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_demo_errors_are_one_line(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*arguments: str) -> str:
        assert run(["demo", *arguments]) == 1
        [line] = capfd.readouterr().err.splitlines()
        return line

    assert run(["demo", "--plot", "x.pdf"]) == 2
    assert capfd.readouterr().err.endswith("a picture is a .png or .svg file, not 'x.pdf'\n")
    assert told("--plot", "/nowhere/x.png") == "throttle: cannot write /nowhere/x.png: No such file or directory"
    assert told("--limit", "0.5/s") == "throttle: the server counts whole requests in whole seconds, not 0.5 in 1 s"
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert told("--limit", "5/s") == "throttle: the demo's server did not start"
    monkeypatch.setattr("throttle.cli.app.find_spec", lambda name: None if name in ("slowapi", "matplotlib") else name)
    assert told("--plot", "x.png") == "throttle: the demo needs slowapi, matplotlib: pip install 'throttle-async[cli]'"


@pytest.mark.server
def test_an_early_end_is_one_line(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The server goes away under the scrape."""
    monkeypatch.setattr(demo, "Retry", lambda **_: None)
    monkeypatch.setattr(demo, "serving", lambda *_: serving(Rate(5), 5))
    monkeypatch.setattr(demo.httpx.AsyncClient, "get", gone)
    assert run(["demo"]) == 1
    assert capfd.readouterr().err.splitlines()[-1] == "throttle: the scrape ended early: ConnectError: gone"


async def gone(*_: object) -> None:
    raise httpx.ConnectError("gone")


def test_the_ideal() -> None:
    assert Outcome(0, 1.0, [0.0] * 40, []).ideal(Rate(20)) == 1.0
    assert Outcome(0, 1.0, [0.0] * 41, []).ideal(Rate(20)) == 2.0
    assert Outcome(0, 1.0, [0.0] * 20, []).ideal(Rate(20, per=60)) == 0.0


# ── the picture ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sliding_counts_each_window() -> None:
    moments, counts = sliding([0.0, 0.25, 0.5, 2.0], window=1.0, end=4.0)
    at = dict(zip(moments, counts, strict=True))
    assert [at[moment] for moment in (0.0, 0.25, 0.5, 0.99, 1.0, 1.25, 1.5, 2.0, 2.99, 3.0)] == [
        1,
        2,
        3,
        3,
        2,
        1,
        0,
        1,
        1,
        0,
    ]


@pytest.mark.parametrize("width", [10, 60, 200])
def test_picture_in_the_terminal(width: int) -> None:
    times = [step / 8 for step in range(24)]
    under = draw_terminal(times, [], 8, 1.0, width).plain.splitlines()
    assert {len(line) for line in under[2:-2]} == {min(max(width, 28), 100)}
    assert under[1].startswith("     8 ┤──")
    assert "█" in under[2]
    assert len(under) == 14
    over = draw_terminal(times, [1.5, 2.8], 4, 1.0, width).plain.splitlines()
    above = next(index for index, line in enumerate(over) if "┤" in line)
    assert above == 11  # twice the limit: as much above the line as below
    assert "█" in over[2]
    assert over[-2].startswith("refused ")
    assert over[-2].count("x") == 2


# ── probe ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.server
def test_probe_shows_what_is_announced(capfd: pytest.CaptureFixture[str]) -> None:
    with odd_server() as server:
        assert run(["probe", f"{server.url}/limits", "-H", "X-A: b"]) == 0
        limits = capfd.readouterr().out
        assert run(["probe", f"{server.url}/refused"]) == 0
        refused = capfd.readouterr().out
        assert run(["probe", f"{server.url}/large"]) == 0
        plain = capfd.readouterr().out
        assert run(["probe", f"{server.url}/markup"]) == 0
        assert "[/b]day   9        5     60 s     86400 s" in capfd.readouterr().out
        assert run(["probe", f"{server.url}/markup", "--json"]) == 0
        told = json.loads(capfd.readouterr().out)
    assert "status        200 OK" in limits
    assert [line.split()[:4] for line in limits.splitlines()][-1][1:] == ["100", "60", "30"]
    assert "yes, for a limit" in refused
    assert "retry after   7 s" in refused
    assert "next request  in 7 s" in refused
    assert plain.endswith("no limits announced\n")
    quota = {"name": "[/b]day", "limit": 9.0, "remaining": 5.0, "reset_after": 60.0, "window": 86400.0}
    assert told == {
        "url": f"{server.url}/markup", "status": 200, "refused": False, "retry_after": None, "wait": 0.0,
        "quotas": [quota], "scope": None, "retryable": True,
    }  # fmt: skip


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1:1/", "http://[::1", "http://127.0.0.1:99999/"])
def test_probe_of_a_broken_url(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["probe", url]) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"throttle: {url}: ")


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("arguments", "status", "start"), [
    (["--version"], 0, f"throttle, version {throttle.__version__}"),
    (["--help"], 0, "Usage: throttle [OPTIONS] COMMAND"),
    (["fetch", "-h"], 0, "Usage: throttle fetch [OPTIONS] [URL]..."),
    ([], 2, "Usage: throttle [OPTIONS] COMMAND"),
    (["nope"], 2, "throttle: No such command 'nope'."),
])  # fmt: skip
def test_the_command(arguments: list[str], status: int, start: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == status
    assert "".join(capfd.readouterr()).startswith(start)


@pytest.mark.parametrize("arguments", [["--help"], ["simulate", "--clients", "1", "--runs", "1", "--json"]])
def test_what_cannot_be_printed(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "throttle.cli", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "throttle: cannot write standard output: No space left on device"
    assert "Traceback" not in done.stderr


def test_a_file_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def missing(*_: object, **__: object) -> None:
        Path("/nowhere/x").read_text()

    monkeypatch.setattr("throttle.cli.probe.run_probe", missing)
    assert run(["probe", "http://127.0.0.1:1/"]) == 1
    assert capfd.readouterr().err == "throttle: /nowhere/x: No such file or directory\n"


def test_ctrl_c_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("throttle.cli.probe.run_probe", interrupted)
    assert run(["probe", "http://127.0.0.1:1/"]) == 130


def test_the_picture_of_refusals(tmp_path: Path) -> None:
    for name, start in (("x.png", PNG), ("x.SVG", b"<?xml")):
        draw_file(tmp_path / name, [0.0, 0.5], [0.25, 0.75], 2, 1.0, "title")
        assert (tmp_path / name).read_bytes().startswith(start)


def test_entry_points(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["throttle", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    subprocess.run([sys.executable, "-m", "throttle.cli", "--version"], check=True)
    assert capfd.readouterr().out == f"throttle, version {throttle.__version__}\n" * 2


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "click", None)
    monkeypatch.delitem(sys.modules, "throttle.cli.app")
    with pytest.raises(
        SystemExit, match=r"^throttle: the command line needs click: pip install 'throttle-async\[cli\]'$"
    ):
        main()
    monkeypatch.setitem(sys.modules, "throttle.cli.app", None)
    with pytest.raises(ModuleNotFoundError):  # a fault of ours is not called a missing extra
        main()


@pytest.mark.server
def test_the_example_program() -> None:
    path = Path(__file__).parent.parent / "examples" / "scrape_api.py"
    assert len(path.read_text().splitlines()) < 40
    with serving(Rate(100), 30) as url:
        done = subprocess.run([sys.executable, path, url, "100/s"], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 30
    assert {json.loads(line)["id"] for line in done.stdout.splitlines()} == set(range(1, 31))
