"""Real rate-limited servers of other projects, each in a process of its own on the loopback interface."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

CONFIG = """
daemon off; master_process off; pid {home}/pid; error_log stderr crit;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    limit_req_zone $server_name zone=all:1m rate={rate}r/s;
    limit_req_status {status};
    server {{
        listen unix:{home}/socket;
        server_name test;
        root {home}/files;
        location / {{ limit_req zone=all burst={burst} nodelay; }}
    }}
}}
"""


@contextmanager
def process(command: list[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    """A server of ours: ended, and waited for, when the block ends."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options) as server:  # type: ignore[call-overload]
        try:
            yield server
        finally:
            server.terminate()


@contextmanager
def flask_limiter(limit: str, strategy: str) -> Iterator[str]:
    """Flask-Limiter; the server's address."""
    command = [sys.executable, "-P", str(HERE / "flask_app.py"), limit, strategy]
    with process(command, cwd=HERE) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"


@contextmanager
def nginx(home: Path, *, rate: int, burst: int, status: int = 429) -> Iterator[str]:
    """nginx with `limit_req`; the path of its socket."""
    assert NGINX is not None
    (home / "files").mkdir()
    (home / "files" / "item").write_text("hello")
    (home / "nginx.conf").write_text(CONFIG.format(home=home, rate=rate, burst=burst, status=status))
    with process([NGINX, "-p", str(home), "-c", str(home / "nginx.conf")]):
        wait_for(home / "socket")
        yield str(home / "socket")


def wait_for(path: Path) -> None:
    """Until someone listens there: another program's start cannot be awaited otherwise."""
    for _ in range(500):
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return
        time.sleep(0.01)
    raise TimeoutError(f"nobody listens at {path}")
