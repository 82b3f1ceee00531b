"""A server in a thread of the test, with an answer of every kind that a downloader meets."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/text": (200, {"Content-Type": "text/plain; charset=latin-1"}, "é".encode("latin-1")),
    "/json": (200, {"Content-Type": "application/json"}, b'{"a": 1}'),
    "/binary": (200, {"Content-Type": "image/png"}, b"\xff\x00"),
    "/odd-charset": (200, {"Content-Type": "text/plain; charset=nothing-known"}, b"plain"),
    "/redirect": (302, {"Location": "/json"}, b""),
    "/missing": (404, {}, b"no"),
    "/large": (200, {}, b"x" * (2**20 + 1)),
    "/limits": (200, {"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "60", "X-RateLimit-Reset": "30"}, b""),
    "/refused": (429, {"Retry-After": "7"}, b""),
    "/markup": (200, {"RateLimit-Policy": '"[/b]day";q=9;w=86400', "RateLimit": '"[/b]day";r=5;t=60'}, b""),
}


class Odd(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5  # seconds: a connection that a client forgot does not keep the server from closing
    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.met[self.path] += 1
        self.server.times.append(time.monotonic())
        self.server.agents.add(self.headers.get("User-Agent", ""))
        if path == "/hang":
            self.server.closing.wait()
            self.close_connection = True
            return
        if path == "/drip":
            self.send_response(200)
            self.end_headers()
            while not self.server.closing.wait(0.05):
                self.wfile.write(b"x")
            self.close_connection = True
            return
        status, headers, body = ANSWERS.get(path, (200, {}, path.encode()))
        if path == "/flaky" and self.server.met[self.path] == 1:
            status, headers = 429, {"Retry-After": "0"}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) + (9 if path == "/cut" else 0)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.close_connection or path == "/cut"

    def log_message(self, *_: object) -> None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Odd)
        self.met: Counter[str] = Counter()
        self.times: list[float] = []
        self.agents: set[str] = set()
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None: ...


@contextmanager
def odd_server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
