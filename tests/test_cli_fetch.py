"""`throttle fetch`: every URL is a line, nothing done is ever lost, every error is one line."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.odd import Server, odd_server

from throttle.cli.app import run
from throttle.cli.probe import without_secrets

pytestmark = pytest.mark.server
ON_SCREEN = {**os.environ, "TERM": "xterm"}  # what a terminal says of itself


@pytest.fixture
def server() -> Iterator[Server]:
    with odd_server() as server:
        yield server


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def records(path: Path) -> dict[str, dict[str, Any]]:
    """By the last part of the URL."""
    lines = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    return {line["url"].rpartition("/")[2]: line for line in lines}


def test_a_line_for_each_url(server: Server, out: Path) -> None:
    paths = ["text", "json", "binary", "odd-charset", "redirect"]
    assert run(["fetch", *(f"{server.url}/{path}" for path in paths), "--out", str(out)]) == 0
    lines = records(out)
    assert {name: line["status"] for name, line in lines.items()} == dict.fromkeys(paths, 200)
    assert lines["text"]["text"] == "é"
    assert lines["json"] | {"seconds": 0, "at": ""} == {
        "url": f"{server.url}/json",
        "status": 200,
        "type": "application/json",
        "text": '{"a": 1}',
        "seconds": 0,
        "at": "",
    }
    assert base64.b64decode(lines["binary"]["base64"]) == b"\xff\x00"
    assert base64.b64decode(lines["odd-charset"]["base64"]) == b"plain"
    assert lines["redirect"]["final_url"] == f"{server.url}/json"
    assert all(agent.startswith("throttle/") for agent in server.agents)


BROKEN = {
    "nonsense": "UnsupportedProtocol",
    "http://": "UnsupportedProtocol",
    "ftp://127.0.0.1/file": "UnsupportedProtocol",
    "http://[::1": "InvalidURL",
    "http://127.0.0.1:1/closed": "ConnectError",
    "http://127.0.0.1:99999/": "OverflowError: ",
    "http://127.0.0.1\x01/": "InvalidURL",
    "http://\udcff/": "",
}


def test_a_broken_url_is_a_line_with_its_error(
    server: Server, tmp_path: Path, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = [f"{server.url}/{path}" for path in ("missing", "cut", "large")]
    urls = [*BROKEN, *bad, f"{server.url}/json"]
    assert run(["fetch", *urls, "--attempts", "1", "--max-size", "1", "--out", str(out)]) == 1
    lines = {line["url"]: line for line in map(json.loads, out.read_text().split("\n")[:-1])}
    assert set(lines) == set(urls)
    for url, error in BROKEN.items():
        assert lines[url]["error"].startswith(error), url
        assert "status" not in lines[url]
    assert lines[bad[0]]["error"] == "404 Not Found"
    assert lines[bad[1]]["error"].startswith("RemoteProtocolError: ")
    assert lines[bad[2]]["error"] == "TooLarge: more than 1 MiB; see --max-size"
    told = capfd.readouterr().err.splitlines()
    assert f"failed {bad[0]}: 404 Not Found" in told
    assert told[-1] == f"done: 1 fetched, {len(urls) - 1} failed"
    assert len(told) == len(urls)


def test_a_second_run_goes_on_where_the_first_ended(
    server: Server, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    urls = [f"{server.url}/{number}" for number in range(5)]
    assert run(["fetch", *urls[:3], f"{server.url}/missing", "--out", str(out)]) == 1
    out.write_bytes(out.read_bytes() + b'{"url": "cut sh')  # as by a crash
    assert run(["fetch", *urls, urls[4], f"{server.url}/missing", "--out", str(out)]) == 1
    assert server.met == Counter({f"/{number}": 1 for number in range(5)} | {"/missing": 2})
    assert len(out.read_text().splitlines()) == 7
    assert set(records(out)) == {*map(str, range(5)), "missing"}
    assert capfd.readouterr().err.splitlines()[-1] == "done: 2 fetched, 1 failed, 3 there already"


@pytest.mark.parametrize("cut", [b"{", b'{"url": "', b'{"url": "http://x/y", "status": 2'])
def test_a_line_cut_short_is_taken_away(server: Server, out: Path, cut: bytes) -> None:
    out.write_bytes(cut)
    assert run(["fetch", f"{server.url}/1", "--out", str(out)]) == 0
    assert list(records(out)) == ["1"]


def test_a_whole_last_line_only_lacks_its_end(server: Server, out: Path) -> None:
    out.write_text(json.dumps({"url": f"{server.url}/0", "status": 200}))
    assert run(["fetch", f"{server.url}/0", f"{server.url}/1", "--out", str(out)]) == 0
    assert set(records(out)) == {"0", "1"}
    assert server.met == {"/1": 1}


@pytest.mark.parametrize("foreign", ["my notes\n", "[1]\n", '{"name": 1}\n', '{"url": "x"}\nnotes', "\n"])
def test_a_foreign_file_is_left_alone(out: Path, foreign: str, capfd: pytest.CaptureFixture[str]) -> None:
    out.write_text(foreign)
    assert run(["fetch", "http://127.0.0.1:1/", "--out", str(out)]) == 1
    assert out.read_text() == foreign
    [line] = capfd.readouterr().err.splitlines()
    assert re.fullmatch(rf"throttle: {out} line \d is no result of fetch: choose another --out", line)


@pytest.mark.parametrize("name", ["/dev/null/out", "/", "/dev/full"])
def test_what_cannot_be_written(server: Server, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    urls = [f"{server.url}/1", f"{server.url}/2"]  # in turn: anyio 4.7 leaks the socket of one cancelled as it connects
    assert run(["fetch", *urls, "--concurrency", "1", "--out", name]) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert re.fullmatch(f"throttle: cannot write {name}: [A-Z][a-z ]+", line)


def test_urls_from_a_file(server: Server, tmp_path: Path, out: Path) -> None:
    listed = tmp_path / "urls"
    listed.write_bytes(
        f"\ufeff{server.url}/1\r\n\n# a comment\n  {server.url}/2 \n{server.url}/1\n{server.url}/3".encode()
    )
    assert run(["fetch", "--from", str(listed), f"{server.url}/0", "--out", str(out)]) == 0
    assert set(records(out)) == {"0", "1", "2", "3"}
    assert max(server.met.values()) == 1


def test_a_list_that_cannot_be_read(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["fetch", "--from", "/nowhere/urls"]) == 1
    assert capfd.readouterr().err == "throttle: cannot read /nowhere/urls: No such file or directory\n"
    assert run(["fetch", "--from", "/"]) == 1
    assert capfd.readouterr().err == "throttle: cannot read /: Is a directory\n"


@pytest.mark.parametrize("spelling", [["-"], ["--from", "-"]])
def test_from_standard_input_to_standard_output(server: Server, spelling: list[str]) -> None:
    done = throttle(*spelling, input=f"{server.url}/1\n{server.url}/2\n")
    assert done.returncode == 0
    assert {json.loads(line)["text"] for line in done.stdout.splitlines()} == {"/1", "/2"}
    assert done.stderr == "done: 2 fetched, 0 failed\n"


def throttle(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "throttle.cli", "fetch", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def started(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "throttle.cli", "fetch", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_loses_nothing(server: Server, out: Path) -> None:
    """Interrupted with requests under way and standard input still open."""
    with started("-", "--out", str(out), "--rate", "1000/s") as fetch:  # while it learns, /hang is waited for, alone
        assert fetch.stdin is not None
        assert fetch.stderr is not None
        fetch.stdin.write(f"{server.url}/hang\n{server.url}/1\n{server.url}/2\n{server.url}/missing\n")
        fetch.stdin.flush()
        assert fetch.stderr.readline() == f"failed {server.url}/missing: 404 Not Found\n"
        while out.read_bytes().count(b"\n") < 3:
            time.sleep(0.005)  # for another process, which needs the processor
        fetch.send_signal(signal.SIGINT)
        assert fetch.wait() == 130
        assert fetch.stderr.read() == "stopped: 2 fetched, 1 failed; the same command goes on from here\n"
    assert set(records(out)) == {"1", "2", "missing"}
    server.closing.set()
    assert run(["fetch", *(f"{server.url}/{name}" for name in ("1", "2", "3")), "--out", str(out)]) == 0
    assert server.met["/1"] == 1


def test_nobody_reads_the_results(server: Server) -> None:
    with started(*(f"{server.url}/{number}" for number in range(20)), "--rate", "1/100ms") as fetch:
        assert fetch.stdout is not None
        assert fetch.stderr is not None
        fetch.stdout.readline()
        fetch.stdout.close()
        assert fetch.wait() == 1
        assert "Traceback" not in fetch.stderr.read()
    assert sum(server.met.values()) < 20


@pytest.mark.parametrize("to_file", [True, False])
def test_the_bar_is_where_the_results_are_not(server: Server, out: Path, to_file: bool) -> None:
    ours, terminal = pty.openpty()
    command = [sys.executable, "-m", "throttle.cli", "fetch", f"{server.url}/1", "--out", str(out) if to_file else "-"]
    with os.fdopen(ours, "rb", buffering=0) as screen:
        with os.fdopen(terminal, "wb") as end:
            subprocess.run(command, stdout=end, stderr=end, env=ON_SCREEN, check=True)
        told = screen.read(65536).decode()
    assert ("fetching" in told) is to_file
    assert f'{{"url": "{server.url}/1"' in (out.read_text() if to_file else told)


def test_the_bar_knows_how_many_before_the_first_is_done(server: Server, out: Path) -> None:
    ours, terminal = pty.openpty()
    urls = [f"{server.url}/hang", f"{server.url}/1"]
    command = [sys.executable, "-m", "throttle.cli", "fetch", *urls, "--out", str(out)]
    with os.fdopen(ours, "rb", buffering=0) as screen:
        with os.fdopen(terminal, "wb") as end:
            fetch = subprocess.Popen(command, stdout=end, stderr=end, env=ON_SCREEN)
        with fetch:
            told = b""
            while b"0/2" not in told:  # the time limit of a test bounds this
                told += screen.read(65536)
            fetch.send_signal(signal.SIGINT)
            assert fetch.wait() == 130


def test_what_is_closed_cannot_be_used() -> None:
    """As a shell does it with `<&-` and `>&-`."""
    closed = [("sys.stdin", "cannot read standard input: it is closed"), ("sys.stdout", "standard output is closed: ")]
    for stream, message in closed:
        program = f"import sys; {stream} = None; from throttle.cli.app import run; sys.exit(run(['fetch', '-']))"
        done = subprocess.run([sys.executable, "-c", program], stdin=-3, capture_output=True, text=True, check=False)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert done.stderr.startswith(f"throttle: {message}")


def test_a_body_that_never_ends_is_let_go(server: Server, out: Path) -> None:
    assert run(["fetch", f"{server.url}/drip", f"{server.url}/1", "--max-time", "0.3", "--out", str(out)]) == 1
    assert records(out)["drip"]["error"] == "TooSlow: more than 0.3 s; see --max-time"
    assert records(out)["1"]["text"] == "/1"


def test_how_long_a_pause_is_waited_out_can_be_said(server: Server, out: Path) -> None:
    urls = [f"{server.url}/refused", f"{server.url}/1"]
    assert run(["fetch", *urls, "--concurrency", "1", "--max-retry-after", "6.5", "--out", str(out)]) == 1
    assert records(out)["refused"]["error"] == "429 Too Many Requests"
    assert re.fullmatch(r"the server asks to wait [67][.\d]* s; see --max-retry-after", records(out)["1"]["error"])


def test_the_rate_holds(server: Server, out: Path) -> None:
    assert (
        run(["fetch", *(f"{server.url}/{number}" for number in range(12)), "--rate", "4/200ms", "--out", str(out)]) == 0
    )
    assert all(later - earlier >= 0.2 for earlier, later in zip(server.times, server.times[4:], strict=False))


def test_per_host_and_in_all(server: Server, out: Path) -> None:
    urls = [f"{server.url}/{number}" for number in range(6)]
    with odd_server() as other:
        urls += [f"{other.url}/{number}" for number in range(6)]
        options = ["--per-host", "3/200ms", "--rate", "5/200ms", "--out", str(out)]
        assert run(["fetch", *urls, *options]) == 0
        both = sorted(server.times + other.times)
        for times, most in ((server.times, 3), (other.times, 3), (both, 5)):
            assert all(later - earlier >= 0.2 for earlier, later in zip(times, times[most:], strict=False))
    assert len(both) == 12


def test_a_refusal_is_heard_and_tried_again(server: Server, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["fetch", f"{server.url}/flaky", "--out", str(out)]) == 0
    assert server.met["/flaky"] == 2
    assert capfd.readouterr().err == "done: 1 fetched, 0 failed, 1 refused\n"


def test_headers_are_sent(server: Server, out: Path) -> None:
    assert run(["fetch", f"{server.url}/1", "-H", "User-Agent: me", "--header", "X-A: b:c", "--out", str(out)]) == 0
    assert server.agents == {"me"}


USAGE = [
    ([], "nothing to fetch: give URLs, --from FILE, or - for standard input"),
    (["x", "--rate", "10/x"], "Invalid value for '--rate': unreadable rate '10/x': write such as"),
    (["x", "--rate", "0"], "Invalid value for '--rate': permits of a Rate must be a finite number above 0, not 0.0"),
    (["x", "--per-host", "nan"], "Invalid value for '--per-host': permits of a Rate must be a finite number"),
    (["x", "--rate", "3.14159265/s"], "a window counts whole permits, which Rate(permits=3.14159265"),
    (["x", "--concurrency", "0"], "Invalid value for '--concurrency': 0 is not in the range x>=1."),
    (["x", "--timeout", "0"], "Invalid value for '--timeout': 0.0 is not in the range x>0."),
    (["x", "--header", "no colon"], "Invalid value for '-H' / '--header': a header is written 'Name: value'"),
    (["x", "--header", "ü: x"], "Invalid value for '-H' / '--header': a header is written 'Name: value'"),
    (["x", "--header", "X: ü"], "Invalid value for '-H' / '--header': a header is written 'Name: value', in plain"),
    (["x", "--header", "N ame: x"], "Invalid value for '-H' / '--header': a header is written 'Name: value'"),
    (["x", "--header", ": x"], "Invalid value for '-H' / '--header': a header is written 'Name: value'"),
    (["x", "--nope"], "No such option"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_usage_errors_are_one_line(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["fetch", *arguments]) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"throttle: {message}")


SECRETS = {
    "https://me:secret@[::1]:8/a/@b?page=3&token=abc&q=1e9#part": "https://[::1]:8/a/@b?page=3&token=…&q=…",
    "http://me:se?c#r@127.0.0.1/x?": "http://127.0.0.1/x?",
    "me:secret@host?abc&&n=1234567890": "host?…&&n=…",
    "nonsense": "nonsense",
}


@pytest.mark.parametrize("url", SECRETS)
def test_what_is_told_of_a_url(url: str) -> None:
    assert without_secrets(url) == SECRETS[url]


def test_no_error_line_tells_a_secret(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    url = "http://me:secret@127.0.0.1:1/items?token=secret&page=3"
    assert run(["fetch", url, "--attempts", "1", "--out", str(out)]) == 1
    assert run(["probe", url]) == 1
    said = capfd.readouterr().err
    assert said.count("http://127.0.0.1:1/items?token=…&page=3: ConnectError") == 2
    assert "secret" not in said
    assert next(iter(records(out).values()))["url"] == url  # a second run goes on by it


def test_a_proxy_that_is_none_is_one_line(out: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("HTTP_PROXY", "htp://me:secret@127.0.0.1:1")
    assert run(["fetch", "http://127.0.0.1:1/", "--out", str(out)]) == 1
    said = capfd.readouterr().err
    assert re.fullmatch(r"throttle: ValueError: Unknown scheme for proxy URL .*\n", said)
    assert "secret" not in said
